"""The extension of a host's time: what is written into which ledger, and what is said of it."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.action import expiry
from ansible_collections.glm.fleet.plugins.module_utils.cloud import ledger


class Expiry(expiry.ActionModule):
    """The action for hosts with these tags."""

    def __init__(self, hosts: dict[str, dict[str, str]], check: bool = False) -> None:
        self._args = {"hosts": list(hosts), "hours": 2.0}
        made = {
            host: {"glm_host_id": f"id-{host}", "glm_host_provider": "lambda", "glm_host_tags": tags}
            for host, tags in hosts.items()
        }
        self._task_vars = {"hostvars": made}
        self._task = SimpleNamespace(check_mode=check)
        self.lines: list[str] = []

    def _show(self, lines: Any) -> None:
        self.lines += lines


def tags(fleet: str = "blue", hours: float = -1) -> dict[str, str]:
    return {"glm-fleet": fleet, "glm-expires": ledger.stamp(time.time() + hours * 3600)}


@pytest.fixture
def books(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GLM_LEDGER_DIR", str(tmp_path))
    for fleet, names in (("blue", ("a", "b", "c")), ("green", ("d",))):
        for name in names:
            more: dict[str, Any] = {"names": [name], "ids": [f"id-{name}"], "launch": name}
            made = ledger.event("launched", fleet=fleet, account="x", run="r", **more)
            ledger.Ledger("lambda", fleet).append(made)
    return tmp_path


def extended(fleet: str) -> list[str]:
    events: list[Any] = ledger.Ledger("lambda", fleet).read()
    return [item["names"][0] for item in events if item.get("expires")]


def test_each_host_is_extended_in_the_ledger_of_its_fleet_which_is_read_once(
    books: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, reads = ledger.Ledger.read, []
    monkeypatch.setattr(ledger.Ledger, "read", lambda book: reads.append(book.fleet) or read(book))  # type: ignore[func-returns-value]
    made = Expiry({"a": tags(), "b": tags(hours=9), "c": tags(), "d": tags("green"), "never": {"glm-fleet": "blue"}})
    found = made._outcome()
    until = {host: ledger.seconds_of(moment) - time.time() for host, moment in found.pop("until").items()}
    assert found == {"changed": True, "extended": ["a", "c", "d"]}
    assert {host: round(seconds / 3600) for host, seconds in until.items()} == {"a": 2, "b": 9, "c": 2, "d": 2}
    assert reads == ["blue", "green"]
    monkeypatch.undo()
    monkeypatch.setenv("GLM_LEDGER_DIR", str(books))
    assert (extended("blue"), extended("green")) == (["a", "c"], ["d"])
    assert [line.split(": expiry: ")[0] for line in made.lines] == ["a", "b", "c", "d"]
    assert made.lines[0].endswith("(2 hours from now)") and made.lines[1].endswith("as before")


def test_a_check_run_says_what_it_would_write(books: Path) -> None:
    made = Expiry({"a": tags()}, check=True)
    assert made._outcome()["extended"] == ["a"] and extended("blue") == []
    assert made.lines[0].startswith("a: expiry: would be extended to 20")


def test_the_ledger_of_another_fleet_is_of_no_concern(books: Path) -> None:
    (books / "lambda-green.jsonl").unlink()
    (books / "lambda-green.jsonl").mkdir()
    made = Expiry({"a": tags(), "unknown": tags(), "lost": {"glm-expires": ledger.stamp(time.time())}})
    assert made._outcome()["extended"] == ["a"]
    said = "expiry: not extended, because no ledger on this controller has id-"
    assert made.lines[1:] == [f"unknown: {said}unknown", f"lost: {said}lost"]
