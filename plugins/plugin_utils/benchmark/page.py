# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of benchmarks as one HTML page that needs no network, and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Optional

import jinja2
from markupsafe import Markup

from ansible_collections.glm.fleet.plugins.module_utils import finding
from ansible_collections.glm.fleet.plugins.plugin_utils import report
from ansible_collections.glm.fleet.plugins.plugin_utils.benchmark import chart, view

TEMPLATES = Path(__file__).resolve().parents[3] / "templates"
MANAGED = "Made by glm.fleet (playbook benchmark.yml)"
_OUTCOMES = {"passed": "passed", "failed": "FAILED", "not_proven": "not proven"}
DASH = "\N{EN DASH}"


def render(sections: Sequence[view.Section], title: str) -> tuple[str, str]:
    """The page and the Markdown for these sections."""
    given = {
        "title": title,
        "made_at": report.now(),
        "ansible_managed": MANAGED,
        "sections": [_part(section) for section in sections],
    }
    page = _environment(True).get_template("benchmark-report.html.j2").render(given)
    return page, _environment(False).get_template("benchmark-report.md.j2").render(given)


def _environment(escape: bool) -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=escape,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    made.filters.update(
        comment=_comment,
        rate=partial(_rounded, whole_from=1000),
        ms=partial(_rounded, whole_from=100),
        share=_share,
        millions=_millions,
        count=_count,
        decimal=_decimal,
        duration=_duration,
        outcome=_OUTCOMES.__getitem__,
    )
    return made


def _part(section: view.Section) -> dict[str, Any]:
    record = section.record
    return {
        "section": section,
        "served": view.served(record),
        "hardware": view.hardware(record),
        "charts": _charts(section),
        "trouble": finding.render(record["trouble"], record["trouble"]["check"]) if record["trouble"] else "",
        "facts": _facts(record),
    }


def _charts(section: view.Section) -> list[str]:
    """Curves over the number of users where there are several, else bars of the one point."""
    if not section.rows:
        return []
    if len(section.rows) > 1:
        curves = [curve for curve in section.curves if len(curve.rows) > 1]
        return [chart.over_users(curves), chart.against_latency(curves), chart.first_token(curves)]
    if not section.compared:
        return []
    own = section.rows[0]
    bars = [(f"this run: {own.where}", own)]
    bars += [(f"{row.when[:10] or row.who}: {row.where}", row) for row in section.compared]
    return [chart.bars(bars)]


def _facts(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the figures depend on, in words."""
    plan, says, client = record["plan"], record["engine_says"], record["client"]
    model, gpus = plan["model"], record["runs"][-1]["gpus"] if record["runs"] else {}
    clocks = f"{_count(gpus.get('sm_mhz_min'))} to {_count(gpus.get('sm_mhz_max'))} MHz"
    limit = f" of {_count(gpus['sm_mhz_limit'])}" if gpus.get("sm_mhz_limit") else ""
    found = [
        ("Model", f"{model['name']} {model['precision']}, {model['repository']}"),
        ("Revision", model["revision"] or "not locked"),
        ("Engine", f"{plan['engine']['name']} {plan['engine']['version']}; it says {says.get('version') or 'nothing'}"),
        ("Image", plan["image"] if plan["runtime"] == "container" else "none, on the host itself"),
        ("Image digest", plan["image_digest"] or "none"),
        ("Prefix cache", "on" if plan["prefix_caching"] else "off"),
        ("Client", _client(client)),
        ("GPUs", f"{gpus.get('count', 0)}x {', '.join(gpus.get('names', [])) or 'not reported'}"),
        ("Driver", ", ".join(gpus.get("drivers", [])) or "not reported"),
        ("SM clock", clocks + limit if gpus.get("sm_mhz_max") else "not reported"),
        ("Record", f"{record['id']}.json"),
    ]
    if plan.get("planned_token_pool"):
        found.insert(6, ("KV pool, planned", f"{plan['planned_token_pool']:,} tokens"))
    return found


def _client(client: Mapping[str, Any]) -> str:
    where = client.get("host") or "the host itself"
    return f"{client['program']}, {client['image'] or 'without a container'}, on {where}"


def _comment(text: str, _style: str) -> str:
    return Markup(f"<!-- {text} -->")


def _rounded(value: Optional[float], whole_from: int) -> str:
    """With one digit behind the point below ``whole_from``."""
    if value is None:
        return DASH
    return f"{value:,.0f}" if value >= whole_from else f"{value:,.1f}"


def _share(value: Optional[float]) -> str:
    return DASH if value is None else f"{100 * value:.1f} %"


def _millions(value: float) -> str:
    return f"{value / 1e6:,.1f} M"


def _count(value: Optional[float]) -> str:
    return DASH if value is None else f"{value:,.0f}"


def _decimal(value: Optional[float]) -> str:
    return DASH if value is None else f"{value:.2f}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
