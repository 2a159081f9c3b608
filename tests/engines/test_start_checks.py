"""The rules of combinations.yml against the engines' own code: the words are there, and what may run refuses.

A rule with ``proof: run`` is broken by a command line that the planner would have made without the rules: the engine's
start-time validation must refuse it at the line that the rule names, and must have nothing against the advised change.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.engine import Combination
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import make as planner
from simulator.engines import parser_loader, start_checks, wheels
from tests.unit.planner import rules

# How far the raise is from the condition that names the values.
NEAR = 25
READ = sorted({(engine, rules.release(rule)) for engine, rule in rules.RULES})
RUN = sorted({(engine, rules.release(rule)) for engine, rule in rules.RULES if rule.proof == "run"})


def place(rule: Combination) -> tuple[str, int]:
    file, line = re.fullmatch(r"(\S+):(\d+) \(\S+\)", rule.source).groups()  # type: ignore[union-attr]
    return file, int(line)


@pytest.mark.parametrize(("engine", "version"), READ)
def test_the_engine_says_so_where_the_rule_says(engine: str, version: str) -> None:
    source = wheels.fetch_source(engine, version)
    wrong = []
    for rule in (rule for name, rule in rules.RULES if (name, rules.release(rule)) == (engine, version)):
        file, line = place(rule)
        text = (source / file).read_text(encoding="utf-8").splitlines()
        if rule.says.strip() not in text[line - 1]:
            wrong.append((rule.id, rule.source, text[line - 1]))
    assert wrong == []


def case(intent: planner.Intent) -> dict[str, Any]:
    """The command line of an intent, whatever the rules say, and what its model and GPU are."""
    command = planner.make(intent, rules.LAX, advise=False)["command"]
    argv = parser_loader.server_arguments(intent.engine or "", command)
    # The file with the key is on the host.
    argv = [word for word in argv if word != "--config" and not word.endswith("/engine.yaml")]
    model = rules.KNOWN.models[intent.model]
    config = {name: value for name, value in dataclasses.asdict(model.config).items() if value}
    sparse = {"index_topk": 2048} if model.config.index_n_heads else {}
    return {
        "argv": argv,
        "architecture": rules.KNOWN.accelerators[intent.accelerator].architecture,
        "model": {**config, **sparse, "architectures": [model.architecture], "model_type": model.model_type},
    }


def refused_here(rule: Combination, answer: dict[str, str]) -> bool:
    file, line = place(rule)
    found, _colon, at = answer["where"].rpartition(":")
    near = found == file and abs(int(at) - line) <= NEAR
    words = re.sub(r"\s+", " ", answer["text"])
    # The line is an f-string of the engine's.
    says = ".*".join(re.escape(part) for part in re.split(r"\{.*?\}", rule.says.strip(" `.")))
    return bool(answer["text"]) and (near or re.search(says, words) is not None)


@pytest.mark.parametrize(("engine", "version"), RUN)
def test_the_engine_refuses_what_the_rule_does_and_takes_the_change(
    parser_python: Path, engine: str, version: str
) -> None:
    chosen = [rule for name, rule in rules.RULES if (name, rules.release(rule)) == (engine, version)]
    source = wheels.fetch_source(engine, version)
    broken, mended = [], []
    chosen = [rule for rule in chosen if rule.proof == "run"]
    for rule in chosen:
        intent = next(itertools.islice(rules.breaking(engine, rule), 1))
        broken.append(case(intent))
        with pytest.raises(planner.PlanError) as refusal:
            planner.make(intent, rules.KNOWN)
        change = {} if rule.next else rules.advised(str(refusal.value))
        kept = {name: value for name, value in intent.engine_args.items() if name not in change}
        name = None if rule.next else intent.served_model_name
        mended.append(case(dataclasses.replace(intent, engine_args={**kept, **change}, served_model_name=name)))
    answers = start_checks.refusals(engine, version, source, [*broken, *mended], parser_python)
    refused, taken = answers[: len(chosen)], answers[len(chosen) :]
    print(f"{engine} {version}: {len(chosen)} rules run")
    wrong = {rule.id: one for rule, one in zip(chosen, refused, strict=True) if not refused_here(rule, one)}
    stopped = {rule.id: one for rule, one in zip(chosen, taken, strict=True) if one["text"]}
    assert (wrong, stopped) == ({}, {})
