"""Which run may change a host: the rules, the record on the host, and random histories of two controllers."""

from __future__ import annotations

import calendar
import json
import os
import random
import stat
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.cloud import run_alive
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.module_utils.host import lease
from ansible_collections.glm.fleet.plugins.module_utils.host.lease import Claim, Lease
from ansible_collections.glm.fleet.plugins.modules import host_lease

SEEDS = range(int(os.environ.get("GLM_HISTORIES", "12")))
ANN = Claim(run="a", by="ann@desk-4", playbook="deploy.yml")
BOB = Claim(run="b", by="bob@ci-1", playbook="keys.yml")
EIGHT, LATER = "2026-11-29T08:00:00Z", "2026-11-29T10:04:00Z"


def held_by_ann() -> Lease:
    return lease.taken(None, ANN, EIGHT)


def again(claim: Claim, **more: object) -> Claim:
    return Claim(**{**claim.__dict__, **more})


def refusal(found: Lease | None, claim: Claim) -> str:
    with pytest.raises(Unmet) as caught:
        lease.taken(found, claim, LATER)
    assert caught.value.more["holder"] == found
    return str(caught.value)


def test_a_second_run_is_refused_with_who_what_since_when_and_the_way_out() -> None:
    text = refusal(held_by_ann(), BOB)
    assert (
        "ann@desk-4 with deploy.yml since 2026-11-29T08:00:00Z, last renewed 2026-11-29T08:00:00Z (2 h 4 min ago)"
        in text
    )
    assert "-e glm_unlock=true" in text


def test_a_renewal_keeps_when_it_began() -> None:
    renewed = lease.taken(held_by_ann(), again(ANN, before=True), LATER)
    assert (renewed["since"], renewed["renewed"]) == (EIGHT, LATER)


def test_what_was_released_is_free_and_only_its_holder_releases_it() -> None:
    assert lease.released_by(held_by_ann(), "b", LATER) is None
    free = lease.released_by(held_by_ann(), "a", LATER)
    assert free is not None and lease.taken(free, BOB, LATER)["run"] == "b"
    assert lease.released_by(free, "a", LATER) is None and lease.released_by(None, "a", LATER) is None


def test_a_run_that_lost_its_host_stops_also_when_the_other_has_ended_and_even_with_unlock() -> None:
    taken = lease.taken(held_by_ann(), again(BOB, unlock=True), LATER)
    assert taken["run"] == "b"
    for unlock in (False, True):
        text = refusal(taken, again(ANN, before=True, unlock=unlock))
        assert "this run to hold the host still, found that bob@ci-1 took it over with keys.yml at " + LATER in text
    back = lease.released_by(taken, "b", "2026-11-29T10:05:00Z")
    assert "and released it at 2026-11-29T10:05:00Z" in refusal(back, again(ANN, before=True))


def test_after_a_restart_of_the_host_a_run_takes_it_again() -> None:
    assert lease.taken(None, again(ANN, before=True), LATER)["run"] == "a"


def test_a_lease_that_nobody_renewed_for_six_hours_is_for_any_run() -> None:
    refused, free = "2026-11-29T13:59:59Z", "2026-11-29T14:00:00Z"
    with pytest.raises(Unmet, match="6 h after it renewed last"):
        lease.taken(held_by_ann(), BOB, refused)
    assert lease.taken(held_by_ann(), BOB, free)["run"] == "b"
    # The summer's hour is none of the host's, which counts in UTC.
    assert lease.taken(lease.taken(None, ANN, "2026-03-29T00:30:00Z"), BOB, "2026-03-29T06:30:00Z")["run"] == "b"
    with pytest.raises(Unmet):
        lease.taken(lease.taken(None, ANN, "2026-03-29T00:30:00Z"), BOB, "2026-03-29T06:29:00Z")
    renewed = lease.taken(held_by_ann(), again(ANN, before=True), refused)
    with pytest.raises(Unmet):
        lease.taken(renewed, BOB, free)
    # Who did not lose it goes on, however late; who did stops.
    assert lease.taken(held_by_ann(), again(ANN, before=True), "2026-11-30T14:00:00Z")["since"] == EIGHT
    refusal(lease.taken(held_by_ann(), BOB, free), again(ANN, before=True))


@pytest.mark.parametrize("renewed", ["", "x", "2026-11-30T08:00:00Z"])
def test_an_age_that_cannot_be_told_makes_no_host_free(renewed: str) -> None:
    found: Lease = {**held_by_ann(), "renewed": renewed}
    refusal(found, BOB)


def test_only_the_run_that_has_ended_is_replaced() -> None:
    assert lease.taken(held_by_ann(), again(BOB, gone="a"), LATER)["run"] == "b"
    refusal(held_by_ann(), again(BOB, gone="c"))


# The record on the host --------------------------------------------------------------------------------------------


def asked(path: Path, claim: Claim, state: str = "held", check_mode: bool = False) -> dict[str, object]:
    return host_lease.done({"path": str(path), "state": state, **claim.__dict__}, check_mode)


def test_the_record_is_its_owners_and_a_check_only_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "glm/lease.json"
    for state in ("held", "released", "read"):
        assert asked(path, ANN, state, check_mode=True) == {"changed": False, "lease": None}
    assert not path.parent.exists()
    assert asked(path, ANN)["changed"] is False
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o755
    before = path.read_text()
    for state, check_mode in (("held", True), ("read", False)):
        seen = asked(path, BOB, state, check_mode)
        assert seen["lease"] is None and "another run changes this host: ann@desk-4 with deploy.yml" in str(
            seen["caution"]
        )
    asked(path, ANN, "released", check_mode=True)
    asked(path, BOB, "released")
    assert path.read_text() == before
    assert "caution" not in asked(path, ANN, "read")
    asked(path, ANN, "released")
    assert asked(path, BOB, "read") == {"changed": False, "lease": None}
    assert asked(path, BOB)["lease"] == json.loads(path.read_text())


@pytest.mark.parametrize("text", ["", "{", "[]", '{"run": "a"}'])
def test_a_record_that_cannot_be_read_is_no_free_host(tmp_path: Path, text: str) -> None:
    path = tmp_path / "lease.json"
    path.write_text(text)
    with pytest.raises(Unmet, match="a run whose record cannot be read"):
        asked(path, BOB)
    for reader in (BOB, again(BOB, run="")):
        assert "cannot be read" in str(asked(path, reader, "read")["caution"])
    taken = asked(path, again(BOB, unlock=True))
    assert "taken over from a run whose record cannot be read" in str(taken["caution"])


def test_who_takes_over_an_old_lease_is_warned_whose_it_was(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    path.write_text(json.dumps(held_by_ann() | {"since": "2020-01-01T08:00:00Z", "renewed": "2020-01-01T08:00:00Z"}))
    assert asked(path, BOB, "read") == {"changed": False, "lease": None}, "it is nobody's until somebody takes it"
    caution = str(asked(path, BOB)["caution"])
    assert "lease: taken over from ann@desk-4 with deploy.yml since 2020-01-01T08:00:00Z" in caution
    assert " h " in caution and json.loads(path.read_text())["run"] == "b"


def test_of_runs_at_once_one_has_the_host(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    # All children go on when the parent has closed its end.
    start, hold = os.pipe()
    children = []
    for number in range(8):
        child = os.fork()
        if not child:
            os.close(hold)
            os.read(start, 1)
            try:
                lease.hold(path, Claim(run=str(number), by="x", playbook="y"))
            except Unmet:
                os._exit(1)
            os._exit(0)
        children.append(child)
    os.close(hold)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    os.close(start)
    assert sorted(codes) == [0, *[1] * 7]


def test_only_a_run_of_this_machine_that_is_not_there_has_ended() -> None:
    own = run_alive.run_of(os.getpid())
    with subprocess.Popen(["sleep", "60"]) as process:
        child = run_alive.run_of(process.pid)
        assert not run_alive.has_ended(child)
        process.kill()
    assert run_alive.has_ended(child) and not run_alive.has_ended(own)
    elsewhere = f"{'0' * 12}{child[12:]}"
    assert not run_alive.has_ended(elsewhere) and not run_alive.is_alive(elsewhere), (
        "of another machine nothing is known"
    )
    assert not run_alive.has_ended("") and not run_alive.has_ended("20261129T073000")


def test_a_run_of_somebody_else_that_proc_hides_has_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_alive.run_of(os.getppid())
    machine, pid, started = run.split("-")

    def refuse(_pid: int, _signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert started and run_alive.is_alive(run), "what shows its start is compared by it"
    assert run_alive.has_ended(f"{machine}-{pid}-1{started}")
    monkeypatch.setattr(run_alive, "_started", lambda pid: "")
    assert run_alive.is_alive(run) and not run_alive.has_ended(run), "mounted with hidepid"


# Random histories ----------------------------------------------------------------------------------------------------

# A verb takes all its hosts, then changes them; a deploy looks again before it serves; others end hosts.
VERBS = ("deploy", "keys", "benchmark", "terminate", "scale", "reap", "replace")
ENDING = ("terminate", "scale", "reap", "replace")


@dataclass
class Host:
    record: Lease | None = None
    held: list[str] = field(default_factory=list)
    """Runs that got the lease since the host started, each time that they did."""
    unlocked: bool = False
    exists: bool = True


@dataclass
class World:
    hosts: dict[str, Host]
    runs: list[Run] = field(default_factory=list)
    clock: int = 0
    """Seconds."""

    def now(self) -> str:
        return f"2026-11-{1 + self.clock // 86400:02}T{time.strftime('%H:%M:%SZ', time.gmtime(self.clock))}"

    def is_old(self, record: Lease) -> bool:
        return bool(self.now() >= record["renewed"]) and self.clock - seconds_of(record["renewed"]) >= 6 * 3600


def seconds_of(moment: str) -> int:
    return calendar.timegm(time.strptime(moment, "%Y-%m-%dT%H:%M:%SZ")) - calendar.timegm((2026, 11, 1, 0, 0, 0))


@dataclass
class Run:
    world: World
    name: str
    controller: str
    verb: str
    wanted: list[str]
    unlock: bool
    working: set[str] = field(default_factory=set)
    before: set[str] = field(default_factory=set)
    ended: str = ""
    crashed: bool = False

    def hold(self, name: str) -> bool:
        host = self.world.hosts[name]
        self.world.clock += 1
        claim = Claim(self.name, f"x@{self.controller}", self.verb, before=name in self.before, unlock=self.unlock)
        try:
            record = self._taken(host, claim)
        except Unmet:
            return False
        if name in self.before and self.name in host.held:
            last = len(host.held) - 1 - host.held[::-1].index(self.name)
            assert host.held[last + 1 :] == [], f"{self.name} goes on although {host.held[last + 1 :]} had {name}"
        if host.record is not None and host.record["run"] != self.name:
            host.unlocked = host.unlocked or self.unlock or self.world.is_old(host.record)
        host.record = record
        host.held.append(self.name)
        self.before.add(name)
        return True

    def _taken(self, host: Host, claim: Claim) -> Lease:
        try:
            return lease.taken(host.record, claim, self.world.now())
        except Unmet as error:
            holder = next((run for run in self.world.runs if run.name == error.more["holder"]["run"]), None)
            if holder is None or holder.controller != self.controller or not holder.crashed:
                raise
            return lease.taken(host.record, again(claim, gone=holder.name), self.world.now())

    def steps(self) -> Iterator[None]:
        """Between two of these another run, or what goes wrong, may come."""
        yield from self._hold_all("refused")
        if self.ended:
            return
        self.working = set(self.wanted)
        for _ in range(3):
            yield
        if self.verb == "deploy":
            yield from self._hold_all("lost")
            if self.ended:
                return
            yield
        if self.verb in ENDING:
            for name in self.wanted:
                self.world.hosts[name].exists = False
                yield
        self.working = set()
        yield from self._release()
        self.ended = "done"

    def _hold_all(self, otherwise: str) -> Iterator[None]:
        got = []
        for name in self.wanted:
            got.append(self.hold(name))
            yield
        if not all(got):
            self.working = set()
            yield from self._release()
            self.ended = otherwise

    def _release(self) -> Iterator[None]:
        for name in self.wanted:
            host = self.world.hosts[name]
            host.record = lease.released_by(host.record, self.name, self.world.now()) or host.record
            yield


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("seed", SEEDS)
def test_no_two_runs_change_one_host_whatever_happens(seed: int, verb: str) -> None:
    dice = random.Random(f"{seed}{verb}")
    world = World({f"h{number}": Host() for number in range(3)})
    for number, its in enumerate([verb, dice.choice(VERBS), dice.choice(VERBS)]):
        wanted = dice.sample(sorted(world.hosts), dice.randint(1, 3))
        unlock = dice.random() < 0.15
        world.runs.append(Run(world, f"run-{number}", dice.choice("AB"), its, wanted, unlock))
    going = {run.name: run.steps() for run in world.runs}
    for _step in range(1000):
        if not going:
            break
        run = dice.choice([run for run in world.runs if run.name in going])
        if dice.random() < 0.02:
            run.crashed, run.working = True, set()
            del going[run.name]
        elif dice.random() < 0.02:
            host = world.hosts[dice.choice(sorted(world.hosts))]
            host.record, host.held, host.unlocked = None, [], True
        elif dice.random() < 0.01:
            world.clock += 6 * 3600
        elif next(going[run.name], "ended") == "ended":
            del going[run.name]
        require_apart(world)
    assert not going, "somebody waits for ever"
    require_an_end(world, dice)


def require_apart(world: World) -> None:
    for name, host in world.hosts.items():
        working = [run.name for run in world.runs if name in run.working]
        assert len(working) < 2 or host.unlocked, f"{working} change {name}"


def require_an_end(world: World, dice: random.Random) -> None:
    """What a run left is free, or named. Its own controller takes what died, another one by unlock or late."""
    assert all(run.crashed or run.ended for run in world.runs)
    for name, host in world.hosts.items():
        left = None if host.record is None or host.record["released"] else host.record["run"]
        holder = next((run for run in world.runs if run.name == left), None)
        assert holder is None or holder.crashed or not host.exists, f"{left} still holds {name}"
        for controller in dice.sample("AB", 2):
            saved = host.record
            free = holder is None or (holder.crashed and holder.controller == controller)
            free = free or (saved is not None and world.is_old(saved))
            for unlock in (False, True):
                after = Run(world, f"after-{controller}-{unlock}", controller, "deploy", [name], unlock)
                assert after.hold(name) == (free or unlock)
                host.record = saved
    world.clock += 6 * 3600
    for name in world.hosts:
        assert Run(world, "much-later", "C", "deploy", [name], False).hold(name), "for good for everybody else"
