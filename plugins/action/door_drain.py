# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Have a host's door say that replicas drain, and wait for their requests with lines of progress.

Documented in ``plugins/modules/door_drain.py``.
"""

from __future__ import annotations

import time
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils.door import drain
from ansible_collections.glm.fleet.plugins.module_utils.finding import counted
from ansible_collections.glm.fleet.plugins.plugin_utils.actions import heartbeat
from ansible_collections.glm.fleet.plugins.plugin_utils.actions.base import FleetAction

POLL_SECONDS = 1.0


class ActionModule(FleetAction):
    """The module, then looks of it until no request runs."""

    LABEL = "door"
    # Of a wait that goes on: what is left, since when, and how long it may take.
    _wait: tuple[str, float, int] | None = None

    def _outcome(self) -> dict[str, Any]:
        result = self._named(self._module())
        args = self._task.args
        seconds = int(args.get("wait_seconds") or 0)
        waits = args.get("state") == "draining" and seconds > 0 and result.get("running")
        if result.get("failed") or result.get("unreachable") or self._task.check_mode or not waits:
            return result
        return self._waited(result, seconds)

    def _waited(self, result: dict[str, Any], seconds: int) -> dict[str, Any]:
        asked = {**self._task.args, "state": "read"}
        names = [drain.name_of(int(number)) for number in asked.get("replicas") or []]
        names = names or [str(one["name"]) for one in result["replicas"]]
        begun = time.monotonic()
        waiting = drain.Wait(names, seconds, begun)
        looked = result
        while not (why := waiting.over(drain.seen(looked), time.monotonic())):
            running = drain.seen(looked).open_of(names)
            left = "an unknown number of requests" if running is None else counted(running, "request")
            self._wait = f"{left} left", begun, seconds
            if self._last_heard == float("-inf"):
                self._say_alive(0)
            time.sleep(POLL_SECONDS)
            looked = self._named(self._module(arguments=asked))
            if looked.get("failed") or looked.get("unreachable"):
                return looked
        self._show([f"[{self._host}] door: drained after {time.monotonic() - begun:.0f} s: {why}"])
        return {**looked, "changed": result["changed"], "waited": why}

    def _say_alive(self, seconds: float) -> None:
        if self._wait is None:
            super()._say_alive(seconds)
        else:
            left, begun, budget = self._wait
            self._show([heartbeat.line(self._host, "door", "draining", left, time.monotonic() - begun, budget)])
