"""Faults on demand: which of the next requests go wrong, and how. Also counts how clients pace themselves."""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from simulator.lambda_cloud.errors import INSUFFICIENT_CAPACITY, STATUS_OF, ApiError
from simulator.lambda_cloud.types import Json, Request, Response

HTML_REFUSAL = b"<!DOCTYPE html><html><head><title>Attention Required!</title></head><body>blocked</body></html>"

BEFORE = {
    "rate-limited": "429, with Retry-After when retry_after is given",
    "error": "the API error code, with status and message when given",
    "unavailable": "provider/internal-unavailable",
    "capacity-lost": "insufficient-capacity, though the listing still shows the capacity",
    "html": "403 with an HTML page, as a filter in front of the service answers",
    "raw": "status, body and content_type as given",
    "redirect": "301 to location",
    "reset": "the connection closes; the request had no effect",
    "hang": "no answer for seconds, then the connection closes; the request had no effect",
}
AFTER = {
    "truncated": "the request takes effect; its answer ends at half its Content-Length",
    "answer-lost": "the request takes effect; the connection closes without an answer",
    "late-error": "the request takes effect; its answer is the API error code, with status and message when given",
    "slow": "the request takes effect at once; its answer comes after seconds",
}
HISTORY = 10_000


@dataclass
class Fault:
    """One kind of trouble for the next ``times`` requests that match, after ``after`` matching ones went well."""

    kind: str
    id: int = 0
    method: str | None = None
    path: str = ""
    times: int = 1
    after: int = 0
    retry_after: str | None = None
    code: str = "global/internal-error"
    status: int | None = None
    message: str = "Injected by the simulator."
    body: str = ""
    content_type: str = "application/json"
    location: str = ""
    seconds: float = 30.0
    hits: int = 0

    def takes(self, request: Request) -> bool:
        """Whether this fault strikes the request; counts the match."""
        if self.method is not None and self.method.upper() != request.method:
            return False
        if not re.search(self.path, request.path):
            return False
        if self.after > 0:
            self.after -= 1
            return False
        self.hits += 1
        return True

    @property
    def spent(self) -> bool:
        """Whether it has struck ``times`` requests."""
        return self.hits >= self.times

    def before(self) -> Response:
        """The answer of a fault that keeps the request from having an effect."""
        if self.kind == "rate-limited":
            headers = {} if self.retry_after is None else {"Retry-After": self.retry_after}
            return ApiError("global/too-many-requests", "Too many requests.", headers=headers).response()
        if self.kind == "error":
            return self.error()
        if self.kind == "unavailable":
            return ApiError("provider/internal-unavailable", "The provider is unavailable.").response()
        if self.kind == "capacity-lost":
            return ApiError(INSUFFICIENT_CAPACITY, "Not enough capacity for this launch.").response()
        if self.kind == "html":
            return Response(403, HTML_REFUSAL, "text/html; charset=UTF-8")
        if self.kind == "raw":
            return Response(self.status or 200, self.body.encode(), self.content_type)
        if self.kind == "redirect":
            return Response(301, b"", "text/html", headers={"Location": self.location})
        if self.kind == "reset":
            return Response(0, b"", delivery="dropped")
        return Response(0, b"", delivery="hung", wait_seconds=self.seconds)

    def error(self) -> Response:
        """The API error that the fault describes."""
        status = self.status if self.status is not None else STATUS_OF.get(self.code, 500)
        return ApiError(self.code, self.message, status=status).response()

    def after_effect(self, response: Response) -> Response:
        """What becomes of the true answer of a request that took effect."""
        if self.kind == "late-error":
            return self.error()
        if self.kind == "truncated":
            response.delivery = "truncated"
        elif self.kind == "answer-lost":
            response.delivery = "dropped"
        else:
            response.wait_seconds = self.seconds
        return response


def make_fault(values: Mapping[str, Any]) -> Fault:
    """Check a fault from the control endpoint; raises ValueError naming the key and what it takes."""
    known = set(Fault.__dataclass_fields__) - {"id", "hits"}
    unknown = set(values) - known
    if unknown:
        raise ValueError(f"fault: unknown key(s) {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}")
    kind = values.get("kind")
    if kind not in BEFORE and kind not in AFTER:
        raise ValueError(f"fault.kind: expected one of {', '.join(sorted({*BEFORE, *AFTER}))}, found {kind!r}")
    for key in ("times", "after"):
        value = values.get(key, 1)
        least = 1 if key == "times" else 0
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"fault.{key}: expected a count of at least {least}, found {value!r}")
    seconds = values.get("seconds", 0)
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or seconds < 0:
        raise ValueError(f"fault.seconds: expected a time in seconds, found {seconds!r}")
    status = values.get("status")
    if status is not None and (not isinstance(status, int) or not 200 <= status <= 599):
        raise ValueError(f"fault.status: expected an HTTP status from 200 to 599, found {status!r}")
    for key in known - {"times", "after", "seconds", "status"}:
        if values.get(key) is not None and not isinstance(values[key], str):
            raise ValueError(f"fault.{key}: expected text, found {values[key]!r}")
    try:
        re.compile(values.get("path") or "")
    except re.error as error:
        raise ValueError(f"fault.path: not a regular expression: {error}") from error
    return Fault(**values)


class Faults:
    """The faults that wait for requests, oldest first; the first that matches strikes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._ids = itertools.count(1)

    def add(self, fault: Fault) -> int:
        """Queue a fault and return its number."""
        with self._lock:
            fault.id = next(self._ids)
            self._faults.append(fault)
            return fault.id

    def clear(self) -> None:
        """Forget every fault."""
        with self._lock:
            self._faults.clear()

    def pending(self) -> list[Json]:
        """The faults that have not struck as often as they should."""
        with self._lock:
            return [asdict(fault) for fault in self._faults]

    def strike(self, request: Request) -> Fault | None:
        """The fault that strikes this request, if any."""
        with self._lock:
            for fault in self._faults:
                if not fault.spent and fault.takes(request):
                    self._faults = [kept for kept in self._faults if not kept.spent]
                    return fault
        return None


@dataclass(frozen=True)
class _Seen:
    """One request in the history; ``at`` is monotonic seconds."""

    at: float
    method: str
    path: str
    operation: str
    status: int
    user_agent: str


class Pacing:
    """Counts requests and the gaps between them, whether or not the rate limit is on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Start counting anew."""
        with self._lock:
            self._history: deque[_Seen] = deque(maxlen=HISTORY)
            self._counts: Counter[str] = Counter()
            self._arrived: dict[str, float] = {}
            self._accepted: dict[str, float] = {}
            self._smallest: dict[str, float] = {}
            self._too_fast: Counter[str] = Counter()

    def arrive(self, kinds: Sequence[str], intervals: Mapping[str, float], enforce: bool) -> float:
        """Note a request now; return the seconds by which it came too early for ``intervals`` (0: it did not).

        The limit counts from the last request that it let pass, so a refused one does not push the next back.
        """
        now = time.monotonic()
        early = 0.0
        with self._lock:
            for kind in kinds:
                if kind in self._arrived:
                    gap = now - self._arrived[kind]
                    self._smallest[kind] = min(gap, self._smallest.get(kind, gap))
                    if gap < intervals[kind]:
                        self._too_fast[kind] += 1
                self._arrived[kind] = now
                if enforce and kind in self._accepted:
                    early = max(early, intervals[kind] - (now - self._accepted[kind]))
            if early <= 0:
                self._accepted.update(dict.fromkeys(kinds, now))
        return max(early, 0.0)

    def record(self, request: Request, operation: str, status: int) -> None:
        """Add an answered request to the history; ``status`` 0 means that no answer was sent."""
        agent = request.headers.get("user-agent", "")
        with self._lock:
            self._counts[operation] += 1
            self._history.append(_Seen(time.monotonic(), request.method, request.path, operation, status, agent))

    def report(self) -> Json:
        """Counts per operation, smallest gaps in seconds (None before the second request), the last requests."""
        with self._lock:
            return {
                "counts": dict(self._counts),
                "total": sum(self._counts.values()),
                "smallest_gap_seconds": self._smallest.get("request"),
                "smallest_launch_gap_seconds": self._smallest.get("launch"),
                "too_fast": self._too_fast["request"],
                "too_fast_launches": self._too_fast["launch"],
                "requests": [asdict(seen) for seen in self._history],
            }
