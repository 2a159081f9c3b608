# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs that a host runs by itself, made of modules of this collection: no controller is there when a timer runs.

On the host they have a name of their own in the place of the collection's, because the host may have collections, too.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ansible_collections.glm.fleet.plugins.module_utils.finding import QuotingError

_NAMESPACE = "ansible_collections.glm.fleet.plugins.module_utils"
_MODULE_UTILS = Path(__file__).resolve().parents[2] / "module_utils"
_MAIN = "import sys\n\nfrom shipped.{entry} import main\n\nsys.exit(main())\n"


class _Program(NamedTuple):
    """``entry`` has ``main``; ``modules`` is it and all that it imports of the collection, as paths."""

    folder: str
    entry: str
    modules: tuple[str, ...]


_PROGRAMS = {
    # Orders a certificate when one is due.
    "door_order": _Program(
        "/usr/local/lib/glm/door_order",
        "door.order",
        ("finding.py", "files.py", "host/commands.py", "door/owned.py", "door/master.py", "door/staged.py",
         "door/order.py"),
    ),
    # Says that replicas drain.
    "door_drain": _Program(
        "/usr/local/lib/glm/door_drain",
        "door.drain",
        ("finding.py", "files.py", "host/commands.py", "door/owned.py", "door/master.py", "door/drain.py"),
    ),
    # Stops serving when the time of the host is over.
    "expiry": _Program(
        "/usr/local/lib/glm/expiry",
        "serving.expiry",
        ("finding.py", "files.py", "host/commands.py", "door/master.py", "serving/metrics.py", "serving/expiry.py"),
    ),
}  # fmt: skip


class UnknownProgram(QuotingError):
    """There is no program of this name."""


def folder_of(name: str) -> str:
    """Where a program is on a host; Python runs the folder."""
    return _PROGRAMS[name].folder


def shipped_program(name: str) -> list[dict[str, str]]:
    """The files of a program, as the module host_files takes them. Raises UnknownProgram."""
    program = _PROGRAMS.get(name)
    if program is None:
        raise UnknownProgram(f"expected {' or '.join(_PROGRAMS)}, found {name!r}")
    modules = [
        {
            "path": f"{program.folder}/shipped/{module}",
            "content": (_MODULE_UTILS / module).read_text("utf-8").replace(_NAMESPACE, "shipped"),
        }
        for module in program.modules
    ]
    return [{"path": f"{program.folder}/__main__.py", "content": _MAIN.format(entry=program.entry)}, *modules]
