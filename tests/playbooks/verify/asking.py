"""The gate as tests of it make it: the catalogue's questions for GLM-5.1, to the fake endpoint."""

from __future__ import annotations

import dataclasses
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils.serving.client import Endpoint
from ansible_collections.glm.fleet.plugins.module_utils.serving.gate import Gate, made
from ansible_collections.glm.fleet.plugins.module_utils.serving.talk import Asked
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from tests.patience import PATIENCE_SECONDS
from tests.playbooks.verify.fake.fault import LONG_TOKENS
from tests.playbooks.verify.fake.server import KEY, MODEL, Behaviour, engine

CATALOGUE = catalog.load()
GLM = CATALOGUE.models["GLM-5.1"]
QUESTIONS = dataclasses.asdict(CATALOGUE.questions)
SAMPLING = {
    name: {key: value for key, value in dataclasses.asdict(one).items() if value is not None}
    for name, one in GLM.sampling.items()
}
_OF_ENDPOINT = {field.name for field in dataclasses.fields(Endpoint)}


def asked_of(behaviour: Behaviour, port: int, **options: Any) -> Asked:
    """What the gate asks of a server; ``options`` replace fields of Endpoint and of Asked."""
    dialect = behaviour.dialect
    of_endpoint = {
        "reasoning_field": dialect.reasoning_field,
        "thinking_on": GLM.thinking.on,
        "thinking_off": None if dialect.manner.always_thinks else GLM.thinking.off,
        "timeout": PATIENCE_SECONDS,
        "api_key": KEY,
        **{name: value for name, value in options.items() if name in _OF_ENDPOINT},
    }
    asked = Asked(
        Endpoint("127.0.0.1", port, MODEL, **of_endpoint),
        QUESTIONS,
        context=behaviour.context,
        needle_tokens=LONG_TOKENS * 4 // 3,
        sampling=SAMPLING,
        thinking_preserved=GLM.thinking.preserved,
        prefix_cache=True,
        metrics=CATALOGUE.engines[dialect.engine].metric_rules("0.32.0" if dialect.engine == "vllm" else "0.5.10"),
    )
    return dataclasses.replace(asked, **{name: value for name, value in options.items() if name not in _OF_ENDPOINT})


def gate(behaviour: Behaviour | None = None, **options: Any) -> dict[str, dict[str, Any]]:
    """The findings of the gate by their names, in order."""
    with engine(behaviour) as (chosen, port):
        return {one["check"]: dict(one) for one in made(Gate(asked_of(chosen, port, **options)))}


def failed(findings: dict[str, dict[str, Any]]) -> dict[str, str]:
    """What was found by those checks that failed."""
    return {name: one["found"] for name, one in findings.items() if one["outcome"] == "failed"}
