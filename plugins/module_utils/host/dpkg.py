# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What dpkg has installed. This module util is PRIVATE to the collection."""

from __future__ import annotations

from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils.host.commands import run


def installed_packages(patterns: tuple[str, ...], timeout: float = 30) -> dict[str, dict[str, Any]]:
    """Installed packages that match shell patterns: ``{name: {version, held}}``; empty without dpkg."""
    fields = "${Package} ${db:Status-Want} ${db:Status-Status} ${Version}\\n"
    shown = run(("dpkg-query", "--show", f"--showformat={fields}", *patterns), timeout)
    rows = (line.split() for line in shown.stdout.splitlines())
    return {
        row[0]: {"version": row[3], "held": row[1] == "hold"} for row in rows if len(row) == 4 and row[2] == "installed"
    }
