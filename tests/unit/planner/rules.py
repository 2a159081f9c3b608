"""Intents that break the rules of the catalogue, made from the rules themselves."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
from collections.abc import Iterator
from typing import Any

import yaml

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.combinations import FACTS
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.engine import Combination
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import combinations, conditions, flags
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import make as planner

KNOWN = catalog.load()
# The same without the rules: what would have been started.
LAX = dataclasses.replace(
    KNOWN, engines={name: dataclasses.replace(engine, combinations=[]) for name, engine in KNOWN.engines.items()}
)
RULES = [(engine, rule) for engine in KNOWN.engines for rule in KNOWN.engines[engine].combinations]
# What an operand that is no number of the catalogue is set to.
NUMBER = 64


def release(rule: Combination) -> str:
    """The release that the rule was read in."""
    return rule.source.rpartition("(")[2].rstrip(")")


def table(engine: str, version: str) -> flags.Table:
    return flags.load(engine, version, KNOWN.root / "engines")


@functools.cache
def cells(engine: str, version: str) -> list[planner.Intent]:
    """One intent for each model, form of weights and kind of GPU that plan on this release, most usual first."""
    found = []
    for model, accelerator in itertools.product(KNOWN.models.values(), KNOWN.accelerators):
        for precision in model.precisions:
            for nodes in (1, 2):
                intent = planner.Intent(
                    model.name, accelerator, KNOWN.accelerators[accelerator].per_host, precision=precision,
                    engine=engine, engine_version=version, repository="acme/own", nodes=nodes,
                    head_address="10.0.0.1" if nodes > 1 else None,
                )  # fmt: skip
                if model.name in {"GLM-5.1", "GLM-4.7", "GLM-4.7-Flash", "GLM-5.2"}:
                    found.append(intent)
    # Some releases have no published image.
    return [one for intent in found for one in (intent, dataclasses.replace(intent, runtime="venv")) if plans(one)]


def plans(intent: planner.Intent) -> bool:
    try:
        planner.make(intent, LAX, advise=False)
    except planner.PlanError:
        return False
    return True


def breaking(engine: str, rule: Combination) -> Iterator[planner.Intent]:
    """Intents that start but for this rule, as far as the rules know; then those that break others as well."""
    version = release(rule)
    options = table(engine, version)
    others: list[planner.Intent] = []
    for index, cell in enumerate(cell for cell in cells(engine, version) if _meets(cell, rule)):
        if others and index > 5:
            break
        for args in _arguments(engine, options, rule, cell):
            name = "glm:5" if "plan.served_name" in rule.when else None
            intent = dataclasses.replace(cell, engine_args=args, served_model_name=name)
            found = broken(intent)
            if found == [rule.id]:
                yield intent
            elif rule.id in found:
                others.append(intent)
    yield from others


def _meets(cell: planner.Intent, rule: Combination) -> bool:
    facts = _facts(cell)
    return all(conditions.holds(facts[name], wanted) for name, wanted in rule.when.items() if name in facts)


def _facts(cell: planner.Intent) -> dict[str, Any]:
    model, accelerator = KNOWN.models[cell.model], KNOWN.accelerators[cell.accelerator]
    checkpoint = model.precisions[cell.precision]
    return {
        "model.sparse": model.config.index_n_heads > 0,
        "model.latent": model.config.is_mla,
        "gpu.vendor": accelerator.vendor,
        "gpu.architecture": accelerator.architecture,
        "weights.format": checkpoint.weights,
        "weights.block": checkpoint.block,
        "weights.mtp": checkpoint.mtp,
        "parallel.nodes": cell.nodes,
        "plan.runtime": cell.runtime,
    }


def broken(intent: planner.Intent) -> list[str]:
    """The rules that a plan would break; none where it is refused for another reason."""
    found: list[str] = []
    refuse = combinations.refuse

    def record(choice: Any, rules: Any) -> Any:
        found.extend(one.rule.id for one in rules)
        return refuse(choice, rules)

    combinations.refuse = record  # type: ignore[assignment]
    try:
        planner.make(intent, KNOWN, advise=False)
    except planner.PlanError:
        return found
    finally:
        combinations.refuse = refuse
    return []


def _arguments(engine: str, options: flags.Table, rule: Combination, cell: planner.Intent) -> Iterator[dict[str, Any]]:
    names = [name for name in rule.when if name.partition(".")[0] not in FACTS]
    values = [list(_values(engine, options, name, rule.when[name])) for name in names]
    operands = {
        value[1:]: NUMBER
        for wanted in rule.when.values()
        if isinstance(wanted, dict)
        for value in wanted.values()
        if isinstance(value, str) and value.startswith("$") and value[1:].partition(".")[0] not in FACTS
    }
    divided: list[dict[str, Any]] = [{}]
    if {"pipeline-parallel-size", "pp-size", "dp-size"} & set(names):
        divided += [{"tensor-parallel-size" if engine == "vllm" else "tp-size": size} for size in (4, 8)]
    if any(name.startswith("parallel.") for name in rule.when):
        divided += _divisions(engine, options)
    if engine == "vllm" and {"enable-eplb", "enable-elastic-ep"} & set(names):
        divided += [{**one, "enable-expert-parallel": True, "enable-eplb": True} for one in divided]
    for picked, division in itertools.product(itertools.product(*values), divided):
        args = {**operands, **division, **dict(zip(names, picked, strict=True))}
        yield {_spelled(engine, options, name): value for name, value in args.items() if _has(engine, options, name)}


def _divisions(engine: str, options: flags.Table) -> Iterator[dict[str, Any]]:
    if engine == "vllm":
        yield {"tensor-parallel-size": 1, "data-parallel-size": None, "enable-expert-parallel": None}
        return
    yield {"ep-size": 8}
    if "--attn-dp-size" in options.options:
        yield {"attn-dp-size": 8}
    yield {"dp-size": 8, "enable-dp-attention": True}


def _spelled(engine: str, options: flags.Table, name: str) -> str:
    head, dot, rest = flags.spelled(name).partition(".")
    if head not in options.options:
        head = KNOWN.engines[engine].renames.get(head, head)
    return head.removeprefix("--") + dot + rest


def _has(engine: str, options: flags.Table, name: str) -> bool:
    return "--" + _spelled(engine, options, name).partition(".")[0] in options.options


def _values(engine: str, options: flags.Table, name: str, wanted: Any) -> Iterator[Any]:
    """Values that are as wanted, as far as one can say without the others."""
    option = options.options.get("--" + _spelled(engine, options, name).partition(".")[0])
    choices = list(option.choices or ()) if option and "." not in name else []
    if isinstance(wanted, list):
        yield from (value for value in wanted if value is not None and (not choices or str(value) in choices))
        if None in wanted:
            yield None
    elif not isinstance(wanted, dict):
        some = "NixlConnector" if "connector" in name else 1
        yield (choices or [some])[0] if wanted == conditions.ANY else wanted
    elif "above" in wanted:
        operand = wanted["above"]
        yield from (NUMBER + 65 if isinstance(operand, str) else 65537 if operand == 4096 else operand + 1,)
    elif "below" in wanted:
        yield wanted["below"] - 1 if not isinstance(wanted["below"], str) else NUMBER // 2
    elif "like" in wanted:
        yield "/data/file" if wanted["like"] == "/*" else "acme/draft"
    else:
        unwanted = wanted["not"] if isinstance(wanted["not"], list) else [wanted["not"]]
        if None not in unwanted:
            yield None
        yield from ([value for value in choices if value not in unwanted] or ["NGRAM" if "algorithm" in name else 2])


def advised(text: str) -> dict[str, Any]:
    """The glm_engine_args that a refusal advises."""
    found = re.search(r"Next: set (.+) in glm_engine_args", text)
    assert found, text
    pairs = [part.split(" to ", 1) for part in re.split(r", | and ", found[1])]
    return {name: yaml.safe_load(value) for name, value in pairs}
