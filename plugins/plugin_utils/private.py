# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of the controller that hold a secret: read only where nobody but their owner can read them."""

from __future__ import annotations

import stat
from pathlib import Path

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet


def read(path: Path, what: str, next_step: str) -> str | None:
    """The text of a file, None where there is none.

    ``what`` it is and ``next_step`` are for a file that cannot be read. Raises Unmet, also when others can read it.
    """
    text = files.text_of(path, what, next_step)
    if text is None:
        return None
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise Unmet(f"{path} to be its owner's only", f"mode {mode:04o}", f"chmod 600 {path}")
    return text
