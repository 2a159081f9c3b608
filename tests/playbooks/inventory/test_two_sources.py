"""Two inventories of which one cannot be read, for users without a checkout's ansible.cfg: nothing acts on the rest."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulator.gmi_cloud.server import running
from tests.playbooks.lambda_api.fake_cloud import KEY, FakeCloud, make_instance, serve

ROOT = Path(__file__).parents[3]
BIN = Path(sys.executable).parent
PLAY = "- {hosts: all, connection: local, gather_facts: false, tasks: [{ansible.builtin.debug: {msg: acted on}}]}\n"


class Folder:
    """A working folder of somebody who installed the collection, with both inventories and no ansible.cfg."""

    def __init__(self, path: Path, cloud: FakeCloud, gmi_url: str) -> None:
        self.path = path
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("LAMBDA", "GMI", "ANSIBLE"))},
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"),
            "LAMBDA_API_KEY": KEY,
            "LAMBDA_API_URL": cloud.url,
            "GMI_API_KEY": "eyJh.cluster.key",
            "GMI_API_URL": gmi_url,
            "HOME": str(path / "home"),
        }
        common = "request_interval: 0\nretries: 0\n"
        for name in ("lambda", "gmi"):
            (path / name).mkdir()
            (path / name / f"{name}.yml").write_text(f"plugin: glm.fleet.{name}_cloud\n{common}", encoding="utf-8")
        (path / "play.yml").write_text(PLAY, encoding="utf-8")

    def run(self, *command: str) -> tuple[int, str]:
        done = subprocess.run(
            [str(BIN / command[0]), *command[1:]],
            cwd=self.path, env=self.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, " ".join(f"{done.stdout} {done.stderr}".split())


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    with serve() as cloud, running() as gmi:
        cloud.instances = [make_instance(1)]
        gmi.world.add_key("eyJh.cluster.key")
        gmi.world.add_container("glm-container-1")
        yield Folder(tmp_path, cloud, gmi.base_url)


def test_both_sources_are_read(folder: Folder) -> None:
    code, said = folder.run("ansible-playbook", "play.yml", "-i", "lambda", "-i", "gmi")
    assert code == 0, said
    assert "node-1" in said and "glm-container-1" in said


@pytest.mark.parametrize("order", [("lambda", "gmi"), ("gmi", "lambda")])
@pytest.mark.parametrize("broken", ["lambda", "gmi"])
def test_one_that_fails_stops_the_run(folder: Folder, order: tuple[str, str], broken: str) -> None:
    folder.environment[f"{broken.upper()}_API_KEY"] = "refused"
    sources = [argument for name in order for argument in ("-i", name)]
    for command in (("ansible-playbook", "play.yml"), ("ansible-inventory", "--list")):
        code, said = folder.run(*command, *sources)
        assert code != 0, said
        assert "the key was refused" in said and "acted on" not in said and "_meta" not in said


def test_a_misspelt_option_stops_the_run(folder: Folder) -> None:
    with (folder.path / "gmi/gmi.yml").open("a", encoding="utf-8") as file:
        file.write("contries: [US]\n")
    code, said = folder.run("ansible-playbook", "play.yml", "-i", "lambda", "-i", "gmi")
    assert code != 0
    assert "unknown option contries; did you mean countries?" in said and "acted on" not in said


def test_an_option_of_the_wrong_type_stops_the_run(folder: Folder) -> None:
    with (folder.path / "gmi/gmi.yml").open("a", encoding="utf-8") as file:
        file.write("kinds: [virtual]\n")
    code, said = folder.run("ansible-playbook", "play.yml", "-i", "lambda", "-i", "gmi")
    assert code != 0
    assert "virtual" in said and "acted on" not in said
