# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a benchmark's numbers mean: is a run valid, its figures, spread, saturation, cost, and what may be compared.

Pure arithmetic on the JSON that ``vllm bench serve --save-result --save-detailed`` writes. Its exit status is no part
of it: the client ends with 0 also when every request failed (measured with vLLM 0.19.0 and 0.32.0).
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Optional

from ansible_collections.glm.fleet.plugins.module_utils import finding
from ansible_collections.glm.fleet.plugins.module_utils.finding import Finding
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import records

SECONDS_PER_HOUR = 3600
SECONDS_PER_DAY = 86400
MILLION = 1_000_000
# A point saturates the host when no other one gives noticeably more tokens. Repeats differ by a few percent.
SATURATED = 0.95
# Fewer tokens than this share of what was asked for means that answers ended early, and figures of another workload.
COMPLETE_ANSWERS = 0.99


class Cause(NamedTuple):
    """What an error means, empty when that is not known, and what to do."""

    meaning: str
    next_step: str


# What the first error of a run says about the endpoint, and what to do. The first that matches is meant.
_CAUSES: tuple[tuple[tuple[str, ...], Cause], ...] = (
    (
        ("Connection refused", "Connect call failed", "Cannot connect to host"),
        Cause(
            "nothing listens at the endpoint's address",
            "check the unit (systemctl status glm-serve-0) and the address and port of the plan",
        ),
    ),
    (
        ("Not Found", "does not exist"),
        Cause(
            "the endpoint does not serve that model name, or has no such path",
            "compare served_model_name with what /v1/models lists",
        ),
    ),
    (
        ("Unauthorized", "Forbidden"),
        Cause("the endpoint refused the key", "use the key that the endpoint was started with (glm_api_key_file)"),
    ),
    (
        ("Too Many Requests", "Service Unavailable", "Timeout", "timed out", "ServerTimeoutError"),
        Cause(
            "the endpoint is overloaded: it refused requests or kept them waiting too long",
            "send fewer requests at once, or raise the engine's limits (max-num-seqs, max-running-requests)",
        ),
    ),
    (
        # SGLang 0.5.10 says in a stream of status 200 that its queue is full; the client reports only this (measured).
        ("Never received a valid chunk",),
        Cause(
            "the endpoint accepted requests and returned no token, as an overloaded engine with a full queue does",
            "send fewer requests at once, or raise max-queued-requests; else read the unit's journal "
            "(journalctl -u glm-serve-0)",
        ),
    ),
    (
        (
            # Of the door, where the engine ended before the first word of an answer.
            "Bad Gateway",
            "the endpoint sent nothing",
            "disconnected",
            "Connection reset",
            "payload is not completed",
            "TransferEncodingError",
            "Connection closed",
        ),
        Cause(
            "the engine ended, or was killed, while it answered",
            "read the unit's journal (journalctl -u glm-serve-0), and the kernel's for its out-of-memory killer",
        ),
    ),
    (
        ("Internal Server Error", "EngineDead"),
        Cause("the engine failed while it computed", "read the unit's journal (journalctl -u glm-serve-0)"),
    ),
    (
        ("Bad Request", "context length", "maximum context"),
        Cause(
            "the endpoint refused the requests themselves",
            "check that input and output fit the served context, and that the interface is the right one",
        ),
    ),
)


class Unlike(ValueError):
    """Two results are of different workloads; the text names each difference."""


@dataclass(frozen=True)
class Shape:
    """What makes two results comparable: the same requests, as many of them, as many at once.

    ``prompts`` None: not known. ``prefix_caching`` None: does not matter, or not known.
    """

    interface: str
    input_tokens: int
    output_tokens: int
    prompts: Optional[int]
    parallel: Optional[int]
    request_rate: Optional[float] = None
    prefix_caching: Optional[bool] = None


@dataclass(frozen=True)
class Spread:
    """Repeats of one figure; ``relative`` is the standard deviation as a share of the mean, None for a single one."""

    count: int
    mean: float
    low: float
    high: float
    relative: Optional[float]


@dataclass(frozen=True)
class BreakEven:
    """From how many tokens a day a rented host is cheaper than a managed API, and whether it can make that many."""

    output_per_day: float
    total_per_day: float
    capacity_per_day: float

    @property
    def reachable(self) -> bool:
        return self.output_per_day <= self.capacity_per_day

    @property
    def utilisation(self) -> float:
        """The share of the host's output that has to be used."""
        return self.output_per_day / self.capacity_per_day


def shape(workload: records.Workload, point: records.Point) -> Shape:
    """The shape of one point of a workload."""
    return Shape(
        workload.interface,
        workload.input_tokens,
        workload.output_tokens,
        point.prompts,
        point.parallel,
        workload.request_rate,
        workload.prefix_caching,
    )


def published_shape(workload: records.Workload, result: records.Published) -> Shape:
    """The shape of a published result, as far as its source says."""
    common = asdict(shape(workload, workload.points[0]))
    return Shape(**{**common, "prompts": result.prompts, "parallel": result.parallel})


def require_alike(one: Shape, other: Shape) -> None:
    """Raises Unlike when the two are results of different workloads. What is not known of one is not compared."""
    mine, theirs = asdict(one), asdict(other)
    unknown = {name for name in ("prompts", "prefix_caching") if mine[name] is None or theirs[name] is None}
    differing = [
        f"{name.replace('_', ' ')} {mine[name]} and {theirs[name]}"
        for name in mine
        if name not in unknown and mine[name] != theirs[name]
    ]
    if differing:
        raise Unlike(f"not the same workload: {', '.join(differing)}")


def problem(
    run: Mapping[str, Any], result: Mapping[str, Any], output_tokens: int, log: Sequence[str] = ()
) -> Optional[Finding]:
    """Why a run (its ``name`` and ``prompts``) is no measurement; None when it is one."""
    prompts = run["prompts"]
    completed, failed = int(result.get("completed") or 0), int(result.get("failed") or 0)
    if completed != prompts or failed:
        error = first_error(result.get("errors") or [])
        found = f"{completed} of {prompts} requests completed, {failed} failed"
        return no_measurement(run, f"{found}; the first error: {error or 'not recorded'}", cause(error), log)
    made = int(result.get("total_output_tokens") or 0)
    if made < COMPLETE_ANSWERS * prompts * output_tokens:
        found = f"{made} tokens in the answers instead of {prompts * output_tokens}"
        advice = "check that the engine honours ignore_eos and that the context is long enough"
        return no_measurement(run, found, Cause("answers ended early", advice), log)
    return None


def no_measurement(run: Mapping[str, Any], found: str, why: Cause, log: Sequence[str] = ()) -> Finding:
    """A run that is no measurement; ``log`` is the end of its client's."""
    found = f"{why.meaning}: {found}" if why.meaning else found
    return finding.failed(
        "benchmark", "every request to be answered in full", found, why.next_step, check=run["name"], evidence=log
    )


def first_error(errors: Sequence[Any]) -> str:
    """The first error, on one line: of a traceback, its last line."""
    for error in errors:
        lines = [line.strip() for line in str(error or "").splitlines() if line.strip()]
        if lines:
            return lines[-1][:300]
    return ""


def cause(error: str) -> Cause:
    """What an error of the client means, and what to do."""
    for words, known in _CAUSES:
        if any(word.lower() in error.lower() for word in words):
            return known
    return Cause("", "read the client's log and the unit's journal")


def figures(result: Mapping[str, Any], users: int) -> records.Figures:
    """The figures of a valid run. Per user is what each of ``users`` sees: the throughput divided by them."""
    generation = float(result["output_throughput"])
    return records.Figures(
        generation=generation,
        per_user=generation / users,
        total=float(result["total_token_throughput"]),
        **{
            f"{name}_{statistic}_ms": float(result[f"{statistic}_{name}_ms"])
            for name in ("ttft", "tpot", "itl")
            for statistic in ("mean", "p99")
        },
    )


def mean_figures(repeats: Sequence[records.Figures]) -> records.Figures:
    """The mean of every figure over repeats; one that a repeat lacks is None."""
    rows = [asdict(row) for row in repeats]
    generation = statistics.fmean(row.pop("generation") for row in rows)
    means = {
        name: None if any(row[name] is None for row in rows) else statistics.fmean(row[name] for row in rows)
        for name in rows[0]
    }
    return records.Figures(generation=generation, **means)


def spread(values: Sequence[float]) -> Spread:
    """How far repeats lie apart."""
    mean = statistics.fmean(values)
    relative = statistics.stdev(values) / mean if len(values) > 1 and mean else None
    return Spread(len(values), mean, min(values), max(values), relative)


def saturation(points: Mapping[int, float]) -> Optional[int]:
    """The fewest users that get (almost) all the tokens per second there are; None for less than three points.

    The highest number of users is no saturation point: more might give more.
    """
    if len(points) < 3:
        return None
    best = max(points.values())
    users = min(count for count, rate in points.items() if rate >= SATURATED * best)
    return None if users == max(points) else users


def cost_per_million(usd_per_hour: float, tokens_per_second: float) -> float:
    """USD for a million tokens when a host makes that many a second all the time."""
    return usd_per_hour / (tokens_per_second * SECONDS_PER_HOUR) * MILLION


def managed_cost(price: records.ManagedPrice, input_tokens: int, output_tokens: int) -> float:
    """USD that a managed API charges for so many tokens in and out."""
    rates = (price.input, price.output) if price.blended is None else (price.blended, price.blended)
    return sum((rate or 0) * tokens for rate, tokens in zip(rates, (input_tokens, output_tokens))) / MILLION


def break_even(
    usd_per_hour: float, price: records.ManagedPrice, input_tokens: int, output_tokens: int, generation: float
) -> BreakEven:
    """Tokens a day that cost as much at a managed API as the host does, for requests of that shape."""
    requests = usd_per_hour * 24 / managed_cost(price, input_tokens, output_tokens)
    return BreakEven(
        output_per_day=requests * output_tokens,
        total_per_day=requests * (input_tokens + output_tokens),
        capacity_per_day=generation * SECONDS_PER_DAY,
    )
