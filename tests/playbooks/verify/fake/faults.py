"""Every fault that the server can show; those of streams and of the server itself are here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import effects as to
from . import stream_effects as stream
from .answers import Manner
from .call_faults import CALL_FAULTS
from .fault import (
    BROKE,
    CALLED,
    CALLS,
    DIFFERS,
    EVERYWHERE,
    GENERATED,
    GIVEN,
    LOADED_STREAMS,
    LONG,
    LONG_STREAMS,
    SIX,
    STREAMS,
    TEXTS,
    TWO,
    WHOLE,
    Fault,
    spread,
)
from .text_faults import TEXT_FAULTS, THOUGHT_FAULTS
from .wire import Act


def other_status(status: int, message: str) -> Any:
    return lambda _asked: (status, {"error": {"message": message, "type": "InternalServerError"}})


STREAM_FAULTS = [
    spread(
        "a piece of arguments lost",
        "arguments",
        GIVEN,
        (STREAMS,),
        CALLED,
        events=stream.without("tool_calls", slice(2, 3)),
    ),
    spread(
        "the end of arguments lost",
        "arguments",
        GIVEN,
        (STREAMS,),
        CALLED,
        events=stream.without("tool_calls", slice(-1, None)),
    ),
    spread(
        "another name",
        "wrong tool call",
        CALLS,
        (STREAMS,),
        CALLED,
        events=stream.pieces_of_calls(stream.named("get_whether")),
    ),
    spread("no name", "wrong tool call", CALLS, (STREAMS,), CALLED, events=stream.pieces_of_calls(stream.named(None))),
    spread("the second call lost", DIFFERS, ("tool_several",), (STREAMS,), CALLED, events=stream.second_call_lost),
    spread(
        "one index for all calls",
        ("arguments", "no tool call", "wrong tool call"),
        ("tool_several",),
        (STREAMS,),
        CALLED,
        events=stream.pieces_of_calls(lambda piece: {**piece, "index": 0}),
    ),
    spread(
        "text before a call lost",
        DIFFERS,
        CALLS,
        (STREAMS,),
        CALLED,
        events=stream.where_called(stream.without("content", slice(0, None))),
        manner=Manner(before_calls="I will look that up."),
    ),
    spread("the first text lost", "wrong answer", ("chat",), (STREAMS,), events=stream.without("content", slice(0, 1))),
    spread("a piece of text lost", DIFFERS, ("chat",), (STREAMS,), events=stream.without("content", slice(2, 3))),
    spread(
        "all text lost",
        "no text",
        TEXTS,
        (STREAMS, LOADED_STREAMS, LONG_STREAMS),
        events=stream.without("content", slice(0, None)),
    ),
    spread("text twice", ("wrong answer", DIFFERS, "the answer twice"), TEXTS, (STREAMS,), events=stream.twice),
    spread("all text in every piece", ("wrong answer", DIFFERS), ("chat",), (STREAMS,), events=stream.growing),
    spread("wrong order", ("token salad", "wrong answer", DIFFERS), ("chat",), (STREAMS,), events=stream.turned_round),
    spread(
        "no finish_reason",
        "the stream ended without finish_reason",
        (*TEXTS, *CALLS),
        (STREAMS, LOADED_STREAMS, LONG_STREAMS),
        events=stream.no_finish,
    ),
    spread(
        "breaks off",
        BROKE,
        (*TEXTS, *CALLS),
        (STREAMS, LOADED_STREAMS, LONG_STREAMS),
        events=stream.after_half([Act.CLOSE]),
    ),
    spread(
        "an error in the middle",
        BROKE,
        (*TEXTS, *CALLS),
        (STREAMS, LOADED_STREAMS, LONG_STREAMS),
        events=stream.after_half([{"error": {"message": "EngineDeadError", "code": 500}}, "data: [DONE]"]),
    ),
    spread(
        "half a line",
        (BROKE, "the stream has an event that is not JSON"),
        (*TEXTS, *CALLS),
        (STREAMS, LOADED_STREAMS, LONG_STREAMS),
        events=stream.after_half(['data: {"id": "chatcmpl-1", "cho', Act.CLOSE]),
    ),
    spread(
        "no id",
        "wrong tool call",
        CALLS,
        (STREAMS,),
        CALLED,
        events=stream.pieces_of_calls(stream.identified(None)),
    ),
    spread(
        "one id for both calls",
        "wrong tool call",
        ("tool_several",),
        (STREAMS,),
        CALLED,
        events=stream.pieces_of_calls(stream.identified("call_1")),
    ),
]

SERVER_FAULTS = [
    spread(
        "a whole answer for a stream",
        "the stream is a whole answer",
        (*TEXTS, *CALLS),
        (STREAMS,),
        http=stream.flattened,
    ),
    spread(
        "the text is cut", "wrong answer", (), (LONG,), reply=to.text("There is no number of a locker in the text.")
    ),
    spread(
        "an empty stream",
        "the stream ended without finish_reason",
        (*TEXTS, *CALLS),
        (STREAMS, LOADED_STREAMS, LONG_STREAMS),
        events=lambda _asked, events: events[-1:],
    ),
    spread(
        "an error as an answer",
        "HTTP 200",
        (*TEXTS, *CALLS),
        (WHOLE,),
        http=lambda _asked: (200, {"object": "error", "message": "the engine is dead", "code": 500}),
    ),
    spread("every chat fails", "HTTP 500", (*TEXTS, *CALLS), EVERYWHERE, http=other_status(500, "EngineDeadError")),
    spread("too many requests", "HTTP 429", (), (TWO, SIX), http=other_status(429, "queue is full")),
    spread("a web page", "HTTP 200", TEXTS, (WHOLE,), http=lambda _asked: (200, "<html>a web page</html>")),
    spread("no choices", "HTTP 200", TEXTS, (WHOLE,), body=lambda _asked, whole: {**whole, "choices": []}),
    spread("hangs", "no answer within", (), (TWO, SIX, LONG), http=lambda _asked: (200, Act.HANG), hangs=True),
    spread("dies", "no answer: RemoteDisconnected", (*TEXTS, *CALLS), EVERYWHERE, http=lambda _asked: (200, Act.CLOSE)),
]


def _single() -> Iterator[Fault]:
    """Faults with a check of their own."""
    yield Fault(
        "hangs", WHOLE, (("chat", "no answer within"),), ("*",), http=lambda _asked: (200, Act.HANG), hangs=True
    )
    yield Fault(
        "nothing after the headers",
        STREAMS,
        (("first_token", "no answer"),),
        ("*",),
        events=stream.hang_at_once,
        hangs=True,
    )
    yield Fault(
        "a pause after each piece", STREAMS, (("first_token", "slow"),), ("*",), events=stream.slowly, hangs=True
    )
    yield Fault(
        "only pings",
        STREAMS,
        (("first_token", "no answer: the stream is open"),),
        ("*",),
        events=stream.only_pings,
        hangs=True,
    )
    yield Fault(
        "stops in the middle",
        STREAMS,
        (("first_token", BROKE),),
        ("*",),
        events=stream.after_half([Act.HANG]),
        hangs=True,
    )
    yield Fault(
        "garbage from the cache",
        shows=(("prefix_cache", "one token repeated"),),
        touches=GENERATED,
        reply=to.once_repeated(to.text("!" * 200, "length")),
    )
    yield Fault(
        "wrong answer from the cache",
        shows=(("prefix_cache", "wrong answer"),),
        touches=GENERATED,
        reply=to.once_repeated(to.number(lambda _number: 7)),
    )
    yield Fault(
        "nothing is cached",
        shows=(("prefix_cache", "no prefix-cache hit"),),
        usage=to.nothing_cached,
        metrics=to.metric("prefix_cache_hits|cached_tokens", 0),
    )
    yield Fault(
        "results of tools lost",
        shows=(("tool_turns", "wrong answer"), ("thinking_interleaved", "wrong answer")),
        reply=to.result_ignored,
    )
    yield Fault("thoughts dropped", shows=(("thinking_preserved", "thoughts dropped"),), usage=to.thoughts_dropped)
    yield Fault(
        "drafts are wrong", shows=(("mtp_acceptance", "1.0"),), metrics=to.metric("accepted_tokens|accept_length", 1)
    )
    yield Fault(
        "no drafts", shows=(("mtp_acceptance", "the engine wrote"),), metrics=to.metric("spec_decode", 0), engine="vllm"
    )
    yield Fault("a small pool", shows=(("kv_pool", "1,024 tokens"),), metrics=to.small_pool)
    yield Fault("a short context", shows=(("context", "serves 8,192 of 202,752 tokens"),), get=card(max_model_len=8192))
    yield Fault("another model", shows=(("models", "models ['llama']"),), get=card(id="llama"), touches=("context",))
    yield Fault("unhealthy", shows=(("health", "HTTP 503"),), get=at("/health", 503))
    yield Fault(
        "no list of models", shows=(("models", "HTTP 500"),), get=at("/v1/models", 500), touches=("context", "key_*")
    )
    yield Fault("any key is taken", shows=(("key_missing", "HTTP 200"), ("key_wrong", "HTTP 200")), opens=True)


def at(where: str, instead: int) -> Any:
    """Another status for a path."""
    return lambda path, status, body: (instead, "") if path == where else (status, body)


def card(**other: Any) -> Any:
    """Something else about the model in ``/v1/models``."""

    def change(path: str, status: int, body: Any) -> tuple[int, Any]:
        if path != "/v1/models" or status != 200:
            return status, body
        return status, {**body, "data": [{**one, **other} for one in body["data"]]}

    return change


_SPREAD = (*TEXT_FAULTS, *THOUGHT_FAULTS, *CALL_FAULTS, *STREAM_FAULTS, *SERVER_FAULTS)
FAULTS = [*(fault for scopes in _SPREAD for fault in scopes), *_single()]


def fault(name: str) -> Fault:
    """A fault by its name and scope, such as ``seven-above-a-length``."""
    return next(one for one in FAULTS if str(one) == name)
