# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate's checks beyond single answers: conversations, many at once, and long prompts.

This module util is PRIVATE to the collection. Standard library, Python 3.9 or newer. Each check has an answer that only
a model which read the conversation can give. They find a broken template, parser, cache or kernel, and rank no models.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils.serving import evaluate, judge, metrics
from ansible_collections.glm.fleet.plugins.module_utils.serving.client import CheckError, NotAsked, Turn
from ansible_collections.glm.fleet.plugins.module_utils.serving.talk import AT_ONCE, Asked, Check, Talk, user

# Room for the question and the template in a context that holds the text and the answer.
NEEDLE_MARGIN = 1024
_FILLER = "On day {day} the harbour master counted {ships} ships and wrote down that the wind came from the west."
# Tokens of a line where the endpoint does not say what its tokenizer makes of it, and how many lines it is asked about.
_FILLER_TOKENS = 22
_SAMPLE = 20
# Far longer than what two renderings of the same conversation could differ by otherwise.
_THOUGHT = "The user wants a short answer, so I weigh the words and keep the number in mind. " * 8


class Quality:
    """The checks; each returns what it found or raises CheckError."""

    def __init__(self, asked: Asked, talk: Talk) -> None:
        self.asked = asked
        self.endpoint = asked.endpoint
        self.talk = talk
        self._line: Optional[float] = None

    def sampling(self, scenario: str) -> str:
        """The author's parameters are taken, and a right answer comes of them."""
        wanted = self.asked.sampling[scenario]
        extra = {key: wanted[key] for key in ("temperature", "top_p") if wanted.get(key) is not None}
        question = self.asked.questions["sampling"]
        turn = self.talk.say([user(question["ask"])], self._mode(str(wanted["thinking"])), extra)
        judge.check_answer(turn, question["answer"], self.endpoint)
        named = ", ".join(f"{key} {value:g}" for key, value in extra.items())
        return f"{len(turn.content)} characters with {named}, thinking {wanted['thinking']}"

    def thinking_interleaved(self) -> str:
        """Reasoning before a tool is called, and an answer that uses what the tool said."""
        for _try in range(2):
            # For a question like this a model may do without.
            first, last = self._round_trip(self.endpoint.thinking_on)
            before, after = (turn.thought(self.endpoint.reasoning_field) for turn in (first, last))
            if before:
                break
        if not before:
            raise CheckError("reasoning: none before the tool call", self.endpoint.parser_advice("reasoning-parser"))
        return f"{len(before)} characters of reasoning before the tool call, {len(after)} after its result"

    def thinking_preserved(self) -> str:
        """The thoughts of an earlier turn stay in the prompt: it is longer with them than without."""
        preserved = self.asked.thinking_preserved
        if preserved is None:
            raise NotAsked("the model has no such mode")
        question = self.asked.questions["preserved"]
        earlier = {
            "role": "assistant",
            "content": "I chose nine.",
            "reasoning_content": _THOUGHT,
            "reasoning": _THOUGHT,
        }
        talk = [user("Choose a number between 1 and 9."), earlier, user(question["ask"])]
        sizes = []
        for mode in (preserved, self.endpoint.thinking_on):
            turn = self.talk.say(talk, mode)
            judge.check_answer(turn, question["answer"], self.endpoint)
            sizes.append(turn.prompt_tokens)
        kept, cleared = sizes
        if kept is None or cleared is None:
            raise NotAsked("the endpoint does not say how many tokens a prompt has")
        if kept <= cleared:
            raise CheckError(
                f"thoughts dropped: {kept} prompt tokens with clear_thinking false, {cleared} without it",
                "the chat template drops earlier thoughts: is it the model's own?",
            )
        return f"{kept - cleared} prompt tokens of earlier thoughts are kept"

    def tool_turns(self) -> str:
        """A tool call, its result, an answer that uses it, and a further turn that remembers it."""
        self._round_trip(None)
        asked = self.asked.questions["round_trip"]
        return f"called {asked['tool']}, used its result ({asked['answer']}) and remembered it"

    def _round_trip(self, mode: Optional[Mapping[str, Any]]) -> tuple[Turn, Turn]:
        """The turn with the call, and the one that uses its result."""
        asked = self.asked.questions["round_trip"]
        extra = {"tools": self.talk.offered([asked["tool"]]), "tool_choice": "auto"}
        talk: list[Mapping[str, Any]] = [user(asked["ask"])]
        first = self.talk.say(talk, mode, extra)
        wanted = {"choice": "auto", "calls": [{"name": asked["tool"], "arguments": asked["arguments"]}]}
        judge.check_calls(first, wanted, self.talk.tools, self.endpoint)
        call = (first.message.get("tool_calls") or [{}])[0]
        result = json.dumps(asked["result"])
        talk += [first.message, {"role": "tool", "tool_call_id": call.get("id") or "call-1", "content": result}]
        second = self._remembering(talk, mode, extra, "after the tool's result")
        talk += [second.message, user(asked["again"])]
        self._remembering(talk, mode, extra, "in the turn after it")
        return first, second

    def _remembering(
        self, talk: Sequence[Mapping[str, Any]], mode: Optional[Mapping[str, Any]], extra: Mapping[str, Any], when: str
    ) -> Turn:
        answer = self.asked.questions["round_trip"]["answer"]
        turn = self.talk.say(talk, mode, extra)
        loses = "the chat template loses tool results: is it the model's own?"
        if turn.calls:
            raise CheckError(f"wrong tool call: {turn.calls[0].name} again {when}", loses)
        try:
            judge.check_answer(turn, answer, self.endpoint, anywhere=True)
        except CheckError as exc:
            advice = loses if exc.found.startswith("wrong answer") else exc.next_step
            raise CheckError(f"{exc.found} {when}", advice) from exc
        return turn

    def sums_at_once(self) -> str:
        """Sums in parallel, half of them as streams."""
        return self._at_once(evaluate.sums(self.asked.questions["eval"])[:AT_ONCE])

    def calls_at_once(self) -> str:
        """Tool calls in parallel, half of them as streams."""
        return self._at_once(self.asked.questions["eval"]["tools"][:AT_ONCE])

    def _at_once(self, questions: Sequence[Mapping[str, Any]]) -> str:
        """What is wrong is asked once more, alone."""
        wrong = self._wrong_at_once(questions)
        if not wrong:
            return f"{AT_ONCE} right answers"
        alone = self._alone(wrong)
        shown = wrong[0][1]
        if all(found.startswith("wrong answer") for found in alone) and len(wrong) <= AT_ONCE // 4:
            raise NotAsked(f"{len(wrong)} of {AT_ONCE} wrong at once and also alone: {shown}")
        others = {question.get("answer", ""): question["ask"] for question in questions}
        swapped = [text for text in (_swapped(found, others) for _q, found in wrong) if text]
        right_alone = alone.count("")
        first = (swapped or [shown])[0]
        found = f"{len(wrong)} of {AT_ONCE} wrong at once, {right_alone} of these right alone: {first}"
        raise CheckError(found, _advice(wrong, right_alone))

    def _wrong_at_once(self, questions: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], str]]:
        """Questions with what is wrong with their answers. Raises CheckError when one had none."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            streams = [bool(number % 2) for number in range(AT_ONCE)]
            problems = list(pool.map(partial(evaluate.problem, self.talk), questions, streams))
        wrong = [(question, one.found) for question, one in zip(questions, problems) if one.found]
        late = any(one.late for one in problems)
        if late:
            shown = next(one.found for one in problems if one.late)
            found = f"{len(wrong)} of {AT_ONCE} wrong at once: {shown}"
            raise CheckError(found, "requests hold each other up: read the unit's journal", late=True)
        return wrong

    def _alone(self, wrong: Sequence[tuple[Mapping[str, Any], str]]) -> list[str]:
        """What is wrong with the answers when they are asked one by one, up to the first that does not come."""
        found: list[str] = []
        for question, _found in wrong:
            one = evaluate.problem(self.talk, question)
            found.append(one.found)
            if one.late:
                break
        return found

    def needle(self) -> str:
        """A number in the middle of a long text is found again."""
        turn = self._long()
        return f"found in {_tokens(turn.prompt_tokens)} prompt tokens after {turn.seconds:.1f} s"

    def prefix_cache(self) -> str:
        """The same long prompt once more, as a stream, comes out of the cache and has the same answer."""
        if not self.asked.prefix_cache:
            raise NotAsked("the plan serves without a prefix cache")
        before = self._hits()
        turn = self._long({"stream": True})
        cached = turn.cached_tokens
        if not cached:
            after = self._hits()
            cached = None if before is None or after is None else int(after - before)
        if cached is None:
            raise NotAsked("neither the answer nor /metrics says how much of a prompt was cached")
        if cached <= 0 and self.asked.ranks > 1:
            raise NotAsked(
                f"each of {self.asked.ranks} data-parallel ranks has its own cache, and another one answered"
            )
        if cached <= 0:
            raise CheckError(
                f"no prefix-cache hit: 0 of {_tokens(turn.prompt_tokens)} prompt tokens were cached the second time",
                "the engine does not reuse prompts, which costs agents most of their speed: read its log",
            )
        return f"{cached:,} of {_tokens(turn.prompt_tokens)} prompt tokens, {turn.seconds:.1f} s"

    def _hits(self) -> Optional[float]:
        shown = self.talk.metrics()
        return None if shown is None else metrics.parse(shown, self.asked.metrics).get("prefix_hits")

    def long_tool_call(self) -> str:
        """A tool is called after a long text, as a stream."""
        question = self.asked.questions["gate"]["tool_call"]
        text = "\n".join([*_lines(self._count()), "", question["ask"]])
        turn = self.talk.ask({**question, "ask": text}, stream=True)
        self._long_judged(turn, lambda: self.talk.judge(turn, question))
        return f"called after {_tokens(turn.prompt_tokens)} prompt tokens"

    def _long(self, extra: Optional[Mapping[str, Any]] = None) -> Turn:
        asked = self.asked.questions["needle"]
        text = long_prompt(self._count(), asked["hidden"], asked["ask"])
        turn = self.talk.say([user(text)], None, extra)
        self._long_judged(turn, lambda: judge.check_answer(turn, asked["answer"], self.endpoint))
        return turn

    def _long_judged(self, turn: Turn, check: Callable[[], None]) -> None:
        try:
            check()
        except CheckError as exc:
            wrong = exc.found.startswith(("wrong answer", "token salad", "one token", "the same words"))
            advice = "long prompts come out wrong: try another KV cache type or attention backend"
            found = f"{exc.found} after {_tokens(turn.prompt_tokens)} prompt tokens"
            raise CheckError(found, advice if wrong else exc.next_step) from exc

    def _count(self) -> int:
        """Lines of the long text."""
        tokens = self.asked.needle_tokens
        if self.talk.context:
            tokens = min(tokens, self.talk.context - NEEDLE_MARGIN - self.talk.limit(None))
        return max(1, int(tokens / self._tokens_of_a_line()))

    def _tokens_of_a_line(self) -> float:
        """What the endpoint's tokenizer makes of a line of the long prompt."""
        if self._line is None:
            turn = self.talk.say([user("\n".join(_lines(_SAMPLE)))], None, {"max_tokens": 1})
            self._line = (turn.prompt_tokens or _FILLER_TOKENS * _SAMPLE) / _SAMPLE
        return self._line

    def _mode(self, name: str) -> Optional[Mapping[str, Any]]:
        chosen: Mapping[str, Optional[Mapping[str, Any]]] = {
            "on": self.endpoint.thinking_on,
            "off": None,
            "preserved": self.asked.thinking_preserved or self.endpoint.thinking_on,
        }
        return chosen[name]


def _lines(count: int) -> list[str]:
    # Days of five digits, so that every line has as many tokens as those that were counted.
    return [_FILLER.format(day=day, ships=day % 97) for day in range(10_001, 10_001 + count)]


def long_prompt(count: int, hidden: str, question: str) -> str:
    """A text of so many lines with a sentence hidden at three fifths of it, and a question below."""
    lines = _lines(count)
    lines.insert(count * 3 // 5, hidden)
    return "\n".join([*lines, "", question])


def _tokens(count: Optional[int]) -> str:
    return "an unknown number of" if count is None else f"{count:,}"


def _advice(wrong: Sequence[tuple[Mapping[str, Any], str]], right_alone: int) -> str:
    if all(re.search(r"HTTP (?:429|503)|queue is full", found) for _question, found in wrong):
        return "the endpoint turns requests away: others use it, or its queue is too short (max-queued-requests)"
    return f"requests disturb each other: {judge.KERNEL}" if right_alone else judge.KERNEL


def _swapped(problem: str, others: Mapping[str, str]) -> str:
    """In words, when a wrong answer is the right one of another question."""
    for answer, question in others.items():
        if problem.startswith(f"wrong answer '{answer}'"):
            return f"{problem}, which answers {question!r}"
    return ""


_EXPECTED = {
    "thinking_interleaved": "reasoning before a tool call, and an answer that uses its result",
    "thinking_preserved": "earlier thoughts stay in the prompt with clear_thinking false",
    "tool_turns": "a tool call, an answer that uses its result, and a turn that remembers it",
}


def planned(group: str, asked: Asked, talk: Talk) -> list[Check]:
    """The checks of one group, as gate.py makes them."""
    quality = Quality(asked, talk)
    if group == "sampling":
        return [
            (
                f"sampling_{name}",
                f"a right answer with the author's parameters for {name}",
                partial(quality.sampling, name),
            )
            for name in asked.sampling
        ]
    if group == "parallel":
        calls = ("parallel_calls", f"{AT_ONCE} right tool calls at once", quality.calls_at_once)
        at_once = [("parallel", f"{AT_ONCE} right answers at once", quality.sums_at_once)]
        return [*at_once, calls] if asked.endpoint.tool_call else at_once
    if group == "needle":
        long_ones = [
            ("needle", "a number hidden in a long prompt is found again", quality.needle),
            ("prefix_cache", "a repeated prompt comes out of the cache", quality.prefix_cache),
        ]
        called = ("long_tool_call", "a tool is called after a long text", quality.long_tool_call)
        return [*long_ones, called] if asked.endpoint.tool_call else long_ones
    if group in ("thinking_interleaved", "tool_turns") and not asked.endpoint.tool_call:
        return []
    return [(group, _EXPECTED[group], getattr(quality, group))]
