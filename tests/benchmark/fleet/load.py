"""Clients of a fleet's gateways, which know all of their addresses: steady streams, tool calls and long prompts."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any, Self

from tests.benchmark.fleet import counting
from tests.benchmark.fleet.counting import Asked
from tests.integration.rehearsal import STATE

GATEWAY_PORT = 8443
MODEL = "glm-5.1-fp8"
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
# Of ten clients of a host, one calls tools; of twenty, one sends long prompts.
TOOLS_EVERY, LONG_EVERY, LONG_WORDS = 10, 20, 4000
TURNS = 5


class Client:
    """Asks one gateway, and the next when nobody there takes the request or it ends before its answer has begun."""

    def __init__(self, gateways: list[str], timeout: float = 300) -> None:
        self._gateways, self._timeout = gateways, timeout
        self._key = (STATE / "state" / "api_key").read_text("utf-8").strip()
        self._trust = ssl.create_default_context(cafile=str(STATE / "state" / "tls" / "ca.pem"))

    def ask(self, body: Mapping[str, Any], first: int, kind: str = "chat", timeout: float | None = None) -> Asked:
        """One request, which goes to the gateway of number ``first`` first."""
        text, begun, outcome, tries = json.dumps(body).encode(), time.time(), "", 0
        for number in range(len(self._gateways)):
            tries += 1
            outcome, again = self._once(self._gateways[(first + number) % len(self._gateways)], text, timeout)
            if not again:
                break
        return Asked(begun, time.time(), outcome, kind, tries)

    def _once(self, gateway: str, text: bytes, timeout: float | None) -> tuple[str, bool]:
        """How a request ended, and whether another gateway may be asked instead."""
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        connection = http.client.HTTPSConnection(
            gateway, GATEWAY_PORT, context=self._trust, timeout=timeout or self._timeout
        )
        answering = False
        try:
            connection.request("POST", "/v1/chat/completions", text, headers)
            answer = connection.getresponse()
            answering = True
            said = answer.read().decode("utf-8", "replace")
        except TimeoutError:
            return f"lost: silent for {timeout or self._timeout:g} s", False
        except (OSError, http.client.HTTPException) as error:
            return f"lost: {type(error).__name__}{' in an answer' if answering else ''}", not answering
        finally:
            connection.close()
        return f"lost: HTTP {answer.status}" if answer.status != 200 else counting.ended(said), False


class Asking:
    """Threads that ask until the block ends: one for each of ``whom``, which ``_ask_on`` is given."""

    def __init__(self, whom: Iterable[Any]) -> None:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask_on, args=(one,)) for one in whom]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask_on(self, one: Any) -> None:
        raise NotImplementedError


class Load(Asking):
    """Clients that each send one turn after another, in conversations of five turns, until the block ends."""

    def __init__(self, client: Client, clients: int, tokens: int = 150, pause: float = 0.5) -> None:
        super().__init__(range(clients))
        self._client, self._tokens, self._pause = client, tokens, pause
        self._lock = threading.Lock()
        self.asked: list[Asked] = []

    def _ask_on(self, number: int) -> None:
        turn = 0
        self._stop.wait(self._pause * number / max(1, len(self._threads)))
        while not self._stop.is_set():
            kind = kind_of(number)
            one = self._client.ask(request(kind, number, turn, self._tokens), number, kind)
            with self._lock:
                self.asked.append(one)
            turn += 1
            self._stop.wait(self._pause)


def kind_of(number: int) -> str:
    """What a client of that number sends."""
    if number % LONG_EVERY == LONG_EVERY - 1:
        return "long"
    return "tools" if number % TOOLS_EVERY == TOOLS_EVERY // 2 else "chat"


def request(kind: str, number: int, turn: int, tokens: int) -> dict[str, Any]:
    """The body of a turn."""
    words = f"conversation {number}-{turn // TURNS}"
    messages: list[dict[str, Any]] = [{"role": "user", "content": words}]
    if kind == "long":
        messages[0]["content"] += " and a long text" * (LONG_WORDS // 4)
    for past in range(turn % TURNS):
        messages += [{"role": "assistant", "content": f"answer {past}"}, {"role": "user", "content": f"next {past}"}]
    more = {"tools": [TOOL], "max_tokens": 200} if kind == "tools" else {"max_tokens": tokens}
    return {"model": MODEL, "stream": True, "messages": messages, **more}
