# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the report of benchmarks. Documented in ``plugins/modules/benchmark_report.py``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.finding import unmet
from ansible_collections.glm.fleet.plugins.plugin_utils.actions.base import Failed, FleetAction
from ansible_collections.glm.fleet.plugins.plugin_utils.benchmark import chart as benchmark_chart
from ansible_collections.glm.fleet.plugins.plugin_utils.benchmark import keeping
from ansible_collections.glm.fleet.plugins.plugin_utils.benchmark import page as benchmark_page
from ansible_collections.glm.fleet.plugins.plugin_utils.benchmark import record as benchmark_record
from ansible_collections.glm.fleet.plugins.plugin_utils.benchmark import view as benchmark_view
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.records import Catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.report import BenchmarkRecord


class ActionModule(FleetAction):
    """Read records, write the page and the Markdown, say where they are."""

    LABEL = "benchmark report"
    PLACE = "controller"
    ARGUMENTS = {
        "state_dir": {"type": "path", "required": True},
        "hosts": {"type": "list", "elements": "str", "default": []},
        "records": {"type": "list", "elements": "path", "default": []},
        "title": {"type": "str", "default": "Benchmarks"},
        "usd_per_hour": {"type": "float", "default": 0.0},
        "catalog": {"type": "list", "elements": "path", "default": []},
        "keep": {"type": "bool", "default": False},
    }
    _requires_connection = False

    def _outcome(self) -> dict[str, Any]:
        args = self._args
        if self._task.check_mode:
            return {"changed": False, "skipped": True, "msg": "check mode: nothing was measured"}
        if not benchmark_chart.available():
            raise self._unmet("matplotlib to draw charts with", "none", "pip install matplotlib")
        known = catalog.load(folders=args["catalog"])
        everything = benchmark_record.load(args["state_dir"])
        chosen = _read(args["records"]) if args["records"] or args["hosts"] else _newest(everything)
        missing = [host for host in args["hosts"] if host not in {record["host"] for record in chosen}]
        if not chosen:
            what = f"at least one measurement in {benchmark_record.folder(args['state_dir'])}"
            raise self._unmet(what, "none", "read the errors above, or run benchmark.yml")
        sections = [benchmark_view.section(one, everything, known, args["usd_per_hour"]) for one in chosen]
        page, markdown = benchmark_page.render(sections, args["title"])
        folder = benchmark_record.folder(args["state_dir"])
        try:
            paths = {"page": folder / "report.html", "markdown": folder / "report.md"}
            files.write_text(paths["page"], page)
            files.write_text(paths["markdown"], markdown)
        except OSError as exc:
            found = f"{folder}: {exc.strerror or exc}"
            raise self._unmet("a folder that can be written", found, "free space there or set glm_state_dir") from None
        self._show(_lines(sections, paths["page"]))
        names = {name: str(path) for name, path in paths.items()}
        if args["keep"]:
            names["kept"] = self._keep([one for one in chosen if one["ok"]], args["catalog"], known)
        answer = {"changed": False, **names, "records": [record["id"] for record in chosen]}
        reasons = [f"{one['host']}: {benchmark_record.failure_text(one)}" for one in chosen if not one["ok"]]
        reasons += [f"{host}: nothing was measured, see its errors above" for host in missing]
        if reasons:
            found = "\n".join([f"{len(reasons)} that are not", *reasons])
            raise self._unmet("every host measured and answering well", found, f"see {paths['page']}", **answer)
        return answer

    def _keep(self, measured: list[BenchmarkRecord], folders: list[str], known: Catalog) -> str:
        """Write the recipes of what was measured; the file. The better one of two for a cell is kept."""
        if not folders:
            raise self._unmet("a catalogue to keep recipes in", "none", "name its folder in glm_catalog")
        best: dict[str, tuple[float, dict[str, Any]]] = {}
        for one in measured:
            recipe = keeping.recipe_of(one, known)
            cell, rate = str(keeping.cell(recipe)), recipe["measured"]["figures"]["generation"]
            best[cell] = max(best.get(cell, (0.0, recipe)), (rate, recipe), key=lambda pair: pair[0])
        if not best:
            return ""
        try:
            path = keeping.keep(folders[-1], [recipe for _rate, recipe in best.values()], folders[:-1])
        except OSError as exc:
            found = f"{exc.filename or folders[-1]}: {exc.strerror or exc}"
            raise self._unmet("a catalogue that can be written", found, "correct glm_catalog") from None
        self._show([f"Kept as recipe: {path}"])
        return str(path)

    def _unmet(self, expected: str, found: str, next_step: str, **more: Any) -> Failed:
        return self._failure(unmet(expected, found, next_step), **more)


def _read(paths: list[str]) -> list[BenchmarkRecord]:
    return [json.loads(Path(path).expanduser().read_text(encoding="utf-8")) for path in paths]


def _newest(records: list[BenchmarkRecord]) -> list[BenchmarkRecord]:
    """The newest of each host, replica and workload."""
    found = {(one["host"], one["plan"]["replica"], one["workload"]["name"]): one for one in records}
    return list(found.values())


def _lines(sections: list[benchmark_view.Section], page: Path) -> list[str]:
    """The headline of each section for the terminal."""
    lines = [""]
    for section in sections:
        record, best = section.record, section.best
        head = f"{record['host']}  {record['workload']['name']}"
        if best is None:
            reason = record["trouble"]["found"] if record["trouble"] else "no points"
            lines.append(f"{head}  NOT A MEASUREMENT: {reason}")
            continue
        figures = best.figures
        lines.append(
            f"{head}  {figures.generation:,.1f} tok/s out, {figures.per_user or 0:,.1f} per user at {best.users} "
            f"parallel, first token after {figures.ttft_mean_ms or 0:,.0f} ms"
        )
        lines += [f"  {row.ratio:.2f}x {row.who} ({row.where}) at {row.users} parallel" for row in section.compared]
    return [*lines, "", f"Report: {page}"]
