"""A fault of an engine: when it shows, what it changes, and where ``verify`` has to find it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Union

from .answers import Manner, Reply
from .state import Asked
from .wire import Act, Body, Event

Shown = Union[str, tuple[str, ...]]
Instead = tuple[int, Union[Body, str, Act, None]]
# A prompt above this is a long one; the needle of a test has to be longer.
LONG_TOKENS = 1500


@dataclass(frozen=True)
class Scope:
    """When a fault shows, and which checks can see it then."""

    name: str
    holds: Callable[[Asked], bool]
    seen_by: Callable[[str], bool]
    # Groups of the gate's checks that show it best; empty for all.
    groups: tuple[str, ...] = ()


AT_ONCE = ("parallel", "parallel_calls", "eval")
PARALLEL = ("parallel",)
ALWAYS = Scope("always", lambda _asked: True, lambda _check: True)
TWO = Scope("with two at once", lambda asked: len(asked.crowd) >= 2, lambda check: check in AT_ONCE, PARALLEL)
SIX = Scope("with six at once", lambda asked: len(asked.crowd) >= 6, lambda check: check in AT_ONCE, PARALLEL)
STREAMS = Scope(
    "in streams",
    lambda asked: asked.streamed,
    lambda check: check.endswith("_stream") or check in ("first_token", "prefix_cache", "long_tool_call", *AT_ONCE),
    ("answers",),
)
WHOLE = Scope("in whole answers", lambda asked: not asked.streamed, lambda check: not check.endswith("_stream"))
TOOLS = Scope(
    "with tools",
    lambda asked: asked.tools,
    lambda check: (
        check.startswith("tool_") or check in ("thinking_interleaved", "parallel_calls", "long_tool_call", "eval")
    ),
    ("answers",),
)
ONE = Scope(
    "in one of many at once",
    lambda asked: len(asked.crowd) >= 6 and asked.body is asked.crowd[-1],
    SIX.seen_by,
    PARALLEL,
)
LOADED_STREAMS = Scope(
    "in streams under load", lambda asked: asked.streamed and len(asked.crowd) >= 2, SIX.seen_by, PARALLEL
)
# One of two data-parallel ranks.
HALF = Scope("in every other answer", lambda asked: asked.number % 2 == 0, lambda _check: True)
STREAMED_TOOLS = Scope(
    "in streams with tools",
    lambda asked: asked.tools and asked.streamed,
    lambda check: STREAMS.seen_by(check) and check not in ("parallel", "prefix_cache"),
    ("answers",),
)
# A sampler that is broken shows it only where it is used.
SAMPLED = Scope(
    "above temperature 0",
    lambda asked: asked.body.get("temperature", 0) > 0,
    lambda check: check.startswith("sampling_") or check == "thinking_interleaved",
    ("sampling", "thinking_interleaved"),
)
TURNS = Scope(
    "in later turns",
    lambda asked: any(message["role"] == "assistant" for message in asked.body["messages"]),
    lambda check: check in ("tool_turns", "thinking_interleaved", "thinking_preserved"),
    ("tool_turns", "thinking_interleaved", "thinking_preserved"),
)
AFTER_LONG = ("needle", "prefix_cache", "long_tool_call")
LONG = Scope("above a length", lambda asked: asked.tokens > LONG_TOKENS, lambda check: check in AFTER_LONG, ("needle",))
LONG_STREAMS = Scope(
    "in streams above a length", lambda asked: LONG.holds(asked) and asked.streamed, LONG.seen_by, ("needle",)
)
LONG_TOOLS = Scope(
    "with tools above a length", lambda asked: LONG.holds(asked) and asked.tools, LONG.seen_by, ("needle",)
)


@dataclass(frozen=True)
class Fault:
    """What goes wrong and when; ``shows`` are checks and the beginning of what each has to find.

    ``touches``: patterns of further checks that may find it; no other check may fail.
    """

    name: str
    scope: Scope = ALWAYS
    shows: tuple[tuple[str, Shown], ...] = ()
    touches: tuple[str, ...] = ()
    reply: Callable[[Asked, Reply], Reply] = lambda _asked, said: said
    body: Callable[[Asked, Body], Body] = lambda _asked, body: body
    events: Callable[[Asked, list[Event]], list[Event]] = lambda _asked, events: events
    usage: Callable[[Asked, Body], Body] = lambda _asked, usage: usage
    http: Callable[[Asked], Instead] = lambda _asked: (200, None)
    get: Callable[[str, int, Any], tuple[int, Any]] = lambda _path, status, body: (status, body)
    metrics: Callable[[dict[str, float]], dict[str, float]] = lambda values: values
    # Any key is taken.
    opens: bool = False
    # Somebody waits for an answer as long as they have patience.
    hangs: bool = False
    # How the model has to talk, or which engine it has to be, for the fault to show.
    manner: Union[Manner, None] = None
    engine: str = ""

    def __str__(self) -> str:
        return f"{self.name}, {self.scope.name}".replace(" ", "-").replace(",", "")

    def shows_in(self, asked: Asked) -> bool:
        return self.scope.holds(asked)

    def may_fail(self, check: str) -> bool:
        """Once nothing came, everything after it is not tried, too."""
        named = [name for name, _found in self.shows]
        seen = self.hangs or self.scope.seen_by(check)
        return check in named or (seen and any(fnmatchcase(check, pattern) for pattern in self.touches))


SUMS = ("thinking_off", "thinking_on", "tool_none")
TEXTS = ("chat", "accents", *SUMS)
GIVEN = ("tool_call", "tool_nested", "tool_several", "tool_required", "tool_named")
CALLS = (*GIVEN, "tool_no_arguments")
# Patterns of checks that may find a fault of all that is generated, of calls, of thoughts.
GENERATED = (
    "chat*",
    "accents*",
    "thinking_*",
    "tool_*",
    "first_token",
    "sampling_*",
    "parallel*",
    "needle",
    "prefix_cache",
    "long_tool_call",
    "eval",
)
CALLED = (
    *(f"{name}*" for name in CALLS),
    "tool_turns",
    "thinking_interleaved",
    "thinking_preserved",
    "parallel_calls",
    "long_tool_call",
    "eval",
)
THOUGHT = ("thinking_on*", "thinking_interleaved", "thinking_preserved", "sampling_*", "first_token")
# Of the eight that are asked at once, how many are wrong; all of them otherwise.
AT_ONCE_WRONG = {ONE: 1, LOADED_STREAMS: 4, HALF: 4}
DIFFERS = "the stream differs from the whole answer"
BROKE = "the stream broke off"
EVERYWHERE = (
    ALWAYS,
    TWO,
    SIX,
    ONE,
    HALF,
    STREAMS,
    LOADED_STREAMS,
    TOOLS,
    STREAMED_TOOLS,
    SAMPLED,
    TURNS,
    LONG,
    LONG_STREAMS,
    LONG_TOOLS,
)
# Where an answer is a number.
NUMBERS = (ALWAYS, TWO, SIX, ONE, HALF, STREAMS, LOADED_STREAMS, TURNS, LONG, LONG_STREAMS)
WITHOUT_TOOLS = (ALWAYS, TWO, SIX, ONE, HALF, STREAMS, LOADED_STREAMS, SAMPLED, TURNS, LONG, LONG_STREAMS)


def spread(
    name: str,
    found: Shown,
    checks: tuple[str, ...],
    scopes: tuple[Scope, ...] = (ALWAYS,),
    touches: tuple[str, ...] = GENERATED,
    **effect: Any,
) -> Iterator[Fault]:
    """A fault in each of its scopes; ``checks`` are those that find it when it shows always."""
    for scope in scopes:
        shown = {
            ALWAYS: [*checks, *(f"{check}_stream" for check in checks)],
            STREAMS: [f"{check}_stream" for check in checks],
            WHOLE: list(checks),
            TOOLS: [*CALLS, *(f"{check}_stream" for check in CALLS)],
            STREAMED_TOOLS: [f"{check}_stream" for check in CALLS],
            SAMPLED: ["sampling_default"],
            TURNS: ["tool_turns"],
            LONG: ["needle"],
            LONG_STREAMS: ["prefix_cache"],
            LONG_TOOLS: ["long_tool_call"],
        }.get(scope)
        at_once = (("parallel", f"{AT_ONCE_WRONG.get(scope, 8)} of 8 wrong at once"),)
        shows = tuple((check, found) for check in shown) if shown else at_once
        yield Fault(name, scope, shows, touches, **effect)
