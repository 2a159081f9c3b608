"""What a server remembers: who is under way, what was answered, what its prefix cache holds, what it counts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from .answers import Reply, question, said
from .wire import Body, Dialect

BLOCK = 16
# Tokens of a chat template around a conversation, and of the description of a tool.
TEMPLATE, TOOL = 20, 150


@dataclass
class Asked:
    """A request for a chat, and what is going on around it."""

    body: Body
    dialect: Dialect
    number: int
    tokens: int
    cached: int
    # Requests under way with this one, it included, in the order in which they came.
    crowd: list[Body] = field(default_factory=list)
    # What was answered before, and how often to this very request.
    earlier: list[Reply] = field(default_factory=list)
    repeats: int = 0

    @property
    def streamed(self) -> bool:
        return bool(self.body.get("stream"))

    @property
    def tools(self) -> bool:
        return bool(self.body.get("tools"))


@dataclass
class State:
    """Counters and memory of a running server; ``together`` are questions that wait until so many are under way."""

    together: frozenset[str] = frozenset()
    at_once: int = 8
    requests: list[Body] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    underway: dict[int, Body] = field(default_factory=dict)
    gathered: list[Body] = field(default_factory=list)
    answered: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    cached_tokens: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)
    released: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def taken(self, body: Body) -> Iterator[tuple[int, list[Body]]]:
        """Count a request as under way: its number, and all that are under way with it."""
        with self.changed:
            self.requests.append(body)
            number = len(self.requests)
            self.underway[number] = body
            crowd = list(self.underway.values())
            if question(body) in self.together:
                self.together -= {question(body)}
                if len(crowd) >= self.at_once:
                    self.gathered = crowd
                    self.changed.notify_all()
                self.changed.wait_for(lambda: bool(self.gathered), 30)
                crowd = self.gathered or crowd
        try:
            yield number, crowd
        finally:
            with self.changed:
                del self.underway[number]

    def asked(self, body: Body, dialect: Dialect, number: int, crowd: list[Body]) -> Asked:
        prompt = "\n".join(f"{message['role']}: {said(message)}" for message in body["messages"])
        prompt = f"{sorted(tool['function']['name'] for tool in body.get('tools') or [])}\n{prompt}"
        length = len(prompt) // 4 + TEMPLATE + TOOL * len(body.get("tools") or []) + thoughts_of(body)
        with self.changed:
            repeats = self.prompts.count(prompt)
            known = max((_common(prompt, one) for one in self.prompts), default=0)
            self.prompts.append(prompt)
            share = (length - 1) * known // max(1, len(prompt))
            cached = share // BLOCK * BLOCK
            self.prompt_tokens += length
            self.cached_tokens += cached
            return Asked(body, dialect, number, length, cached, crowd, list(self.replies), repeats)

    def done(self, reply: Reply, tokens: int) -> None:
        with self.changed:
            self.answered += 1
            self.generated_tokens += tokens
            self.replies.append(reply)

    def metrics(self, engine: str) -> dict[str, float]:
        """Names and values of an engine's own metrics."""
        running, answered = len(self.underway), self.answered
        if engine == "sglang":
            return {
                "sglang:num_running_reqs": running,
                "sglang:num_queue_reqs": 0,
                "sglang:num_requests_total": answered,
                "sglang:prompt_tokens_total": self.prompt_tokens,
                "sglang:generation_tokens_total": self.generated_tokens,
                "sglang:cached_tokens_total": self.cached_tokens,
                "sglang:max_total_num_tokens": 1_600_000,
                "sglang:token_usage": min(1.0, running / 10),
                "sglang:spec_accept_length": 3.1,
            }
        return {
            'vllm:cache_config_info{block_size="16",num_gpu_blocks="100000"}': 1.0,
            "vllm:num_requests_running": running,
            "vllm:num_requests_waiting": 0,
            "vllm:request_success_total": answered,
            "vllm:prompt_tokens_total": self.prompt_tokens,
            "vllm:generation_tokens_total": self.generated_tokens,
            "vllm:kv_cache_usage_perc": min(1.0, running / 10),
            "vllm:prefix_cache_queries_total": self.prompt_tokens,
            "vllm:prefix_cache_hits_total": self.cached_tokens,
            "vllm:spec_decode_num_drafts_total": 10 * answered,
            "vllm:spec_decode_num_draft_tokens_total": 30 * answered,
            "vllm:spec_decode_num_accepted_tokens_total": 21 * answered,
        }


def thoughts_of(body: Body) -> int:
    """Prompt tokens of earlier thoughts, which a template keeps when it is asked to."""
    if (body.get("chat_template_kwargs") or {}).get("clear_thinking", True):
        return 0
    kept = (message.get("reasoning_content") or message.get("reasoning") for message in body["messages"])
    return sum(len(str(text)) // 4 + 1 for text in kept if text)


def _common(one: str, other: str) -> int:
    """Characters at the start of both."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one.startswith(other[low:middle], low):
            low = middle
        else:
            high = middle - 1
    return low


def usage_of(asked: Asked, reply: Reply) -> dict[str, Any]:
    spoken = len(reply.content + reply.reasoning) // 4 + sum(len(call.text()) // 4 + 8 for call in reply.calls) + 1
    spoken = asked.body.get("max_completion_tokens", spoken)
    usage: dict[str, Any] = {"prompt_tokens": asked.tokens, "total_tokens": asked.tokens + spoken}
    usage["completion_tokens"] = spoken
    usage["prompt_tokens_details"] = {"cached_tokens": asked.cached} if asked.dialect.cached else None
    return usage
