"""Generations of the key store: whatever two runs do between each other, a host never goes back to a revoked key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.glm.fleet.plugins.lookup.client_keys import LookupModule
from ansible_collections.glm.fleet.plugins.module_utils.door import generation
from ansible_collections.glm.fleet.plugins.module_utils.door.generation import Generation, after, require_newer
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.plugin_utils.keys import records, store
from ansible_collections.glm.fleet.plugins.plugin_utils.keys.records import Key

NOON = datetime(2026, 11, 29, 12, tzinfo=timezone.utc)
CHANGES = ("revoke a", "revoke b", "add", "push")


def key(name: str, secret: str = "") -> Key:
    return Key(name, records.digest(secret or name), NOON)


class Controller:
    """A key store; ``copy`` is what another controller got of it."""

    def __init__(self, keys: records.Keys, made: Optional[Generation]) -> None:
        self.keys, self.made = keys, made

    def copy(self) -> Controller:
        return Controller(self.keys, self.made)

    def change(self, what: str, run: str) -> None:
        word, _space, name = what.partition(" ")
        if word == "push":
            return
        changed = records.revoke(self.keys, name, NOON) if word == "revoke" else (*self.keys, key(f"new-{run}"))
        if changed != self.keys:
            self.keys, self.made = changed, after(self.made, records.content(changed), run, "noon")


class Host:
    """What a host has, and every key that was ever taken from it."""

    def __init__(self) -> None:
        self.made: Optional[Generation] = None
        self.files: set[str] = set()
        self.process: set[str] = set()
        self.taken: set[str] = set()
        self.holder: Optional[str] = None

    def names(self, keys: records.Keys) -> set[str]:
        return {found["name"] for found in records.for_doors(keys, NOON)}


def run(name: str, controller: Controller, hosts: list[Host], what: str, failed: list[str]) -> Iterator[None]:
    """One run of keys.yml or deploy, which another can come between wherever it yields."""
    controller.change(what, name)
    yield
    for host in hosts:
        keys, made = controller.keys, controller.made
        yield
        while host.holder is not None:
            yield
        host.holder = name
        try:
            yield
            try:
                require_newer(host.made, made)
            except Unmet:
                failed.append(name)
                continue
            host.made = made
            yield
            host.files = host.names(keys)
            yield
            host.taken |= host.process - host.names(keys)
            host.process = host.names(keys)
            yield
        finally:
            host.holder = None


@settings(max_examples=400)
@given(
    st.tuples(st.sampled_from(CHANGES), st.sampled_from(CHANGES)),
    st.booleans(),
    st.lists(st.integers(0, 1), min_size=60, max_size=60),
)
def test_whatever_two_runs_do_between_each_other_no_key_comes_back(
    what: tuple[str, str], two_controllers: bool, turns: list[int]
) -> None:
    keys = (key("a"), key("b"))
    first = Controller(keys, after(None, records.content(keys), "first", "noon"))
    second = first.copy() if two_controllers else first
    hosts = [Host(), Host()]
    failed: list[str] = []
    for _ in run("setup", first, hosts, "push", failed):
        pass
    runs = [run("one", first, hosts, what[0], failed), run("two", second, hosts, what[1], failed)]
    for turn in (*turns, *[0, 1] * 60):
        next(runs[turn], None)
        for host in hosts:
            assert not host.process & host.taken
            # Nobody is at work on it: a restart of the door reads what its processes have.
            assert host.holder is not None or host.files == host.process
    states = {controller.made.stamp for controller in (first, second) if controller.made}
    for host in hosts:
        assert host.made is not None
        newest = [one for one in (first, second) if one.made and one.made.stamp == host.made.stamp]
        # A store whose keys a host lacks has a run that failed, so somebody knows of it.
        assert newest or failed
        assert not newest or host.process == host.names(newest[0].keys)
    if len(states) == 2 and "push" not in what:
        assert failed, "two stores that went different ways were not noticed"
    if not failed:
        assert hosts[0].process == hosts[1].process


def chain(*contents: str, by: str = "ops@one") -> Generation:
    made = None
    for content in contents:
        made = after(made, content, by, "2026-11-29T12:00:00Z")
    assert made is not None
    return made


@pytest.mark.parametrize(
    ("there", "given_", "words"),
    [
        (chain("a", "b"), chain("a"), ["older ones, of generation 1, which ops@one", "keys of generation 2"]),
        (chain("a", "b"), chain("a", "x", by="bob@two"), ["another store: generation 2, which bob@two wrote at 2026"]),
        (chain("a", "b"), chain("x", "y", "z", by="bob@two"), ["store that gave the host generation 2, which ops@one"]),
        (chain("a", "b"), None, ["no key store on this controller", "copy the store"]),
    ],
)  # fmt: skip
def test_what_a_host_refuses_is_named(there: Generation, given_: Optional[Generation], words: list[str]) -> None:
    with pytest.raises(Unmet) as refused:
        require_newer(there, given_)
    assert [word for word in [*words, "glm_keys_overrule=true"] if word not in str(refused.value)] == []


def test_a_host_takes_the_first_keys_the_same_and_later_ones() -> None:
    for there, made in ((None, None), (None, chain("a")), (chain("a"), chain("a")), (chain("a"), chain("a", "b", "c"))):
        require_newer(there, made)


def test_what_was_changed_longer_ago_than_is_known_is_not_taken_for_an_ancestor() -> None:
    long = chain(*map(str, range(generation.KEPT + 5)))
    assert long.number == generation.KEPT + 5 and len(long.stamps) == generation.KEPT
    require_newer(chain(*map(str, range(6))), long)
    with pytest.raises(Unmet, match="another store"):
        require_newer(chain(*map(str, range(5))), long)


def looked_up(state: Path, own: str = "own", check: bool = False) -> dict[str, Any]:
    (found,) = LookupModule().run([str(state)], {"ansible_check_mode": check}, api_key=own)
    return dict(found)


def test_each_change_is_a_generation_and_a_look_is_none(tmp_path: Path) -> None:
    assert looked_up(tmp_path)["generation"] is None and not list(tmp_path.iterdir())
    for number, name in enumerate(("team-a", "team-b"), 1):
        with store.changing(tmp_path) as keys:
            store.write(tmp_path, records.with_fleet((*keys, key(name)), "own", NOON))
        found = looked_up(tmp_path)["generation"]
        assert (found["number"], len(found["stamps"])) == (number, number) and "@" in found["by"]
    assert looked_up(tmp_path) == looked_up(tmp_path)


@pytest.mark.parametrize("by_hand", [False, True], ids=["another key of the fleet", "edited by hand"])
def test_what_changed_without_the_playbook_is_a_generation_too(tmp_path: Path, by_hand: bool) -> None:
    with store.changing(tmp_path):
        store.write(tmp_path, records.with_fleet((key("team-a"), key("team-b")), "own", NOON))
    before = looked_up(tmp_path)["generation"]
    path = store.path_of(tmp_path)
    if by_hand:
        data = json.loads(path.read_text("utf-8"))
        del data["keys"][0]
        path.write_text(json.dumps(data), "utf-8")
        path.chmod(0o600)
    own = "own" if by_hand else "newer"
    unchanged = path.read_text("utf-8")
    foreseen = looked_up(tmp_path, own, check=True)["generation"]
    assert path.read_text("utf-8") == unchanged
    after_ = looked_up(tmp_path, own)["generation"]
    assert after_["number"] == 2 and after_["stamps"][0] == before["stamps"][0]
    assert foreseen["stamps"] == after_["stamps"] and looked_up(tmp_path, own)["generation"] == after_


def test_a_generation_of_another_form_is_named(tmp_path: Path) -> None:
    path = store.path_of(tmp_path)
    path.write_text('{"keys": [], "generation": {"number": "x", "stamps": ["0"]}}', "utf-8")
    path.chmod(0o600)
    with pytest.raises(Unmet, match="its generation to be a number with stamps"):
        store.read(tmp_path)
