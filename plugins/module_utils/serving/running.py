# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a replica runs, seen on its host: image, words of its command, release of its engine, files it was started from.

This module util is PRIVATE to the collection. Standard library, Python 3.9 or newer; reads only. What could not be read
is None, and ``problems`` says why: it is never taken for what was planned.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional, TypedDict

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.finding import QuotingError
from ansible_collections.glm.fleet.plugins.module_utils.serving import restarts, walls
from ansible_collections.glm.fleet.plugins.module_utils.serving.client import Endpoint, NoAnswer, ask
from ansible_collections.glm.fleet.plugins.module_utils.serving.occupancy import Runner
from ansible_collections.glm.fleet.plugins.module_utils.serving.status import read_secrets, redact, uptime_seconds

# An engine that is busy answers late; what asks here shows a whole fleet.
ASKED_SECONDS = 3.0
_INSPECTED = ("State.Running", "Image", "Config.Image", "Config.Cmd", "Config.Env")


# What the guard of a replica over several hosts finds out and hands on.
_OF_THE_GUARD = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")


class Running(TypedDict):
    """What was seen of one replica. None: could not be read."""

    replica: int
    since: Optional[str]
    """When it began to serve: UTC, ISO 8601."""
    engine: Optional[str]
    """Which engine said its release."""
    version: Optional[str]
    """The release that it says."""
    image: Optional[str]
    """What the container was made of, as docker run was given it."""
    digests: list[str]
    """Digests of that image in its registries."""
    words: Optional[list[str]]
    """What the container was given to run, or without one the whole command line; without secrets."""
    environment: Optional[dict[str, str]]
    """What the engine's environment has of the planned names; without secrets."""
    unplanned: list[str]
    """Names in a container's environment that are neither planned nor its image's."""
    started: Optional[dict[str, str]]
    """Checksums (SHA-256) of the files that it was started from, by path."""
    files: dict[str, Optional[str]]
    """Those of the same files now."""
    ended: Optional[dict[str, Any]]
    """How often it ended by itself (restarts.described)."""
    problems: list[str]
    """What could not be read, and why."""


class Wanted(NamedTuple):
    """Which replica to look at.

    ``versions``: by engine, where it says its release; ``keys``: files with keys for that, one of which it takes.
    ``environment``: names that the plan sets. ``answers``: whether the engine answers requests on this host.
    """

    replica: int
    container: bool
    port: int
    versions: Mapping[str, str]
    keys: Sequence[str] = ()
    secret_files: Sequence[str] = ()
    environment: Sequence[str] = ()
    answers: bool = True


def checksum(file: str) -> Optional[str]:
    """The SHA-256 of a file, None for one that cannot be read."""
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except OSError:
        return None


def record_of(unit: str, run_folder: Path = Path("/run")) -> Path:
    """Where a unit's guard records what it was started from."""
    return run_folder / unit.removesuffix(".service") / "started.json"


def seen(run: Runner, wanted: Wanted, root: Path = Path("/")) -> Running:
    """What runs as one replica; never raises."""
    found: Running = {
        "replica": wanted.replica, "since": None, "engine": None, "version": None, "image": None, "digests": [],
        "words": None, "environment": None, "unplanned": [], "started": None, "files": {}, "ended": None,
        "problems": [],
    }  # fmt: skip
    try:
        unit = walls.properties(run, walls.unit_of(wanted.replica), "ActiveState", "MainPID", "NRestarts", *_TIMES)
    except QuotingError as exc:
        found["problems"].append(str(exc))
        return found
    name = walls.unit_of(wanted.replica)
    found["ended"] = restarts.described(restarts.file_of(name, root / _ENDS), int(unit["NRestarts"] or 0))
    if unit["MainPID"] == "0" or unit["ActiveState"] not in ("active", "activating", "deactivating", "reloading"):
        found["problems"].append(f"{name} is {unit['ActiveState']}: nothing of it runs")
        return found
    found["since"] = _since(unit)
    started = files.read_json(record_of(name, root / "run"))
    if isinstance(started, dict):
        marks = {str(file): str(mark) for file, mark in started.items()}
        found["started"] = marks
        found["files"] = {file: checksum(str(root / file.lstrip("/"))) for file in marks}
    else:
        found["problems"].append("the record of the files that it was started from cannot be read")
    (_container if wanted.container else _process)(run, wanted, unit["MainPID"], root, found)
    if wanted.answers and unit["ActiveState"] == "active":
        _asked(wanted, root, found)
    return found


_TIMES = ("ActiveEnterTimestampMonotonic",)
_ENDS = str(restarts.FOLDER).lstrip("/")


def _since(unit: Mapping[str, str]) -> Optional[str]:
    """When the unit became active, which it is not yet while it starts."""
    entered = int(unit[_TIMES[0]] or 0) / 1_000_000
    if not entered or unit["ActiveState"] != "active":
        return None
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - uptime_seconds() + entered))


def _container(run: Runner, wanted: Wanted, _pid: str, root: Path, found: Running) -> None:
    name = walls.name_of(wanted.replica)
    done = run(("docker", "inspect", "--type", "container", "--format", _lines_of(_INSPECTED), name))
    try:
        running, image, given, words, environment = map(json.loads, done.stdout.splitlines() if done.ok else [])
    except ValueError:
        found["problems"].append(f"docker inspect of the container {name}: {done.evidence()}")
        return
    if not running:
        found["problems"].append(f"the container {name} does not run")
        return
    found["image"], found["words"] = str(given), _shown(words or [], wanted, root)
    done = run(("docker", "image", "inspect", "--format", _lines_of(("RepoDigests", "Config.Env")), str(image)))
    try:
        digests, own = map(json.loads, done.stdout.splitlines() if done.ok else [])
    except ValueError:
        found["problems"].append(f"docker image inspect of {image}: {done.evidence()}")
        return
    found["digests"] = sorted({str(one).partition("@")[2] for one in digests or []})
    found["environment"] = _planned(environment or [], wanted)
    left = {_name(one) for one in environment or []} - {_name(one) for one in own or []}
    found["unplanned"] = sorted(left - {*wanted.environment, *_OF_THE_GUARD})


def _name(assignment: str) -> str:
    return str(assignment).partition("=")[0]


def _planned(assignments: Sequence[str], wanted: Wanted) -> dict[str, str]:
    """The values of the planned names, without those that look like secrets."""
    names = {*wanted.environment}
    shown = (redact(str(one), ()) for one in assignments if _name(one) in names)
    return {name: value for name, _separator, value in (one.partition("=") for one in shown)}


def _lines_of(names: Sequence[str]) -> str:
    return "\n".join(f"{{{{json .{name}}}}}" for name in names)


def _process(_run: Runner, wanted: Wanted, pid: str, root: Path, found: Running) -> None:
    try:
        line = (root / "proc" / pid / "cmdline").read_bytes().decode("utf-8", "replace")
    except OSError as exc:
        found["problems"].append(f"the command line of process {pid}: {exc.strerror}")
        return
    # A zero ends each word, and the last may be empty. One that has given itself a title has a single word, and zeros
    # up to the end of what its arguments and its environment were.
    words = line.removesuffix("\0").split("\0")
    if not any(words[1:]):
        found["problems"].append(f"process {pid} shows {line!r} and not its command line")
        return
    found["words"] = _shown(words, wanted, root)
    try:
        text = (root / "proc" / pid / "environ").read_bytes().decode("utf-8", "replace")
    except OSError as exc:
        found["problems"].append(f"the environment of process {pid}: {exc.strerror}")
        return
    found["environment"] = _planned(text.split("\0"), wanted)


def _shown(words: Sequence[Any], wanted: Wanted, root: Path) -> list[str]:
    """Words without secrets: somebody may have started the engine by hand with a key among them."""
    secrets = read_secrets(str(root / file.lstrip("/")) for file in wanted.secret_files)
    return without_secrets([str(word) for word in words], secrets)


def without_secrets(words: Sequence[str], secrets: Sequence[str] = ()) -> list[str]:
    """Words of a command line without the given secrets, and without the values of options for keys."""
    shown, hidden = [], False
    for word in words:
        shown.append("********" if hidden else redact(word, secrets))
        # An option and its value are two words.
        hidden = word.startswith("--") and "=" not in word and redact(f"{word} 123456", ()) != f"{word} 123456"
    return shown


def _asked(wanted: Wanted, root: Path, found: Running) -> None:
    """The engine's own word for its release. Which engine it is shows in which of the paths it has."""
    keys = [key for file in wanted.keys if (key := files.read_text(root / file.lstrip("/")))]
    endpoint = Endpoint("127.0.0.1", wanted.port, "", timeout=ASKED_SECONDS)
    said = []
    for engine, path in wanted.versions.items():
        for key in keys or [""]:
            try:
                answer = ask(endpoint, "GET", path, key=key or None)
            except NoAnswer as exc:
                said.append(f"{path}: {exc}")
                break
            version = answer.body.get("version") if isinstance(answer.body, dict) else None
            if answer.status == 200 and isinstance(version, str):
                found["engine"], found["version"] = engine, version
                return
            if answer.status not in (401, 403):
                said.append(f"{path}: HTTP {answer.status}")
                break
    found["problems"].append(f"the engine does not say its release ({', '.join(said) or 'no path is known'})")
