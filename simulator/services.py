"""Background programs of a rehearsal: started once, found again by later commands, stopped by their process id."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from simulator.settings import CHECKOUT, Settings
from simulator.support import RehearsalError, write_atomically

_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def answers(url: str, timeout: float = 2) -> bool:
    """Whether an HTTP server answers at ``url``, with any status."""
    try:
        with _NO_PROXY.open(url, timeout=timeout):
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False


@dataclass(frozen=True)
class Service:
    """A program that listens. ``url`` answers once it is ready; ``port_variable`` moves it to another port."""

    name: str
    argv: Sequence[str]
    url: str
    port_variable: str


@dataclass(frozen=True)
class _Record:
    """A pid file: the process, when it began (its number may be given to another later) and its command line."""

    pid: int
    ticks: int | None
    argv: list[str]


class Services:
    """Starts, finds and stops services; pid files and logs lie in the state folder."""

    def __init__(self, settings: Settings) -> None:
        self._directory = settings.state_dir

    def log(self, name: str) -> Path:
        """The service's log file."""
        return self._directory / "logs" / f"{name}.log"

    def running(self, name: str) -> int | None:
        """The service's process id, or None when it does not run (also when its number now belongs to another)."""
        record = self._record(name)
        if record is None or _started_ticks(record.pid) != record.ticks:
            return None
        return record.pid

    def start(self, service: Service, timeout: float = 300) -> bool:
        """Start a service and wait until it answers; True when it was started, False when it already ran.

        A running one whose command line has changed is replaced. Raises RehearsalError with its last log lines.
        """
        record = self._record(service.name)
        same = record is not None and record.argv == list(service.argv)
        if same and self.running(service.name) is not None and answers(service.url):
            return False
        self.stop(service.name)
        log = self.log(service.name)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            process = subprocess.Popen(
                list(service.argv),
                cwd=CHECKOUT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._write_record(service, process.pid)
        try:
            self._await(service, process, timeout)
        except BaseException:
            process.kill()
            process.wait()
            self._pid_file(service.name).unlink(missing_ok=True)
            raise
        return True

    def stop(self, name: str, timeout: float = 15) -> bool:
        """Stop a service, first politely; True when it ran."""
        pid = self.running(name)
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + timeout
            while self.running(name) is not None:
                if time.monotonic() > deadline:
                    os.kill(pid, signal.SIGKILL)
                    deadline = time.monotonic() + timeout
                time.sleep(0.05)
        self._pid_file(name).unlink(missing_ok=True)
        return pid is not None

    def _await(self, service: Service, process: subprocess.Popen[bytes], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        # Another program with the same port may answer.
        while not (answers(service.url) and _listens(process.pid, urlsplit(service.url).port)):
            if process.poll() is not None:
                raise RehearsalError(
                    f"{service.name} ended with {process.returncode} before it answered at {service.url}; if another "
                    f"program has the port, set {service.port_variable}",
                    self.log(service.name),
                )
            if time.monotonic() > deadline:
                raise RehearsalError(
                    f"{service.name} did not answer at {service.url} within {timeout:g} s", self.log(service.name)
                )
            time.sleep(0.1)

    def _pid_file(self, name: str) -> Path:
        return self._directory / "run" / f"{name}.json"

    def _write_record(self, service: Service, pid: int) -> None:
        record = _Record(pid, _started_ticks(pid), list(service.argv))
        write_atomically(self._pid_file(service.name), json.dumps(asdict(record)))

    def _record(self, name: str) -> _Record | None:
        try:
            return _Record(**json.loads(self._pid_file(name).read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None


def _started_ticks(pid: int) -> int | None:
    """When a process began, in clock ticks since boot; None when it does not exist or has ended (a zombie)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def _listens(pid: int, port: int | None) -> bool:
    """Whether a process has a socket that listens on a TCP port."""
    listening = set()
    for table in ("tcp", "tcp6"):
        for row in Path(f"/proc/net/{table}").read_text("utf-8").splitlines()[1:]:
            fields = row.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                listening.add(f"socket:[{fields[9]}]")
    with contextlib.suppress(OSError):
        return any(_target(link) in listening for link in Path(f"/proc/{pid}/fd").iterdir())
    return False


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""


def module(name: str, *arguments: str) -> list[str]:
    """The command line that runs a module of this checkout with this Python."""
    return [sys.executable, "-m", name, *arguments]
