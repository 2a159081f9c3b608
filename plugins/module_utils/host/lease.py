# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which run may change this host: the lease that a run takes before it changes anything, and renews while it goes on.

This module util is PRIVATE to the collection. The record lies in /run: it goes when the host restarts, and with it what
the run was doing there. A run that has released the host leaves its record, so that one that had lost the host to it
finds out.
"""

from __future__ import annotations

import calendar
import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, TypedDict

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet

PATH = Path("/run/glm/lease.json")
# A run renews its leases when it begins and before each batch serves. Not every run that ends can release its hosts
# (all of a batch failed, the controller is gone), and no other controller can see that it has ended.
STALE_HOURS = 6


class Lease(TypedDict):
    """What the host knows of the run that has, or last had, its lease. Times are the host's, in UTC."""

    run: str
    """The name of the run, as in module_utils/cloud/run_alive.py: the controller and the process there."""
    by: str
    """Who started it: user@controller."""
    playbook: str
    since: str
    renewed: str
    released: str
    """When it released the host; empty while it has it."""


# A record that is there is no absent one, whatever it holds.
UNREADABLE: Lease = {
    "run": "", "by": "a run whose record cannot be read", "playbook": "an unknown playbook",
    "since": "an unknown time", "renewed": "", "released": "",
}  # fmt: skip


@dataclass(frozen=True)
class Claim:
    """A run that wants the host."""

    run: str
    by: str
    playbook: str
    before: bool = False
    """It had the host before. Then nothing but a restart of the host may have ended that."""
    gone: str = ""
    """Name of a run of which the controller has seen that it has ended."""
    unlock: bool = False
    """Take the host from whoever has it."""


def taken(found: Optional[Lease], claim: Claim, now: str) -> Lease:
    """The record once the run has the host. Raises Unmet, with the holder in ``more``, when it cannot have it."""
    since = now
    if found is not None and found["run"] == claim.run:
        since = found["since"]
    elif found is not None and claim.before:
        raise _lost(found)
    elif found is not None and not (_free(found, now) or claim.unlock or (claim.gone and found["run"] == claim.gone)):
        raise _refused(found, now)
    return {
        "run": claim.run, "by": claim.by, "playbook": claim.playbook, "since": since, "renewed": now, "released": "",
    }  # fmt: skip


def _free(found: Lease, now: str) -> bool:
    """Whether any run may take the host. An age that is not known is not a great one."""
    age = _age(found["renewed"], now)
    return bool(found["released"]) or (age is not None and age >= STALE_HOURS * 3600)


def released_by(found: Optional[Lease], run: str, now: str) -> Optional[Lease]:
    """The record once the run has released the host; None when it does not have it."""
    if found is None or found["run"] != run or found["released"]:
        return None
    return {**found, "released": now}


def described(lease: Lease, now: str) -> str:
    """Who holds a host, for people."""
    renewed = f", last renewed {lease['renewed']}{_ago(lease['renewed'], now)}" if lease["renewed"] else ""
    return f"{lease['by']} with {lease['playbook']} since {lease['since']}{renewed}"


def _refused(holder: Lease, now: str) -> Unmet:
    return Unmet(
        "no other run to be changing this host",
        described(holder, now),
        f"wait for that run; {STALE_HOURS} h after it renewed last the host is free for any run; "
        "if you know that it has ended, or must not go on, take over with -e glm_unlock=true",
        holder=dict(holder),
    )


def _lost(holder: Lease) -> Unmet:
    back = f", and released it at {holder['released']}" if holder["released"] else ""
    return Unmet(
        "this run to hold the host still",
        f"that {holder['by']} took it over with {holder['playbook']} at {holder['since']}{back}",
        "see what that run does, and run this one again when it has ended",
        holder=dict(holder),
    )


def _ago(moment: str, now: str) -> str:
    seconds = _age(moment, now)
    if seconds is None:
        return ""
    minutes = max(0, round(seconds / 60))
    return f" ({minutes // 60} h {minutes % 60} min ago)" if minutes >= 60 else f" ({minutes} min ago)"


def _age(moment: str, now: str) -> Optional[int]:
    """Seconds between two times of the host; None where one is not a time."""
    try:
        return calendar.timegm(time.strptime(now, _FORMAT)) - calendar.timegm(time.strptime(moment, _FORMAT))
    except ValueError:
        return None


_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


def _now() -> str:
    return time.strftime(_FORMAT, time.gmtime())


# The file ----------------------------------------------------------------------------------------------------------


def read(path: Path) -> Optional[Lease]:
    """The record of the host; None when no run has had it since it started. Raises Unmet."""
    text = files.text_of(path, "the host's lease", "run it with become, as root")
    return None if text is None else _parsed(text)


def hold(path: Path, claim: Claim) -> tuple[Lease, Optional[Lease]]:
    """Take or renew the lease: the record, and whose it was if it was taken over. Raises Unmet and OSError."""
    with _alone(path):
        found = read(path)
        lease = taken(found, claim, _now())
        files.write_json(path, lease)
    over = found is not None and found["run"] != claim.run and not found["released"]
    return lease, found if over else None


def release(path: Path, run: str) -> bool:
    """Release the host; False when the run does not have it. Raises Unmet and OSError."""
    if not path.exists():
        return False
    with _alone(path):
        lease = released_by(read(path), run, _now())
        if lease is not None:
            files.write_json(path, lease)
    return lease is not None


def holder(path: Path, run: str = "") -> Optional[Lease]:
    """The record of another run that has the host, or of any without ``run``; None where a run may take it.

    Raises Unmet.
    """
    found = read(path)
    mine = found is not None and run != "" and found["run"] == run
    return None if found is None or mine or _free(found, _now()) else found


def holder_in_words(lease: Lease) -> str:
    """As ``described``, at this moment."""
    return described(lease, _now())


def _parsed(text: str) -> Lease:
    try:
        given: Any = json.loads(text)
        return {
            "run": str(given["run"]), "by": str(given["by"]), "playbook": str(given["playbook"]),
            "since": str(given["since"]), "renewed": str(given["renewed"]), "released": str(given["released"]),
        }  # fmt: skip
    except (ValueError, TypeError, KeyError):
        return UNREADABLE


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep other runs from deciding meanwhile. The kernel frees the lock when its holder dies."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
