# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was launched and ended, kept on disk: proof of ownership beside tags, and what instances cost.

This module util is PRIVATE to the collection. One file per provider and fleet, one JSON object a line, only appended to
and on the disk before the caller goes on: ``asked`` before the request is sent, its outcome after the answer. A line
that a killed writer left unfinished says nothing, and what it would have said stays open: an ``asked`` without an
outcome may have made an instance, an ``ending`` without ``gone`` may not have ended it.

Where several machines run a fleet, its ledger is all of their files, which each brings to a store (``shared.py``).
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import time
import urllib.parse
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Dict, List, Literal, Optional, Tuple, TypedDict, cast, get_args

from ansible_collections.glm.fleet.plugins.module_utils import whoami
from ansible_collections.glm.fleet.plugins.module_utils.address import is_loopback
from ansible_collections.glm.fleet.plugins.module_utils.cloud import shared
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet, printable

try:
    import fcntl
except ImportError:
    # Nothing is launched from Windows.
    pass

FOLDER_ENVIRONMENT = "GLM_LEDGER_DIR"
DEFAULT_FOLDER = "~/.local/state/glm-fleet/ledger"
# In it, the ledgers of simulated clouds.
_APART = "loopback"
# How far clocks of machines may be apart before a store refuses them.
CLOCK_SECONDS = 900.0
# What was launched is listed by then, or never.
LATE_SECONDS = 1800.0
# The tag with the moment from which on an instance may be ended, as in ``Event.at``.
EXPIRES_TAG = "glm-expires"
_MOMENT = "%Y-%m-%dT%H:%M:%SZ"

Kind = Literal["asked", "launched", "unknown", "refused", "kept", "ending", "seen", "missing", "gone"]
KINDS = get_args(Kind)
# The keys of an event with text, beside when and what.
_TEXTS = ("account", "run", "fleet", "launch", "type", "region", "by", "why")
# Why of an ``ending`` that the account itself shows.
GOING = "shown as terminating"


class Event(TypedDict):
    """One line. ``names`` and ``ids`` are of the same instances; which of them are known depends on the event."""

    at: str
    """When, ISO 8601 in UTC, to the second."""
    event: Kind
    """``asked``: a launch is about to be requested. ``launched``: it made these ids. ``unknown``: no answer came.
    ``refused``: the answer was that nothing was made. ``kept``: a run counted them, came to its end and left them
    running. ``ending``: their end is about to be requested. ``seen``: the account shows them, although the ledger did
    not know them or had lost sight of them. ``missing``: the account was read and does not show them, which alone
    proves nothing. ``gone``: the account proved that they are no more."""
    account: str
    """``account_of`` the key: another key's listing says nothing about these instances."""
    run: str
    fleet: str
    launch: str
    """The request that made them, as ``launch_key``; empty when that is not known."""
    names: List[str]
    ids: List[str]
    type: str
    region: str
    usd_per_hour: Optional[float]
    """Of each instance; None when it is not known."""
    by: str
    why: str


@dataclass(frozen=True)
class Life:
    """An instance from its request to its proven end. ``id`` is empty while no answer or listing has named it."""

    id: str
    name: str
    state: Kind
    since: str
    """When it was asked for, else when it was first written of; as in ``Event.at``."""
    until: str
    """When it was proven gone; empty while it is not."""
    run: str
    fleet: str
    account: str
    launch: str
    ours: bool
    """Whether a launch of ours was answered with this id, which proves that it may be ended, whatever its tags say."""
    type: str
    region: str
    usd_per_hour: Optional[float]
    why: str
    """What the last event about it gave as its reason."""
    missing: str = ""
    """Since when no list has shown it; empty while one does, or nobody has looked."""
    ended_by: Optional[str] = None
    """The run that last asked for its end, empty for one without a name; None when none did since it was kept."""
    protected: bool = False
    """Whether it carries the tag that keeps it from being ended."""
    adopted: bool = False
    """Whether it was launched elsewhere, or before there was this ledger, and found in the account's list."""

    def hours(self, now: float) -> float:
        """How long it has cost money at most."""
        return max(0.0, (seconds_of(self.until) if self.until else now) - seconds_of(self.since)) / 3600

    def cost_usd(self, now: float) -> Optional[float]:
        """What it has cost at most; None when its price is not known."""
        return None if self.usd_per_hour is None else round(self.usd_per_hour * self.hours(now), 2)


class NotShared(Unmet):
    """An event is on this disk only: the store could not be written."""


class Ledger:
    """The ledger of one fleet. Reading and appending raise Unmet where that is not possible."""

    def __init__(self, provider: str, fleet: str, folder: Optional[Path] = None) -> None:
        plain = [urllib.parse.quote(text, safe="") for text in (provider, fleet)]
        self.provider, self.fleet = provider, fleet
        self._name = f"{plain[0]}-{plain[1]}"
        self.path = (folder or default_folder()) / f"{self._name}.jsonl"
        self._store = _store_of(self.path.parent)
        # What was read of it in this process, and of other machines the moment of the last event in that.
        self.known: Optional[List[Event]] = None
        self._newest = ""

    @property
    def shared(self) -> bool:
        """Whether other machines write it, too."""
        return self._store is not None

    def append(self, event: Event) -> None:
        """Write the event; it is on the disk when this returns, and in the store where there is one.

        Raises NotShared where it is on the disk alone. What is ``asked`` must be in the store: it is closed as refused.
        """
        if self._newest and event["at"] <= self._newest:
            # Clocks differ: what follows on what others wrote must not be read as what came before it.
            event = cast(Event, {**event, "after": stamp(seconds_of(self._newest) + 1)})
        try:
            new = not self.path.exists()
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            with os.fdopen(os.open(self.path, flags, 0o600), "r+b", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                self._add(file, event)
                if new:
                    _sync_folder(self.path.parent)
                self._bring(file, event)
        except OSError as error:
            raise self._unusable(error) from None

    def _add(self, file: BinaryIO, event: Event) -> None:
        line = json.dumps(event, ensure_ascii=False).encode("utf-8") + b"\n"
        # The unfinished line of a killed writer must not swallow this one.
        end = file.seek(0, os.SEEK_END)
        if end and os.pread(file.fileno(), 1, end - 1) != b"\n":
            line = b"\n" + line
        _write_all(file.fileno(), line)
        os.fsync(file.fileno())
        if self.known is not None:
            self.known.append(event)

    def _bring(self, file: BinaryIO, event: Event) -> None:
        """Bring what was added to the store."""
        if self._store is None:
            return
        try:
            self._store.ask("put", book=self._name, local=str(self.path))
        except Unmet as error:
            expected = f"to write the ledger of launches in {self._store.address}"
            if event["event"] == "asked":
                refused: Dict[str, Any] = {**event, "event": "refused", "why": "the store could not be written"}
                self._add(file, cast(Event, refused))
                raise Unmet(expected, error.found, error.next_step) from None
            next_step = f"{error.next_step}. Until then it is in {self.path} alone, and goes there with what follows it"
            raise NotShared(expected, error.found, next_step) from None

    def read(self) -> List[Event]:
        """All whole events of all machines, in the order in which they happened; none where there is no ledger."""
        if self._store is None:
            return self.own()
        answer = self._store.ask("read", book=self._name, local=str(self.path))
        self._newest = str(answer["newest"])
        self.known = events_in(os.fsencode(line) for line in answer["lines"])
        return list(self.known)

    def own(self) -> List[Event]:
        """Those of this machine, oldest first."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._unusable(error) from None
        # What does not end with a line feed is being written, or never was.
        return events_in(content.split(b"\n")[:-1])

    def sync(self) -> None:
        """Bring to the store what an earlier run of this machine could not."""
        if self._store is not None:
            self._store.ask("sync", book=self._name, local=str(self.path))

    def _unusable(self, error: OSError) -> Unmet:
        return Unmet(
            f"to keep the ledger of launches in {self.path}",
            f"that it cannot be read or written: {error.strerror or error}",
            f"make yourself the owner of that folder, or set {FOLDER_ENVIRONMENT} to another",
        )


def ledgers(folder: Optional[Path] = None, own: bool = False) -> List[Ledger]:
    """Those that there are: on this disk and, unless only this machine's ``own`` are asked for, in the store.

    Raises Unmet.
    """
    place = folder or default_folder()
    names = {path.name[: -len(".jsonl")] for path in place.glob("*-*.jsonl")}
    store = None if own else _store_of(place)
    if store is not None:
        names.update(store.ask("names"))
    parts = [name.partition("-") for name in sorted(names)]
    return [Ledger(urllib.parse.unquote(provider), urllib.parse.unquote(fleet), place) for provider, _, fleet in parts]


def shared_mark(path: Path) -> Path:
    """The file beside a ledger that was brought to a store once; what it is called there stands in it."""
    return path.with_suffix(".shared")


def _store_of(folder: Path) -> Optional[shared.Helper]:
    """The store that ledgers of a folder are brought to; none for a simulated cloud, which is of one machine."""
    return None if Path(DEFAULT_FOLDER).expanduser() / _APART in folder.parents else shared.helper()


def default_folder() -> Path:
    """Where ledgers are kept, unless the environment names another folder."""
    return Path(os.environ.get(FOLDER_ENVIRONMENT) or DEFAULT_FOLDER).expanduser()


def folder_for(base_url: str) -> Path:
    """Where ledgers of an API at this address are kept by default. One on this machine simulates: it costs nothing."""
    folder, parts = Path(DEFAULT_FOLDER).expanduser(), urllib.parse.urlsplit(base_url)
    if not is_loopback(parts.hostname or ""):
        return folder
    return folder / _APART / f"{parts.hostname}-{parts.port or 0}"


def keep_apart(base_urls: Iterable[str]) -> None:
    """Have this process and its children use ``folder_for`` if all APIs of the run are one simulator's.

    Beside a real cloud the real ledgers stay in use. So does a folder that the user named in the environment.
    """
    real = Path(DEFAULT_FOLDER).expanduser()
    given = os.environ.get(FOLDER_ENVIRONMENT)
    if given and real / _APART not in Path(given).parents:
        return
    folders = set(map(folder_for, base_urls)) or {real}
    if len(folders) > 1 or real in folders:
        os.environ.pop(FOLDER_ENVIRONMENT, None)
    else:
        os.environ[FOLDER_ENVIRONMENT] = str(folders.pop())


def extended_to(events: Iterable[Event], identifier: str) -> Optional[float]:
    """The latest moment to which a run has extended the time of an instance, in seconds since 1970."""
    found = [str(cast(Dict[str, Any], item).get("expires") or "") for item in events if identifier in item["ids"]]
    moments = []
    for text in filter(None, found):
        try:
            moments.append(seconds_of(text))
        except ValueError:
            continue
    return max(moments, default=None)


def account_of(base_url: str, api_key: str) -> str:
    """A word for the account that a key opens, from which the key cannot be found."""
    return hashlib.sha256(f"glm.fleet account {base_url} {api_key}".encode()).hexdigest()[:16]


def stamp(now: float) -> str:
    """A moment as in ``Event.at``."""
    return datetime.datetime.fromtimestamp(now, datetime.timezone.utc).strftime(_MOMENT)


def seconds_of(at: str) -> float:
    """``Event.at`` in seconds since 1970. Raises ValueError for another form."""
    return datetime.datetime.strptime(at, _MOMENT).replace(tzinfo=datetime.timezone.utc).timestamp()


def moment(text: object) -> Optional[float]:
    """Seconds since 1970 of a moment of others, in ISO 8601 with a time zone; None for anything else."""
    try:
        found = datetime.datetime.fromisoformat(str(text or "").replace("Z", "+00:00"))
    except ValueError:
        return None
    return found.timestamp() if found.tzinfo else None


def launch_key(name: str, moment: str) -> str:
    """How events name the request for an instance; ``moment`` as in the tag glm-launched."""
    return f"{name}@{moment}"


def event(kind: Kind, *, fleet: str, account: str, run: str, at: Optional[str] = None, **more: Any) -> Event:
    """An event of now; ``more`` are other keys of ``Event``, which are empty otherwise."""
    made: Dict[str, Any] = {
        "at": at or stamp(time.time()), "event": kind, "account": account, "run": run, "fleet": fleet, "launch": "",
        "names": [], "ids": [], "type": "", "region": "", "usd_per_hour": None, "by": whoami.user(), "why": "", **more,
    }  # fmt: skip
    return cast(Event, made)


def events_in(lines: Iterable[bytes]) -> List[Event]:
    """The events of these lines. Lines that are no event, torn or of a newer version, are left out."""
    return [found for found in map(_event_in, lines) if found is not None]


def lives_of(events: Iterable[Event]) -> List[Life]:
    """Every instance that was launched, may have been launched, or was ended; those first that were asked for first.

    A refused launch is none. What is written of an instance after its ``gone`` opens it again: it was seen after all.
    """
    without_id: Dict[str, Life] = {}
    with_id: Dict[str, Life] = {}
    for item in events:
        kind, launch = item["event"], item["launch"]
        if kind == "refused":
            without_id.pop(launch, None)
        elif kind in ("asked", "unknown") or not item["ids"]:
            for name in item["names"][:1] if launch else ():
                without_id[launch] = _continued(without_id.get(launch), item, "", name)
        else:
            asked = without_id.pop(launch, None) if kind == "launched" else None
            for identifier, name in _pairs(item):
                with_id[identifier] = _continued(with_id.get(identifier) or asked, item, identifier, name)
    return sorted([*with_id.values(), *without_id.values()], key=lambda one: (one.since, one.name, one.id))


def open_of(events: Iterable[Event]) -> List[Life]:
    """What is not proven gone."""
    return [life for life in lives_of(events) if not life.until]


def described(lives: Iterable[Life], now: float) -> str:
    """Each instance with its id, and what it costs, for people; empty for none."""
    given = list(lives)
    parts = [_described(life, now) for life in given]
    prices = [life.usd_per_hour for life in given if life.usd_per_hour is not None]
    if len(prices) > 1:
        parts.append(f"together {sum(prices):.2f} USD per hour")
    return printable("; ".join(parts))


def _described(life: Life, now: float) -> str:
    place = f"{life.type or 'type not known'} in {life.region or 'a region that is not known'}"
    price = "at a price that is not known"
    if life.usd_per_hour is not None:
        price = f"at {life.usd_per_hour:.2f} USD per hour, at most {life.cost_usd(now) or 0:.2f} USD so far"
    if not life.id:
        return f"{life.name} (asked for {life.since}, {place}), {price}: whether it was made is not known"
    ending = ", its end was asked for" if life.state == "ending" else ""
    return f"{life.name or life.id} ({life.id}, {place}), {price}{ending}"


def _continued(life: Optional[Life], item: Event, identifier: str, name: str) -> Life:
    """The instance as this event leaves it; ``life`` is what earlier ones said of it."""
    kind = item["event"]
    if life is not None and kind == "missing":
        return replace(life, missing=life.missing or item["at"])
    if life is not None and kind == "kept" and (life.why == GOING or item.get("expires")):
        # A run that came to its end undoes no end, and one that extends its time has not come to its end.
        return life
    until = item["at"] if kind == "gone" else ""
    ours = kind == "launched"
    ended_by = item["run"] if kind == "ending" and item["why"] != GOING else None
    if life is None:
        return Life(
            id=identifier, name=name, state=kind, since=item["at"], until=until, run=item["run"],
            fleet=item["fleet"], account=item["account"], launch=item["launch"], ours=ours, type=item["type"],
            region=item["region"], usd_per_hour=item["usd_per_hour"], why=item["why"], ended_by=ended_by,
            adopted=kind == "seen", protected=bool(item.get("protected")),
        )  # fmt: skip
    return replace(
        life, id=identifier, name=name or life.name, until=until, ours=life.ours or ours, account=item["account"],
        state=life.state if kind == "seen" and not life.until else kind,
        ended_by=life.ended_by if ended_by is None and kind not in ("launched", "kept") else ended_by,
        usd_per_hour=life.usd_per_hour if item["usd_per_hour"] is None else item["usd_per_hour"], why=item["why"],
        missing="", protected=life.protected or bool(item.get("protected")),
    )  # fmt: skip


def _pairs(item: Event) -> List[Tuple[str, str]]:
    """Id and name of each instance; one name may stand for all."""
    names = item["names"]
    if len(names) == len(item["ids"]):
        return list(zip(item["ids"], names))
    return [(identifier, names[0] if len(names) == 1 else "") for identifier in item["ids"]]


def _event_in(line: bytes) -> Optional[Event]:
    try:
        found = json.loads(line)
        seconds_of(found["at"])
        texts = all(isinstance(found[key], str) for key in _TEXTS)
        lists = all(isinstance(value, str) for key in ("names", "ids") for value in [*found[key]])
        price = type(found["usd_per_hour"]) in (int, float, type(None))
        usable = found["event"] in KINDS and texts and lists and price
    except (ValueError, TypeError, KeyError):
        return None
    return cast(Event, found) if usable else None


def _write_all(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
