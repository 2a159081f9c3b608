# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The mini-eval: sums and tool calls in parallel, counted. What the count means is decided on the controller.

This module util is PRIVATE to the collection. Standard library, Python 3.9 or newer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Optional

from ansible_collections.glm.fleet.plugins.module_utils.serving.client import CheckError, NoAnswer, NotAsked
from ansible_collections.glm.fleet.plugins.module_utils.serving.talk import AT_ONCE, Asked, Talk

# How many of the wrong answers are shown.
SHOWN = 3


def questions(asked: Asked) -> list[dict[str, Any]]:
    """All questions of the mini-eval; those with tools only where the endpoint has tool calls."""
    known = asked.questions["eval"]
    tools = known["tools"] if asked.endpoint.tool_call else []
    return [*sums(known), *tools]


def sums(known: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The sums as questions."""
    return [
        {"ask": known["sum_ask"].format(sum=one["sum"]), "answer": one["answer"], "tools": [], "calls": []}
        for one in known["sums"]
    ]


class Problem(NamedTuple):
    """What is wrong with an answer, empty when nothing is. ``unanswered``: there was none; ``late``: not in time."""

    found: str
    unanswered: bool = False
    late: bool = False


def score(asked: Asked, context: Optional[int]) -> dict[str, Any]:
    """How many were ``asked``, how many answers were ``right``, and the first few ``wrong`` in words.

    ``parts``: right and asked, of sums and of tool calls. ``unanswered`` are those without any answer. ``context`` is
    what the endpoint says it serves, in tokens.
    """
    begun = time.monotonic()
    talk = Talk(asked.endpoint, asked.questions["tools"])
    talk.context = context
    known = questions(asked)
    late = threading.Event()

    def answered(question: Mapping[str, Any]) -> Problem:
        # Each further one would take its whole timeout.
        if late.is_set():
            return Problem("not asked, another one had no answer", unanswered=True)
        found = problem(talk, question)
        if found.late:
            late.set()
        return found

    with ThreadPoolExecutor(AT_ONCE) as pool:
        problems = list(pool.map(answered, known))
    wrong = [f"{question['ask']!r}: {one.found}" for question, one in zip(known, problems) if one.found]
    first = sorted(wrong, key=lambda text: "not asked" in text)
    return {
        "asked": len(known),
        "right": len(known) - len(wrong),
        "parts": {name: _part(problems, known, bool(name == "tool calls")) for name in ("sums", "tool calls")},
        "seconds": round(time.monotonic() - begun, 2),
        "unanswered": sum(one.unanswered for one in problems),
        "wrong": first[:SHOWN],
    }


def _part(problems: Sequence[Problem], known: Sequence[Mapping[str, Any]], calls: bool) -> list[int]:
    """Right and asked."""
    found = [not one.found for one, question in zip(problems, known) if bool(question["calls"]) is calls]
    return [sum(found), len(found)]


def problem(talk: Talk, question: Mapping[str, Any], stream: bool = False) -> Problem:
    """What is wrong with the answer to a question."""
    try:
        talk.judge(talk.ask(question, stream=stream), question)
    except (CheckError, NotAsked) as exc:
        return Problem(exc.args[0], unanswered=exc.args[0].startswith("HTTP "))
    except NoAnswer as exc:
        return Problem(str(exc), unanswered=True, late=exc.late)
    return Problem("")
