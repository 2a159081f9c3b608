# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Scores of the mini-eval, kept on the controller, and whether a new one is worse than they allow.

A score is compared with the best of the same model, precision and engine, whatever the versions: several small losses
do not add up unseen. One that fails is not kept.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from ansible_collections.glm.fleet.plugins.module_utils import files, finding
from ansible_collections.glm.fleet.plugins.module_utils.finding import Finding, Unmet
from ansible_collections.glm.fleet.plugins.plugin_utils import report
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan

# An endpoint with fewer right answers of one kind is broken, whether or not there is a score to compare with.
LEAST_SHARE = 0.5
_ADVICE = (
    "run it once more; if it stays, compare engine version, image and kernel backends with the version that scored "
    "more, or remove that one from the file if the weights changed on purpose"
)


class Score(TypedDict):
    """One version's result: answers ``right`` of those ``asked``."""

    engine_version: str
    image: str | None
    revision: str | None
    questions: str
    """Fingerprint of what was asked; scores of other questions are not compared."""
    asked: int
    right: int
    at: str


def key(plan: Plan) -> str:
    """What scores are kept under."""
    return f"{plan['model']['name']} {plan['model']['precision']} {plan['engine']['name']}"


def made(plan: Plan | None, questions: Mapping[str, Any], counted: Mapping[str, Any]) -> Score:
    """The score of a plan, or of an endpoint about which nothing is known, from what the host counted."""
    return {
        "engine_version": plan["engine"]["version"] if plan else "",
        "image": plan["image"]["reference"] if plan and plan["image"] else None,
        "revision": plan["model"]["revision"] if plan else None,
        "questions": hashlib.sha256(json.dumps(questions["eval"], sort_keys=True).encode()).hexdigest()[:12],
        "asked": counted["asked"],
        "right": counted["right"],
        "at": report.now(),
    }


def judged(score: Score, counted: Mapping[str, Any], kept: Sequence[Score], margin: float) -> Finding:
    """Whether a score is good enough; it may lose a ``margin``, a share of the questions, against the best kept."""
    asked = score["asked"]
    rivals = [one for one in kept if (one["questions"], one["asked"]) == (score["questions"], asked)]
    best = max(rivals, key=lambda one: one["right"], default=None)
    least = max(asked * LEAST_SHARE, best["right"] - asked * margin if best else 0)
    against = f", the {best['right']} of {_version(best)} less {margin:.0%}" if best else ""
    parts = ", ".join(f"{name} {right} of {whole}" for name, (right, whole) in counted["parts"].items())
    found = f"{score['right']} of {asked} right ({parts})"
    if counted["unanswered"]:
        found += f", {counted['unanswered']} without an answer"
    found = "; ".join([found, *counted["wrong"]])
    expected = f"at least {math.ceil(least)} right answers of {asked}{against}, and half of each kind"
    halves = all(right >= whole * LEAST_SHARE for right, whole in counted["parts"].values())
    ok = score["right"] >= least and halves and not counted["unanswered"]
    return finding.judged("verify", "eval", ok, expected, found, _ADVICE, counted["seconds"])


def _version(score: Score) -> str:
    return f"{score['engine_version']} on {score['at'][:10]}"


def settled(path: Path, plan: Plan, score: Score, counted: Mapping[str, Any], margin: float) -> Finding:
    """Compare a score with those in the file at ``path``, and keep it there when it is good enough.

    Raises Unmet when the file cannot be read or written: without it nothing can be compared.
    """
    with _held(path):
        scores = _read(path)
        kept: list[Score] = scores.setdefault(key(plan), [])
        result = judged(score, counted, kept, margin)
        if result["outcome"] == "passed":
            scores[key(plan)] = _with(kept, score)
            files.write_json(path, {"schema": 1, "scores": scores}, 0o644)
    return result


def _with(kept: Sequence[Score], score: Score) -> list[Score]:
    """The scores with a new one; of the same version, weights and questions the better one stays."""
    same = [one for one in kept if _identity(one) == _identity(score)]
    better = max([*same, score], key=lambda one: one["right"])
    return [*(one for one in kept if one not in same), better]


def _identity(score: Score) -> tuple[Any, ...]:
    return tuple(score[name] for name in ("engine_version", "image", "revision", "questions", "asked"))


def _read(path: Path) -> dict[str, list[Score]]:
    if not path.exists():
        return {}
    try:
        found: dict[str, list[Score]] = json.loads(path.read_text(encoding="utf-8"))["scores"]
        for one in (one for kept in found.values() for one in kept):
            _identity(one), one["right"], one["at"]
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise Unmet(
            f"the scores of earlier versions in {path}", f"a file of another form ({exc})", "remove it"
        ) from exc
    return found


@contextlib.contextmanager
def _held(path: Path) -> Iterator[None]:
    """Keep other hosts of the run away from the file meanwhile: each is a process of its own."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with path.with_suffix(".lock").open("a", encoding="utf-8") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)
            yield
    except OSError as exc:
        free = "free space there or set glm_state_dir to a folder that can be written"
        raise Unmet(f"to keep the score in {path}", str(exc.strerror or exc), free) from exc
