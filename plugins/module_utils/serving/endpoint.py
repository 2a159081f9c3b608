# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask an OpenAI-compatible endpoint the questions that prove it serves the contract.

This module util is PRIVATE to the collection. Standard library, Python 3.9 or newer; talks to one address only and
through no proxy. ``/health`` is asked but proves nothing: engines answer it while every request fails.
"""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils import finding
from ansible_collections.glm.fleet.plugins.module_utils.finding import Finding

WEATHER_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "Name of the city"}},
            "required": ["city"],
        },
    },
}
# Room for the prompt and the tool in a context that is shorter than max_tokens; SGLang refuses a sum that exceeds it.
# A tokenizer without merges needs 624 tokens for the tool prompt.
PROMPT_TOKENS = 1024
_MARKUP = ("<think>", "</think>", "<tool_call>")


@dataclass(frozen=True)
class Endpoint:
    """What to ask and what to expect. ``thinking_off`` is None for a model that always thinks.

    ``reasoning_parser`` and ``tool_parser`` are what the plan starts the engine with, for advice; empty when unknown.
    """

    address: str
    port: int
    model: str
    api_key: Optional[str] = None
    reasoning_field: str = "reasoning"
    thinking_on: Mapping[str, Any] = field(default_factory=dict)
    thinking_off: Optional[Mapping[str, Any]] = field(default_factory=dict)
    tool_call: bool = True
    health_path: str = "/health"
    timeout: float = 300
    max_tokens: int = 4096
    reasoning_parser: str = ""
    tool_parser: str = ""

    def parser_advice(self, option: str) -> str:
        """How to start the engine with a parser, by the option's name: ``reasoning-parser``, ``tool-call-parser``."""
        name = self.tool_parser if option == "tool-call-parser" else self.reasoning_parser
        return f"start the engine with --{option} {name or 'of the plan'}"


class CheckError(Exception):
    """A check failed: what was found, and what to do about it."""

    def __init__(self, found: str, next_step: str) -> None:
        super().__init__(found)
        self.found = found
        self.next_step = next_step


class NotAsked(Exception):
    """A check does not apply; the text is the reason."""


class NoAnswer(Exception):
    """The endpoint refused the connection, broke it, or stayed silent past the timeout (``silent``)."""

    def __init__(self, text: str, silent: bool) -> None:
        super().__init__(text)
        self.silent = silent


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; ``body`` is its JSON, or its text where it is not JSON."""

    status: int
    body: Any

    def short(self) -> str:
        """The answer on one line, for ``found``."""
        text = self.body if isinstance(self.body, str) else json.dumps(self.body, ensure_ascii=False)
        text = " ".join(text.split())
        return f"HTTP {self.status}" + (f" {text[:300]}" if text else "")


def ask(
    endpoint: Endpoint, method: str, path: str, body: Optional[Mapping[str, Any]] = None, key: Optional[str] = None
) -> Answer:
    """One request. Raises NoAnswer when there is no complete HTTP answer within the endpoint's timeout."""
    headers = {"Content-Type": "application/json", "User-Agent": "glm.fleet endpoint_check"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    connection = http.client.HTTPConnection(endpoint.address, endpoint.port, timeout=endpoint.timeout)
    try:
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        response = connection.getresponse()
        text = response.read().decode("utf-8", "replace")
    except socket.timeout as exc:
        raise NoAnswer(f"no answer within {endpoint.timeout:g} s", True) from exc
    except (OSError, http.client.HTTPException) as exc:
        raise NoAnswer(f"{type(exc).__name__}: {exc}", False) from exc
    finally:
        connection.close()
    try:
        return Answer(response.status, json.loads(text))
    except ValueError:
        return Answer(response.status, text)


class Conversation:
    """The checks of one endpoint, in order; each returns what it found or raises CheckError."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.context: Optional[int] = None

    def health(self) -> str:
        answer = ask(self.endpoint, "GET", self.endpoint.health_path)
        if answer.status != 200:
            raise CheckError(answer.short(), "see the unit's journal")
        return "HTTP 200"

    def models(self) -> str:
        answer = ask(self.endpoint, "GET", "/v1/models", key=self.endpoint.api_key)
        if answer.status in (401, 403):
            raise CheckError(answer.short(), "use the key this endpoint was started with; role serve writes it")
        if answer.status != 200 or not isinstance(answer.body, dict):
            raise CheckError(answer.short(), "see the unit's journal")
        cards = answer.body.get("data") or []
        names = [card.get("id") for card in cards]
        if names != [self.endpoint.model]:
            raise CheckError(
                f"models {names}", "start the engine with --served-model-name of the plan; is it another engine's port?"
            )
        self.context = cards[0].get("max_model_len")
        return self.endpoint.model

    def chat(self) -> str:
        message, finish = self._say("Answer with one short sentence: what is a bridge?", self._quiet())
        text = _text(message, "content")
        if not text:
            raise CheckError(
                f"no text in message.content (finish_reason {finish})",
                "read the unit's journal; if all text is in the reasoning field, thinking was not turned off",
            )
        return f"{len(text)} characters of text"

    def thinking_on(self) -> str:
        message, finish = self._say("What is 17 + 25? Think first.", self.endpoint.thinking_on)
        self._expect_no_markup(message)
        reasoning = _text(message, self.endpoint.reasoning_field)
        if not reasoning:
            others = sorted(key for key in ("reasoning", "reasoning_content") if _text(message, key))
            raise CheckError(
                f"message.{self.endpoint.reasoning_field} is empty (finish_reason {finish}"
                + (f", the text is in {others[0]})" if others else ")"),
                self.endpoint.parser_advice("reasoning-parser"),
            )
        return f"{len(reasoning)} characters of reasoning"

    def thinking_off(self) -> str:
        message, _finish = self._say("What is 17 + 25? Answer with the number.", self._quiet())
        self._expect_no_markup(message)
        for key in ("reasoning", "reasoning_content"):
            if _text(message, key):
                raise CheckError(
                    f"message.{key} has {len(_text(message, key))} characters",
                    "the chat template ignores enable_thinking: is it the model's own template?",
                )
        if not _text(message, "content"):
            raise CheckError("no reasoning, but no text either", "read the unit's journal")
        return "text without reasoning"

    def tool_call(self) -> str:
        message, finish = self._say(
            "What is the weather in Paris? Use the tool.",
            {**self._quiet(), "tools": [WEATHER_TOOL], "tool_choice": "auto"},
        )
        calls = message.get("tool_calls") or []
        if not calls:
            content = _text(message, "content")
            raise CheckError(
                f"no tool_calls (finish_reason {finish}), text {content[:200]!r}",
                f"{self.endpoint.parser_advice('tool-call-parser')}, and --enable-auto-tool-choice if it exists"
                if "tool_call" in content or "get_weather" in content
                else "the model did not call the tool: are these the right weights?",
            )
        function = calls[0].get("function") or {}
        return _tool_verdict(function, finish)

    def key_missing(self) -> str:
        return self._refused(None, "no key")

    def key_wrong(self) -> str:
        return self._refused("glm-wrong-key", "a wrong key")

    def _refused(self, key: Optional[str], what: str) -> str:
        asked = (("GET", "/v1/models", None), ("POST", "/v1/chat/completions", self._body("Hi", {"max_tokens": 1})))
        for method, path, body in asked:
            answer = ask(self.endpoint, method, path, body, key)
            if answer.status not in (401, 403):
                raise CheckError(
                    f"HTTP {answer.status} for {path} with {what}",
                    "the engine was started without its key: check the secret file of the unit and restart it",
                )
        return "refused"

    def _say(self, prompt: str, extra: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        answer = ask(self.endpoint, "POST", "/v1/chat/completions", self._body(prompt, extra), self.endpoint.api_key)
        if answer.status != 200:
            raise CheckError(answer.short(), "the engine is up but cannot answer: read the unit's journal")
        try:
            choice = answer.body["choices"][0]
            return dict(choice["message"]), str(choice.get("finish_reason"))
        except (KeyError, IndexError, TypeError) as exc:
            raise CheckError(answer.short(), "this is not an OpenAI-compatible answer: what has this port?") from exc

    def _body(self, prompt: str, extra: Mapping[str, Any]) -> dict[str, Any]:
        limit = self.endpoint.max_tokens
        if self.context:
            limit = max(16, min(limit, self.context - PROMPT_TOKENS))
        message = {"role": "user", "content": prompt}
        return {"model": self.endpoint.model, "messages": [message], "max_tokens": limit, "temperature": 0, **extra}

    def _quiet(self) -> Mapping[str, Any]:
        return self.endpoint.thinking_off or {}

    def _expect_no_markup(self, message: Mapping[str, Any]) -> None:
        found = [tag for tag in _MARKUP if tag in _text(message, "content")]
        if found:
            option = "tool-call-parser" if found[0] == "<tool_call>" else "reasoning-parser"
            raise CheckError(f"{found[0]} is in message.content", self.endpoint.parser_advice(option))


def _text(message: Mapping[str, Any], key: str) -> str:
    value = message.get(key)
    return value.strip() if isinstance(value, str) else ""


def _tool_verdict(function: Mapping[str, Any], finish: str) -> str:
    raw = function.get("arguments")
    try:
        arguments = json.loads(raw) if isinstance(raw, str) else None
    except ValueError:
        arguments = None
    if function.get("name") != "get_weather" or not isinstance(arguments, dict):
        raise CheckError(f"tool call {function}", "the tool call was not parsed: check --tool-call-parser of the plan")
    city = arguments.get("city")
    if not isinstance(city, str) or not city:
        raise CheckError(f"arguments {arguments}", "the arguments do not fit the tool's schema: check the tool parser")
    if finish != "tool_calls":
        raise CheckError(f"finish_reason {finish}", "the turn did not end for the tool: check the tool parser")
    return f"get_weather({json.dumps(arguments, ensure_ascii=False)})"


def _planned(conversation: Conversation) -> list[tuple[str, str, Callable[[], str]]]:
    endpoint = conversation.endpoint
    checks: list[tuple[str, str, Callable[[], str]]] = [
        ("health", f"{endpoint.health_path} answers 200", conversation.health),
        ("models", f"/v1/models lists exactly {endpoint.model}", conversation.models),
    ]
    if endpoint.api_key:
        checks += [
            ("key_missing", "401 on /v1 without a key", conversation.key_missing),
            ("key_wrong", "401 on /v1 with a wrong key", conversation.key_wrong),
        ]
    checks += [
        ("chat", "a chat is answered with text", conversation.chat),
        ("thinking_on", f"reasoning text in message.{endpoint.reasoning_field}", conversation.thinking_on),
    ]
    if endpoint.thinking_off is not None:
        checks.append(("thinking_off", "text and no reasoning when thinking is off", conversation.thinking_off))
    if endpoint.tool_call:
        checks.append(("tool_call", "a parsed call of get_weather, finish_reason tool_calls", conversation.tool_call))
    return checks


def run_checks(endpoint: Endpoint, clock: Callable[[], float] = time.monotonic) -> list[Finding]:
    """All checks of an endpoint, as ``tried`` gives them."""
    return _believe_the_chat(tried("verify", _planned(Conversation(endpoint)), endpoint.api_key, clock))


def tried(
    phase: str,
    checks: Iterable[tuple[str, str, Callable[[], str]]],
    key: Optional[str],
    clock: Callable[[], float],
) -> list[Finding]:
    """The findings of checks that are given as ``(name, expected, check)``, without the key.

    After one generation went unanswered the remaining ones are not tried: each would cost its whole timeout.
    """
    results: list[Finding] = []
    silent: Optional[str] = None
    for name, expected, check in checks:
        begun = clock()
        found, next_step = "", ""
        ok: Optional[bool] = False
        try:
            if silent:
                raise CheckError(f"not tried: {silent} got no answer", f"see {silent}")
            found, ok = check(), True
        except NotAsked as exc:
            found, ok = str(exc), None
        except CheckError as exc:
            found, next_step = exc.found, exc.next_step
        except NoAnswer as exc:
            found, next_step = str(exc), "is the unit active, and does it listen on this address? Read its journal"
            silent = name if exc.silent else silent
        shown = found.replace(key, "********") if key else found
        results.append(finding.judged(phase, name, ok, expected, shown, next_step, clock() - begun))
    return results


def _believe_the_chat(results: list[Finding]) -> list[Finding]:
    """Say it in words when /health is fine and the engine is not."""
    by_name = {result["check"]: result for result in results}
    if by_name["health"]["outcome"] == "passed" and by_name["chat"]["outcome"] == "failed":
        by_name["chat"]["found"] += " (while /health says 200: believe the chat)"
    return results
