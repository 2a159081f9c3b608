"""The role serve before it touches anything: is the address that the plan publishes the host's own?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.serve.plans import nodes, plan, replicas

ROOT = Path(__file__).parents[3]
BOOK = """
- hosts: glm_fleet
  gather_facts: false
  roles:
    - role: glm.fleet.serve
"""
OWN = [{"addr_info": [{"local": "127.0.0.1"}]}, {}, {"addr_info": [{"local": "10.0.0.6"}, {"local": "fd00::6"}]}]


def preflight(folder: Path, plans: list[dict], ip: str = f"echo '{json.dumps(OWN)}'") -> tuple[int, str]:
    """Exit status and output with folded white space, on a host whose program ``ip`` is the given line of shell."""
    (folder / "bin").mkdir()
    program = folder / "bin/ip"
    program.write_text(f"#!/bin/sh\n{ip}\n", encoding="utf-8")
    program.chmod(0o755)
    (folder / "given.json").write_text(json.dumps({"serve_plans": plans}), encoding="utf-8")
    (folder / "book.yml").write_text(BOOK, encoding="utf-8")
    local = f"ansible_connection=local ansible_python_interpreter={sys.executable}"
    (folder / "hosts").write_text(f"[glm_fleet]\ngpu-1 {local}\n", encoding="utf-8")
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", "hosts", "-e", "@given.json", "book.yml",
         "-e", f"glm_state_dir={folder / 'state'}", "--tags", "serve_preflight", "--check"],
        cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "COLUMNS": "400",
             "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"),
             "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"},
    )  # fmt: skip
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def at(address: str) -> dict:
    return plan(listen={**plan()["listen"], "address": address})


@pytest.mark.parametrize("address", ["10.0.0.6", "fd00::6"])
def test_an_address_of_the_host_is_served_on(address: str, tmp_path: Path) -> None:
    code, output = preflight(tmp_path, [at(address)])
    assert code == 0, output


def test_an_address_that_the_host_does_not_have_is_refused_with_those_it_has(tmp_path: Path) -> None:
    made = replicas(2)
    made[1]["listen"]["address"] = "10.0.0.6"
    code, output = preflight(tmp_path, made)
    assert code != 0
    assert "gpu-1, serve, preflight: expected 10.0.0.5 to be an address of this host" in output
    assert "found that it has 127.0.0.1, 10.0.0.6, fd00::6" in output and "glm_private_address" in output


@pytest.mark.parametrize("ip", ["exit 1", "echo nonsense"])
def test_no_reading_is_not_a_good_reading(ip: str, tmp_path: Path) -> None:
    code, output = preflight(tmp_path, [at("10.0.0.6")], ip)
    assert code != 0, output


@pytest.mark.parametrize("made", [at("127.0.0.1"), at("0.0.0.0"), nodes(plan(), 1)], ids=["loopback", "public", "rank"])
def test_nothing_is_asked_where_no_one_address_is_published(made: dict, tmp_path: Path) -> None:
    code, output = preflight(tmp_path, [made], "exit 1")
    assert code == 0, output
