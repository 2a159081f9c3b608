# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Charts of a benchmark as SVG text, drawn by matplotlib: they stand in the page itself and need nothing else."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any, Optional

try:
    import matplotlib
    from matplotlib.figure import Figure
except ImportError:
    # The action plugin looks first, and says what to install.
    matplotlib = None  # type: ignore[assignment]

from ansible_collections.glm.fleet.plugins.plugin_utils.benchmark.view import Curve, Row

INK = "#1c2733"
MUTED = "#5b6b7b"
GRID = "#dfe5ea"
# Ours first, then others; chosen to stay apart for people who see no red or no green (Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a7a7a")
_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 10,
    # As text, in the page's own font: small, sharp, and found by a search.
    "svg.fonttype": "none",
    "svg.hashsalt": "glm.fleet",
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
}


def available() -> bool:
    """Whether the library is installed."""
    return matplotlib is not None


def over_users(curves: Sequence[Curve]) -> str:
    """Output over the number of users, with the point where each curve saturates."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes("Output over parallel requests", "parallel requests", "output tokens per second")
        marked = 0
        for curve, colour in _coloured(curves):
            _line(axes, curve, colour, lambda row: row.users, lambda row: row.figures.generation)
            if curve.saturation:
                axes.axvline(curve.saturation, color=colour, linewidth=1, linestyle=":")
                # Above the axis, where no curve saturates, one below the other.
                axes.annotate(
                    f"saturated at {curve.saturation}",
                    (curve.saturation, 0),
                    xytext=(6, 8 + 14 * marked),
                    textcoords="offset points",
                    color=colour,
                    fontsize=9,
                    fontweight="bold",
                )
                marked += 1
        _users_axis(axes, curves)
        axes.set_ylim(bottom=0)
        axes.margins(y=0.15)
        return _finished(figure, axes)


def against_latency(curves: Sequence[Curve]) -> str:
    """What one user gets over what all get: the choice that an operator makes. Labels are parallel requests."""
    with matplotlib.rc_context(_STYLE):
        title = "Throughput of all users and of each user"
        figure, axes = _axes(title, "output tokens per second, all users", "output tokens per second, each user")
        for curve, colour in _coloured(curves):
            _line(axes, curve, colour, lambda row: row.figures.generation, lambda row: row.figures.per_user)
            for row in curve.rows if curve.ours or len(curves) == 1 else []:
                axes.annotate(
                    f"{row.users}",
                    (row.figures.generation, row.figures.per_user or 0),
                    xytext=(4, 6),
                    textcoords="offset points",
                    color=colour,
                    fontsize=8,
                )
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        return _finished(figure, axes)


def first_token(curves: Sequence[Curve]) -> str:
    """Time to the first token over the number of users. Beyond saturation it is mostly time in a queue."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes("Time to first token, mean", "parallel requests", "seconds (logarithmic)")
        for curve, colour in _coloured(curves):
            _line(axes, curve, colour, lambda row: row.users, _ttft_seconds)
        _users_axis(axes, curves)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _position: f"{value:g}")
        return _finished(figure, axes)


def bars(rows: Sequence[tuple[str, Row]]) -> str:
    """Output of one point beside that of others; the first is ours."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(9.2, 0.9 + 0.5 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        values = [row.figures.generation for _label, row in rows]
        colours = [COLOURS[0], *["#a9b8c6"] * (len(rows) - 1)]
        drawn = axes.barh(range(len(rows)), values, color=colours, height=0.62)
        axes.set_yticks(range(len(rows)), [label for label, _row in rows])
        axes.tick_params(axis="y", colors=INK, length=0)
        axes.invert_yaxis()
        axes.bar_label(drawn, [f"{value:,.0f}" for value in values], padding=4, color=INK)
        axes.set_xlabel("output tokens per second, all users")
        axes.margins(x=0.12)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        return _svg(figure)


def _ttft_seconds(row: Row) -> Optional[float]:
    return None if row.figures.ttft_mean_ms is None else row.figures.ttft_mean_ms / 1000


def _axes(title: str, across: str, up: str) -> tuple[Any, Any]:
    figure = Figure(figsize=(9.2, 4.1), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold")
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _coloured(curves: Sequence[Curve]) -> list[tuple[Curve, str]]:
    return [(curve, COLOURS[number % len(COLOURS)]) for number, curve in enumerate(curves)]


def _line(
    axes: Any,
    curve: Curve,
    colour: str,
    across: Callable[[Row], float],
    up: Callable[[Row], Optional[float]],
) -> None:
    points = [(across(row), value) for row in curve.rows if (value := up(row)) is not None]
    axes.plot(
        [x for x, _y in points],
        [y for _x, y in points],
        color=colour,
        marker="o" if curve.ours else "s",
        markersize=5.5 if curve.ours else 4.5,
        linewidth=2.2 if curve.ours else 1.4,
        linestyle="-" if curve.ours else "--",
        label=curve.label,
    )


def _users_axis(axes: Any, curves: Sequence[Curve]) -> None:
    users = sorted({row.users for curve in curves for row in curve.rows})
    axes.set_xscale("log", base=2)
    axes.set_xticks(users, [str(count) for count in users])
    axes.minorticks_off()


def _finished(figure: Any, axes: Any) -> str:
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc="best")
    return _svg(figure)


def _svg(figure: Any) -> str:
    """The drawing alone, without the XML prologue, which has no place inside a page, and without a date."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = out.getvalue()
    return text[text.index("<svg") :]
