# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet's client keys as records: which there are, which are valid when, and the store's text. Pure.

Shape of the store::

    {"keys": [{"name": "team-a", "sha256": "<64 hexadecimal digits>", "created": "2026-11-29T12:00:00Z",
               "expires": null, "revoked": null, "replaced": null,
               "limits": {"requests_per_minute": 60, "parallel": 8, "tokens_per_minute": 100000}}],
     "generation": {"number": 6, "by": "ops@controller", "at": "2026-11-29T12:00:00Z", "stamps": ["<16 of them>"]}}

Of one name there are several keys only after a rotation or a revocation: at most one is neither replaced nor revoked.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils.door import generation, maps
from ansible_collections.glm.fleet.plugins.module_utils.door.generation import Generation
from ansible_collections.glm.fleet.plugins.module_utils.finding import Refusal, Unmet

# The key that the fleet itself uses; what it is stands in glm_api_key or glm_api_key_file, not in the store.
FLEET = "fleet"
MOST = 2**31 - 1
_TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class Key:
    """One key. Times are in UTC; ``replaced`` is when a newer key of the name took its place."""

    name: str
    sha256: str
    created: datetime
    expires: Optional[datetime] = None
    revoked: Optional[datetime] = None
    replaced: Optional[datetime] = None
    limits: Mapping[str, int] = field(default_factory=dict)

    def valid(self, now: datetime) -> bool:
        """Whether a client may use it."""
        return self.revoked is None and (self.expires is None or now < self.expires)

    @property
    def current(self) -> bool:
        """Whether it is the key of its name, which add refuses to make again and rotate replaces."""
        return self.revoked is None and self.replaced is None

    def state(self, now: datetime) -> str:
        """One word for people."""
        if self.revoked is not None:
            return "revoked"
        if not self.valid(now):
            return "expired"
        return "valid" if self.replaced is None else "replaced"


Keys = tuple[Key, ...]


def digest(key: str) -> str:
    """What is stored of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def checked_name(name: str) -> str:
    """The name. Raises Unmet when it cannot name a key."""
    if not maps.NAME.fullmatch(name):
        raise Unmet(
            "the name of a key to be lower-case letters, digits, '.', '_' and '-', at most 63",
            repr(name),
            "set glm_key_name to such a name, for example team-a",
        )
    return name


def checked_limits(limits: Optional[Mapping[str, Any]]) -> dict[str, int]:
    """Limits by name, those that are null left out. Raises Unmet for an unknown one or one that is not from 1 on."""
    checked: dict[str, int] = {}
    for name, limit in (limits or {}).items():
        if name not in maps.LIMITS:
            raise Unmet(f"limits to be of {', '.join(maps.LIMITS)}", repr(str(name)), "correct glm_key_limits")
        if limit is None:
            continue
        if isinstance(limit, bool) or not str(limit).isdigit() or not 1 <= int(limit) <= MOST:
            raise Unmet(f"the limit {name} to be a number from 1 to {MOST}", repr(limit), "correct glm_key_limits")
        checked[str(name)] = int(limit)
    return checked


def add(keys: Keys, key: Key) -> Keys:
    """With one more name. Raises Refusal when the name, or the very key, is in use."""
    if key.name == FLEET:
        raise Refusal(f"'{FLEET}' is the key that the fleet itself uses", "choose another glm_key_name")
    for other in keys:
        if other.sha256 == key.sha256:
            raise Refusal(f"this key was used before, under the name {other.name}", "let the run make a new one")
        if other.name == key.name and other.current and other.valid(key.created):
            raise Refusal(
                f"there is a key of the name {key.name} already, made {text(other.created)}",
                "glm_keys_action=rotate replaces it; or choose another glm_key_name",
            )
    return (*_replaced(keys, key.name, key.created, None), key)


def rotate(keys: Keys, key: Key, overlap: timedelta) -> Keys:
    """With ``key`` as the key of its name; the one before is valid for ``overlap`` more. Raises Unmet without one."""
    current(keys, key.name)
    return (*_replaced(keys, key.name, key.created, key.created + overlap), key)


def revoke(keys: Keys, name: str, now: datetime) -> Keys:
    """With no key of this name that is valid, which may be so already. Raises Unmet when there never was one."""
    if name == FLEET:
        raise Refusal(
            f"'{FLEET}' is the key that the fleet itself uses",
            "replace it at once with glm_keys_action=rotate and glm_key_overlap_hours=0",
        )
    if all(key.name != name for key in keys):
        current(keys, name)
    return tuple(dataclasses.replace(key, revoked=now) if key.name == name and key.valid(now) else key for key in keys)


def current(keys: Keys, name: str) -> Key:
    """The key of a name. Raises Unmet when there is none."""
    for key in keys:
        if key.name == name and key.current:
            return key
    known = sorted({key.name for key in keys if key.current})
    raise Unmet(
        f"a key of the name {name}",
        f"{len(known)} other name(s){': ' + ', '.join(known[:10]) if known else ''}",
        "glm_keys_action=list shows them all",
    )


def with_fleet(keys: Keys, key: str, created: datetime) -> Keys:
    """The keys and, first, the fleet's own as it is now. Raises Unmet when another name has the same key."""
    own = Key(FLEET, digest(key), created)
    for other in keys:
        if other.sha256 == own.sha256 and other.name != FLEET:
            expected = "the fleet's own key (glm_api_key, glm_api_key_file) to be no other's"
            raise Unmet(expected, f"the key of {other.name}", "set another, or remove the file so that one is made")
    return (own, *(other for other in keys if other.sha256 != own.sha256 and not _is_fleets(other)))


def _is_fleets(key: Key) -> bool:
    return key.name == FLEET and key.current


def valid(keys: Keys, now: datetime) -> Keys:
    """The keys that clients may use now."""
    return tuple(key for key in keys if key.valid(now))


def for_doors(keys: Keys, now: datetime) -> list[dict[str, Any]]:
    """What a host is to know of the valid keys; ``expires`` in seconds since 1970, 0 is never."""
    return [
        {
            "name": key.name,
            "sha256": key.sha256,
            "expires": int(key.expires.timestamp()) if key.expires else 0,
            "limits": dict(key.limits),
        }
        for key in valid(keys, now)
    ]


def _replaced(keys: Keys, name: str, now: datetime, expires: Optional[datetime]) -> Keys:
    """The current key of a name marked as replaced; it expires then, unless it would earlier."""
    return tuple(
        dataclasses.replace(key, replaced=now, expires=_earlier(key.expires, expires))
        if key.name == name and key.current
        else key
        for key in keys
    )


def _earlier(one: Optional[datetime], other: Optional[datetime]) -> Optional[datetime]:
    known = [moment for moment in (one, other) if moment is not None]
    return min(known) if known else None


def now() -> datetime:
    """This second, in UTC."""
    return datetime.now(timezone.utc).replace(microsecond=0)


def text(moment: datetime) -> str:
    """A time as the store has it."""
    return moment.strftime(_TIME)


def content(keys: Keys) -> str:
    """What a generation of the store stands for: its keys, and which one the fleet's own is."""
    own = [key.sha256 for key in keys if _is_fleets(key)]
    return json.dumps([own, [_dumped(key) for key in keys if not _is_fleets(key)]])


def dump(keys: Keys, made: Optional[Generation] = None) -> str:
    """The store's text. The fleet's own key is not in it but those that it replaced."""
    kept = [_dumped(key) for key in keys if not _is_fleets(key)]
    return json.dumps({"keys": kept, "generation": generation.dumped(made)}, indent=2) + "\n"


def _dumped(key: Key) -> dict[str, Any]:
    shown: dict[str, Any] = {"name": key.name, "sha256": key.sha256}
    for name in ("created", "expires", "revoked", "replaced"):
        moment = getattr(key, name)
        shown[name] = None if moment is None else text(moment)
    return {**shown, "limits": dict(key.limits) or None}


def parse(stored: str) -> tuple[Keys, Optional[Generation]]:
    """The reverse of ``dump``. Raises Unmet with what is wrong in it; no part of it is quoted but names."""
    try:
        data = json.loads(stored)
    except ValueError as exc:
        raise Unmet("JSON", f"none ({exc})", _RESTORE) from exc
    entries = data.get("keys") if isinstance(data, dict) else None
    if not isinstance(entries, list):
        raise Unmet("an object with the list 'keys'", type(data).__name__, _RESTORE)
    keys = tuple(_parsed(entry, number) for number, entry in enumerate(entries, 1))
    _require_one_of_each(keys)
    return keys, generation.parsed(data.get("generation"), "its generation", _RESTORE)


_RESTORE = "restore the file from a backup, or correct it by hand"


def _parsed(entry: Any, number: int) -> Key:
    """One entry of the store."""
    if not isinstance(entry, dict) or not maps.NAME.fullmatch(str(entry.get("name"))):
        raise Unmet(f"entry {number} to be a key with a name", "another thing", _RESTORE)
    name = entry["name"]
    if not maps.SHA256.fullmatch(str(entry.get("sha256"))):
        raise Unmet(f"sha256 of {name} (entry {number}) to be 64 hexadecimal digits", "another text", _RESTORE)
    created = _time(entry, "created", number)
    if created is None:
        raise Unmet(f"created of {name} (entry {number}) to be a time", "none", _RESTORE)
    limits = entry.get("limits")
    if not isinstance(limits, (dict, type(None))):
        raise Unmet(f"limits of {name} (entry {number}) to be an object", type(limits).__name__, _RESTORE)
    return Key(
        name,
        entry["sha256"],
        created,
        _time(entry, "expires", number),
        _time(entry, "revoked", number),
        _time(entry, "replaced", number),
        checked_limits(limits),
    )


def _time(entry: Mapping[str, Any], name: str, number: int) -> Optional[datetime]:
    found = entry.get(name)
    if found is None:
        return None
    try:
        return datetime.strptime(str(found), _TIME).replace(tzinfo=timezone.utc)
    except ValueError as exc:
        expected = f"{name} of {entry['name']} (entry {number}) to be a time such as 2026-11-29T12:00:00Z, or null"
        raise Unmet(expected, repr(found), _RESTORE) from exc


def _require_one_of_each(keys: Keys) -> None:
    """Raise Unmet when a name has two current keys, or two entries have one key."""
    names: set[str] = set()
    owners: dict[str, str] = {}
    for key in keys:
        if key.current and key.name in names:
            raise Unmet(f"one key of the name {key.name}", "two that are neither revoked nor replaced", _REMOVE)
        if key.sha256 in owners:
            raise Unmet("each key once", f"one that is both {owners[key.sha256]} and {key.name}", _REMOVE)
        owners[key.sha256] = key.name
        if key.current:
            names.add(key.name)


_REMOVE = "remove one of the two entries by hand"
