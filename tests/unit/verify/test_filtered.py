"""What is seen, and made, of the filter around a running replica."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.finding import QuotingError, counts_against
from ansible_collections.glm.fleet.plugins.module_utils.host.commands import CommandResult
from ansible_collections.glm.fleet.plugins.module_utils.serving import walls
from ansible_collections.glm.fleet.plugins.modules import exposure
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import asking, filtered
from tests.unit.serve.plans import nodes, plan, rocm, venv

GROUP = "/glm.slice/glm-serve.slice/glm-serve-0.slice"
LISTED = [
    {"ifname": "lo", "addr_info": [{"local": "127.0.0.1"}, {"local": "::1"}]},
    {"ifname": "ens3", "addr_info": [{"local": "10.0.0.5"}, {"local": "fe80::5"}, {}]},
]
SLICE = {
    "ControlGroup": GROUP,
    "IPAddressAllow": "127.0.0.0/8 ::1/128 10.0.0.5/32 172.17.0.2/32",
    "IPAddressDeny": "0.0.0.0/0 ::/0",
}


class Host:
    """A host with one replica: answers of its commands, and control groups of its processes."""

    def __init__(self, proc: Path, pid: str = "41", inspected: str | None = "42 172.17.0.2\n") -> None:
        self.proc, self.pid, self.inspected = proc, pid, inspected
        self.slice = dict(SLICE)
        self.listed: Any = LISTED

    def process(self, pid: str, group: str) -> None:
        (self.proc / pid).mkdir(parents=True, exist_ok=True)
        (self.proc / pid / "cgroup").write_text(f"1:net_cls:/\n0::{group}\n", "utf-8")

    def run(self, argv: Any) -> CommandResult:
        done = self._answer(list(argv))
        return CommandResult(tuple(argv), 0 if done is not None else 1, done or "", "no such object")

    def _answer(self, argv: list[str]) -> str | None:
        if argv[0] == "docker":
            return self.inspected
        if argv[0] == "ip":
            return json.dumps(self.listed) if self.listed else ""
        shown = {"MainPID": self.pid} if argv[2].endswith(".service") else self.slice
        return "".join(f"{name}={value}\n" for name, value in shown.items())

    def seen(self) -> walls.Walls:
        return walls.seen(self.run, 0, self.proc)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    made = Host(tmp_path)
    made.process("41", f"{GROUP}/glm-serve-0.service")
    made.process("42", f"{GROUP}/docker-1.scope")
    return made


def test_unit_and_container_are_seen_in_the_slice(host: Host) -> None:
    found = filtered.judged(plan(), host.seen())
    assert found["outcome"] == "passed" and found["check"] == "filtered"
    assert found["found"] == f"unit and container in {GROUP}; let in: the host itself"


# What Docker 29 prints of a container on the host's network, which has no address of its own, and what older ones did.
@pytest.mark.parametrize("inspected", ["42\n", "42 invalid IP\n"])
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("made", [plan(), venv()], ids=["container", "venv"])
def test_each_rank_is_looked_at_and_lets_in_the_others(
    host: Host, made: dict[str, Any], rank: int, inspected: str
) -> None:
    host.slice["IPAddressAllow"] += " 10.0.0.6/32"
    if made["runtime"]["kind"] == "venv":
        host.inspected = None
    else:
        host.inspected = inspected
        host.slice["IPAddressAllow"] = host.slice["IPAddressAllow"].replace(" 172.17.0.2/32", "")
    host.slice["IPAddressAllow"] = host.slice["IPAddressAllow"].replace(" 172.17.0.2/32", "")
    found = filtered.judged(nodes(made, rank), host.seen())
    assert found["outcome"] == "passed" and found["found"].endswith("let in: the host itself, 10.0.0.6")
    # On a host that serves alone nobody else has a place there.
    assert "lets in 10.0.0.6/32 as well" in filtered.judged(made, host.seen())["found"]


def test_a_container_elsewhere_fails_although_its_unit_is_inside(host: Host) -> None:
    host.process("42", "/system.slice/docker-1.scope")
    found = filtered.judged(plan(), host.seen())
    assert (
        found["outcome"] == "failed" and "the container is in /system.slice/docker-1.scope, outside" in found["found"]
    )
    # A group of the same name elsewhere, and one that only begins alike.
    for group in ("/glm-serve-0.slice/1", f"{GROUP}x/1"):
        host.process("42", group)
        assert filtered.judged(plan(), host.seen())["outcome"] == "failed"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"IPAddressDeny": ""}, "it refuses nobody"),
        ({"IPAddressDeny": "0.0.0.0/0"}, "it refuses 0.0.0.0/0"),
        ({"IPAddressAllow": "127.0.0.0/8 0.0.0.0/0"}, "it lets in 0.0.0.0/0 as well"),
        ({"IPAddressAllow": "127.0.0.0/8 10.0.0.0/24"}, "it lets in 10.0.0.0/24 as well"),
        ({"ControlGroup": ""}, "systemd has no control group of it"),
    ],
)
def test_a_filter_that_lets_in_others_fails(host: Host, change: dict[str, str], words: str) -> None:
    host.slice.update(change)
    found = filtered.judged(plan(), host.seen())
    assert (found["outcome"], found["found"]) == ("failed", words) and "systemctl restart" in found["next"]


@pytest.mark.parametrize(
    ("pid", "inspected", "missing"), [("0", "42\n", "unit"), ("41", None, "container"), ("41", "0\n", "container")]
)
def test_what_was_not_seen_is_not_proven(host: Host, pid: str, inspected: str | None, missing: str) -> None:
    host.pid, host.inspected = pid, inspected
    found = filtered.judged(plan(), host.seen())
    assert found["outcome"] == "not_proven" and f"no process of the {missing} was seen" in found["found"]
    unread = filtered.judged(plan(), {"replica": 0, "problem": "systemctl is not there"})
    assert (unread["outcome"], unread["found"]) == ("not_proven", "systemctl is not there")
    assert not counts_against(found) and filtered.judged(plan(), {})["outcome"] == "not_proven"


def test_a_host_that_does_not_say_is_no_host_without_a_filter(host: Host) -> None:
    del host.slice["IPAddressDeny"]
    with pytest.raises(QuotingError, match="IPAddressDeny of glm-serve-0"):
        host.seen()
    host.slice = dict(SLICE)
    host.listed = None
    with pytest.raises(QuotingError, match="host's addresses from ip address"):
        host.seen()


def test_what_replicas_of_a_host_share_is_asked_once(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def run(argv: Any) -> CommandResult:
        asked.append(argv[0])
        return host.run(argv)

    monkeypatch.setattr(exposure.commands, "run", run)
    monkeypatch.setattr(exposure.exposure, "places", lambda *_args: [])
    found = exposure.work({"places": None, "addresses": [], "replicas": [0, 1]})["walls"]
    assert [one["replica"] for one in found] == [0, 1] and not any("problem" in one for one in found)
    assert (asked.count("ip"), asked.count("docker")) == (1, 2)


def test_hosts_with_amd_gpus_are_asked_without_the_numbers_of_their_groups() -> None:
    """They are the unit's affair; verify has no group database of the host."""
    asked = asking.options(rocm(), 0.5)
    assert (asked["unit"], asked["address"]) == ("glm-serve-0.service", "10.0.0.5")
    assert asked["secret_files"] == ["/etc/glm/serve-0.secret.env"]
