"""The role docker: its own apt source, before and after the host is described."""

from __future__ import annotations

from pathlib import Path

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
