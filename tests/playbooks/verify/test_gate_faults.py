"""The gate against an endpoint with each fault of the list, and against healthy ones in every dialect."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.serving import evaluate, own_words
from ansible_collections.glm.fleet.plugins.module_utils.serving.gate import Gate, made
from ansible_collections.glm.fleet.plugins.module_utils.serving.talk import GROUPS
from tests.patience import PATIENCE_SECONDS
from tests.playbooks.verify.asking import QUESTIONS, asked_of, failed, gate
from tests.playbooks.verify.fake.call_faults import CALLS_UNDER_LOAD
from tests.playbooks.verify.fake.dialects import DIALECTS, SGLANG, VLLM
from tests.playbooks.verify.fake.fault import Fault
from tests.playbooks.verify.fake.faults import FAULTS
from tests.playbooks.verify.fake.server import Behaviour, engine
from tests.playbooks.verify.fake.state import State
from tests.playbooks.verify.fake.wire import Dialect

pytestmark = pytest.mark.one_core
# What the gate asks at once waits in the server until all of it is there.
TOGETHER = frozenset(QUESTIONS["eval"]["sum_ask"].format(sum=one["sum"]) for one in QUESTIONS["eval"]["sums"][:8])
IMPATIENCE = 1.0


def examined(
    dialect: Dialect, fault: Fault | None = None, groups: tuple[str, ...] = GROUPS
) -> dict[str, dict[str, Any]]:
    """The findings of the gate by their names, with what the engine says of itself in its metrics."""
    behaviour = Behaviour(dialect, (fault,) if fault else (), State(together=TOGETHER))
    timeout = IMPATIENCE if fault and fault.hangs else PATIENCE_SECONDS
    with engine(behaviour) as (_behaviour, port):
        made_of = Gate(asked_of(behaviour, port, timeout=timeout, groups=groups))
        before = made_of.talk.metrics()
        findings = made(made_of)
        promised = own_words.Promised(
            10_000, 16_384, 3, 2.0, {"memory": "", "speculation": ""}, [], [], made_of.asked.metrics
        )
        said = own_words.Said([], before, made_of.talk.metrics())
        return {one["check"]: dict(one) for one in [*findings, *own_words.judge(promised, said).findings]}


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda one: one.name.replace(" ", "-"))
def test_a_healthy_endpoint_passes_in_every_dialect(dialect: Dialect) -> None:
    findings = examined(dialect)
    assert failed(findings) == {}
    passed = {name for name, one in findings.items() if one["outcome"] == "passed"}
    # Without a journal nothing is known of the log.
    unproven = {"engine_log"} if dialect.card else {"engine_log", "context"}
    unproven |= set() if dialect.usage else {"thinking_preserved"}
    assert set(findings) - passed == unproven


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_fault_has_its_own_name(fault: Fault) -> None:
    # Half of the faults are shown by each engine.
    half = (VLLM, SGLANG)[FAULTS.index(fault) % 2]
    dialect = {"vllm": VLLM, "sglang": SGLANG}.get(fault.engine, half)
    dialect = dataclasses.replace(dialect, manner=fault.manner or dialect.manner)
    # One fault in each scope is shown to the whole gate, the others to the checks that show it best.
    groups = fault.scope.groups if fault.name != "one token" else ()
    found = failed(examined(dialect, fault, ("contract", *groups) if groups else GROUPS))
    assert fault.shows
    missed = {check: (name, found.get(check)) for check, name in fault.shows}
    assert {check: pair for check, pair in missed.items() if not (pair[1] or "\0").startswith(pair[0])} == {}
    assert [check for check in found if not fault.may_fail(check)] == []


@pytest.mark.parametrize("dialect", [VLLM, SGLANG], ids=["vllm", "sglang"])
def test_a_healthy_endpoint_has_a_full_score(dialect: Dialect) -> None:
    behaviour = Behaviour(dialect)
    with engine(behaviour) as (_behaviour, port):
        counted = evaluate.score(asked_of(behaviour, port), behaviour.context)
    assert (counted["asked"], counted["right"], counted["wrong"]) == (80, 80, [])


@pytest.mark.parametrize("fault", CALLS_UNDER_LOAD, ids=str)
def test_calls_that_break_under_load_are_seen_without_the_mini_eval(fault: Fault) -> None:
    first = frozenset(one["ask"] for one in QUESTIONS["eval"]["tools"][:8])
    found = failed(gate(Behaviour(VLLM, (fault,), State(together=first)), groups=("parallel",)))
    assert list(found) == ["parallel_calls"]
    assert found["parallel_calls"].startswith("8 of 8 wrong at once, 8 of these right alone: ")


@pytest.mark.parametrize("fault", CALLS_UNDER_LOAD, ids=str)
def test_calls_that_break_under_load_cost_more_of_the_score_than_is_allowed(fault: Fault) -> None:
    # The first eight questions with tools are there at once.
    first = frozenset(one["ask"] for one in QUESTIONS["eval"]["tools"][:8])
    behaviour = Behaviour(VLLM, (fault,), State(together=first))
    with engine(behaviour) as (_behaviour, port):
        counted = evaluate.score(asked_of(behaviour, port), behaviour.context)
    (name,) = {name for _check, name in fault.shows}
    assert counted["right"] <= 80 - 8 and all(
        any(map(text.split(": ", 1)[1].startswith, name)) for text in counted["wrong"]
    )
