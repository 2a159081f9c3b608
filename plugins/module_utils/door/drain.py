# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Have a host's door say that a replica drains, until a moment; HAProxy compares it with the clock by itself.

This module util is PRIVATE to the collection. It is also a program that the role ``serve`` installs, for units and
people: ``drain``, ``admit`` and ``state``. Standard library, Python 3.9 or newer.

Only ``GET /ready`` changes: a request that comes all the same is served. Whoever forgets to admit leaves nothing
drained for ever. A replica has two marks: one of people and deploys, and one of its unit, which goes when its engine is
back.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.door import owned
from ansible_collections.glm.fleet.plugins.module_utils.door.master import Master, Process, among, open_in
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet

SERVING, DRAINING, DOWN, UNKNOWN = "serving", "draining", "down", "unknown"
# Ends the name of a replica in the map where the mark is its unit's.
UNIT_MARK = ".unit"
FOLDER, SOCKET, UNIT, GROUP = "/etc/glm/door", "/run/glm-door/master.sock", "glm-door.service", "glm-door"
# Balancers ask every second or two, and some believe the second answer only.
NOTICE_SECONDS = 5.0
# Requests that come in so many looks of this length, one after another, are sent by somebody who asks no /ready.
STILL_LOOKS, LOOK_SECONDS = 3, 5.0
_POLL_SECONDS = 0.5
_NAME = re.compile(r"engine-(\d+)")
_OLDER = "deploy the host with --tags door"


class Older(Unmet):
    """The door that runs is of a release that cannot say so."""


@dataclass(frozen=True)
class Place:
    """Where a host's door keeps the map, and where it is asked."""

    folder: Path = Path(FOLDER)
    socket: Path = Path(SOCKET)
    unit: str = UNIT
    group: str = GROUP

    @property
    def map(self) -> Path:
        """The file of the map."""
        return self.folder / owned.DRAIN_MAP


@dataclass(frozen=True)
class Replica:
    """What the door says of a replica. ``open``: requests that run, ``taken``: all there were; None is not known."""

    name: str
    state: str
    until: Optional[int]
    open: Optional[int]
    taken: Optional[int] = None


@dataclass(frozen=True)
class View:
    """What one look found. ``asked``: whether anybody has asked /ready since the door was started or reloaded."""

    replicas: Sequence[Replica]
    asked: bool
    running: bool

    def open_of(self, names: Collection[str]) -> Optional[int]:
        """Requests that run in these replicas; None where it is not known. A door that lacks one lets none through."""
        counts = [one.open for one in self.replicas if one.name in names]
        known = None not in counts and (self.running or len(counts) == len(names))
        return sum(count or 0 for count in counts) if known else None

    def taken_of(self, names: Collection[str]) -> int:
        """Requests that these replicas were ever sent, as far as it is known."""
        return sum(one.taken or 0 for one in self.replicas if one.name in names)


def name_of(replica: int) -> str:
    """What the door calls a replica."""
    return f"engine-{replica}"


class Door:
    """The door of this host. Calls raise Unmet."""

    def __init__(self, place: Place, clock: Callable[[], float] = time.time) -> None:
        self._place = place
        self._master = Master(place.socket, unit=place.unit)
        self._clock = clock

    def view(self) -> View:
        """What the door says now; where it does not run, what it will say once it does."""
        marks = self._marks()
        processes = self._master.running()
        if not processes:
            named = sorted({name.partition(".")[0] for name in marks})
            return View([Replica(name, DOWN, self._until(marks, name), 0) for name in named], False, False)
        rows = {process: self._rows(process) for process in processes}
        current = rows[processes[0]] or []
        everywhere = [row for found in rows.values() for row in found or []]
        known = None not in rows.values()
        replicas = [
            self._replica(row["pxname"], marks, current, everywhere, known)
            for row in current
            if _NAME.fullmatch(row["pxname"]) and row["svname"] == "BACKEND"
        ]
        return View(replicas, _taken(everywhere, "ready") > 0, True)

    def _replica(
        self,
        name: str,
        marks: Mapping[str, int],
        current: Sequence[Mapping[str, str]],
        everywhere: Sequence[Mapping[str, str]],
        known: bool,
    ) -> Replica:
        until = self._until(marks, name)
        refused = _status(current, name, "BACKEND") == "DOWN"
        alive = _status(current, f"alive-{name.partition('-')[2]}", "engine").startswith("UP")
        state = DOWN if refused else DRAINING if until else SERVING if alive else DOWN
        running = open_in(everywhere, [name, f"{name}-other"]) if known else None
        return Replica(name, state, until, running, _taken(everywhere, name))

    def mark(self, names: Collection[str], until: Optional[int], of_unit: bool = False) -> bool:
        """Say that replicas drain until a moment, or do no more (None); whether that is new."""
        ending = UNIT_MARK if of_unit else ""
        with owned.alone(self._place.folder):
            before = self._marks()
            wanted = {name: moment for name, moment in before.items() if moment > self._clock()}
            for name in names:
                wanted.pop(f"{name}{ending}", None)
                if until is not None:
                    wanted[f"{name}{ending}"] = until
            entries = {name: str(moment) for name, moment in sorted(wanted.items())}
            text = "".join(f"{name} {moment}\n" for name, moment in entries.items())
            group = owned.group_of(self._place.group)
            try:
                if not owned.holds(self._place.map, text, group):
                    # First: a process that is started meanwhile reads it.
                    owned.write(self._place.map, text, group)
            except OSError as exc:
                raise Unmet(f"to write {self._place.map}", exc.strerror or str(exc), "run it as root") from exc
            self._give(entries)
        return before != wanted

    def _give(self, entries: Mapping[str, str]) -> None:
        """The map to all processes."""
        file = str(self._place.map)

        def give(process: Process) -> None:
            if file in self._master.files(process):
                self._master.replace(process, file, entries)
            elif not process.old:
                raise Older(f"the door to read {file}", "that it does not", _OLDER)

        self._master.in_each(give, self._master.running)

    def _marks(self) -> dict[str, int]:
        """The marks in the file, also those that are over. Raises Unmet for lines that are none."""
        found = {}
        for line in (files.text_of(self._place.map) or "").splitlines():
            name, _space, moment = line.partition(" ")
            if not moment.isdigit():
                raise Unmet(f"a name and a moment in each line of {self._place.map}", repr(line), "remove the line")
            found[name] = int(moment)
        return found

    def _until(self, marks: Mapping[str, int], name: str) -> Optional[int]:
        moments = [marks.get(name, 0), marks.get(f"{name}{UNIT_MARK}", 0)]
        return max(moments) if max(moments) > self._clock() else None

    def _rows(self, process: Process) -> Optional[list[dict[str, str]]]:
        """What a process counts; nothing of one that has ended meanwhile, None where it does not say."""
        try:
            return self._master.rows_of(process)
        except Unmet:
            if not process.old:
                raise
            return None if among(process, self._master.running()) else []


def _taken(rows: Sequence[Mapping[str, str]], backend: str) -> int:
    """Requests that a backend was ever sent."""
    return sum(int(row.get("stot") or 0) for row in rows if (row["pxname"], row["svname"]) == (backend, "BACKEND"))


def _status(rows: Sequence[Mapping[str, str]], proxy: str, server: str) -> str:
    return next((row.get("status", "") for row in rows if (row["pxname"], row["svname"]) == (proxy, server)), "")


class Wait:
    """Whether requests that run are still worth waiting for."""

    def __init__(self, names: Collection[str], seconds: float, begun: float) -> None:
        self._names = names
        self._until = begun + seconds
        self._looked = begun + NOTICE_SECONDS
        self._taken: Optional[int] = None
        self._grew = 0

    def over(self, view: View, now: float) -> str:
        """Why it ends; empty while it goes on. What is not known has not ended."""
        if view.open_of(self._names) == 0:
            return "no request runs"
        if now >= self._until:
            return "the time is over"
        if now - self._looked >= LOOK_SECONDS:
            taken = view.taken_of(self._names)
            self._grew = self._grew + 1 if self._taken is not None and taken > self._taken else 0
            self._looked, self._taken = now, taken
        return "requests still come, from somebody who does not ask /ready" if self._grew >= STILL_LOOKS else ""


def shown(view: View) -> dict[str, Any]:
    """A look as data."""
    return {"running": view.running, "asked": view.asked, "replicas": [asdict(one) for one in view.replicas]}


def seen(data: Mapping[str, Any]) -> View:
    """The look that ``shown`` made data of."""
    return View([Replica(**one) for one in data["replicas"]], data["asked"], data["running"])


def wait(door: Door, names: Collection[str], seconds: float) -> str:
    """Wait for requests that run in replicas; why that ended. Raises Unmet."""
    waiting = Wait(names, seconds, time.monotonic())
    while not (why := waiting.over(door.view(), time.monotonic())):
        time.sleep(_POLL_SECONDS)
    return why


def notice(door: Door) -> None:
    """Give balancers a moment to hear of it, where there are any."""
    if door.view().asked:
        time.sleep(NOTICE_SECONDS)


def main() -> int:
    """As a program; the answer is a line of JSON."""
    parser = argparse.ArgumentParser(prog="door_drain", description="Say that replicas of this host drain, or look.")
    parser.add_argument("what", choices=["drain", "admit", "state"])
    parser.add_argument("--replica", type=int, action="append", help="its number; all of the door without it")
    parser.add_argument("--seconds", type=int, default=600, help="after which the replica is ready again by itself")
    parser.add_argument("--wait", type=float, default=0, help="at most this long, until no request runs")
    parser.add_argument("--of-unit", action="store_true", help="the mark of the unit, which does not touch the other")
    parser.add_argument("--folder", type=Path, default=Path(FOLDER))
    parser.add_argument("--socket", type=Path, default=Path(SOCKET))
    parser.add_argument("--group", default=GROUP)
    options = parser.parse_args()
    # systemd runs ExecStop after a crash, too, without a process to stop: nothing drains then.
    crashed = options.what == "drain" and not os.environ.get("MAINPID")
    if options.of_unit and (crashed or not options.folder.is_dir()):
        return 0
    door = Door(Place(options.folder, options.socket, group=options.group))
    try:
        answer: dict[str, Any] = {}
        if options.what != "state":
            names = _names(door, options.replica)
            until = int(time.time()) + options.seconds if options.what == "drain" else None
            answer["changed"] = door.mark(names, until, options.of_unit)
            if options.what == "drain" and options.of_unit:
                notice(door)
            if options.what == "drain" and options.wait:
                answer["waited"] = wait(door, names, options.wait)
        answer = {**shown(door.view()), **answer}
    except Unmet as error:
        sys.stderr.write(f"{error}\n")
        return 1
    # A unit's lines are taken for its engine's.
    if not options.of_unit:
        sys.stdout.write(f"{json.dumps(answer)}\n")
    return 0


def _names(door: Door, replicas: Optional[Sequence[int]]) -> list[str]:
    if replicas:
        return [name_of(replica) for replica in replicas]
    return [one.name for one in door.view().replicas]
