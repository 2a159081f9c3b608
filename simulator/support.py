"""Small things that several parts of the rehearsal need: errors with a next step, timed steps, commands, locks."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from http.server import ThreadingHTTPServer
from pathlib import Path


class RehearsalError(Exception):
    """Something that the person at the keyboard must read: what failed, what was found, what to do next.

    ``log`` is a file whose last lines belong to the message.
    """

    def __init__(self, message: str, log: Path | None = None) -> None:
        super().__init__(message)
        self.log = log

    def __str__(self) -> str:
        message = super().__str__()
        if self.log is None:
            return message
        return f"{message}\nLast lines of {self.log}:\n{tail(self.log)}"


def tail(path: Path, lines: int = 20) -> str:
    """The last lines of a log, indented; says so when there are none."""
    try:
        text = path.read_text("utf-8", "replace").splitlines()[-lines:]
    except OSError as error:
        text = [f"(cannot be read: {error.strerror})"]
    return "\n".join(f"    {line}" for line in text or ["(empty)"])


PROGRESS_SECONDS = 10.0
_steps: list[str] = []
_logs: list[Path] = []


@contextlib.contextmanager
def step(title: str) -> Iterator[None]:
    """Print a title on stderr now and the seconds it took afterwards; name the step when it fails.

    Every ten seconds a line says that it goes on, with the last line of the log that is being written, if any.
    """
    started = time.monotonic()
    print(f"==> {title} ...", file=sys.stderr, flush=True)
    ended = threading.Event()
    _steps.append(title)
    threading.Thread(target=_tell_progress, args=(title, started, ended), daemon=True).start()
    try:
        yield
    except RehearsalError as error:
        raise RehearsalError(f"{title}: {Exception.__str__(error)}", error.log) from error
    finally:
        ended.set()
        _steps.remove(title)
    print(f"    {title}: {time.monotonic() - started:.1f} s", file=sys.stderr, flush=True)


def _tell_progress(title: str, started: float, ended: threading.Event) -> None:
    while not ended.wait(PROGRESS_SECONDS):
        if _steps[-1:] == [title]:  # of steps inside steps, the innermost
            last = "".join(f", {_last_line(log)}" for log in _logs[-1:])
            print(f"    {title}: {time.monotonic() - started:.0f} s so far{last}", file=sys.stderr, flush=True)


def _last_line(log: Path) -> str:
    """What a program wrote last, short enough for a line; a carriage return begins a line, too."""
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        lines = "".join(sign if sign.isprintable() else "\n" for sign in file.read().decode("utf-8", "replace"))
        return " ".join(lines.strip().rpartition("\n")[2].split())[:100]
    return ""


def run(
    argv: Sequence[str],
    *,
    stdin: str | None = None,
    timeout: float | None = None,
    environ: Mapping[str, str] | None = None,
) -> str:
    """Run a command and return its standard output. Raises RehearsalError with the command and its output."""
    try:
        done = subprocess.run(
            list(argv),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            env={**os.environ, **environ} if environ else None,
            check=False,
        )
    except FileNotFoundError as error:
        raise RehearsalError(
            f"the program {argv[0]!r} is not installed; run scripts/install_system_packages.sh"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise RehearsalError(f"{_shown(argv)}: still running after {timeout:g} s") from error
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing")[-2000:]
        raise RehearsalError(f"{_shown(argv)}: ended with {done.returncode} and printed: {said}")
    return done.stdout


def _shown(argv: Sequence[str]) -> str:
    """A command line short enough for a message: its beginning and its end."""
    text = shlex.join(argv)
    return text if len(text) <= 400 else f"{text[:250]} ... {text[-140:]}"


def run_logged(argv: Sequence[str], log: Path) -> None:
    """Run a long command with its output in ``log``. Raises RehearsalError that shows the last lines."""
    log.parent.mkdir(parents=True, exist_ok=True)
    _logs.append(log)
    with log.open("wb") as output:
        try:
            done = subprocess.run(
                list(argv), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, check=False
            )
        except FileNotFoundError as error:
            raise RehearsalError(
                f"the program {argv[0]!r} is not installed; run scripts/install_system_packages.sh"
            ) from error
        finally:
            _logs.remove(log)
    if done.returncode != 0:
        raise RehearsalError(f"{argv[0]} ended with {done.returncode}", log)


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False, wait: bool = True) -> Iterator[None]:
    """Hold a lock on ``path`` between processes, alone or with others; released when the process ends, however it ends.

    Raises BlockingIOError when it may not wait and another process has the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        yield


def write_atomically(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace ``path`` as a whole, so that an interrupted run leaves the old content or the new, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.touch(mode)
    scratch.write_text(text, encoding="utf-8")
    scratch.chmod(mode)
    scratch.replace(path)


@contextlib.contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[None]:
    """Let a server answer in a thread of its own until the block is left; then its port is free again."""
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def cloud_init_seed(identity: str, hostname: str, public_keys: Sequence[str], user_data: str | None) -> dict[str, str]:
    """The NoCloud seed that gives cloud-init its keys, host name and user data; JSON is valid YAML."""
    meta = {"instance-id": identity, "local-hostname": hostname, "public-keys": list(public_keys)}
    return {"meta-data": json.dumps(meta, indent=1), "user-data": user_data or "#cloud-config\n{}\n"}


def as_root() -> list[str]:
    """What to put before a command that needs root: nothing for root, else sudo that never asks."""
    return [] if os.geteuid() == 0 else ["sudo", "-n"]
