"""The gate against an endpoint with each fault of the list, and against healthy ones in every dialect."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.serving.client import Endpoint
from ansible_collections.glm.fleet.plugins.module_utils.serving.gate import run_gate
from ansible_collections.glm.fleet.plugins.module_utils.serving.talk import Asked
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from tests.playbooks.verify.fake.dialects import DIALECTS, SGLANG, VLLM
from tests.playbooks.verify.fake.fault import LONG_TOKENS, Fault
from tests.playbooks.verify.fake.faults import FAULTS
from tests.playbooks.verify.fake.server import KEY, MODEL, Behaviour, engine
from tests.playbooks.verify.fake.state import State
from tests.playbooks.verify.fake.wire import Dialect

CATALOGUE = catalog.load()
GLM = CATALOGUE.models["GLM-5.1"]
QUESTIONS = dataclasses.asdict(CATALOGUE.questions)
SAMPLING = {
    name: {key: value for key, value in dataclasses.asdict(one).items() if value is not None}
    for name, one in GLM.sampling.items()
}
# What the gate asks at once waits in the server until all of it is there.
TOGETHER = frozenset(QUESTIONS["eval"]["sum_ask"].format(sum=one["sum"]) for one in QUESTIONS["eval"]["sums"][:8])
PATIENCE, IMPATIENCE = 60.0, 1.0


def gate(dialect: Dialect, faults: Sequence[Fault] = (), timeout: float = PATIENCE) -> dict[str, dict[str, Any]]:
    """The findings of the gate by their names."""
    behaviour = Behaviour(dialect, tuple(faults), State(together=TOGETHER))
    with engine(behaviour) as (_behaviour, port):
        endpoint = Endpoint(
            "127.0.0.1", port, MODEL, KEY, dialect.reasoning_field, thinking_on=GLM.thinking.on,
            thinking_off=None if dialect.manner.always_thinks else GLM.thinking.off, timeout=timeout,
        )  # fmt: skip
        asked = Asked(
            endpoint, QUESTIONS, context=behaviour.context, needle_tokens=LONG_TOKENS * 4 // 3, sampling=SAMPLING,
            thinking_preserved=GLM.thinking.preserved, prefix_cache=True,
            metrics=CATALOGUE.engines[dialect.engine].metric_rules("0.32.0" if dialect.engine == "vllm" else "0.5.10"),
        )  # fmt: skip
        return {one["check"]: dict(one) for one in run_gate(asked)}


def failed(findings: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: one["found"] for name, one in findings.items() if one["outcome"] == "failed"}


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name.replace(" ", "-"))
def test_a_healthy_endpoint_passes_in_every_dialect(dialect: Dialect) -> None:
    findings = gate(dialect)
    assert failed(findings) == {}
    passed = {name for name, one in findings.items() if one["outcome"] == "passed"}
    unproven = set() if dialect.card else {"context"}
    unproven |= set() if dialect.usage else {"thinking_preserved"}
    assert set(findings) - passed == unproven


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_fault_has_its_own_name(fault: Fault) -> None:
    # Half of the faults are shown by each engine.
    dialect = (VLLM, SGLANG)[FAULTS.index(fault) % 2]
    dialect = dataclasses.replace(dialect, manner=fault.manner or dialect.manner)
    found = failed(gate(dialect, [fault], IMPATIENCE if fault.hangs else PATIENCE))
    missed = {
        check: (name, found.get(check)) for check, name in fault.shows if not found.get(check, "-").startswith(name)
    }
    assert missed == {}
    assert [check for check in found if not fault.may_fail(check)] == []
