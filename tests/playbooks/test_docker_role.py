"""The role docker: its own apt source, before and after the host is described."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from role_variables import show

FACTS = {"gpu_facts": {"distribution": {"id": "ubuntu", "version": "24.04", "codename": "noble"}}}
CASES = {
    "distribution": {"docker_source": "distribution", "ansible_facts": FACTS},
    "docker_ce": {"docker_source": "docker_ce", "ansible_facts": FACTS},
    # Arguments are checked before the host is described, defaults included.
    "not described yet": {"docker_source": "docker_ce", "ansible_facts": {}},
}


def test_dockers_own_source_is_that_of_the_hosts_release(tmp_path: Path) -> None:
    shown = show(tmp_path, "docker", CASES, "{{ docker_repositories }}")
    assert (shown["distribution"], shown["not described yet"]) == ([], [])
    [source] = shown["docker_ce"]
    assert (source["suites"], source["components"]) == ("noble", ["stable"])
    assert source["uris"].endswith("/linux/ubuntu") and source["key"] == source["uris"] + "/gpg"


def host(unlinked: list[str], container: str | None = None, device: str = "nvidia.com/gpu=0") -> dict[str, Any]:
    cdi = {"nvidia_ctk": "/opt/bin/nvidia-ctk", "unlinked": unlinked, "specs": [], "devices": []}
    facts = {**FACTS["gpu_facts"], "container": container, "cdi": cdi, "errors": []}
    return {"ansible_facts": {"gpu_facts": facts, "glm_plans": [{"devices": [device]}]}}


def test_device_nodes_of_gpus_are_linked_where_containers_get_them(tmp_path: Path) -> None:
    lacking = ["/dev/nvidia0", "/dev/nvidia-uvm"]
    cases = {
        "lacking": host(lacking),
        "there": host([]),
        "of another machine": host(lacking, "podman"),
        "AMD": host(lacking, device="amd.com/gpu=0"),
    }
    rules = "{{ lookup('ansible.builtin.template', 'dev-char.rules.j2') }}"
    shown = show(tmp_path, "docker", cases, ["{{ __docker_linked }}", "{{ 'links' in __docker_steps }}", rules])
    assert {name: values[:2] for name, values in shown.items()} == {
        "lacking": [True, True],
        "there": [True, False],
        "of another machine": [False, False],
        "AMD": [False, False],
    }
    lines = [line for line in shown["lacking"][2].splitlines() if line and not line.startswith("#")]
    program = "/opt/bin/nvidia-ctk system create-dev-char-symlinks --create-all"
    assert lines == [
        f'ACTION=="add", DEVPATH=="/bus/pci/drivers/nvidia", RUN+="{program}"',
        f'ACTION=="add", DEVPATH=="/module/nvidia_uvm", RUN+="{program}"',
    ]
