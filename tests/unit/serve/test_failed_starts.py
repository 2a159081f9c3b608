"""Whole logs of failed starts of the real engines, and excerpts of published ones: is the cause the cause?

The logs are made by tests/integration/failed_starts; what each must be named stands in failed_starts/expected.yml,
written by a person who read the log. The excerpts stand in failed_starts/excerpts.yml: ``cases`` are published failures
that rules were written for; ``unseen`` were written before it was looked whether a rule fits; ``beside`` look like one
kind and are another.
"""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.glm.fleet.plugins.module_utils.serving import causes
from ansible_collections.glm.fleet.plugins.module_utils.serving.log import Line
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import logs

HERE = Path(__file__).resolve().parent / "failed_starts"
VERSIONS = {"vllm": "0.32.0", "sglang": "0.5.10"}
EXPECTED: dict[str, dict[str, dict[str, str]]] = yaml.safe_load((HERE / "expected.yml").read_text(encoding="utf-8"))
EXCERPTS: dict[str, list[dict[str, Any]]] = yaml.safe_load((HERE / "excerpts.yml").read_text(encoding="utf-8"))
WHOLE = [(engine, name) for engine, entries in EXPECTED.items() for name in entries]
# Shares of the starts that must have the right name; none may have a wrong one.
GOAL = 0.95


def rules_of(engine: str, version: str = "") -> causes.Rules:
    return causes.Rules(logs.rules({"name": engine, "version": version or VERSIONS[engine]}))


def whole_log(engine: str, name: str) -> tuple[dict[str, str], list[Line], list[str]]:
    """systemd's properties, the engine's lines and the kernel's about killed processes."""
    rows = gzip.decompress((HERE / engine / f"{name}.log.gz").read_bytes()).decode().splitlines()
    status = rows.pop().removeprefix("exit status ")
    kernel = [row.removeprefix("kernel: ") for row in rows if row.startswith("kernel: ")]
    lines = [Line(row.rstrip(), True) for row in rows if row.strip() and not row.startswith("kernel: ")]
    return {"ActiveState": "failed", "Result": "exit-code", "ExecMainStatus": status}, lines, kernel


def excerpt(entry: dict[str, Any]) -> tuple[dict[str, str], list[Line], list[str]]:
    """The same of an excerpt; lines of the guard and of systemd are no lines of the engine."""
    lines = [Line(row, not row.startswith("glm: ")) for row in entry["lines"].splitlines() if row.strip()]
    given = {key: str(value) for key, value in entry.get("properties", {}).items()}
    return (
        {"ActiveState": "failed", "Result": "exit-code", "ExecMainStatus": "1", **given},
        lines,
        entry.get("kernel", []),
    )


def name_of(start: tuple[dict[str, str], list[Line], list[str]], rules: causes.Rules) -> causes.Cause:
    properties, lines, kernel = start
    return causes.cause_of(properties, lines, rules, lambda: kernel)


def verdict(found: causes.Cause, wanted: dict[str, Any]) -> str:
    """Unknown is never right, unless nobody can know more."""
    if found.cause.startswith("unknown") and not wanted["cause"].startswith("^unknown"):
        return "unknown"
    right = re.search(wanted["cause"], found.cause) and re.search(wanted.get("next", "."), found.next_step)
    return "rightly" if right else "wrongly"


def score(found: list[tuple[str, causes.Cause, dict[str, str]]], title: str) -> dict[str, list[str]]:
    """Starts by verdict, printed."""
    counts: dict[str, list[str]] = {"rightly": [], "unknown": [], "wrongly": []}
    for name, cause, wanted in found:
        counts[verdict(cause, wanted)].append(name if verdict(cause, wanted) == "rightly" else f"{name}: {cause.cause}")
    print(f"\n{title}: " + ", ".join(f"{len(names)} {word}" for word, names in counts.items()))
    return counts


@pytest.mark.parametrize(("engine", "name"), WHOLE, ids=lambda value: value)
def test_the_cause_of_a_whole_log_is_named_and_shown(engine: str, name: str) -> None:
    properties, lines, kernel = whole_log(engine, name)
    found = name_of((properties, lines, kernel), rules_of(engine))
    wanted = EXPECTED[engine][name]
    assert verdict(found, wanted) == "rightly", found
    shown = causes.around(lines, found)
    assert len(shown) <= 20
    assert any(re.search(wanted["shown"], text) for text in shown), "\n".join(shown)


def test_every_log_is_judged() -> None:
    assert {(path.parent.name, path.name.removesuffix(".log.gz")) for path in HERE.glob("*/*.log.gz")} == set(WHOLE)
    for engine in VERSIONS:
        assert len(EXPECTED[engine]) >= 12


def test_nearly_all_whole_logs_are_named_rightly_and_none_wrongly() -> None:
    found = []
    for engine, name in WHOLE:
        cause = name_of(whole_log(engine, name), rules_of(engine))
        found.append((f"{engine} {name}", cause, EXPECTED[engine][name]))
    counts = score(found, "whole logs")
    assert counts["wrongly"] == [] and len(counts["rightly"]) >= GOAL * len(found), counts


@pytest.mark.parametrize("entry", EXCERPTS["beside"], ids=lambda entry: entry["name"])
def test_what_looks_like_another_kind_is_named_rightly(entry: dict[str, Any]) -> None:
    cause = name_of(excerpt(entry), rules_of(entry["engine"], str(entry.get("version", ""))))
    assert verdict(cause, entry) == "rightly", cause


@pytest.mark.parametrize("kind", ["cases", "unseen", "beside"])
def test_nearly_all_excerpts_are_named_rightly_and_none_wrongly(kind: str) -> None:
    found = []
    for entry in EXCERPTS[kind]:
        cause = name_of(excerpt(entry), rules_of(entry["engine"], str(entry.get("version", ""))))
        found.append((entry["name"], cause, entry))
    counts = score(found, f"excerpts, {kind}")
    assert counts["wrongly"] == [] and len(counts["rightly"]) >= GOAL * len(found), counts


@pytest.mark.parametrize(("engine", "name"), WHOLE, ids=lambda value: value)
def test_a_log_that_lacks_the_lines_with_its_cause_gets_no_wrong_name(engine: str, name: str) -> None:
    """What is left is a wrapper's, nobody's, or what somebody else says who saw the same failure."""
    properties, lines, kernel = whole_log(engine, name)
    rules = rules_of(engine)
    while True:
        found = name_of((properties, lines, kernel), rules)
        if verdict(found, EXPECTED[engine][name]) != "rightly" or (found.line < 0 and not kernel):
            break
        kernel = []  # the first time: what the kernel knew goes with the line that showed it
        lines = [line for number, line in enumerate(lines) if number != found.line]
    assert found.cause.startswith("unknown") or "killed" in found.cause, found
