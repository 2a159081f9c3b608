# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a GMI Cloud organisation holds that costs money: containers, bare-metal nodes and elastic IPs.

Its API has no tags, and no price in a documented unit: only a ledger says whose something is, and what it costs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils.cloud import ledger
from ansible_collections.glm.fleet.plugins.module_utils.cloud.api import CloudError, Pacer, text_of
from ansible_collections.glm.fleet.plugins.module_utils.cloud.gmi_cloud import api
from ansible_collections.glm.fleet.plugins.module_utils.cloud.gmi_cloud.record import PROVIDER, Record
from ansible_collections.glm.fleet.plugins.module_utils.cloud.gmi_cloud.spellings import known
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud import holdings
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.gmi_cloud import hosts

ENDED = ("terminated", "deleted", "released")
Rows = list[dict[str, Any]]


def read(access: holdings.Access) -> holdings.Seen:
    """Ask for all of it. Raises ValueError for a key or address that cannot be used."""
    client = api.GmiApi(
        access.api_key, access.base_url, organization=access.organization or None, pacer=Pacer(access.api_key, 0.2)
    )
    seen = holdings.Seen("gmi", client.account)
    missing: list[CloudError] = []
    lists = (client.list_containers, client.list_baremetals)
    containers, nodes = (seen.part(what, _served(ask, missing)) for what, ask in zip(api.MACHINES, lists, strict=True))
    seen.part(" and ".join(api.MACHINES), lambda: _none_of(missing))
    seen.whole = not seen.unread
    addresses = seen.part("elastic IPs", _served(client.list_elastic_ips, []))
    seen.held = [
        _machine(machine)
        for machine in hosts.machines(containers, nodes, (), ())
        if (machine["status"] or "").lower() not in ENDED
    ]
    seen.held += [_address(row) for row in addresses if str(row.get("status")).lower() not in ENDED]
    if access.keep and not seen.unread and all(row.get("id") for row in addresses):
        for book in _ledgers():
            Record(book.fleet, client.account, None, partial(seen.unkept.__setitem__, book.fleet)).look(
                containers, addresses, [dict(known(row)) for row in nodes]
            )
    lives = _lives(seen)
    seen.held = [_recorded(item, lives[item.id]) if item.id in lives else item for item in seen.held]
    return seen


def _ledgers() -> list[ledger.Ledger]:
    return [book for book in ledger.ledgers() if book.provider == PROVIDER]


def _recorded(item: holdings.Holding, life: ledger.Life) -> holdings.Holding:
    """The same with what the ledger knows better: its fleet, and the price that the user gave."""
    known = life.usd_per_hour is not None
    return replace(item, fleet=life.fleet, usd_per_hour=life.usd_per_hour, estimated=known)


def _lives(seen: holdings.Seen) -> dict[str, ledger.Life]:
    """What was made for fleets, by its id."""
    found: dict[str, ledger.Life] = {}
    for book in _ledgers():
        try:
            found.update((life.id, life) for life in ledger.lives_of(book.read()) if life.id)
        except Unmet as error:
            seen.unkept[book.fleet] = str(error)
    return found


def _none_of(missing: list[CloudError]) -> Rows:
    api.refuse_unserved(missing)
    return []


def _served(ask: Callable[[], Rows], missing: list[CloudError]) -> Callable[[], Rows]:
    """A list, which is empty where this organisation has no such collection; that is added to ``missing``."""

    def asking() -> Rows:
        try:
            return ask()
        except api.NotServed as error:
            missing.append(error)
            return []

    return asking


def _machine(machine: hosts.Machine) -> holdings.Holding:
    return holdings.Holding(
        provider="gmi",
        kind="instance",
        id=machine["id"],
        name=machine["name"] or machine["id"],
        status=machine["status"] or "",
        region=machine["idc"] or "",
        type=machine["product"] or "",
        since=ledger.moment(machine["created"]),
    )


def _address(row: dict[str, Any]) -> holdings.Holding:
    return holdings.Holding(
        provider="gmi",
        kind="address",
        id=str(row.get("id") or row.get("ipAddress") or ""),
        name=text_of(row.get("ipAddress")) or str(row.get("id") or ""),
        status="attached" if row.get("instanceID") else "free",
        region=text_of(row.get("idc")) or "",
    )
