# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the role ``serve`` installs the program that a unit calls around its engine, the guard.

A replica that ends restarts by itself at any moment with the unit that systemd knows, also while a run is writing the
next one. So programs are never changed in place: their folder is named after their content, and a unit calls those
that it was written for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

# What is in the folder: the guard, who the processes of a replica may talk to, the reader of CDI specs that facts are
# made with, too, and what keeps when engines ended. By name; values are paths in the collection.
SOURCES = {
    "serve_filter.py": "roles/serve/files/serve_filter.py",
    "glm_cdi.py": "plugins/module_utils/host/cdi.py",
    "glm_restarts.py": "plugins/module_utils/serving/restarts.py",
    "serve_guard.py": "roles/serve/files/serve_guard.py",
}
_COLLECTION = Path(__file__).resolve().parents[3]


def folder(programs: Mapping[str, bytes]) -> str:
    """Where programs of this content are on a host."""
    sums = "".join(hashlib.sha256(program).hexdigest() for program in programs.values())
    return f"/usr/local/lib/glm/serve-{hashlib.sha256(sums.encode()).hexdigest()[:12]}"


FOLDER = folder({name: (_COLLECTION / source).read_bytes() for name, source in SOURCES.items()})
PROGRAM = f"{FOLDER}/serve_guard.py"
