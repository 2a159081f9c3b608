# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the gateway of a fleet sees of the replicas behind it.

This module util is PRIVATE to the collection. Standard library, Python 3.9 or newer; HAProxy 2.4 or newer.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils.door import drain, master
from ansible_collections.glm.fleet.plugins.module_utils.door.master import Master
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet

UNIT, SOCKET = "glm-gateway.service", "/run/glm-gateway/master.sock"
UNIT_FILE, CONFIG = f"/etc/systemd/system/{UNIT}", "/etc/glm/gateway/haproxy.cfg"
# What of the product clients reach: the front door, and the gateway where a host runs one.
FRONTS = (drain.UNIT, UNIT)
_POLL_SECONDS = 0.2
# The proxies of the configuration that requests go through: those of conversations, and the rest. The first one checks.
PROXIES = ("replicas", "few", "any")
_SUMS = ("FRONTEND", "BACKEND")


def front(unit: str) -> str:
    """What people call the one that a unit runs."""
    return "gateway" if unit == UNIT else "door"


def written(name: str) -> str:
    """A name as HAProxy's configuration can have it."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)


def seen(rows: Sequence[Mapping[str, str]]) -> dict[str, dict[str, Any]]:
    """The replicas of a process by the rows that it counts. Its open requests are of all its proxies."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["pxname"] not in PROXIES or row["svname"] in _SUMS:
            continue
        of_one = found.setdefault(
            row["svname"], {"in": True, "status": row["status"], "check": "", "open": 0, "waiting": 0}
        )
        # Only the first proxy checks; the others follow it.
        of_one["check"] = of_one["check"] or ", ".join(filter(None, (row.get("check_desc"), row.get("last_chk"))))
        of_one["in"] = of_one["in"] and row["status"].startswith("UP")
        of_one["open"] += int(row["scur"] or 0)
        of_one["waiting"] += int(row["qcur"] or 0)
    return found


def view(socket: Path, unit: str = UNIT, patience: float = master.SECONDS) -> Optional[dict[str, dict[str, Any]]]:
    """The replicas as the gateway sees them now; None where systemd says that none runs. Raises Unmet.

    ``patience``: seconds for which one that starts anew is waited for.
    """
    haproxy = Master(socket, patience, unit)
    # One that starts, or fails to, sends nothing, and sees for itself what doors say once it does.
    processes = haproxy.running()
    return seen(haproxy.rows_of(processes[0])) if processes else None


def admitted(found: Mapping[str, Mapping[str, Any]], names: Collection[str]) -> list[str]:
    """Those of these replicas that new requests go to."""
    return [name for name in names if found.get(written(name), {}).get("in")]


def wait(socket: Path, names: Collection[str], admitted: bool, seconds: float, unit: str = UNIT) -> None:
    """Return once new requests go to all of these replicas, or to none. Raises Unmet.

    One that the gateway does not know gets no requests from it, and is not waited for.
    """
    deadline = time.monotonic() + seconds
    while found := view(socket, unit):
        known = {name: found[name] for name in map(written, names) if name in found}
        late = {name: one["status"] for name, one in known.items() if one["in"] != admitted}
        if not late:
            return
        if time.monotonic() >= deadline:
            verb = "send requests to" if admitted else "send no new requests to"
            raise Unmet(
                f"the gateway to {verb} {', '.join(late)} within {seconds:g} s",
                ", ".join(f"{name} {status}" for name, status in late.items()),
                "look at /ready of that host's front door, and whether the gateway reaches it; where the host has "
                "another address or port than before, run deploy.yml with --tags gateway",
            )
        time.sleep(_POLL_SECONDS)
