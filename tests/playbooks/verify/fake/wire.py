"""Replies as JSON and as server-sent events, in the shapes of vLLM 0.32.0, SGLang 0.5.10 and what is before them.

vLLM leaves out what was not set and ends the call of a named tool with finish_reason ``stop``. SGLang writes every key
and says ``tool_calls`` for every call.
Sources: vllm/entrypoints/openai/chat_completion/serving.py, sglang/srt/entrypoints/openai/serving_chat.py.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Union

from .answers import Call, Manner, Reply

Body = dict[str, Any]


class Act(enum.Enum):
    """What happens to a connection instead of a further event."""

    HANG = "nothing more is sent"
    PAUSE = "nothing is sent for a while"
    CLOSE = "the connection ends"


# A chunk, a text that is sent as it is, or what happens.
Event = Union[Body, str, Act]


@dataclass(frozen=True)
class Dialect:
    """A healthy way to write answers; the defaults are vLLM's.

    ``piece``: characters of a delta, 0 for everything in one. ``write``: bytes of a write to the socket, 0 for an event
    each. ``pace``: seconds between two writes.
    """

    name: str = "vllm"
    engine: str = "vllm"
    reasoning_field: str = "reasoning"
    manner: Manner = field(default_factory=Manner)
    usage: bool = True
    cached: bool = True
    card: bool = True
    piece: int = 6
    write: int = 0
    pace: float = 0
    line_end: str = "\n"
    prefix: str = "data: "
    keep_alive: str = ""
    chunked: bool = True
    # Text that ends a stream; older engines and proxies have none.
    done: bool = True
    # Also the field of the other engine, and an empty list of calls, as older versions of vLLM have them.
    older: bool = False
    # Usage, or the role, in every chunk.
    running_usage: bool = False
    role_everywhere: bool = False
    # The role comes with the first text, and the last thought with the first of the answer.
    glued: bool = False
    # The finish_reason has a chunk of its own: a model's last token has no text.
    own_finish: bool = True


def finish_of(reply: Reply, body: Body, dialect: Dialect) -> str:
    named = isinstance(body.get("tool_choice"), dict)
    return "stop" if reply.finish == "tool_calls" and named and dialect.engine == "vllm" else reply.finish


def whole(reply: Reply, body: Body, usage: Body, dialect: Dialect, number: int) -> Body:
    """The answer to a request without ``stream``."""
    calls = [_call(call, number, index) for index, call in enumerate(reply.calls)]
    message: Body = {"role": "assistant", "content": reply.content or None}
    if dialect.engine == "sglang":
        for index, call in enumerate(calls):
            call["index"] = index
        message |= {dialect.reasoning_field: reply.reasoning or None, "tool_calls": calls or None}
        extra: Body = {"matched_stop": 154827 if not calls else None}
        rest: Body = {"metadata": {"weight_version": "default"}}
    else:
        message |= dict.fromkeys(("refusal", "annotations", "audio", "function_call"))
        message |= {"tool_calls": calls} if calls else {}
        message |= {dialect.reasoning_field: reply.reasoning or None}
        if dialect.older:
            message |= {"reasoning_content": reply.reasoning or None, "tool_calls": calls}
        extra = {"stop_reason": None, "token_ids": None}
        rest = {"service_tier": None, "system_fingerprint": None, "prompt_logprobs": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_of(reply, body, dialect)}
    made = {"id": f"chatcmpl-{number}", "object": "chat.completion", "created": 1764370000, "model": body["model"]}
    return made | {"choices": [choice | extra]} | ({"usage": usage} if dialect.usage else {}) | rest


def events(reply: Reply, body: Body, usage: Body, dialect: Dialect, number: int) -> list[Event]:
    """The answer to a request with ``stream``, up to and with ``[DONE]``."""
    deltas = _deltas(reply, dialect, number)
    made = [chunk(delta, body, dialect, number) for delta in deltas]
    if dialect.own_finish:
        made.append(chunk({}, body, dialect, number))
    made[-1]["choices"][0]["finish_reason"] = finish_of(reply, body, dialect)
    if dialect.usage and (body.get("stream_options") or {}).get("include_usage"):
        last = chunk({}, body, dialect, number)
        made.append({**last, "choices": [], "usage": usage})
    if dialect.running_usage:
        made = [{**one, "usage": usage} for one in made]
    found: list[Event] = []
    for one in made:
        found += [dialect.keep_alive, one] if dialect.keep_alive else [one]
    return [*found, f"{dialect.prefix}[DONE]"] if dialect.done else found


def chunk(delta: Body, body: Body, dialect: Dialect, number: int) -> Body:
    choice: Body = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
    made: Body = {"id": f"chatcmpl-{number}", "object": "chat.completion.chunk", "created": 1764370000}
    if dialect.engine == "sglang":
        empty = dict.fromkeys(("role", "content", dialect.reasoning_field, "tool_calls"))
        choice |= {"delta": {**empty, **delta}, "matched_stop": None}
        return {**made, "model": body["model"], "choices": [choice], "usage": None}
    if dialect.role_everywhere:
        choice["delta"] = {"role": "assistant", **delta}
    if dialect.older:
        same = {"reasoning_content": delta["reasoning"]} if delta.get("reasoning") else {}
        choice["delta"] = {"tool_calls": [], **same, **delta}
    return {**made, "choices": [{**choice, "token_ids": None}], "model": body["model"]}


def written(event: Body | str, dialect: Dialect) -> bytes:
    """An event as it is sent, with the empty line that ends it."""
    line = event if isinstance(event, str) else dialect.prefix + json.dumps(event, ensure_ascii=False)
    return (line + 2 * dialect.line_end).encode()


def pieces(text: str, size: int) -> Iterator[str]:
    size = size or len(text) or 1
    return (text[start : start + size] for start in range(0, len(text), size))


def _deltas(reply: Reply, dialect: Dialect, number: int) -> list[Body]:
    made: list[Body] = [{"role": "assistant", "content": ""}]
    made += [{dialect.reasoning_field: piece} for piece in pieces(reply.reasoning, dialect.piece)]
    made += [{"content": piece} for piece in pieces(reply.content, dialect.piece)]
    if dialect.glued:
        made = _glued(made)
    if dialect.piece == 0 and len(reply.calls) > 1:
        return [
            *made,
            {"tool_calls": [{"index": at, **_call(call, number, at)} for at, call in enumerate(reply.calls)]},
        ]
    for index, call in enumerate(reply.calls):
        first = {"index": index, **_call(call, number, index)}
        if dialect.piece:
            first["function"] = {"name": call.name, "arguments": ""}
            parts = [{"arguments": piece} for piece in pieces(call.text(), dialect.piece)]
        else:
            parts = []
        made.append({"tool_calls": [first]})
        for part in parts:
            if dialect.engine == "sglang":
                later = {"id": None, "index": index, "type": "function", "function": {"name": None, **part}}
            else:
                later = {"index": index, "function": part}
            made.append({"tool_calls": [later]})
    return made


def _glued(deltas: list[Body]) -> list[Body]:
    """The first with the second, and the last thought with the first text."""
    if len(deltas) > 1:
        deltas = [{**deltas[0], **deltas[1]}, *deltas[2:]]
    for at in range(1, len(deltas)):
        if "content" in deltas[at] and "content" not in deltas[at - 1]:
            return [*deltas[: at - 1], {**deltas[at - 1], **deltas[at]}, *deltas[at + 1 :]]
    return deltas


def _call(call: Call, number: int, index: int) -> Body:
    function = {"name": call.name, "arguments": call.text()}
    return {"id": f"call_{number}_{index}", "type": "function", "function": function}
