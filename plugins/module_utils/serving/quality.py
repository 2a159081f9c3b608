# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A smoke test of quality: does the endpoint still do what its model can, fast or not?

This module util is PRIVATE to the collection. Each check has an answer that only a model which read the conversation
can give. They are few and quick; they find a broken template, parser, cache or kernel, and rank no models.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils.finding import Finding
from ansible_collections.glm.fleet.plugins.module_utils.serving.endpoint import (
    WEATHER_TOOL,
    CheckError,
    Conversation,
    Endpoint,
    NotAsked,
    ask,
    tried,
)

KINDS = ("sampling", "thinking_interleaved", "thinking_preserved", "thinking_off", "tool_turns", "needle")
DEGREES = 37
NEEDLE = 48213
# Room for the question, the template and the answer in a context that holds the text.
NEEDLE_MARGIN = 2048
_FILLER = "On day {day} the harbour master counted {ships} ships and wrote down that the wind came from the west."
_FILLER_TOKENS = 22
# Far longer than what two renderings of the same conversation could differ by otherwise.
_THOUGHT = "The user wants a short answer, so I weigh the words and keep the number in mind. " * 8


@dataclass(frozen=True)
class Asked:
    """What to ask. ``sampling`` is the contract's: parameters and thinking mode for each kind of work."""

    endpoint: Endpoint
    kinds: tuple[str, ...] = KINDS
    sampling: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    thinking_preserved: Optional[Mapping[str, Any]] = None
    needle_tokens: int = 32000


class Quality(Conversation):
    """The checks; each returns what it found or raises CheckError."""

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked.endpoint)
        self.asked = asked

    def sampling(self, scenario: str) -> str:
        """The author's parameters are taken, and an answer comes of them."""
        wanted = self.asked.sampling[scenario]
        extra = {key: wanted[key] for key in ("temperature", "top_p") if wanted.get(key) is not None}
        mode = self._mode(str(wanted["thinking"]))
        message, finish = self._turn([_user("Name a prime number above 100.")], {**mode, **extra})[:2]
        text = self._content(message) or self._reasoning(message)
        if not text:
            raise CheckError(f"no text (finish_reason {finish})", "read the unit's journal")
        said = ", ".join(f"{key} {value:g}" for key, value in extra.items())
        return f"{len(text)} characters with {said}, thinking {wanted['thinking']}"

    def thinking_interleaved(self) -> str:
        """Reasoning before a tool is called, and an answer that uses what the tool said."""
        extra = dict(self.asked.endpoint.thinking_on)
        first, last = self._round_trip(extra)
        before, after = self._reasoning(first), self._reasoning(last)
        if not before:
            raise CheckError("no reasoning before the tool call", self.endpoint.parser_advice("reasoning-parser"))
        return f"{len(before)} characters of reasoning before the tool call, {len(after)} after its result"

    def thinking_preserved(self) -> str:
        """The thoughts of an earlier turn stay in the prompt: it is longer with them than without."""
        preserved = self.asked.thinking_preserved
        if preserved is None:
            raise NotAsked("the model has no such mode")
        earlier = {"role": "assistant", "content": "I chose it.", "reasoning_content": _THOUGHT, "reasoning": _THOUGHT}
        talk = [_user("Choose a number between 1 and 9."), earlier, _user("Is it odd? Answer with one word.")]
        kept = self._turn(talk, preserved)[2]
        cleared = self._turn(talk, self.asked.endpoint.thinking_on)[2]
        if kept <= cleared:
            raise CheckError(
                f"{kept} prompt tokens with clear_thinking false, {cleared} without it",
                "the chat template drops earlier thoughts: is it the model's own?",
            )
        return f"{kept - cleared} prompt tokens of earlier thoughts are kept"

    def tool_turns(self) -> str:
        """A tool call, its result, an answer that uses it, and a further turn that remembers it."""
        self._round_trip(self._quiet())
        return f"called get_weather, used its result ({DEGREES}) and remembered it"

    def needle(self) -> str:
        """A number in the middle of a long text is found again."""
        tokens = self.asked.needle_tokens
        if self.context:
            tokens = min(tokens, self.context - NEEDLE_MARGIN)
        count = max(1, tokens // _FILLER_TOKENS)
        lines = [_FILLER.format(day=day, ships=day % 97) for day in range(1, count + 1)]
        lines.insert(count * 3 // 5, f"The number of the locker is {NEEDLE}.")
        question = "What is the number of the locker? Answer with the number alone."
        text = "\n".join([*lines, "", question])
        message, finish, size = self._turn([_user(text)], self._quiet())
        if str(NEEDLE) not in self._content(message):
            found = self._content(message)[:120]
            raise CheckError(
                f"{found!r} after {size} prompt tokens (finish_reason {finish})",
                "try another KV cache type or attention backend: long prompts come out wrong",
            )
        return f"found in {size} prompt tokens"

    def _round_trip(self, extra: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Ask for the weather, answer the call, and ask again; the first and the second message of the model."""
        tools = {**extra, "tools": [WEATHER_TOOL], "tool_choice": "auto"}
        talk: list[dict[str, Any]] = [_user("What is the weather in Paris? Use the tool.")]
        first, finish, _size = self._turn(talk, tools)
        calls = first.get("tool_calls") or []
        if not calls or finish != "tool_calls":
            raise CheckError(
                f"{len(calls)} tool calls (finish_reason {finish}), text {self._content(first)[:120]!r}",
                f"{self.endpoint.parser_advice('tool-call-parser')}, and --enable-auto-tool-choice if it exists",
            )
        call = calls[0]
        result = {"city": "Paris", "degrees_celsius": DEGREES, "sky": "clear"}
        talk += [first, {"role": "tool", "tool_call_id": call.get("id", "call-1"), "content": json.dumps(result)}]
        second, finish, _size = self._turn(talk, tools)
        self._expect_number(second, finish, "the answer after the tool's result")
        talk += [second, _user("How many degrees were that, as a number? Do not ask the tool again.")]
        third, finish, _size = self._turn(talk, tools)
        self._expect_number(third, finish, "the answer in the turn after it")
        return first, second

    def _expect_number(self, message: Mapping[str, Any], finish: str, what: str) -> None:
        if str(DEGREES) not in self._content(message):
            raise CheckError(
                f"{what} does not say {DEGREES}: {self._content(message)[:120]!r} (finish_reason {finish})",
                "the chat template loses tool results, or the weights are not the right ones",
            )

    def _turn(self, messages: list[dict[str, Any]], extra: Mapping[str, Any]) -> tuple[dict[str, Any], str, int]:
        """The model's message, why it ended, and how many tokens the prompt had."""
        body = {**self._body("", {}), "messages": messages, **extra}
        answer = ask(self.endpoint, "POST", "/v1/chat/completions", body, self.endpoint.api_key)
        if answer.status != 200:
            raise CheckError(answer.short(), "the engine is up but cannot answer: read the unit's journal")
        try:
            choice = answer.body["choices"][0]
            message, finish = dict(choice["message"]), str(choice.get("finish_reason"))
            size = int(answer.body["usage"]["prompt_tokens"])
        except (KeyError, IndexError, TypeError) as exc:
            raise CheckError(answer.short(), "this is not an OpenAI-compatible answer: what has this port?") from exc
        self._expect_no_markup(message)
        return message, finish, size

    def _mode(self, name: str) -> Mapping[str, Any]:
        chosen: Mapping[str, Mapping[str, Any]] = {
            "on": self.endpoint.thinking_on,
            "off": self._quiet(),
            "preserved": self.asked.thinking_preserved or self.endpoint.thinking_on,
        }
        return chosen[name]

    def _reasoning(self, message: Mapping[str, Any]) -> str:
        return str(message.get(self.endpoint.reasoning_field) or "").strip()

    @staticmethod
    def _content(message: Mapping[str, Any]) -> str:
        return str(message.get("content") or "").strip()


def _user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def _planned(quality: Quality) -> list[tuple[str, str, Callable[[], str]]]:
    asked = quality.asked
    found: list[tuple[str, str, Callable[[], str]]] = [("models", "the endpoint lists its model", quality.models)]
    for kind in asked.kinds:
        if kind == "sampling":
            for scenario in asked.sampling:
                expected = f"an answer with the author's parameters for {scenario}"
                found.append((f"sampling_{scenario}", expected, _bound(quality, scenario)))
        elif kind != "thinking_off" or asked.endpoint.thinking_off is not None:
            found.append((kind, _EXPECTED[kind], getattr(quality, kind)))
    return found


def _bound(quality: Quality, scenario: str) -> Callable[[], str]:
    return lambda: quality.sampling(scenario)


_EXPECTED = {
    "thinking_interleaved": "reasoning before a tool call, and an answer that uses its result",
    "thinking_preserved": "earlier thoughts stay in the prompt with clear_thinking false",
    "thinking_off": "text and no reasoning when thinking is off",
    "tool_turns": "a tool call, an answer that uses its result, and a turn that remembers it",
    "needle": "a number hidden in a long prompt is found again",
}


def run_quality(asked: Asked, clock: Callable[[], float] = time.monotonic) -> list[Finding]:
    """All checks of quality, as ``tried`` gives them."""
    return tried("quality", _planned(Quality(asked)), asked.endpoint.api_key, clock)
