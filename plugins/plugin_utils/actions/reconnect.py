# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asking after work that goes on on a host whether or not the controller can reach it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleConnectionFailure

# A connection that is away for this many questions in a row is given up; the work goes on without us.
CONNECTION_FAILURES = 10
CONNECTION_WAIT_SECONDS = 15.0


def ask(question: Callable[[], dict[str, Any]], say: Callable[[str], None]) -> dict[str, Any]:
    """The module result of ``question``, asked again while the host cannot be reached; ``say`` shows people why.

    Returns the last result, unreachable or not; raises AnsibleConnectionFailure when the last question did.
    """
    for attempt in range(1, CONNECTION_FAILURES + 1):
        last = attempt == CONNECTION_FAILURES
        try:
            result = question()
        except AnsibleConnectionFailure as exc:
            if last:
                raise
            reason = str(exc)
        else:
            if last or not result.get("unreachable"):
                return result
            reason = str(result.get("msg", "unreachable"))
        say(f"no connection, the work continues there; trying again ({reason})")
        time.sleep(CONNECTION_WAIT_SECONDS)
    raise AssertionError("the last attempt returns or raises")
