"""A small OpenAI-like HTTP server that can misbehave in the ways real engines do."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
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
    knows_its_name: bool = False
    # What a broken template, cache or kernel does to a conversation.
    drops_thoughts: bool = False
    drops_tool_results: bool = False
    misreads_long_prompts: bool = False
    # Under load: ends after so many chats, turns away what is more than so many at once, takes so long for each of a
    # client that measures (also for those under way, when it is changed).
    dies_after: int | None = None
    freezes_after: int | None = None
    capacity: int | None = None
    seconds: float = 0.0
    key: str = KEY
    requests: list[dict[str, Any]] = field(default_factory=list)
    answered: int = 0
    underway: int = 0
    guard: threading.Lock = field(default_factory=threading.Lock)
    released: threading.Event = field(default_factory=threading.Event)


class Handler(BaseHTTPRequestHandler):
    """Routes of an engine; the behaviour hangs on the server."""

    protocol_version = "HTTP/1.1"

    @property
    def behaviour(self) -> Behaviour:
        return self.server.behaviour  # type: ignore[attr-defined]

    def do_GET(self) -> None:
        if self.frozen():
            self.behaviour.released.wait(30)
            return
        if self.path == "/health":
            self.answer(200, None)
        elif self.path == "/version":
            self.answer(200, {"version": "0.32.0"})
        elif self.path == "/metrics":
            self.answer(200, self.metrics())
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
        if self.behaviour.knows_its_name and body["model"] != self.behaviour.model:
            return self.answer(404, {"error": {"message": f"The model `{body['model']}` does not exist."}})
        with self.behaviour.guard:
            self.behaviour.underway += 1
            crowd = self.behaviour.underway
        try:
            return self.served(body, crowd)
        finally:
            with self.behaviour.guard:
                self.behaviour.underway -= 1

    def served(self, body: dict[str, Any], crowd: int) -> None:
        if self.behaviour.capacity is not None and crowd > self.behaviour.capacity:
            return self.answer(503, {"error": {"message": "too many requests are waiting"}})
        begun = time.monotonic()
        while "max_completion_tokens" in body and time.monotonic() - begun < self.behaviour.seconds:
            time.sleep(min(0.02, self.behaviour.seconds))
        if self.behaviour.dies_after is not None and len(self.behaviour.requests) > self.behaviour.dies_after:
            self.close_connection = True
            return self.connection.shutdown(socket.SHUT_RDWR)
        if self.behaviour.hang or self.frozen():
            self.behaviour.released.wait(30)
            return None
        if self.behaviour.chat_status != 200:
            error = {"message": f"EngineDeadError key={self.behaviour.key}"}
            return self.answer(self.behaviour.chat_status, {"error": error})
        prompt_tokens = (624 if "tools" in body else 16) + self.thoughts(body)
        wanted = body.get("max_tokens", body.get("max_completion_tokens", 0))
        if self.behaviour.context and prompt_tokens + wanted > self.behaviour.context:
            return self.answer(400, {"message": "Requested token count exceeds the model's maximum context length"})
        if self.behaviour.garbage:
            return self.answer(200, {"object": "something else"})
        message, finish = self.message(body)
        self.behaviour.answered += 1
        usage = {"prompt_tokens": prompt_tokens, "completion_tokens": body.get("max_completion_tokens", 1)}
        return self.answer(200, {"choices": [{"message": message, "finish_reason": finish}], "usage": usage})

    def frozen(self) -> bool:
        """Whether nothing is answered any more, as by a port that a killed server's child still holds."""
        return self.behaviour.freezes_after is not None and len(self.behaviour.requests) > self.behaviour.freezes_after

    def metrics(self) -> str:
        """The metrics of vLLM, for as many requests as were answered."""
        answered, underway = self.behaviour.answered, self.behaviour.underway
        return (
            'vllm:cache_config_info{block_size="16",num_gpu_blocks="1024"} 1.0\n'
            f"vllm:num_requests_running {underway}\nvllm:num_requests_waiting 0\n"
            f"vllm:kv_cache_usage_perc {min(1.0, underway / 10)}\n"
            f"vllm:prefix_cache_queries_total {100 * answered}\nvllm:prefix_cache_hits_total {5 * answered}\n"
            f"vllm:spec_decode_num_drafts_total {10 * answered}\n"
            f"vllm:spec_decode_num_draft_tokens_total {30 * answered}\n"
            f"vllm:spec_decode_num_accepted_tokens_total {21 * answered}\n"
        )

    def thoughts(self, body: dict[str, Any]) -> int:
        """Prompt tokens of earlier thoughts."""
        if self.behaviour.drops_thoughts or body.get("chat_template_kwargs", {}).get("clear_thinking", True):
            return 0
        return sum(len(str(message.get("reasoning_content") or "")) // 4 for message in body["messages"])

    def text(self, body: dict[str, Any]) -> str:
        """What a model says that reads the conversation."""
        for message in reversed(body["messages"]):
            locker = re.search(r"locker is (\d+)", str(message["content"]))
            if locker and not self.behaviour.misreads_long_prompts:
                return locker.group(1)
            if message["role"] == "tool" and not self.behaviour.drops_tool_results:
                return f"It is {json.loads(message['content'])['degrees_celsius']} degrees."
        return "42"

    def message(self, body: dict[str, Any]) -> tuple[dict[str, Any], str]:
        behaviour = self.behaviour
        thinks = body.get("chat_template_kwargs", {}).get("enable_thinking", True) or behaviour.always_thinks
        message: dict[str, Any] = {"role": "assistant", "content": None if behaviour.empty_content else self.text(body)}
        if thinks and behaviour.think_in_content:
            message["content"] = "<think>17 + 25</think>42"
        elif thinks and behaviour.reasons:
            message[behaviour.reasoning_field] = "17 + 25 is 42"
        if "tools" in body and not any(message["role"] == "tool" for message in body["messages"]):
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
