# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The mini-eval: sums and tool calls in parallel, counted. What the count means is decided on the controller.

This module util is PRIVATE to the collection. Standard library, Python 3.9 or newer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Optional

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


def score(asked: Asked, context: Optional[int]) -> dict[str, Any]:
    """How many were ``asked``, how many answers were ``right``, and the first few ``wrong`` in words.

    ``unanswered`` are those without any answer. ``context`` is what the endpoint says it serves, in tokens.
    """
    begun = time.monotonic()
    talk = Talk(asked.endpoint, asked.questions["tools"])
    talk.context = context
    known = questions(asked)
    late = threading.Event()

    def answered(question: Mapping[str, Any]) -> tuple[str, bool]:
        # Each further one would take its whole timeout.
        if late.is_set():
            return "not asked, another one had no answer", True
        found, unanswered = problem(talk, question)
        if unanswered:
            late.set()
        return found, unanswered

    with ThreadPoolExecutor(AT_ONCE) as pool:
        problems = list(pool.map(answered, known))
    wrong = [f"{question['ask']!r}: {found}" for question, (found, _late) in zip(known, problems) if found]
    return {
        "asked": len(known),
        "right": len(known) - len(wrong),
        "seconds": round(time.monotonic() - begun, 2),
        "unanswered": sum(unanswered for _found, unanswered in problems),
        "wrong": wrong[:SHOWN],
    }


def problem(talk: Talk, question: Mapping[str, Any], stream: bool = False) -> tuple[str, bool]:
    """What is wrong with the answer to a question, empty when nothing is, and whether there was none at all."""
    try:
        talk.judge(talk.ask(question, stream=stream), question)
    except (CheckError, NotAsked) as exc:
        return exc.args[0], False
    except NoAnswer as exc:
        return str(exc), True
    return "", False
