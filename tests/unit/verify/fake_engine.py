"""A small OpenAI-like HTTP server that can misbehave in the ways real engines do."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "glm-test-key"
MODEL = "glm-5.1-fp8"
UNPARSED = "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Paris</arg_value></tool_call>"


@dataclass
class Behaviour:
    """What is wrong with the engine; the defaults are a good one."""

    model: str = MODEL
    reasoning_field: str = "reasoning"
    key_required: bool = True
    chat_status: int = 200
    hang: bool = False
    reasons: bool = True
    always_thinks: bool = False
    think_in_content: bool = False
    tool_as_text: bool = False
    tool_arguments: str = '{"city": "Paris"}'
    tool_finish: str = "tool_calls"
    empty_content: bool = False
    garbage: bool = False
    context: int | None = None
    key: str = KEY
    requests: list[dict[str, Any]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)


class Handler(BaseHTTPRequestHandler):
    """Routes of an engine; the behaviour hangs on the server."""

    protocol_version = "HTTP/1.1"

    @property
    def behaviour(self) -> Behaviour:
        return self.server.behaviour  # type: ignore[attr-defined]

    def do_GET(self) -> None:
        if self.path == "/health":
            self.answer(200, None)
        elif self.refused():
            self.answer(401, {"error": "Unauthorized"})
        elif self.behaviour.garbage:
            self.answer(200, "<html>a web page</html>")
        else:
            card = {"id": self.behaviour.model, "object": "model"}
            if self.behaviour.context:
                card["max_model_len"] = self.behaviour.context
            self.answer(200, {"object": "list", "data": [card]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.refused():
            return self.answer(401, {"error": "Unauthorized"})
        self.behaviour.requests.append(body)
        if self.behaviour.hang:
            self.behaviour.released.wait(30)
            return None
        if self.behaviour.chat_status != 200:
            error = {"message": f"EngineDeadError key={self.behaviour.key}"}
            return self.answer(self.behaviour.chat_status, {"error": error})
        prompt_tokens = 624 if "tools" in body else 16
        if self.behaviour.context and prompt_tokens + body["max_tokens"] > self.behaviour.context:
            return self.answer(400, {"message": "Requested token count exceeds the model's maximum context length"})
        if self.behaviour.garbage:
            return self.answer(200, {"object": "something else"})
        message, finish = self.message(body)
        return self.answer(200, {"choices": [{"message": message, "finish_reason": finish}]})

    def message(self, body: dict[str, Any]) -> tuple[dict[str, Any], str]:
        behaviour = self.behaviour
        thinks = body.get("chat_template_kwargs", {}).get("enable_thinking", True) or behaviour.always_thinks
        message: dict[str, Any] = {"role": "assistant", "content": None if behaviour.empty_content else "42"}
        if thinks and behaviour.think_in_content:
            message["content"] = "<think>17 + 25</think>42"
        elif thinks and behaviour.reasons:
            message[behaviour.reasoning_field] = "17 + 25 is 42"
        if "tools" in body:
            if behaviour.tool_as_text:
                message["content"] = UNPARSED
                return message, "stop"
            call = {"type": "function", "function": {"name": "get_weather", "arguments": behaviour.tool_arguments}}
            return {**message, "content": None, "tool_calls": [call]}, behaviour.tool_finish
        return message, "stop"

    def refused(self) -> bool:
        return self.behaviour.key_required and self.headers.get("Authorization") != f"Bearer {self.behaviour.key}"

    def answer(self, status: int, body: Any) -> None:
        text = b"" if body is None else (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_args: Any) -> None:
        """Quiet."""


@contextmanager
def engine(
    behaviour: Behaviour | None = None, where: tuple[str, int] = ("127.0.0.1", 0)
) -> Iterator[tuple[Behaviour, int]]:
    """A running server, by default on a free loopback port."""
    chosen = behaviour or Behaviour()
    server = ThreadingHTTPServer(where, Handler)
    server.behaviour = chosen  # type: ignore[attr-defined]
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield chosen, server.server_address[1]
    finally:
        chosen.released.set()
        server.shutdown()
        server.server_close()
