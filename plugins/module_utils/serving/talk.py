# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How questions are put to an endpoint: which are asked, in which mode, with which tools and how much room to answer.

This module util is PRIVATE to the collection. Standard library, Python 3.9 or newer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils.arguments import GATE
from ansible_collections.glm.fleet.plugins.module_utils.serving import judge
from ansible_collections.glm.fleet.plugins.module_utils.serving.client import Endpoint, Turn, chat, glance

# What is asked over HTTP.
GROUPS = tuple(name for name in GATE if name != "engine")
# Room for the prompt and the tools in a context that is shorter than max_tokens; SGLang refuses a sum that exceeds it.
# A tokenizer without merges needs 1,100 tokens for the longest of them.
PROMPT_TOKENS = 1536
# Questions that are asked at once, where several are.
AT_ONCE = 8
# Of a short answer without reasoning.
SHORT_TOKENS = 512
# The name of a check, what is expected, and how it is made.
Check = tuple[str, str, Callable[[], str]]


@dataclass(frozen=True)
class Asked:
    """What to ask of which endpoint.

    ``questions`` is catalog/questions.yml; ``context`` what the plan promises and ``needle_tokens`` what the long
    prompt has, in tokens; ``prefix_cache``: whether the plan serves with one, of which each of its ``ranks`` has its
    own; ``metrics``: the engine's rules for /metrics; ``routes``: what passes the front door, of the engine's
    ``known_routes``.
    """

    endpoint: Endpoint
    questions: Mapping[str, Any]
    groups: tuple[str, ...] = GROUPS
    context: Optional[int] = None
    needle_tokens: int = 8000
    sampling: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    thinking_preserved: Optional[Mapping[str, Any]] = None
    prefix_cache: bool = False
    ranks: int = 1
    metrics: Sequence[Mapping[str, Any]] = ()
    routes: Sequence[Mapping[str, Any]] = ()
    known_routes: Sequence[Mapping[str, Any]] = ()


class Talk:
    """How questions are put to an endpoint. ``context`` is what it says it serves, once that is known."""

    def __init__(self, endpoint: Endpoint, tools: Mapping[str, Any]) -> None:
        self.endpoint = endpoint
        self.tools = tools
        self.context: Optional[int] = None

    def ask(self, question: Mapping[str, Any], mode: Optional[Mapping[str, Any]] = None, stream: bool = False) -> Turn:
        """One question with its tools. ``mode`` is what turns thinking on; without it thinking is off, if it can be."""
        extra: dict[str, Any] = {"stream": True} if stream else {}
        if question["tools"]:
            extra["tools"] = self.offered(question["tools"])
            named = (
                {"type": "function", "function": {"name": question["calls"][0]["name"]}} if question["calls"] else None
            )
            extra["tool_choice"] = named if question["choice"] == "named" else question["choice"]
        return self.say([user(question["ask"])], mode, extra)

    def say(
        self,
        messages: Sequence[Mapping[str, Any]],
        mode: Optional[Mapping[str, Any]],
        extra: Optional[Mapping[str, Any]] = None,
    ) -> Turn:
        """The model's next message in a conversation."""
        limit = self.limit(mode)
        chosen = mode if mode is not None else self.endpoint.thinking_off or {}
        return chat(self.endpoint, messages, {"max_tokens": limit, **chosen, **(extra or {})})

    def limit(self, mode: Optional[Mapping[str, Any]]) -> int:
        """Most tokens of an answer in a mode."""
        quiet = mode is None and self.endpoint.thinking_off is not None
        limit = SHORT_TOKENS if quiet else self.endpoint.max_tokens
        return max(16, min(limit, self.context - PROMPT_TOKENS)) if self.context else limit

    def metrics(self) -> Optional[str]:
        """What the engine shows of itself, as Prometheus' text; None when it does not answer at once."""
        answer = glance(self.endpoint.of_engine, "/metrics")
        return answer.body if answer and answer.status == 200 and isinstance(answer.body, str) else None

    def offered(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Tools as a request has them."""
        return [{"type": "function", "function": {"name": name, **_schema(self.tools[name])}} for name in names]

    def judge(self, turn: Turn, question: Mapping[str, Any], thinks: bool = False) -> None:
        """Raises CheckError unless the turn is a right answer."""
        if question["calls"]:
            judge.check_calls(turn, question, self.tools, self.endpoint)
        else:
            judge.check_answer(turn, question["answer"], self.endpoint)
        if thinks:
            judge.check_thought(turn, question["ask"], question["answer"], self.endpoint)
        elif self.endpoint.thinking_off is not None:
            judge.check_no_thought(turn)


def _schema(tool: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": tool["description"], "parameters": tool["parameters"]}


def user(text: str) -> dict[str, Any]:
    """A user's message."""
    return {"role": "user", "content": text}
