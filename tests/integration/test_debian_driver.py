"""The role nvidia with packages that nobody here made: Debian's own driver, from contrib and non-free, on a real host.

What this proves: the role installs and holds real packages with their real dependencies and maintainer scripts, reads
what the real dkms says, and stops at the reboot that it may not make. What it does not: no module is built, since a
container has neither kernel headers nor a kernel of its own, and none is loaded.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from simulator.hosts import images
from simulator.hosts.machines import HostRequest, Machines
from simulator.settings import CHECKOUT, Settings
from tests.integration.logins import wait_for_login

pytestmark = pytest.mark.podman

HOST = "debian-driver"
STAND_INS = CHECKOUT / "simulator/hosts/rootfs/gpu-base/usr/lib/glm-rehearsal"
# H100 PCIe: a board that the driver of Debian 13 (550) knows, without NVSwitches.
BOARDS = {"name": "NVIDIA H100 PCIe", "count": 1, "memory_mib": 81559, "pci_device_id": "0x2331"}
PLAYBOOK = """
- hosts: all
  gather_facts: false
  become: true
  tasks:
    - name: Expect the role to stop at the reboot
      block:
        - name: Run the role
          ansible.builtin.include_role:
            name: glm.fleet.nvidia
          vars:
            nvidia_driver_branch: "550"
            nvidia_driver_packages: {open: [nvidia-open-kernel-dkms], proprietary: [nvidia-kernel-dkms]}
            nvidia_toolkit: false
            nvidia_repositories: []
      rescue:
        - name: Keep what it said
          ansible.builtin.set_fact:
            said: "{{ ansible_failed_result.msg }}"
    - name: Describe the host after that
      glm.fleet.gpu_facts:
        subset: [gpu, drivers]
    - name: Tell
      ansible.builtin.copy:
        content: "{{ {'said': said | default(''), 'facts': ansible_facts['gpu_facts']} | to_json }}"
        dest: "{{ told }}"
        mode: "0600"
      delegate_to: localhost
      become: false
"""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Inventory entry of a bare Debian 13 with a GPU on its bus, and contrib and non-free among its sources."""
    machines = Machines(Settings.from_environment().with_state_dir(tmp_path / "rehearsal"))
    image = images.ensure_image(machines.settings, machines.podman, "bare-trixie")
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    try:
        made = machines.create(HostRequest(HOST, image, HOST, "manual"))
        machines.authorize(HOST, key.with_suffix(".pub").read_text(encoding="utf-8").strip())
        machines.execute(HOST, "mkdir", "-p", "/etc/glm-rehearsal")
        machines.execute(HOST, "tee", "/etc/glm-rehearsal/accelerator.json", stdin=json.dumps(BOARDS, indent=1))
        machines.execute(HOST, "python3", "-", stdin=(STAND_INS / "accelerators").read_text(encoding="utf-8"))
        components = "s/ main$/ main contrib non-free non-free-firmware/"
        machines.execute(HOST, "sed", "-i", components, "/etc/apt/sources.list")
        wait_for_login(machines, HOST)
        options = f"-i {key} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
        yield {"ansible_host": made.ip, "ansible_user": "ubuntu", "ansible_ssh_common_args": options}
    finally:
        machines.remove_all(["manual"])


def test_debians_open_kernel_modules_are_installed_for_real(host: dict[str, Any], tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    (tmp_path / "hosts.yml").write_text(json.dumps({"all": {"hosts": {HOST: host}}}), encoding="utf-8")
    (tmp_path / "play.yml").write_text(PLAYBOOK, encoding="utf-8")
    done = subprocess.run(
        ["ansible-playbook", "-i", str(tmp_path / "hosts.yml"), str(tmp_path / "play.yml"), "-e", f"told={told}"],
        cwd=CHECKOUT, capture_output=True, text=True, timeout=900, check=False,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_INJECT_FACT_VARS": "false"},
    )  # fmt: skip
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    result = json.loads(told.read_text(encoding="utf-8"))
    refusal = f"{HOST}, nvidia: expected the new driver to answer, found that it does not without a reboot"
    assert refusal in result["said"] and "set nvidia_reboot_allowed" in result["said"]
    package = result["facts"]["drivers"]["packages"]["nvidia-open-kernel-dkms"]
    assert package["version"].startswith("550.") and package["held"]
    built = [row for row in result["facts"]["drivers"]["dkms"] if "nvidia" in row["module"]]
    assert built and built[0]["version"].startswith("550.") and built[0]["state"] == "added"
