# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The records of ``catalog/questions.yml``: what ``verify`` asks an endpoint, and what a right answer has in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Tool:
    """A tool that is offered: ``parameters`` is the JSON Schema of its arguments."""

    name: str
    description: str
    parameters: dict[str, Any]


@dataclass(frozen=True)
class Call:
    """A tool call of a right answer: a text must be part of the one that came, anything else equal to it."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Question:
    """One turn. ``tools`` are names of those offered, ``choice`` is how ``tool_choice`` asks for a call.

    ``answer`` is a number that must be the only one in the answer, or words that must be in it; a question has it or
    ``calls``.
    """

    ask: str
    answer: str = ""
    tools: list[str] = field(default_factory=list)
    choice: Literal["auto", "required", "named", "none"] = "auto"
    calls: list[Call] = field(default_factory=list)


@dataclass(frozen=True)
class RoundTrip:
    """A call of ``tool``, its ``result``, an answer that uses it, and a further turn (``again``) that remembers it."""

    ask: str
    tool: str
    arguments: dict[str, Any]
    result: dict[str, Any]
    answer: str
    again: str


@dataclass(frozen=True)
class Needle:
    """A sentence hidden in a long text, and the question about it."""

    hidden: str
    ask: str
    answer: str


@dataclass(frozen=True)
class Sum:
    """A sum as it stands in the question, and its value."""

    sum: str
    answer: str


@dataclass(frozen=True)
class Eval:
    """The mini-eval: ``sum_ask`` is the question about each of ``sums``, which stands in it as ``{sum}``."""

    sum_ask: str
    sums: list[Sum]
    tools: list[Question]


@dataclass(frozen=True)
class Questions:
    """All of it. ``gate``: asked one by one; ``sampling`` and ``preserved``: in the modes that their names say."""

    tools: dict[str, Tool]
    gate: dict[str, Question]
    round_trip: RoundTrip
    needle: Needle
    sampling: Question
    preserved: Question
    eval: Eval
