"""A simulated account, an inventory of it, and playbooks run on that as their users run them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from simulator.lambda_cloud.server import Handle

ROOT = Path(__file__).parents[2]
KIND = "gpu_8x_b200_sxm6"
TAGS = {"glm-fleet": "default"}
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1cy1mcW0pdhL2lKq1zK0Zp0cB1b5vTq3o9mQGg0lq1"


class Fleet:
    """A simulated account, an inventory of it, and playbooks run on that."""

    def __init__(self, cloud: Handle, folder: Path) -> None:
        self.cloud = cloud
        self.folder = folder
        self.inventory = folder / "fleet.lambda.yml"
        self.inventory.write_text("plugin: glm.fleet.lambda_cloud\n", "utf-8")
        # The pace cannot be kept over processes here, which spares the tests the waits between them.
        (folder / ".cache").mkdir()
        (folder / ".cache" / "glm-fleet").write_text("", "utf-8")

    def variables(self, **variables: Any) -> dict[str, Any]:
        return {
            "lambda_api_url": self.cloud.base_url, "lambda_api_key": self.cloud.api_key,
            "glm_launch_regions": ["us-east-1", "us-west-1"], "glm_launch_ssh_keys": ["deploy"],
            "glm_launch_interval": 0, "glm_state_dir": str(self.folder / "state"),
            # Hosts are this machine, which has one of its own.
            "__lease_path": f"{self.folder}/{{{{ inventory_hostname }}}}.lease", **variables,
        }  # fmt: skip

    def environment(self) -> dict[str, str]:
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("LAMBDA")},
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "COLUMNS": "400",
            "HOME": str(self.folder), "LAMBDA_API_KEY": self.cloud.api_key, "LAMBDA_API_URL": self.cloud.base_url,
        }  # fmt: skip

    def command(self, playbook: str, given: dict[str, Any], *arguments: str) -> list[str]:
        variable_file = self.folder / "variables.json"
        variable_file.write_text(json.dumps(given), "utf-8")
        return ["ansible-playbook", playbook, "-i", str(self.inventory), "-e", f"@{variable_file}", *arguments]

    def run(self, playbook: str, *arguments: str, **variables: Any) -> tuple[int, str]:
        """Exit status and output (white space folded)."""
        done = subprocess.run(
            self.command(playbook, self.variables(**variables), *arguments), cwd=ROOT, env=self.environment(),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, " ".join((done.stdout + done.stderr).split())

    def guards(self) -> list[int]:
        """The processes that terminate what runs on this account launched, whoever their parents are by now."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                command, environment = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
            except OSError:
                continue
            if b"guard.main()" in command and f"HOME={self.folder}".encode() in environment.split(b"\0"):
                found.append(int(folder.name))
        return found

    def end_guards(self) -> None:
        """They would ask an account that is gone for a day."""
        while guards := self.guards():
            for process in guards:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            time.sleep(0.02)

    def alive(self) -> list[str]:
        found = self.cloud.state()["instances"]
        return sorted(item["name"] for item in found if item["status"] in ("booting", "active", "unhealthy"))
