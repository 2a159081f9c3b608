# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a benchmark's report says: rows, curves, comparisons and costs, made from records and the catalogue.

Plain data for the templates and the charts; nothing here knows HTML.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.plugin_utils.benchmark import figures as bench
from ansible_collections.glm.fleet.plugins.plugin_utils.benchmark import record as benchmark_record
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.records import Catalog, Figures, ManagedPrice, Published
from ansible_collections.glm.fleet.plugins.plugin_utils.report import BenchmarkRecord

# Of the same fleet, newest first; more would make the table too long.
EARLIER = 6


@dataclass(frozen=True)
class Row:
    """A measured or published point beside others. ``ratio`` is our output divided by this one's."""

    who: str
    where: str
    users: int
    prompts: Optional[int]
    figures: Figures
    when: str = ""
    doubt: str = ""
    spread: Optional[float] = None
    ratio: Optional[float] = None


@dataclass(frozen=True)
class Curve:
    """A line in the charts: users and what they got, in order of users."""

    label: str
    rows: Sequence[Row]
    saturation: Optional[int]
    ours: bool = False


@dataclass(frozen=True)
class Cost:
    """What tokens cost at one price of the host, at the point with the most output."""

    provider: str
    usd_per_hour: float
    source: str
    users: int
    per_million_output: float
    per_million_total: float


@dataclass(frozen=True)
class Even:
    """A host's price against a managed API's."""

    provider: str
    managed: str
    asks: str
    source: str
    found: bench.BreakEven


@dataclass
class Section:
    """One record's part of the report."""

    record: BenchmarkRecord
    rows: list[Row]
    curves: list[Curve]
    compared: list[Row]
    refused: list[str]
    costs: list[Cost]
    evens: list[Even]
    serve_line: str
    best: Optional[Row] = None


def section(
    record: BenchmarkRecord, earlier: Iterable[BenchmarkRecord], known: Catalog, usd_per_hour: float = 0.0
) -> Section:
    """All that the report says about one record, beside what was published and what this fleet measured before."""
    rows = [_own_row(record, point) for point in record["points"]]
    compared, refused = _comparisons(record, list(earlier), known)
    best = max(rows, key=lambda row: row.figures.generation) if rows and not record["trouble"] else None
    prices = _prices(record, usd_per_hour)
    return Section(
        record=record,
        rows=rows,
        curves=_curves(record, rows, compared),
        compared=compared,
        refused=refused,
        costs=[_cost(price, best) for price in prices] if best else [],
        evens=_evens(record, best, prices, known) if best else [],
        serve_line=shlex.join(_serve_words(record, known)),
        best=best,
    )


def _serve_words(record: Mapping[str, Any], known: Catalog) -> list[str]:
    """The command as one would type it: with what the entry point of the engine's image says before."""
    command, plan = list(record["plan"]["command"]), record["plan"]
    engine = known.engines.get(plan["engine"]["name"]) if plan["engine"] else None
    words = engine.entrypoint if engine and plan["runtime"] == "container" else []
    return command if command[: len(words)] == words else [*words, *command]


def hardware(record: BenchmarkRecord) -> str:
    """Such as 8x B200."""
    accelerator = record["plan"]["accelerator"]
    return f"{accelerator['count']}x {accelerator['name']}"


def served(record: BenchmarkRecord) -> str:
    """Such as GLM-5.1 fp8, vllm 0.32.0."""
    plan = record["plan"]
    model, engine = plan["model"], plan["engine"]
    return f"{model['name']} {model['precision']}, {engine['name']} {engine['version']}"


def _own_row(record: BenchmarkRecord, point: Mapping[str, Any], who: str = "") -> Row:
    return Row(
        who=who or record["host"],
        where=f"{hardware(record)}, {served(record)}",
        users=point["users"],
        prompts=point["prompts"],
        figures=Figures(**point["figures"]),
        when=record["started_at"],
        spread=point["generation_spread"]["relative"],
    )


def _comparisons(
    record: BenchmarkRecord, earlier: Sequence[BenchmarkRecord], known: Catalog
) -> tuple[list[Row], list[str]]:
    """Alike results beside each of our points, and why others were left out."""
    found: list[Row] = []
    refused: list[str] = []
    name = record["workload"]["name"]
    theirs = [row for row in known.published if row.workload == name]
    meant = any(_same_point(published, point) for published in theirs for point in record["points"])
    before = [old for old in earlier if old["id"] != record["id"] and old["workload"]["name"] == name]
    before = [old for old in before if not old["trouble"]][-EARLIER:][::-1]
    for point in record["points"]:
        mine = benchmark_record.shape(record, point)
        for published in theirs:
            # Where none is of our points (a workload made smaller), the first point says why nothing is compared.
            if _same_point(published, point) or (not meant and point is record["points"][0]):
                other = bench.published_shape(known.workloads[name], published)
                row = published_row(published, point["users"])
                _compare(found, refused, mine, other, row, point)
        for old in before:
            for past in old["points"]:
                if past["users"] == point["users"]:
                    row = _own_row(old, past, who=f"this fleet, {old['host']}")
                    _compare(found, refused, mine, benchmark_record.shape(old, past), row, point)
    return found, list(dict.fromkeys(refused))


def _same_point(published: Published, point: Mapping[str, Any]) -> bool:
    return published.parallel == point["parallel"] and published.prompts in (None, point["prompts"])


def _compare(
    found: list[Row], refused: list[str], mine: bench.Shape, other: bench.Shape, row: Row, point: Mapping[str, Any]
) -> None:
    try:
        bench.require_alike(mine, other)
    except bench.Unlike as exc:
        when = f" of {row.when}" if row.when else ""
        refused.append(f"{row.who} ({row.where}){when}: {exc}")
        return
    found.append(replace(row, ratio=point["figures"]["generation"] / row.figures.generation))


def published_row(published: Published, users: int) -> Row:
    hosts = f"{published.count}x {published.accelerator}, " if published.accelerator else ""
    version = f" {published.engine_version}" if published.engine_version else ""
    figures = published.figures
    if figures.per_user is None:
        figures = replace(figures, per_user=figures.generation / users)
    return Row(
        who=str(published.source),
        where=f"{hosts}{published.model} {published.precision}, {published.engine}{version}",
        users=users,
        prompts=published.prompts,
        figures=figures,
        doubt=published.doubt,
    )


def _curves(record: BenchmarkRecord, rows: Sequence[Row], compared: Sequence[Row]) -> list[Curve]:
    """Ours first, then each other source or earlier run with more than one point."""
    groups: dict[str, list[Row]] = {f"this run, {record['host']}": list(rows)}
    for row in compared:
        label = f"{row.who} {row.when[:10]}".strip() if row.when else f"{row.who}: {row.where}"
        groups.setdefault(label, []).append(row)
    made = []
    for number, (label, members) in enumerate(groups.items()):
        ordered = sorted(members, key=lambda row: row.users)
        saturation = bench.saturation({row.users: row.figures.generation for row in ordered})
        made.append(Curve(label, ordered, saturation, ours=number == 0))
    return made


def _prices(record: BenchmarkRecord, usd_per_hour: float) -> list[dict[str, Any]]:
    """The user's own price, else the catalogue's of the whole host."""
    if usd_per_hour:
        return [{"provider": "own price", "usd_per_hour": usd_per_hour, "source": "benchmark_usd_per_hour"}]
    return [
        {
            "provider": price["provider"],
            "usd_per_hour": price["usd_per_hour"],
            "source": f"catalogue, {price['date']}" if price.get("date") else "catalogue",
        }
        for price in record["plan"]["prices"]
    ]


def _cost(price: Mapping[str, Any], best: Row) -> Cost:
    total = best.figures.total or best.figures.generation
    return Cost(
        provider=price["provider"],
        usd_per_hour=price["usd_per_hour"],
        source=price["source"],
        users=best.users,
        per_million_output=bench.cost_per_million(price["usd_per_hour"], best.figures.generation),
        per_million_total=bench.cost_per_million(price["usd_per_hour"], total),
    )


def _evens(record: BenchmarkRecord, best: Row, prices: Sequence[Mapping[str, Any]], known: Catalog) -> list[Even]:
    model, workload = record["plan"]["model"]["name"], record["workload"]
    found = []
    for price in prices:
        for managed in known.managed:
            if managed.model == model:
                even = bench.break_even(
                    price["usd_per_hour"],
                    managed,
                    workload["input_tokens"],
                    workload["output_tokens"],
                    best.figures.generation,
                )
                when = f", {managed.date}" if managed.date else ""
                found.append(Even(price["provider"], managed.provider, _asks(managed), f"{managed.source}{when}", even))
    return found


def _asks(managed: ManagedPrice) -> str:
    if managed.blended is not None:
        return f"${managed.blended:.2f} for a million tokens, in or out"
    return f"${managed.input:.2f} in, ${managed.output:.2f} out, for a million"
