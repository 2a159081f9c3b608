"""Which files of a host the role serve changes in which order, and which it leaves there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.glm.fleet.plugins.plugin_utils.serving import guard
from tests.playbooks import role_variables
from tests.unit.serve.plans import plan, replicas, venv
from tests.unit.serve.render import render

ROOT = Path(__file__).parents[3]
ROLE = ROOT / "roles/serve"


def tasks(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((ROLE / f"tasks/{name}.yml").read_text("utf-8"))
    return found


@pytest.mark.parametrize("made", [plan(), venv()], ids=["container", "venv"])
def test_a_unit_is_written_after_what_it_starts_with(tmp_path: Path, made: dict[str, Any]) -> None:
    given = {
        "serve_plans": [made],
        "plan": made,
        "role_path": str(ROLE),
        "__serve_replica": "{{ __serve_replicas[0] }}",
    }
    written = role_variables.show(tmp_path, "serve", {"host": given}, "{{ __serve_starting }}")["host"]
    unit = "/etc/systemd/system/glm-serve-0.service"
    files = {file["path"]: file["content"] for file in written}
    sources = {name: ROOT / source for name, source in guard.SOURCES.items()}
    installed = {f"{guard.FOLDER}/{name}": path.read_text("utf-8") for name, path in sources.items()}
    env = "/etc/glm/serve-0.env"
    assert list(files) == [env, *installed, unit], "the unit last: what it calls is there before it"
    assert [file["mode"] for file in written if file["path"] == env] == ["0600"]
    assert files[env].rpartition("#\n")[2] == render("glm-serve.env", made).rpartition("#\n")[2] != ""
    assert {path: files[path] for path in installed} == installed
    # Below the line that says who wrote it.
    assert files[unit].partition("[Unit]")[2] == render("glm-serve.service", made).partition("[Unit]")[2] != ""
    assert f" {guard.PROGRAM} prestart " in files[unit]


@pytest.mark.parametrize("changed", guard.SOURCES)
def test_another_guard_is_another_file_so_a_unit_that_systemd_still_knows_calls_its_own(changed: str) -> None:
    """Until the start a replica restarts by itself with the old unit, and its arguments are the old guard's."""
    programs = {name: (ROOT / source).read_bytes() for name, source in guard.SOURCES.items()}
    assert guard.folder(programs) == guard.FOLDER
    assert guard.folder({**programs, changed: b"of another release"}) != guard.FOLDER


def test_keys_and_programs_that_no_unit_reads_are_removed(tmp_path: Path) -> None:
    config, programs = tmp_path / "config", tmp_path / "programs"
    config.mkdir()
    current = Path(guard.FOLDER).name
    for folder in (current, "serve-0123456789ab", "door_order"):
        (programs / folder).mkdir(parents=True)
    for name in ("serve_guard.py", "serve_filter.py", "glm_cdi.py", "door_usage.py"):
        (programs / name).touch()
    planned = replicas(2)
    for made in planned:
        made["paths"]["config"] = str(config)
    kept = [
        "serve-0.secret.env",
        "serve-1.secret.env",
        "serve-0.env",
        "serve-2.env",
        "engine.key",
        "x-serve-0.secret.conf",
    ]
    for name in [*kept, "serve-0.secret.conf", "serve-1.secret.yaml", "serve-2.secret.env", "serve-10.secret.yaml"]:
        (config / name).write_text("secret", "utf-8")
    include = {"ansible.builtin.include_role": {"name": "glm.fleet.serve", "tasks_from": "retire"}}
    play = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars": {"ansible_python_interpreter": sys.executable, "serve_plans": planned},
        "tasks": [include],
    }
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]), "utf-8")
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", str(tmp_path / "play.yml")]
    command += ["-e", f"__serve_programs={programs}/{current}"]
    for changed in ("changed=1", "changed=0"):
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0 and changed in done.stdout, done.stdout + done.stderr
        assert sorted(path.name for path in config.iterdir()) == sorted(kept)
        assert sorted(path.name for path in programs.iterdir()) == ["door_order", "door_usage.py", current]
    shutil.rmtree(config)
    shutil.rmtree(programs)
    made = [{"changed": True, "item": [str(folder), "root", "0755"]} for folder in (config, programs)]
    command += ["--check", "-e", json.dumps({"__serve_made": {"results": made}})]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and str(tmp_path) not in done.stdout + done.stderr, "nothing to look for when fresh"
