# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The processes of a running HAProxy and the maps in them, through the socket of its master.

This module util is PRIVATE to the collection. Standard library, Python 3.9 or newer; HAProxy 2.4 or newer.
"""

from __future__ import annotations

import csv
import io
import re
import socket
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.module_utils.host import commands

# A command with its lines must fit into a buffer of HAProxy's, 16 KiB.
_MOST_BYTES = 12_000
SECONDS = 5.0
# States of a unit in which nobody is let in. One that starts, or fails to, reads its files when it does.
DOWN = ("inactive", "failed", "activating")
# Reloads that may come while something is done in every process.
_ROUNDS = 5
_FILE = re.compile(r"^\S+ \((\S+)\)", re.MULTILINE)
_DESCRIPTION = re.compile(r"^description: (.*)$", re.MULTILINE)
_VERSION = re.compile(r"version created: (\d+)")


class Absent(Unmet):
    """Nobody listens at the socket, which is another thing than that who listens does not answer."""


@dataclass(frozen=True)
class Process:
    """A worker; ``old`` is one that was replaced by a reload and still ends what it has open."""

    pid: int
    old: bool


def runs(path: Path, proc: Path = Path("/proc")) -> bool:
    """Whether a process was started with this socket. What cannot be read of a process is not its own."""
    for command in proc.glob("[0-9]*/cmdline"):
        try:
            words = command.read_bytes().split(b"\0")
        except OSError:
            continue
        if any(word.split(b",")[0] == str(path).encode() for word in words):
            return True
    return False


class Master:
    """The master of HAProxy behind its socket. Every call raises Unmet when no complete answer comes."""

    def __init__(self, path: Path, patience: float = SECONDS, unit: str = "glm-door.service") -> None:
        """``patience``: seconds for which a master that starts anew is waited for."""
        self._path = path
        self._patience = patience
        self._unit = unit
        self._restart = f"restart {unit} on the host, which ends the requests it has open, and run again"

    def listens(self) -> bool:
        """Whether a master is there, whatever it answers."""
        try:
            self._ask("show proc")
        except Absent:
            return False
        except Unmet:
            return True
        return True

    def processes(self) -> list[Process]:
        """All workers there are, the current one first."""
        found, old = [], False
        for line in self._ask("show proc").splitlines():
            if line.startswith("# old"):
                old = True
            words = line.split()
            if len(words) > 1 and words[0].isdigit() and words[1] == "worker":
                found.append(Process(int(words[0]), old))
        if not any(not process.old for process in found):
            raise Unmet("HAProxy to have a worker", "none", self._restart)
        return found

    def running(self, down: Collection[str] = DOWN) -> list[Process]:
        """As ``processes``; none where nobody listens and systemd says that the unit is in one of these states.

        A socket where nobody listens is by itself no proof that nobody is let in.
        """
        try:
            return self.processes()
        except Absent:
            if commands.state_of(self._unit) in down:
                return []
            raise

    def in_each(self, do: Callable[[Process], object], processes: Callable[[], list[Process]]) -> list[Process]:
        """Do something in every process, also in those that reloads start meanwhile; the processes there are then.

        ``processes``: ``self.processes``, or ``self.running`` where none is well, too. One that was replaced still
        answers on connections that are kept, and may end meanwhile; if it is still there, it did not do it.
        """
        seen: set[int] = set()
        for _round in range(_ROUNDS):
            there = processes()
            new = [process for process in there if process.pid not in seen]
            if not new:
                return there
            for process in new:
                try:
                    do(process)
                except Unmet:
                    if among(process, processes()):
                        raise
                seen.add(process.pid)
        raise Unmet("the processes of HAProxy to stay", f"{len(seen)} of them one after another", "run again")

    def description(self) -> str:
        """What the configuration that the current process serves says of itself; empty when it says nothing."""
        found = _DESCRIPTION.search(self._of(self.processes()[0], "show info"))
        return found.group(1) if found else ""

    def files(self, process: Process) -> set[str]:
        """The files of the maps that a process has."""
        return set(_FILE.findall(self._of(process, "show map")))

    def entries(self, process: Process, file: str) -> dict[str, str]:
        """What a process has in a map."""
        lines = [line.split() for line in self._of(process, f"show map {file}").splitlines() if line.strip()]
        if any(len(words) != 3 for words in lines):
            raise Unmet(f"lines of a key and a value in {file} of process {process.pid}", "others", self._restart)
        return {key: value for _pointer, key, value in lines}

    def replace(self, process: Process, file: str, entries: Mapping[str, str]) -> None:
        """Replace a map of a process in one step: a request sees the old entries or the new ones."""
        answer = self._of(process, f"prepare map {file}")
        version = _VERSION.search(answer)
        if version is None:
            raise Unmet(f"to prepare {file} in process {process.pid}", repr(answer.strip()), self._restart)
        for lines in _portions(entries):
            self._silent(process, f"add map @{version.group(1)} {file} <<\n{lines}")
        self._silent(process, f"commit map @{version.group(1)} {file}")

    def rows_of(self, process: Process) -> list[dict[str, str]]:
        """What a process counts, a row for each of its proxies (``pxname``) and their servers (``svname``)."""
        text = self._of(process, "show stat").lstrip("# ")
        rows = list(csv.DictReader(io.StringIO(text)))
        if not rows or not {"pxname", "svname", "scur"} <= rows[0].keys():
            raise Unmet(f"the counters of process {process.pid} of HAProxy", repr(text[:100]), self._restart)
        return rows

    def set_server(self, process: Process, server: str, state: str) -> None:
        """Set the state of a server, as ``backend/server``: ``maint`` takes no new request, ``ready`` does."""
        self._silent(process, f"set server {server} state {state}")

    def _silent(self, process: Process, command: str) -> None:
        answer = self._of(process, command).strip()
        if answer:
            first = command.split("\n", 1)[0]
            raise Unmet(f"HAProxy to take '{first}' in process {process.pid}", repr(answer), self._restart)

    def _of(self, process: Process, command: str) -> str:
        return self._ask(f"@!{process.pid} {command}")

    def _ask(self, command: str) -> str:
        """The answer to one command.

        While the master starts anew, as it does at each reload, one that only shows something is sent again.
        """
        again_until = time.monotonic() + (self._patience if "show " in command else 0.0)
        while True:
            try:
                text = self._answer(command)
                break
            except OSError as exc:
                if isinstance(exc, (ConnectionError, FileNotFoundError)) and time.monotonic() < again_until:
                    time.sleep(0.05)
                    continue
                kind = Absent if isinstance(exc, (ConnectionRefusedError, FileNotFoundError)) else Unmet
                raise kind(f"HAProxy to answer at {self._path}", exc.strerror or str(exc), self._restart) from exc
        # Each answer ends with an empty line; one that does not was cut off.
        if not text.endswith("\n"):
            raise Unmet(f"a whole answer at {self._path}", repr(text[-100:]), self._restart)
        return text

    def _answer(self, command: str) -> str:
        """What comes until the end of the connection. Raises OSError."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(SECONDS)
            connection.connect(str(self._path))
            connection.sendall(f"{command}\n".encode())
            # The master would wait for the next command.
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            while part := connection.recv(65536):
                answer += part
        return answer.decode("utf-8", "replace")


def among(process: Process, there: Iterable[Process]) -> bool:
    """Whether a process is still there."""
    return process.pid in {one.pid for one in there}


def open_in(rows: Iterable[Mapping[str, str]], backends: Collection[str]) -> int:
    """Requests that run in these backends, by rows of one process or of several."""
    return sum(int(row["scur"] or 0) for row in rows if row["svname"] == "BACKEND" and row["pxname"] in backends)


def _portions(entries: Mapping[str, str]) -> Iterator[str]:
    """The lines of a map in pieces that fit into a command."""
    lines = ""
    for key, value in entries.items():
        line = f"{key} {value}\n"
        if len(lines) + len(line) > _MOST_BYTES:
            yield lines
            lines = ""
        lines += line
    if lines:
        yield lines
