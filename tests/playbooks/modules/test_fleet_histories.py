"""Random histories of a fleet, over HTTP: launches, scaling and ending, while requests fail and others come and go.

Whatever happens, nothing ends that nobody confirmed, nothing of ours goes on without being named, and there is never
more than was wanted. ``make histories`` runs 200; the seed of a history is its name.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.cloud import ledger
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import api as lambda_api
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import ending, launching, members, present
from simulator.lambda_cloud import instances
from simulator.lambda_cloud.server import Handle
from simulator.lambda_cloud.types import InstanceRecord
from tests.playbooks.modules.test_lambda_instance_events import FATES, TAGS, Clock, cloud_with, run

pytestmark = pytest.mark.one_core

SEEDS = int(os.environ.get("GLM_HISTORIES", "12"))
PROTECTED = {**TAGS, "glm-protect": "yes"}
TROUBLE: tuple[tuple[str, dict[str, Any]], ...] = (
    ("rate-limited", {"path": "terminate$", "retry_after": "1"}),
    ("rate-limited", {"path": "terminate$"}),
    ("unavailable", {"path": "terminate$"}),
    ("reset", {"path": "terminate$"}),
    ("answer-lost", {"path": "terminate$"}),
    ("truncated", {"path": "terminate$"}),
    ("late-error", {"path": "terminate$"}),
    ("error", {"path": "terminate$", "code": "global/object-does-not-exist"}),
    ("error", {"path": "terminate$", "code": "global/conflict"}),
    ("error", {"path": "terminate$", "code": "global/account-inactive"}),
    ("capacity-lost", {"path": "launch$"}),
    ("rate-limited", {"path": "launch$", "retry_after": "0"}),
    ("answer-lost", {"path": "launch$"}),
    ("truncated", {"path": "launch$"}),
    ("late-error", {"path": "launch$"}),
    ("error", {"path": "launch$"}),
    ("error", {"path": "launch$", "code": "global/quota-exceeded"}),
    ("reset", {"path": "launch$"}),
    ("unavailable", {"path": "/instances$"}),
    ("html", {"path": "/instances$"}),
    ("unavailable", {"path": "file-systems$"}),
)


@pytest.fixture(autouse=True)
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setenv("HOME", str(tmp_path))
    made = Clock()
    for module in (ending, launching, members, present):
        monkeypatch.setattr(module, "time", made)
    return made


@dataclass
class History:
    """One account, what is wanted of it, and what was done."""

    cloud: Handle
    random: random.Random
    log: list[str] = field(default_factory=list)
    strangers: set[str] = field(default_factory=set)

    def records(self) -> dict[str, InstanceRecord]:
        with self.cloud.world.lock:
            return dict(self.cloud.world.state.instances)

    def alive(self) -> dict[str, InstanceRecord]:
        return {key: record for key, record in self.records().items() if record.status in lambda_api.ALIVE}

    def fleet(self) -> dict[str, InstanceRecord]:
        """What is of this fleet: by its tags, or because it was launched here."""
        launched = self.changed("launched", 0)
        return {
            key: record
            for key, record in self.alive().items()
            if {"key": "glm-fleet", "value": "default"} in record.tags or key in launched
        }

    def events(self) -> int:
        return len(self.cloud.world.state.audit_events)

    def changed(self, action: str, since: int) -> set[str]:
        """The ids that requests to the API launched or terminated since then."""
        found = [event for event in self.cloud.world.state.audit_events[since:] if event["action"] == action]
        return {lrn for event in found for lrn in ids_of(event)}

    # What is done, and checked.

    def act(self, allowed: set[str], wanted: int | None, **options: Any) -> dict[str, Any]:
        """Run the module; nothing but ``allowed`` and its own launches may end."""
        since, before = self.events(), len(self.fleet())
        result = run(self.cloud, **options)
        self.log.append(f"  {options} -> {'failed: ' + result['msg'] if result['failed'] else 'ok'}")
        self.check_ended(since, allowed)
        self.check_named([result])
        if wanted is not None:
            assert len(self.fleet()) <= max(wanted, before)
        return result

    def check_ended(self, since: int, allowed: set[str]) -> None:
        ended = self.changed("terminated", since)
        assert ended <= allowed | self.changed("launched", since), f"ended without a word: {ended - allowed}"
        assert set(self.alive()) >= self.strangers, "strangers ended"

    def check_named(self, results: list[dict[str, Any]]) -> None:
        """All that goes on of what was launched here is named by one of the results."""
        said = " ".join(
            " ".join([
                result.get("msg", ""), *(item["name"] for item in result["instances"]),
                *result.get("running", []), *result.get("launched", []), *result.get("unsettled", []),
            ])
            for result in results
        )  # fmt: skip
        ours = {key: record for key, record in self.fleet().items() if key in self.changed("launched", 0)}
        if "could not be listed; look at" in said and not any(result.get("launched") for result in results):
            return
        assert [record.name for record in ours.values() if str(record.name) not in said] == [], said

    def question(self, **options: Any) -> dict[str, Any]:
        since = self.events()
        result = run(self.cloud, True, **options)
        assert self.events() == since, "a question changed something"
        return result

    def disturb(self) -> None:
        """What others do between a question and its answer, or at any time."""
        kind = self.random.choice(["nothing"] * 5 + ["join", "leave", "stranger"])
        self.log.append(f"  meanwhile: {kind}")
        if kind == "join":
            self.cloud.seed(name=f"joined-{self.random.randrange(99)}", tags=TAGS)
        elif kind == "leave" and self.fleet():
            instances.adjust(self.cloud.world, self.random.choice(sorted(self.fleet())), {"status": "terminated"})
        elif kind == "stranger":
            self.strangers.update(self.cloud.seed(name="theirs", tags={"glm-fleet": "theirs"}))

    def trouble(self) -> None:
        for kind, values in self.random.sample(TROUBLE, self.random.choice([0, 1, 1, 2, 3])):
            more = {"times": self.random.choice([1, 1, 2]), "after": self.random.choice([0, 0, 1])}
            self.log.append(f"  trouble: {kind} {values} {more}")
            self.cloud.fault(kind, **values, **more)

    # The verbs.

    def launch(self) -> None:
        count = self.random.randint(0, 4)
        self.act(set(), count, count=count, replacements=self.random.choice([0, 0, 2]))

    def replace(self) -> None:
        there = sorted(key for key in self.fleet() if not self.protected(key))
        victims = self.random.sample(there, min(len(there), 1))
        count = len(self.fleet())
        given = [{"id": key, "reason": "by hand", "evidence": None} for key in victims]
        self.act(set(victims), count, count=count, replace=given)

    def scale(self) -> None:
        count = self.random.randint(0, 3)
        options = {"count": count, "surplus": "terminate"}
        asked = self.question(**options)
        if asked["failed"]:
            return
        shown = {item["id"] for item in asked["ending"]}
        assert not any(map(self.protected, shown)) and len(shown) <= max(0, len(self.fleet()) - count)
        self.disturb()
        self.act(shown, count, **options, confirmed=sorted(shown))

    def terminate(self) -> None:
        options = self.random.choice([{}, {}, self.some(), {"only": ["glm-default-77"]}, {"only": []}])
        asked = self.question(state="absent", **options)
        if options.get("only") in ([], ["glm-default-77"]):
            assert asked["failed"] and self.act(set(), None, state="absent", **options)["failed"]
        if asked["failed"]:
            return
        shown = {item["id"] for item in asked["instances"]}
        assert not any(map(self.protected, shown))
        self.disturb()
        changed = self.meant(options) != shown
        result = self.act(shown, None, state="absent", **options, confirmed=sorted(shown))
        if changed:
            assert result["failed"]
        elif not result["failed"]:
            assert not shown & set(self.alive())

    def race(self) -> None:
        """A launch and the end of the whole fleet at the same time."""
        asked = self.question(state="absent")
        count = self.random.randint(1, 4)
        if asked["failed"]:
            return
        shown = {item["id"] for item in asked["instances"]}
        since, before = self.events(), len(self.fleet())
        results: list[dict[str, Any]] = []
        orders: list[dict[str, Any]] = [{"count": count}, {"state": "absent", "confirmed": sorted(shown)}]
        self.random.shuffle(orders)
        runs = [threading.Thread(target=lambda more=more: results.append(run(self.cloud, **more))) for more in orders]
        for started in runs:
            started.start()
        for started in runs:
            started.join()
        self.log.append(f"  {orders} -> {[result.get('msg', 'ok') for result in results]}")
        assert len(results) == 2
        self.check_ended(since, shown)
        assert len(self.fleet()) <= max(count, before)
        if all(result["failed"] for result in results):
            self.check_named(results)

    def some(self) -> dict[str, Any]:
        there = sorted(self.fleet().items())
        chosen = self.random.sample(there, min(len(there), self.random.randint(1, 2)))
        return {"only": [key if self.random.random() < 0.5 else str(record.name) for key, record in chosen]}

    def meant(self, options: dict[str, Any]) -> set[str]:
        """What the words of an end mean now. A launch that was never answered and has no tag is nobody's by proof."""
        only = options.get("only")
        ours = {life.id for life in ledger.open_of(ledger.Ledger("lambda", "default").read()) if life.ours}
        return {
            key
            for key, record in self.fleet().items()
            if not self.protected(key)
            and (record.tags or key in ours)
            and (only is None or {key, record.name} & set(only))
        }

    def protected(self, key: str) -> bool:
        record = self.records().get(key)
        return record is not None and any(tag["key"] == "glm-protect" for tag in record.tags)


def ids_of(event: dict[str, Any]) -> list[str]:
    return [str(lrn).rpartition(":")[2] for lrn in event["resource_lrns"]]


VERBS: tuple[Callable[[History], None], ...] = (
    History.launch, History.launch, History.scale, History.terminate, History.terminate, History.replace, History.race,
)  # fmt: skip


@pytest.mark.parametrize("seed", range(SEEDS))
def test_nothing_ends_unconfirmed_and_nothing_goes_on_unnamed(seed: int) -> None:
    chosen = random.Random(seed)
    with cloud_with(*chosen.choices(FATES, weights=(8, 1, 1, 1, 1), k=12)) as cloud:
        history = History(cloud, chosen)
        history.strangers.update(cloud.seed(name="untagged", count=2))
        if chosen.random() < 0.3:
            cloud.seed(name="precious", tags=PROTECTED)
        try:
            for _step in range(chosen.randint(3, 7)):
                if chosen.random() < 0.1:
                    cloud.settings(drop_tags=not cloud.world.settings.drop_tags)
                history.trouble()
                verb = chosen.choice(VERBS)
                history.log.append(verb.__name__)
                verb(history)
                history.disturb()
            cloud.control("DELETE", "/faults")
            history.log.append("the end")
            shown = {item["id"] for item in history.question(state="absent")["instances"]}
            last = history.act(shown, None, state="absent", confirmed=sorted(shown))
            assert not last["failed"]
            # Without an answer and without a tag nothing proves whose it is: such a one is named, and stays.
            left = {record.name for key, record in history.fleet().items() if not history.protected(key)}
            assert not history.meant({}) and left <= set(last["unsettled"])
        except AssertionError as error:
            raise AssertionError("\n".join([f"seed {seed}: {error}", *history.log])) from error
