# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who runs this, and where, as it is written into what other people read later.

This module util is PRIVATE to the collection.
"""

from __future__ import annotations

import getpass
import os
import socket


def user() -> str:
    """The name of the user; the number where it has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def user_at_machine() -> str:
    """The user's name, and the machine's, as in ``ann@desk-4``."""
    return f"{user()}@{socket.gethostname()}"
