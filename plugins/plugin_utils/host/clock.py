# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far a host's clock is off. Pure."""

from __future__ import annotations


def skew(epoch: float, before: float, after: float) -> float:
    """Seconds by which ``epoch`` lies before (negative) or after the interval; 0 inside it."""
    if epoch < before:
        return epoch - before
    return max(0.0, epoch - after)
