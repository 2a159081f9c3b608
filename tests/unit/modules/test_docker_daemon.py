"""docker_daemon: one merged dictionary, checked before use, and no surprise for a container that serves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.host import docker, neighbours
from ansible_collections.glm.fleet.plugins.modules import docker_daemon
from tests.patience import PATIENCE_SECONDS

CDI = {"features": {"cdi": True}}
DEFAULTS = {"live-restore": True, "log-driver": "json-file", "log-opts": {"max-size": "100m"}}
FACTS = {
    "cdi": True, "mirrors": [], "live_restore": True, "log_driver": "json-file", "root_dir": "/var/lib/docker",
    "image_store": "overlay2",
}  # fmt: skip
OWN_STORE = {"features": {"cdi": True, "containerd-snapshotter": False}}


def test_merge_keeps_what_is_there_and_adds_what_serving_needs() -> None:
    current = {
        "runtimes": {"nvidia": {"path": "nvidia-container-runtime"}},
        "default-runtime": "nvidia",
        "features": {"buildkit": True},
        "registry-mirrors": ["https://old.example"],
        "log-opts": {"max-size": "1g"},
    }
    merged = docker.merge(current, {**CDI, "registry-mirrors": ["https://new.example"]}, DEFAULTS)
    assert merged["runtimes"] == current["runtimes"]
    assert merged["default-runtime"] == "nvidia"
    assert merged["features"] == {"buildkit": True, "cdi": True}
    assert merged["registry-mirrors"] == ["https://new.example", "https://old.example"]
    assert merged["log-opts"] == {"max-size": "1g"}
    assert merged["live-restore"] is True
    assert docker.merge(merged, {**CDI, "registry-mirrors": ["https://new.example"]}, DEFAULTS) == merged


def test_rotation_options_do_not_follow_another_log_driver() -> None:
    merged = docker.merge({"log-driver": "journald"}, {}, DEFAULTS)
    assert merged == {"log-driver": "journald", "live-restore": True}


def test_user_settings_win_over_the_file() -> None:
    assert docker.merge({"live-restore": True}, {"live-restore": False}, DEFAULTS)["live-restore"] is False


@pytest.mark.parametrize(
    ("keys", "cdi", "wanted", "restart"),
    [
        (["registry-mirrors", "live-restore", "runtimes"], True, {}, []),
        (["features"], False, CDI, ["features"]),
        (["features"], True, CDI, []),
        (["features"], True, {"features": {"cdi": True, "containerd-snapshotter": True}}, ["features"]),
        (["features"], True, OWN_STORE, []),
        (["features"], False, OWN_STORE, ["features"]),
        (["data-root", "log-opts"], True, {}, ["data-root", "log-opts"]),
    ],
)
def test_which_keys_need_a_restart(keys: list[str], cdi: bool, wanted: dict[str, Any], restart: list[str]) -> None:
    assert docker.needs_restart(keys, {**FACTS, "cdi": cdi}, wanted) == restart


def test_images_with_containerd_are_not_where_data_root_says(tmp_path: Path) -> None:
    facts = {**FACTS, "image_store": "containerd"}
    assert docker.not_in_effect(OWN_STORE, facts) == ["features"]
    assert docker.needs_restart(["features"], facts, OWN_STORE) == ["features"]
    assert docker.not_in_effect(OWN_STORE, FACTS) == docker.not_in_effect(CDI, facts) == []
    assert docker.image_folder(FACTS, tmp_path) == Path("/var/lib/docker")
    assert docker.image_folder(facts, tmp_path) == Path("/var/lib/containerd")
    (tmp_path / "etc/containerd").mkdir(parents=True)
    (tmp_path / "etc/containerd/config.toml").write_text('version = 3\n#root = "/no"\nroot = "/mnt/images"\n', "utf-8")
    assert docker.image_folder(facts, tmp_path) == Path("/mnt/images")


def test_engine_that_does_not_follow_its_file_is_noticed() -> None:
    wanted = {**CDI, "registry-mirrors": ["http://m.example/"], "live-restore": True, "data-root": "/data/docker/"}
    facts = {**FACTS, "cdi": False, "live_restore": False}
    assert docker.not_in_effect(wanted, facts) == ["features", "registry-mirrors", "live-restore", "data-root"]
    facts = {**FACTS, "mirrors": ["http://m.example/"], "root_dir": "/data/docker"}
    assert docker.not_in_effect(wanted, facts) == []


def test_flags_of_the_unit() -> None:
    show = (
        "{ path=/usr/sbin/dockerd ; argv[]=/usr/sbin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock "
        "$DOCKER_OPTS ; ignore_errors=no ; start_time=[n/a] ; pid=0 }"
    )
    flags = docker.unit_flags(show, {"DOCKER_OPTS": "--log-level warn"})
    assert flags == ["-H", "fd://", "--containerd=/run/containerd/containerd.sock", "--log-level", "warn"]
    assert docker.unit_flags("", {}) == []


def test_environment_file(tmp_path: Path) -> None:
    path = tmp_path / "docker"
    path.write_text('# DOCKER_OPTS="--no"\nDOCKER_OPTS="--dns 8.8.8.8"\n', "utf-8")
    assert files.read_assignments(path) == {"DOCKER_OPTS": "--dns 8.8.8.8"}
    assert files.read_assignments(tmp_path / "absent") == {}


class Host:
    """A host whose docker, dockerd and systemctl are scripts; the engine takes up its file when it (re)starts."""

    def __init__(self, tmp_path: Path, fake_command: Callable[..., Path]) -> None:
        self.config = tmp_path / "etc/daemon.json"
        self.config.parent.mkdir()
        self.state = tmp_path / "state"
        self.state.mkdir()
        self.set(running=True, cdi=False, containers="", broken=False)
        info = (
            '{"ServerVersion": "VERSION", "DockerRootDir": "/var/lib/docker", "CDISpecDirs": CDI, '
            '"ContainersRunning": COUNT, "RegistryConfig": {"Mirrors": []}, "LiveRestoreEnabled": LIVE, '
            '"LoggingDriver": "json-file"}'
        )
        (self.state / "version").write_text("28.5.1")
        (self.state / "count").write_text("0")
        fake_command(
            "docker",
            f"cd {self.state}\n[ -e running ] || {{ echo 'Cannot connect to the Docker daemon' >&2; exit 1; }}\n"
            f'case "$1$3" in ps*) [ ! -e stuck ] || {{ echo "context deadline exceeded" >&2; exit 1; }}\n'
            "cat containers; exit;; *.ContainersRunning*) cat count; exit;; esac\n"
            "cdi=null; [ ! -e cdi ] || cdi='[\"/etc/cdi\"]'; live=false; [ ! -e live ] || live=true\n"
            f"echo '{info}' | sed \"s|VERSION|$(cat version)|; s|CDI\\b[^S]|$cdi,|; s|LIVE|$live|; "
            's|COUNT|$(cat count)|"',
        )
        fake_command(
            "dockerd",
            f'if [ "$1" = --version ]; then echo "Docker version $(cat {self.state}/version), build abc"; exit; fi\n'
            'if grep -q poison "$3"; then echo "unable to configure: poison" >&2; exit 1; fi',
        )
        self.systemctl = fake_command(
            "systemctl",
            f"cd {self.state}\ncase $1 in start|restart) rm -f running; "
            f"if [ -e broken ] && grep -q live-restore {self.config} 2>/dev/null; then exit 1; fi; touch running; "
            f"grep -q '\"cdi\": true' {self.config} && touch cdi || rm -f cdi;; esac\n"
            f"case $1 in start|restart|reload) grep -q '\"live-restore\": true' {self.config} && touch live || "
            "rm -f live;; esac\ntrue",
        )
        fake_command("journalctl", "echo 'failed to start daemon: something'")

    def set(self, **flags: Any) -> None:
        for name, value in flags.items():
            path = self.state / name
            if isinstance(value, str):
                path.write_text(value, "utf-8")
            elif value:
                path.touch()
            else:
                path.unlink(missing_ok=True)

    def verbs(self) -> list[str]:
        calls = self.systemctl.read_text("utf-8").splitlines() if self.systemctl.exists() else []
        return [line.split()[0] for line in calls if line.split()[0] in ("start", "restart", "reload", "enable")]


@pytest.fixture
def host(tmp_path: Path, fake_command: Callable[..., Path]) -> Host:
    return Host(tmp_path, fake_command)


@pytest.fixture
def configure(host: Host, run_module: Any) -> Callable[..., dict[str, Any]]:
    def run(**options: Any) -> dict[str, Any]:
        given = {
            "settings": CDI,
            "defaults": DEFAULTS,
            "path": str(host.config),
            "timeout": PATIENCE_SECONDS,
            **options,
        }
        result: dict[str, Any] = run_module(docker_daemon.main, **given)
        return result

    return run


def test_first_run_writes_and_restarts_an_idle_engine_and_the_second_does_nothing(host: Host, configure: Any) -> None:
    first = configure()
    assert (first["changed"], first["action"]) == (True, "restarted")
    assert json.loads(host.config.read_text())["features"] == {"cdi": True}
    assert oct(host.config.stat().st_mode & 0o777) == "0o644"
    assert '"cdi": true' in first["diff"]["after"]
    second = configure()
    assert (second["changed"], second["action"], second["keys"]) == (False, "none", [])
    assert host.verbs() == ["restart"]


def test_check_mode_writes_nothing(host: Host, configure: Any) -> None:
    result = configure(check=True)
    assert result["changed"] and not host.config.exists() and host.verbs() == []


def test_a_restart_under_a_container_is_refused_before_anything_changes(host: Host, configure: Any) -> None:
    host.set(containers="glm-serve-0\nexporter\n")
    host.config.write_text('{"debug": false}', "utf-8")
    result = configure()
    assert result["failed"]
    assert "features" in result["msg"] and "exporter, glm-serve-0" in result["msg"]
    assert "docker_restart_allowed: true" in result["msg"]
    assert host.config.read_text("utf-8") == '{"debug": false}' and host.verbs() == []
    assert configure(restart_allowed=True)["action"] == "restarted"


@pytest.mark.parametrize(
    ("state", "count", "words"),
    [
        ({"stuck": True}, "3", "docker ps: context deadline exceeded, and docker info counts 3 running containers"),
        ({"stuck": True}, "0", "and docker info counts 0"),
        ({"containers": "exporter\n"}, "3", "docker ps: it names 1, and docker info counts 3 running containers"),
    ],
)
def test_containers_that_docker_does_not_name_are_running_containers(
    host: Host, configure: Any, state: dict[str, Any], count: str, words: str
) -> None:
    host.set(count=count, **state)
    facts, problem = docker.docker_facts()
    assert facts["containers"] is None and words in str(problem)
    result = configure()
    assert "found that Docker does not name them (docker ps). Nothing was changed. Next: find" in result["msg"]
    assert host.verbs() == [] and not host.config.exists()
    moved = configure(settings={**CDI, "data-root": "/data/docker"}, restart_allowed=True)
    assert "would lose them with its data-root" in moved["msg"] and host.verbs() == []
    host.set(cdi=True)
    deferred = configure()
    assert deferred["action"] == "reloaded" and "Found that Docker does not name them" in deferred["caution"]


def test_a_container_that_ended_between_two_answers_is_none(host: Host) -> None:
    host.set(count="1")
    script = host.state.parent / "bin/docker"
    text = script.read_text("utf-8")
    script.write_text(text.replace("cat containers; exit", "cat containers; echo 0 > count; exit"), "utf-8")
    assert docker.docker_facts()[0]["containers"] == []


def test_containers_outlive_an_engine_that_does_not_answer(
    host: Host, configure: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.set(running=False)
    root = tmp_path / "root"
    (root / "run/containerd/io.containerd.runtime.v2.task/k8s.io/a").mkdir(parents=True)
    assert docker.docker_facts(root=root)[0]["containers"] == []
    (root / "run/containerd/io.containerd.runtime.v2.task/moby/b").mkdir(parents=True)
    assert docker.docker_facts(root=root)[0]["containers"] is None
    monkeypatch.setattr(docker, "tasks", lambda _root: neighbours.tasks(root))
    monkeypatch.setattr(docker_daemon, "state_of", lambda _unit: "active")
    assert "a Docker that answers before it is configured" in configure()["msg"] and host.verbs() == []
    monkeypatch.setattr(docker_daemon, "state_of", lambda _unit: "failed")
    assert "would lose them" in configure(settings={**CDI, "data-root": "/data/docker"})["msg"]
    assert configure()["action"] == "started"


@pytest.mark.parametrize("state", ["active", "pending", "locked", "error"])
def test_a_default_that_a_swarm_forbids_is_left_out(
    host: Host, configure: Any, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    assert docker._in_swarm({"Swarm": {"LocalNodeState": state}}, Path("/nowhere"))
    monkeypatch.setattr(docker, "_in_swarm", lambda _info, _root: True)
    host.set(containers="web.1.abc\n", cdi=True)
    host.config.write_text('{"features": {"cdi": true}, "log-driver": "json-file", "log-opts": {}}', "utf-8")
    result = configure(defaults={"live-restore": True, "log-driver": "json-file"})
    assert (result["changed"], result["action"], result["left_out"]) == (False, "none", ["live-restore"])
    assert "docker: live-restore was left out" in result["caution"] and "swarm" in result["caution"]
    asked = configure(settings={**CDI, "live-restore": True})
    assert "expected no live-restore on a member of a swarm" in asked["msg"] and host.verbs() == []
    host.config.write_text('{"features": {"cdi": true}, "live-restore": true}', "utf-8")
    kept = configure(defaults={"live-restore": True})
    assert kept["config"]["live-restore"] is True and kept["left_out"] == [], "what stands there is the owner's"


def test_the_state_of_a_swarm_is_found_where_the_next_start_finds_it(tmp_path: Path) -> None:
    assert not docker._in_swarm({"Swarm": {"LocalNodeState": "inactive"}}, tmp_path)
    (tmp_path / "etc/docker").mkdir(parents=True)
    (tmp_path / "etc/docker/daemon.json").write_text('{"data-root": "/mnt/docker"}', "utf-8")
    (tmp_path / "mnt/docker/swarm").mkdir(parents=True)
    assert not docker._in_swarm({}, tmp_path), "dockerd makes the folder in any case"
    (tmp_path / "mnt/docker/swarm/docker-state.json").touch()
    assert docker._in_swarm({}, tmp_path)
    assert not docker._in_swarm({"DockerRootDir": "/var/lib/docker"}, tmp_path)


def test_what_was_only_reloaded_is_reloaded_when_its_old_file_comes_back(host: Host, configure: Any) -> None:
    host.set(containers="exporter\n", cdi=True)
    host.config.write_text('{"features": {"cdi": true}}', "utf-8")
    script = host.state.parent / "bin/systemctl"
    script.write_text(script.read_text("utf-8").replace("touch live ||", "false ||"), "utf-8")
    result = configure(timeout=1)
    assert "put back; the engine then reloaded" in result["msg"] and host.verbs() == ["reload", "reload"]


def test_the_place_of_containers_is_not_changed_under_them(host: Host, configure: Any) -> None:
    host.set(containers="glm-serve-0\n", cdi=True)
    result = configure(settings={**CDI, "data-root": "/data/docker"}, restart_allowed=True)
    assert result["failed"] and "would lose them with its data-root" in result["msg"]
    assert "found these: glm-serve-0" in result["msg"]
    assert not host.config.exists() and host.verbs() == []


def test_defaults_that_need_a_restart_wait_for_one_and_everything_else_goes_on(host: Host, configure: Any) -> None:
    host.set(containers="exporter\n", cdi=True)
    host.config.write_text('{"features": {"cdi": true}, "log-opts": {"max-file": "3"}}', "utf-8")
    first = configure()
    assert (first["changed"], first["action"], first["keys"]) == (True, "reloaded", ["live-restore"])
    assert first["deferred"] == ["log-driver", "log-opts"]
    assert json.loads(host.config.read_text()) == first["config"] == {
        "features": {"cdi": True}, "log-opts": {"max-file": "3"}, "live-restore": True,
    }  # fmt: skip
    for words in ("docker: log-driver, log-opts", "exporter", "docker_restart_allowed: true"):
        assert words in first["caution"]
    written = host.config.read_text()
    for check in (True, False):
        again = configure(check=check)
        assert (again["changed"], again["action"], again["keys"]) == (False, "none", [])
        assert again["deferred"] == ["log-driver", "log-opts"] and again["caution"] == first["caution"]
        assert again["diff"]["before"] == again["diff"]["after"]
    assert host.config.read_text() == written and host.verbs() == ["reload"]


def test_another_log_driver_that_the_engine_was_never_told_of_holds_nothing_up(host: Host, configure: Any) -> None:
    host.set(containers="exporter\n", cdi=True)
    host.config.write_text('{"features": {"cdi": true}, "log-driver": "journald"}', "utf-8")
    result = configure()
    assert (result["action"], result["keys"], result["deferred"]) == ("reloaded", ["live-restore"], ["log-driver"])
    assert json.loads(host.config.read_text())["log-driver"] == "journald"


def test_what_waited_is_written_once_a_restart_is_possible(host: Host, configure: Any) -> None:
    host.set(containers="exporter\n", cdi=True, live=True)
    host.config.write_text('{"features": {"cdi": true}}', "utf-8")
    assert configure()["deferred"] == ["log-driver", "log-opts"]
    host.set(containers="")
    result = configure()
    assert (result["action"], result["deferred"], "caution" in result) == ("restarted", [], False)
    assert json.loads(host.config.read_text())["log-opts"] == {"max-size": "100m"}
    assert configure()["changed"] is False


def test_defaults_wait_for_nothing_when_a_restart_is_allowed_or_the_engine_is_down(host: Host, configure: Any) -> None:
    host.set(containers="exporter\n", cdi=True)
    assert (result := configure(restart_allowed=True))["action"] == "restarted" and result["deferred"] == []
    host.config.unlink()
    host.set(running=False)
    assert (result := configure())["action"] == "started" and result["deferred"] == []
    assert "log-opts" in json.loads(host.config.read_text())


def test_a_default_that_somebody_asked_for_is_not_put_off(host: Host, configure: Any) -> None:
    host.set(containers="exporter\n", cdi=True)
    result = configure(settings={**CDI, "log-opts": {"max-size": "1g"}})
    assert result["failed"] and "restarted for log-opts to take effect" in result["msg"]
    assert "log-driver" not in result["msg"]
    assert not host.config.exists() and host.verbs() == []


def test_keys_that_reload_are_reloaded_under_a_container(host: Host, configure: Any) -> None:
    host.set(containers="glm-serve-0\n", cdi=True)
    host.config.write_text('{"features": {"cdi": true}, "log-driver": "json-file", "log-opts": {"max-size": "1m"}}')
    result = configure()
    assert (result["changed"], result["action"], result["keys"]) == (True, "reloaded", ["live-restore"])
    assert host.verbs() == ["reload"]


def test_a_stopped_engine_is_started(host: Host, configure: Any) -> None:
    host.set(running=False)
    assert configure()["action"] == "started"
    assert host.verbs() == ["start"]


def test_a_file_that_dockerd_refuses_never_replaces_the_old_one(host: Host, configure: Any) -> None:
    host.config.write_text('{"debug": true}', "utf-8")
    result = configure(settings={**CDI, "poison": True})
    assert result["failed"]
    assert "dockerd refuses the configuration: unable to configure: poison" in result["msg"]
    assert host.config.read_text("utf-8") == '{"debug": true}' and host.verbs() == []


def test_engine_that_does_not_come_back_gets_its_old_file_back(host: Host, configure: Any) -> None:
    host.set(broken=True)
    host.config.write_text('{"debug": true}', "utf-8")
    result = configure()
    assert result["failed"]
    assert "put back; the engine then started" in result["msg"]
    assert "failed to start daemon: something" in result["msg"]
    assert host.config.read_text("utf-8") == '{"debug": true}'
    assert (host.state / "running").exists()


def test_broken_json_is_left_alone(host: Host, configure: Any) -> None:
    host.config.write_text('{"debug": true,}', "utf-8")
    result = configure()
    assert result["failed"] and "to hold one JSON object, found" in result["msg"]
    assert host.config.read_text("utf-8") == '{"debug": true,}'


def test_docker_without_cdi_is_refused(host: Host, configure: Any) -> None:
    host.set(version="20.10.24+dfsg1")
    result = configure()
    assert result["failed"] and "expected Docker 25 or newer" in result["msg"] and "20.10.24" in result["msg"]
    assert not host.config.exists()
