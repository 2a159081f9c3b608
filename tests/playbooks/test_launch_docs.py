"""The commands of docs/launch.md, typed in that order against the API simulator."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from simulator.lambda_cloud.config import Config
from simulator.lambda_cloud.server import running

pytestmark = pytest.mark.one_core

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "launch.md"


def commands(folder: Path) -> list[list[str]]:
    """The lines of console blocks, and a run of each playbook."""
    found = []
    for kind, text in re.findall(r"```(console|yaml)\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL):
        if kind == "console":
            found += [shlex.split(line) for line in text.splitlines()]
        else:
            book = folder / f"{len(found)}.yml"
            book.write_text(text, "utf-8")
            found.append(["ansible-playbook", str(book)])
    return found


def test_every_example_works_in_the_order_of_the_page(tmp_path: Path) -> None:
    (tmp_path / ".cache").mkdir()
    # The pace cannot be kept over processes here, which spares the test the waits between them.
    (tmp_path / ".cache" / "glm-fleet").write_text("", "utf-8")
    with running(Config(port=0)) as (_url, cloud):
        cloud.control("PUT", "/capacity", {"gpu_8x_b200_sxm6": {"us-east-1": None}})
        settings = {
            **os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "HOME": str(tmp_path),
            "LAMBDA_API_KEY": cloud.api_key, "LAMBDA_API_URL": cloud.base_url,
        }  # fmt: skip
        counts = []
        for command in commands(tmp_path):
            more = ["-e", "glm_launch_interval=0"] if command[0] == "ansible-playbook" else []
            done = subprocess.run(
                [*command, *more], cwd=ROOT, env=settings, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                check=False,
            )  # fmt: skip
            assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}{done.stderr}"
            alive = [item for item in cloud.state()["instances"] if item["status"] in ("booting", "active")]
            if command[0] == "ansible-playbook":
                counts.append(len(alive))
    # Key, check, two, the account's firewall changes nothing; three, one; replaced; listed, gone.
    assert counts == [0, 0, 2, 2, 3, 1, 1, 1, 0]
