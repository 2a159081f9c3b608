"""What a person reads on the terminal when a module of the house fails on one of many hosts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ANSIBLE = Path(sys.executable).with_name("ansible-playbook")
DOCKERD = '#!/bin/sh\ncase "$1" in --version) echo "Docker version 28.5.1, build abc";; esac\n'
DOCKER = """#!/bin/sh
case "$1" in
  ps) echo other;;
  info) echo '{"ServerVersion": "28.5.1", "CDISpecDirs": ["/etc/cdi"], "LiveRestoreEnabled": true,
"LoggingDriver": "json-file", "RegistryConfig": {"Mirrors": []}, "DockerRootDir": "/var/lib/docker"}' | tr '\\n' ' ';;
esac
"""
Play = Callable[..., subprocess.CompletedProcess[str]]
CLOUD_INIT = """#!/bin/sh
echo '{"status": "error", "errors": ["apt-get failed"]}'
exit 1
"""


@pytest.fixture
def play(tmp_path: Path) -> Play:
    """Run one task on two hosts that are this machine, with ``commands`` (name: script) first on its PATH."""

    def run(
        module: str, commands: dict[str, str], module_defaults: dict[str, object] | None = None, **options: object
    ) -> subprocess.CompletedProcess[str]:
        folder = tmp_path / "bin"
        folder.mkdir()
        for name, script in commands.items():
            (folder / name).write_text(script, "utf-8")
            (folder / name).chmod(0o755)
        task = {"name": "Try it", f"glm.fleet.{module}": options}
        book = [{"hosts": "all", "gather_facts": False, "module_defaults": module_defaults or {}, "tasks": [task]}]
        (tmp_path / "play.yml").write_text(json.dumps(book), "utf-8")
        here = f"ansible_connection=local ansible_python_interpreter={sys.executable}"
        (tmp_path / "hosts.ini").write_text(f"gpu-3 {here}\ngpu-4 {here}\n", "utf-8")
        env = {
            **os.environ,
            "PATH": f"{folder}:{os.environ['PATH']}",
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"),
            "ANSIBLE_LOCAL_TEMP": str(tmp_path / "local"),
            "ANSIBLE_REMOTE_TEMP": str(tmp_path / "remote"),
            "ANSIBLE_NOCOLOR": "1",
            "COLUMNS": "1000",
        }
        command = [str(ANSIBLE), str(tmp_path / "play.yml"), "-i", str(tmp_path / "hosts.ini")]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)

    return run


def test_a_module_that_takes_long_is_followed(play: Play) -> None:
    done = play("host_settled", {"cloud-init": '#!/bin/sh\nsleep 11\necho \'{"status": "done"}\'\n'})
    for host in ("gpu-3", "gpu-4"):
        assert re.search(rf"^{host}: host_settled: Try it, 1\d s so far$", done.stdout, re.M), done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "commands", "options", "phase"),
    [
        (
            "host_packages",
            {"dpkg-query": "#!/bin/sh\nexit 1\n", "apt-get": "#!/bin/sh\nexit 100\n"},
            {"names": ["no-such-package"]},
            "packages",
        ),
        ("host_settled", {"cloud-init": CLOUD_INIT}, {}, "first boot"),
        (
            "docker_daemon",
            {"docker": DOCKER, "dockerd": "#!/bin/sh\necho poison\nexit 1\n", "systemctl": "#!/bin/sh\n"},
            {"settings": {"debug": True}},
            "docker",
        ),
        (
            "serving_unit",
            {"systemctl": "#!/bin/sh\necho 'System has not been booted with systemd' >&2\nexit 1\n"},
            {"replicas": [{"unit": "glm-serve-0.service", "files": [], "address": "127.0.0.1", "port": 8000}]},
            "serve, start",
        ),
        (
            "serving_unit",
            {"systemctl": "#!/bin/sh\ncase $1 in show) echo ActiveState=active;; *) echo denied >&2; exit 4;; esac\n"},
            {"replicas": [{"unit": "glm-serve-0.service", "files": [], "address": "127.0.0.1", "port": 8000}]},
            "serve, start",
        ),
    ],
)
def test_a_failure_names_host_phase_expected_found_and_next(
    play: Play, tmp_path: Path, module: str, commands: dict[str, str], options: dict[str, object], phase: str
) -> None:
    if module == "docker_daemon":
        options = {**options, "path": str(tmp_path / "daemon.json")}
    done = play(module, commands, **options)
    assert done.returncode == 2, done.stdout + done.stderr
    said = done.stdout + done.stderr
    for host in ("gpu-3", "gpu-4"):
        assert re.search(rf"{host}, {phase}: expected .*found\b.*Next: ", said), said
        assert f"{host}, {host}" not in said


def test_a_caution_names_its_host(play: Play) -> None:
    done = play("host_settled", {"cloud-init": CLOUD_INIT}, accept_cloud_init_errors=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for host in ("gpu-3", "gpu-4"):
        said = f"{host}, first boot: cloud-init ended with an error, accepted as configured: apt-get failed"
        assert said in done.stderr


def test_group_defaults_reach_a_module_that_is_routed(play: Play) -> None:
    defaults = {"group/glm.fleet.all": {"accept_cloud_init_errors": True}}
    assert play("host_settled", {"cloud-init": CLOUD_INIT}, module_defaults=defaults).returncode == 0


def test_what_a_tool_says_is_no_command_for_a_terminal(play: Play) -> None:
    """Through the module, the action and ansible's own display."""
    poison = r"#!/bin/sh\nprintf 'denied\033]0;owned\007\033[2J\342\200\256' >&2\nexit 4\n"
    replicas = [{"unit": "glm-serve-0.service", "files": [], "address": "127.0.0.1", "port": 8000}]
    done = play("serving_unit", {"systemctl": poison.replace(r"\n", "\n")}, replicas=replicas)
    said = done.stdout + done.stderr
    assert done.returncode == 2 and r"denied\u202e" in said, said
    assert not {"\x1b", "\x07", "\u202e"} & set(said), said
