# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate: the questions an endpoint must answer rightly before it counts as verified.

This module util is PRIVATE to the collection. Standard library, Python 3.9 or newer. What is asked is data
(``catalog/questions.yml``), what is right is decided in judge.py. ``/health`` is asked but proves nothing: engines
answer it while every request fails.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Optional

from ansible_collections.glm.fleet.plugins.module_utils import finding
from ansible_collections.glm.fleet.plugins.module_utils.finding import Finding
from ansible_collections.glm.fleet.plugins.module_utils.serving import quality, routes
from ansible_collections.glm.fleet.plugins.module_utils.serving.client import (
    CheckError,
    NoAnswer,
    NotAsked,
    Turn,
    ask,
    certificate_left,
)
from ansible_collections.glm.fleet.plugins.module_utils.serving.talk import GROUPS, Asked, Check, Talk

# All checks together may take so many times as long as one answer, and so many seconds at least.
TIMEOUTS = 4
LEAST_BUDGET = 120
_BUSY = "verify the endpoint when nobody else uses it, or allow more time with verify_timeout"
# Of the text that a whole answer has to a token, a stream must have this share.
LEAST_DENSITY = 0.6
# How often a stream and a whole answer that differ are both asked again: kernels may round differently each time.
SECOND_LOOKS = 2

_RENEWAL = "with glm_tls own give it a new one first, with acme read journalctl -u glm-door-certificate on the host"


class Gate:
    """The checks of the contract and of single answers; each returns what it found or raises CheckError."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.endpoint = asked.endpoint
        self.talk = Talk(asked.endpoint, asked.questions["tools"])
        self.whole: dict[str, Turn] = {}
        # What somebody should know although the check passed.
        self.cautions: list[str] = []

    def health(self) -> str:
        answer = ask(self.endpoint.of_engine, "GET", self.endpoint.health_path)
        if answer.status != 200:
            raise CheckError(answer.short(), "see the unit's journal")
        return "HTTP 200"

    def certificate(self) -> str:
        left = certificate_left(self.endpoint)
        found = f"ends in {left.days:.0f} days" if left.days >= 14 else f"ends in {left.days:.1f} days"
        if left.too_little:
            raise CheckError(found, f"run deploy.yml, which renews it; {_RENEWAL}")
        if left.late:
            self.cautions.append(f"the certificate {found} and should have been renewed: run deploy.yml; {_RENEWAL}")
        return found

    def models(self) -> str:
        answer = ask(self.endpoint, "GET", "/v1/models", key=self.endpoint.api_key)
        if answer.status in (401, 403):
            raise CheckError(answer.short(), "use the key this endpoint was started with; role serve writes it")
        if answer.status != 200 or not isinstance(answer.body, dict):
            raise CheckError(answer.short(), "see the unit's journal")
        data = answer.body.get("data")
        cards = [card for card in data if isinstance(card, dict)] if isinstance(data, list) else []
        names = [card.get("id") for card in cards]
        if names != [self.endpoint.model]:
            raise CheckError(
                f"models {names}", "start the engine with --served-model-name of the plan; is it another engine's port?"
            )
        length = cards[0].get("max_model_len")
        self.talk.context = length if isinstance(length, int) else None
        return self.endpoint.model

    def context(self) -> str:
        served, promised = self.talk.context, self.asked.context
        if served is None:
            raise NotAsked("/v1/models does not say how long a context is served")
        if promised is None:
            raise NotAsked(f"serves {served:,} tokens; no plan says how many it should")
        if served < promised:
            raise CheckError(
                f"serves {served:,} of {promised:,} tokens",
                "the engine shortened the context: its log says why (KV cache too small, or the model's own limit)",
            )
        return f"{served:,} tokens"

    def key_missing(self) -> str:
        return self._refused(None, "no key")

    def key_wrong(self) -> str:
        return self._refused("glm-wrong-key", "a wrong key")

    def routes(self) -> str:
        return routes.check(self.endpoint, self.asked.routes, self.asked.known_routes)

    def _refused(self, key: Optional[str], what: str) -> str:
        body = {"model": self.endpoint.model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
        for method, path, sent in (("GET", "/v1/models", None), ("POST", "/v1/chat/completions", body)):
            answer = ask(self.endpoint, method, path, sent, key)
            if answer.status not in (401, 403):
                open_door = "the engine was started without its key: check the secret file of the unit and restart it"
                unclear = "whether a key is required could not be seen: read the unit's journal, and verify again"
                found = f"HTTP {answer.status} for {path} with {what}"
                raise CheckError(found, open_door if answer.status < 400 else unclear)
        return "refused"

    def answer(self, name: str, stream: bool) -> str:
        """One question of the gate; a stream is also compared with the whole answer."""
        turn, less = self._turn(name, stream)
        if not stream:
            self.whole[name] = turn
        elif name in self.whole and name == "thinking_on":
            _expect_as_dense(self.whole[name], turn)
        elif name in self.whole:
            self._compare(name, turn)
        if less:
            raise less
        return said(turn)

    def _compare(self, name: str, turn: Turn) -> None:
        """Raises CheckError when no stream is like any whole answer, although both were asked for several times."""
        wholes, streams = [self.whole[name]], [turn]
        for _look in range(SECOND_LOOKS):
            if any(_alike(one, other) for one in wholes for other in streams):
                return
            wholes.append(self._turn(name, False)[0])
            streams.append(self._turn(name, True)[0])
        if not any(_alike(one, other) for one in wholes for other in streams):
            raise CheckError(
                f"the stream differs from the whole answer: {said(turn)}, whole {said(wholes[0])}",
                "a parser loses parts of streams: another engine version, or stream-interval 1",
            )

    def _turn(self, name: str, stream: bool) -> tuple[Turn, Optional[NotAsked]]:
        """A right answer, and why it proves less than it should. Raises CheckError for a wrong one."""
        question = self.asked.questions["gate"][name]
        thinks = name == "thinking_on"
        turn = self.talk.ask(question, self.endpoint.thinking_on if thinks else None, stream)
        try:
            self.talk.judge(turn, question, thinks)
        except NotAsked as less:
            return turn, less
        return turn, None

    def first_token(self) -> str:
        """How long the first piece of a stream took, so that slow and dead look different."""
        turn, _less = self._turn("chat", True)
        if turn.first is None:
            raise NotAsked("the stream had no text")
        rest = turn.seconds - turn.first
        pace = (
            f", {(turn.completion_tokens - 1) / rest:.0f} tokens/s after it" if turn.completion_tokens and rest else ""
        )
        return f"{turn.first:.2f} s{pace}"


def said(turn: Turn) -> str:
    """A right answer in a few words."""
    if turn.calls:
        return ", ".join(f"{call.name}({' '.join(call.arguments.split())})" for call in turn.calls)
    content = " ".join(turn.content.split())
    text = repr(content if len(content) <= 60 else content[:57] + "…")
    thought = sum(map(len, turn.reasoning.values()))
    return f"{text} after {thought} characters of reasoning" if thought else text


def _expect_as_dense(whole: Turn, stream: Turn) -> None:
    """Raises CheckError when a stream has far less text to a token than the whole answer."""
    whole_has, stream_has = _density(whole), _density(stream)
    if whole_has and stream_has and stream_has < LEAST_DENSITY * whole_has:
        raise CheckError(
            f"the stream differs from the whole answer: {stream_has:.1f} characters to a token, whole {whole_has:.1f}",
            "a parser loses parts of streamed thoughts: another engine version, or stream-interval 1",
        )


def _density(turn: Turn) -> float:
    text = len(turn.content) + max(map(len, turn.reasoning.values()), default=0)
    return text / turn.completion_tokens if turn.completion_tokens else 0.0


def _alike(one: Turn, other: Turn) -> bool:
    """Whether two turns have as many calls and the same text. Thoughts, and the words beside calls, may differ."""
    if one.calls or other.calls:
        return len(one.calls) == len(other.calls) and bool(one.content.strip()) == bool(other.content.strip())
    return one.content.split() == other.content.split()


def _contract(gate: Gate) -> list[Check]:
    endpoint = gate.endpoint
    checks: list[Check] = [("health", f"{endpoint.health_path} answers 200", gate.health)]
    if endpoint.tls:
        expected = f"a certificate for {endpoint.tls.name} that clients accept, and for some days more"
        checks.append(("certificate", expected, gate.certificate))
    if endpoint.api_key:
        checks += [
            ("key_missing", "401 on /v1 without a key", gate.key_missing),
            ("key_wrong", "401 on /v1 with a wrong key", gate.key_wrong),
        ]
    if gate.asked.routes:
        checks.append(("routes", "clients' routes ask for a key, and the engine's others are not found", gate.routes))
    return [*checks, ("context", "the promised context is served", gate.context)]


_EXPECTED = {
    "thinking_on": "reasoning in its field, and the right number",
    "thinking_off": "the right number and no reasoning",
}


def _answers(gate: Gate) -> list[Check]:
    endpoint = gate.endpoint
    checks: list[Check] = [("first_token", "the first token of a stream", gate.first_token)]
    for name, question in gate.asked.questions["gate"].items():
        if (name == "thinking_off" and endpoint.thinking_off is None) or (question["tools"] and not endpoint.tool_call):
            continue
        calls = ", ".join(call["name"] for call in question["calls"])
        expected = _EXPECTED.get(name) or (f"a parsed call of {calls}" if calls else f"the answer {question['answer']}")
        for suffix, stream in (("", False), ("_stream", True)):
            text = f"{expected}, as a stream" if stream else expected
            checks.append((name + suffix, text, partial(gate.answer, name, stream)))
    return checks


def planned(gate: Gate) -> list[Check]:
    """All checks of the groups that are asked for, in order. Whatever is asked, the model's name is looked at first."""
    asked = gate.asked
    checks: list[Check] = [("models", f"/v1/models lists exactly {gate.endpoint.model}", gate.models)]
    for group in GROUPS:
        if group not in asked.groups:
            continue
        if group == "contract":
            health, *rest = _contract(gate)
            checks = [health, *checks, *rest]
        elif group == "answers":
            checks += _answers(gate)
        else:
            checks += quality.planned(group, asked, gate.talk)
    return checks


def made(gate: Gate, clock: Callable[[], float] = time.monotonic) -> list[Finding]:
    """The findings of all checks that are asked for."""
    budget = max(LEAST_BUDGET, TIMEOUTS * gate.endpoint.timeout)
    return _believe_the_chat(tried("verify", planned(gate), clock, budget))


def tried(phase: str, checks: Iterable[Check], clock: Callable[[], float], budget: float = math.inf) -> list[Finding]:
    """The findings of checks that are given as ``(name, expected, check)``.

    After one answer that took longer than it may the remaining ones are not tried: each would cost its whole timeout.
    The same holds when all of them together took longer than ``budget`` seconds.
    """
    results: list[Finding] = []
    # Why nothing more is tried, and what to look at.
    late: Optional[tuple[str, str]] = None
    started = clock()
    for name, expected, check in checks:
        begun = clock()
        if not late and begun - started > budget:
            late = (f"the checks before it took {begun - started:.0f} s", _BUSY)
        found, next_step = "", ""
        ok: Optional[bool] = False
        try:
            if late:
                raise CheckError(f"not tried: {late[0]}", late[1])
            found, ok = check(), True
        except NotAsked as exc:
            found, ok = str(exc), None
        except CheckError as exc:
            found, next_step = exc.found, exc.next_step
            late = _after(name) if exc.late else late
        except NoAnswer as exc:
            found, next_step = str(exc), exc.next_step or _advice(exc)
            late = _after(name) if exc.late else late
        except Exception as exc:  # an odd server must not cost the findings of all other checks
            found = f"an answer of another form ({type(exc).__name__})"
            next_step = "this is not an OpenAI-compatible answer: what has this port?"
        results.append(finding.judged(phase, name, ok, expected, found, next_step, clock() - begun))
    return results


def _after(name: str) -> tuple[str, str]:
    return f"{name} got no answer in time", f"see {name}"


def _advice(problem: NoAnswer) -> str:
    if not problem.late:
        return "is the unit active, and does it listen on this address? Read its journal"
    if str(problem).startswith("slow"):
        return _BUSY
    return "the engine hangs: read the unit's journal, and restart it"


def _believe_the_chat(results: list[Finding]) -> list[Finding]:
    """Say it in words when /health is fine and the engine is not."""
    by_name = {result["check"]: result for result in results}
    health, one = by_name.get("health"), by_name.get("chat")
    if health and one and health["outcome"] == "passed" and one["outcome"] == "failed":
        one["found"] += " (while /health says 200: believe the chat)"
    return results
