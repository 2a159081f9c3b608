"""host_sources: apt sources that a provider's image names in files of its own are found before others are added."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.host.apt import parse_deb822, parse_list
from ansible_collections.glm.fleet.plugins.modules import host_sources

CUDA = "https://developer.download.nvidia.com/compute/cuda/repos/ubuntu2404/x86_64"
TOOLKIT = "https://nvidia.github.io/libnvidia-container/stable/deb"
WANTED = [
    {"name": "glm-nvidia-cuda", "uris": f"{CUDA}/", "suites": "/", "key": f"{CUDA}/3bf863cc.pub"},
    {"name": "glm-nvidia-toolkit", "uris": f"{TOOLKIT}/$(ARCH)", "suites": "/", "key": "https://example.com/gpgkey"},
]
UBUNTU = "https://download.docker.com/linux/ubuntu"
DOCKER = {"name": "glm-docker", "uris": UBUNTU, "suites": "noble", "components": ["stable"]}
KEYRING = "/usr/share/keyrings/cuda-archive-keyring.gpg"


@pytest.fixture
def etc_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_command: Callable[..., Path]) -> Path:
    """/etc/apt of a host that has Ubuntu's own sources."""
    folder = tmp_path / "apt"
    (folder / "sources.list.d").mkdir(parents=True)
    (folder / "sources.list").write_text("deb http://archive.ubuntu.com/ubuntu noble main universe\n", "utf-8")
    monkeypatch.setattr(host_sources, "FOLDER", folder)
    fake_command("dpkg", "echo amd64")
    return folder


def write(etc_apt: Path, name: str, text: str) -> str:
    path = etc_apt / "sources.list.d" / name
    path.write_text(text, "utf-8")
    return str(path)


def adopted(run_module: Any, *wanted: dict[str, Any]) -> list[dict[str, str]]:
    result = run_module(host_sources.main, sources=list(wanted))
    assert result["changed"] is False
    found: list[dict[str, str]] = result["adopted"]
    return found


def test_a_host_with_sources_of_its_own_only_lacks_all(etc_apt: Path, run_module: Any) -> None:
    assert adopted(run_module, *WANTED, DOCKER) == []


def test_what_nvidias_packages_and_guides_write_is_found(etc_apt: Path, run_module: Any) -> None:
    cuda = write(etc_apt, "cuda-ubuntu2404-x86_64.list", f"deb [signed-by={KEYRING}] {CUDA} /\n")
    toolkit = write(
        etc_apt,
        "nvidia-container-toolkit.list",
        f"deb [signed-by=/usr/share/keyrings/toolkit.gpg] {TOOLKIT}/amd64 /\n"
        "#deb [signed-by=/usr/share/keyrings/toolkit.gpg] https://example.com/experimental /\n",
    )
    assert adopted(run_module, *WANTED) == [
        {"name": "glm-nvidia-cuda", "file": cuda, "signed_by": KEYRING},
        {"name": "glm-nvidia-toolkit", "file": toolkit, "signed_by": "/usr/share/keyrings/toolkit.gpg"},
    ]


def test_deb822_files_and_the_file_of_all_sources_count(etc_apt: Path, run_module: Any) -> None:
    docker = write(
        etc_apt,
        "docker.sources",
        "# by hand\nTypes: deb deb-src\nURIs: https://download.docker.com/linux/ubuntu/\nSuites: jammy\n noble\n"
        "Components: stable test\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mDMEYCQ\n",
    )
    with (etc_apt / "sources.list").open("a") as sources:
        sources.write(f"deb {CUDA}/ ./\n")
    assert adopted(run_module, WANTED[0], DOCKER) == [
        {"name": "glm-nvidia-cuda", "file": str(etc_apt / "sources.list"), "signed_by": ""},
        {"name": "glm-docker", "file": docker, "signed_by": "a key in the file itself"},
    ]


def test_what_is_switched_off_or_ours_is_no_twin(etc_apt: Path, run_module: Any) -> None:
    write(etc_apt, "cuda.list", f"# deb {CUDA} /\ndeb-src {CUDA} /\ndeb http{CUDA[5:]} /\n")
    write(etc_apt, "cuda.sources", f"Enabled: no\nTypes: deb\nURIs: {CUDA}\nSuites: /\n")
    write(etc_apt, "cuda.list.save", f"deb {CUDA} /\n")
    write(
        etc_apt, "glm-nvidia-cuda.sources", f"X-Repolib-Name: glm-nvidia-cuda\nTypes: deb\nURIs: {CUDA}/\nSuites: /\n"
    )
    assert adopted(run_module, *WANTED) == []


def test_a_source_without_the_component_is_refused_by_its_file(etc_apt: Path, run_module: Any) -> None:
    file = write(etc_apt, "docker.list", f"deb {UBUNTU} noble test\n")
    result = run_module(host_sources.main, sources=[DOCKER])
    assert result["failed"] and result["phase"] == "packages"
    assert f"with the component stable, found it without in {file}" in result["msg"] and "Next: " in result["msg"]
    other = {**DOCKER, "suites": "jammy"}
    assert adopted(run_module, other) == []


def test_stanzas_and_lines_are_read_as_apt_reads_them() -> None:
    both = parse_deb822("Types: deb\nuris: a b\nSuites: s\n\n\nTypes: deb-src\nURIs: c\nSuites: s\n", "f")
    assert [(source["uris"], source["suites"]) for source in both] == [(["a", "b"], ["s"])]
    line = parse_list("deb [ arch=amd64 Signed-By=/k.gpg trusted=no ] cdrom:x s main # late\nnonsense\n", "f")
    assert [(source["signed_by"], source["components"]) for source in line] == [("/k.gpg", ["main"])]
