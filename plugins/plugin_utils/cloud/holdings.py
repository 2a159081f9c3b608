# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an account holds that costs money, in the words of no cloud, and how it is reached to be read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, Optional, TypeVar

from ansible_collections.glm.fleet.plugins.module_utils.cloud.api import CloudError

OWNER_TAGS = ("glm-owner", "owner")

Part = TypeVar("Part")


class Access(NamedTuple):
    """An account to read. ``organization`` is empty where a key opens one only."""

    api_key: str
    base_url: str
    organization: str = ""
    keep: bool = False
    """Whether what is seen to be gone is written into the ledgers."""
    name: str = ""
    """How messages name it; empty for the account that the modules of this run reach."""

    def may_be(self, other: Access) -> bool:
        """Whether both may be the same account: of one key, and of one organization where both name one."""
        same = (self.api_key, self.base_url.rstrip("/")) == (other.api_key, other.base_url.rstrip("/"))
        return same and (not self.organization or not other.organization or self.organization == other.organization)


@dataclass(frozen=True)
class Holding:
    """An instance, file system or address of an account. None and empty text: the cloud does not say."""

    provider: str
    kind: Literal["instance", "file system", "address"]
    id: str
    name: str
    fleet: str = ""
    """By its tag; empty for what belongs to none."""
    owner: str = ""
    status: str = ""
    region: str = ""
    type: str = ""
    """In the cloud's words; of a file system how much is in it."""
    usd_per_hour: Optional[float] = None
    estimated: bool = False
    """The price is not the API's."""
    since: Optional[float] = None
    """Seconds since 1970."""
    expires: str = ""
    """As its tag says."""
    protected: bool = False


@dataclass
class Seen:
    """What reading an account gave. ``unread``: what could not be read, with the reason; it is missing in ``held``."""

    provider: str
    account: str = ""
    """As ``ledger.account_of``."""
    held: list[Holding] = field(default_factory=list)
    unread: dict[str, str] = field(default_factory=dict)
    whole: bool = False
    """Whether all its instances were listed, so that one that is not in ``held`` is not there."""
    unkept: dict[str, str] = field(default_factory=dict)
    """The fleets in whose ledger this could not be kept, with the reason."""
    name: str = ""
    """As ``Access.name``."""

    def named(self, name: str) -> Seen:
        """The same, with the name in what could not be read."""
        unread = {f"{part} of {name}" if name else part: why for part, why in self.unread.items()}
        return replace(self, name=name, unread=unread)

    def part(self, what: str, ask: Callable[[], list[Part]]) -> list[Part]:
        """A list of the account; empty, and noted as unread, where it cannot be had."""
        try:
            return ask()
        except CloudError as error:
            self.unread[what] = str(error)
            return []


@dataclass(frozen=True)
class Reader:
    """How the account of a cloud is read. Environment variables come second to variables of the run."""

    read: Callable[[Access], Seen]
    """Raises ValueError for a key or address that cannot be used."""
    base_url: str
    key_environment: tuple[str, ...]


def each_once(seen: Iterable[Seen]) -> list[Seen]:
    """The same, without what an earlier one holds: several keys may open one account."""
    known: set[tuple[str, str, str]] = set()
    found = []
    for one in seen:
        held = [item for item in one.held if (item.provider, item.kind, item.id) not in known]
        known.update((item.provider, item.kind, item.id) for item in held)
        found.append(replace(one, held=held))
    return found


def owner_of(tags: Mapping[str, str]) -> str:
    """Who says to own it, by a tag."""
    return next((tags[key] for key in OWNER_TAGS if tags.get(key)), "")
