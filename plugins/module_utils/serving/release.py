# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The releases of a host: what passed the gate on it, kept there, so that any controller can go back to one.

This module util is PRIVATE to the collection. Standard library, Python 3.9 or newer. A release is a folder named by its
number, with ``plan.json``, the plans of the host's replicas, and ``release.json``, written last: without it there is no
release. ``good`` is a file with the number of the last that passed, ``back`` one with the number that a rollback goes
to. Which one runs is written nowhere: it is the one whose files the replicas were started from (``running_of``).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Optional, TypedDict

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.module_utils.serving.status import read_secrets

FOLDER = Path("/var/lib/glm/releases")
KEPT = 10
_SCHEMA: Literal[1] = 1
# What a plan says beside what is served: prices, remarks and whose recipe it is change with the catalogue, figures with
# what starts reported.
_REMARKS = ("prices", "known_issues", "sources", "notes", "memory", "promises", "recipe")
# Shorter values, such as a placeholder, are found in any text.
_LEAST_SECRET = 8


class Observed(TypedDict):
    """What ran as one replica when it passed. None: it was not seen."""

    replica: int
    engine: Optional[str]
    version: Optional[str]
    image: Optional[str]
    digests: list[str]
    weights: Optional[str]
    """Commit of the weights, as the command has it."""
    package: Optional[str]
    """Checksum of the fingerprint of the engine's packages, where there is no container."""
    files: dict[str, str]
    """Checksums (SHA-256) of the files that it was started from, but those with keys."""


class Verdict(TypedDict):
    """How the gate went: checks that passed, of those that were made."""

    passed: int
    made: int


class Release(TypedDict):
    """``release.json``."""

    schema: Literal[1]
    number: int
    content_sha256: str
    """Of the plans and of what was observed; equal ones are one release."""
    made_at: str
    """When it passed first: UTC, ISO 8601."""
    passed_at: str
    """When it passed last."""
    by: str
    """Who had it pass last, as user@controller."""
    collection: str
    """Release of this collection."""
    intent: dict[str, Any]
    """The glm_* values that made it, without secrets."""
    observed: list[Observed]
    verdict: Verdict
    driver: Optional[str]
    """Version of the GPUs' driver; null where it did not show."""


def observed(seen: Mapping[str, Any], plan: Mapping[str, Any]) -> Observed:
    """Of what was seen of a replica (running.py), what is the same each time that it is started."""
    secret = f"{plan['paths']['config']}/serve-{plan['replica']}.secret."
    started = {file: mark for file, mark in (seen.get("started") or {}).items() if not file.startswith(secret)}
    revision, runtime = plan["model"]["revision"], plan["runtime"]["path"]
    words = seen.get("words") or []
    packages = [mark for file, mark in started.items() if runtime and file.startswith(f"{runtime}/")]
    return {
        "replica": int(plan["replica"]),
        "engine": seen.get("engine"),
        "version": seen.get("version"),
        "image": seen.get("image"),
        "digests": list(seen.get("digests") or []),
        "weights": revision if revision and any(revision in word for word in words) else None,
        "package": packages[0] if packages else None,
        "files": started,
    }


def served(plans: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of plans, what makes a difference to what is served."""
    return [{key: value for key, value in plan.items() if key not in _REMARKS} for plan in plans]


def content(plans: Sequence[Mapping[str, Any]], found: Sequence[Observed]) -> str:
    """The checksum by which releases are the same: not by what a busy engine may leave unsaid."""
    seen = [{key: value for key, value in one.items() if key not in ("engine", "version")} for one in found]
    text = json.dumps([served(plans), seen], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class Store:
    """The releases in a folder of the host."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self.folder = folder

    def good(self) -> Optional[int]:
        """The number of the last release that passed; None before the first. Raises Unmet."""
        text = files.text_of(self.folder / "good", "which release passed last", "deploy the host, which writes it")
        if text is None:
            return None
        if not text.strip().isdigit():
            raise Unmet(f"a number in {self.folder / 'good'}", repr(text[:40]), "deploy the host, which writes it")
        return int(text)

    def releases(self) -> list[Release]:
        """All that are whole, oldest first. Raises Unmet for one that is there and cannot be read."""
        return [found for number in self._numbers() if (found := self._release(number)) is not None]

    def installed(self, checksum: Callable[[str], Optional[str]]) -> Optional[int]:
        """The release whose files the host has, whether or not they run; None where it is none. Raises Unmet.

        ``checksum``: the SHA-256 of a file, None of one that cannot be read.
        """
        good = self.good()
        for one in sorted(self.releases(), key=lambda release: (release["number"] == good, release["number"]))[::-1]:
            marks = [pair for each in one["observed"] for pair in each["files"].items()]
            if marks and all(checksum(file) == mark for file, mark in marks):
                return int(one["number"])
        return None

    def before(self, installed: Optional[int]) -> Optional[int]:
        """The release that a rollback serves; None where there is none. Raises Unmet.

        One that was begun is finished, and one that is done is not done again: the same run on all hosts, again and
        again, ends at the same release. What is installed and never passed gives way to the last that did.
        """
        begun = self._back()
        if begun is not None:
            return begun
        numbers = [one["number"] for one in self.releases()]
        if installed is None or installed != max(numbers):
            return self.good() if installed is None else installed
        given_up = served(self.plans(installed))
        older = (number for number in sorted(numbers)[-2::-1] if served(self.plans(number)) != given_up)
        return next(older, None)

    def begin_back(self, number: int) -> None:
        """Keep that the host goes back to a release, until one passes. Raises OSError."""
        files.write_text(self.folder / "back", f"{number}\n", durable=True)

    def plans(self, number: int, schema: Optional[int] = None) -> list[dict[str, Any]]:
        """The plans of a release. Raises Unmet, also where they have another ``schema`` than this one."""
        path = self.folder / str(number) / "plan.json"
        plans = files.read_json(path)
        if not isinstance(plans, list) or not plans:
            raise Unmet(f"the plans of release {number} in {path}", "none that can be read", "choose another release")
        forms = {plan.get("schema") for plan in plans}
        if schema is not None and forms != {schema}:
            made = next((one["collection"] for one in self.releases() if one["number"] == number), "another release")
            raise Unmet(
                f"plans of schema {schema} in {path}",
                f"schema {' and '.join(map(str, forms))}, which glm.fleet {made} made",
                f"go back with glm.fleet {made}, or deploy the former intent",
            )
        return plans

    def keep(self, release: Release, plans: Sequence[Mapping[str, Any]], intended: bool = True) -> tuple[Release, bool]:
        """Keep what passed; the release that it is, and whether that is a new one. Raises OSError or Unmet.

        Of a release, ``number`` and ``made_at`` are those of the one with the same content, if there is one, and so is
        ``intent`` unless the plans were made of this one (``intended``).
        """
        with self._alone():
            releases, back = self.releases(), self._back()
            known = [one for one in releases if one["content_sha256"] == release["content_sha256"]]
            # What a rollback goes to stays that release, also where a later collection wrote its files.
            known = known or [one for one in releases if one["number"] == back and self._serves(back, plans)]
            new = not known
            number = known[-1]["number"] if known else max([0, *self._numbers()]) + 1
            made_at = known[-1]["made_at"] if known else release["made_at"]
            intent = known[-1]["intent"] if known and not intended else release["intent"]
            kept: Release = {**release, "number": number, "made_at": made_at, "intent": intent}
            place = self.folder / str(number)
            if new:
                files.write_json(place / "plan.json", list(plans), durable=True)
            files.write_json(place / "release.json", kept, durable=True)
            files.write_text(self.folder / "good", f"{number}\n", durable=True)
            (self.folder / "back").unlink(missing_ok=True)
            self._forget(number)
        return kept, new

    def _back(self) -> Optional[int]:
        """The release that a rollback goes to; None where none was begun, or a release has passed since."""
        text = (files.text_of(self.folder / "back") or "").strip()
        return int(text) if text.isdigit() else None

    def _serves(self, number: int, plans: Sequence[Mapping[str, Any]]) -> bool:
        same: bool = served(self.plans(number)) == json.loads(json.dumps(served(plans)))
        return same

    def _numbers(self) -> list[int]:
        return sorted(int(path.name) for path in self.folder.glob("[0-9]*") if path.name.isdigit())

    def _release(self, number: int) -> Optional[Release]:
        path = self.folder / str(number) / "release.json"
        if not path.exists():
            return None  # a run that was interrupted
        found = files.read_json(path)
        if not isinstance(found, dict) or found.get("schema") != _SCHEMA:
            raise Unmet(f"release {number} in {path}", "none of this form", "move the folder away")
        return found  # type: ignore[return-value]

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One run at a time."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _forget(self, good: int) -> None:
        """Remove all but the newest, and never the last that passed."""
        for number in self._numbers()[:-KEPT]:
            if number != good:
                shutil.rmtree(self.folder / str(number))


def running_of(releases: Sequence[Release], seen: Sequence[Mapping[str, Any]]) -> Optional[int]:
    """The number of the release that runs, by the files that the replicas were started from; None where it is none.

    ``seen``: what was seen of each replica (running.py). The newest counts where several have the same files.
    """
    started = {int(one["replica"]): one.get("started") or {} for one in seen}
    for one in reversed(releases):
        kept = {each["replica"]: each["files"] for each in one["observed"]}
        if kept.keys() == started.keys() and all(
            marks and all(started[replica].get(file) == mark for file, mark in marks.items())
            for replica, marks in kept.items()
        ):
            number: int = one["number"]
            return number
    return None


def require_no_secret(value: Any, secret_files: Sequence[str]) -> None:
    """Raise Unmet when a secret of the host stands in what would be kept."""
    text = json.dumps(value)
    for secret in read_secrets(secret_files):
        if len(secret) >= _LEAST_SECRET and secret in text:
            raise Unmet(
                "no secret in what is kept of a release",
                f"one of {' or '.join(secret_files)}",
                "take it out of glm_engine_args and of the other variables, where every user of the host could read it",
            )
