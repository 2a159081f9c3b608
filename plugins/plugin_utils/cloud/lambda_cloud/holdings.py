# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a Lambda Cloud account holds that costs money: instances and file systems. Its addresses are free."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils.cloud import ledger
from ansible_collections.glm.fleet.plugins.module_utils.cloud.api import Pacer, text_of
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import api, ending, fleet
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud.record import PROVIDER, Record
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud import holdings
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.hosts import number

HOURS_A_MONTH = 730


def read(access: holdings.Access) -> holdings.Seen:
    """Ask for all of it. Raises ValueError for a key or address that cannot be used."""
    client = api.LambdaApi(access.api_key, access.base_url, pacer=Pacer(access.api_key, 1.0))
    seen = holdings.Seen("lambda", client.account)
    instances = seen.part("instances", client.list_instances)
    seen.whole = not seen.unread
    # What is terminating is not billed any more.
    seen.held = [_instance(item) for item in fleet.in_order(instances) if fleet.exists(item)]
    if access.keep and seen.whole:
        for fleet_name in (book.fleet for book in ledger.ledgers() if book.provider == PROVIDER):
            keep = functools.partial(seen.unkept.__setitem__, fleet_name)
            Record(fleet_name, client.account, None, keep).look(instances)
    seen.held += [_file_system(item) for item in seen.part("file systems", client.list_file_systems)]
    return seen


def _instance(item: api.Instance) -> holdings.Holding:
    tags = api.tags_of(item)
    return holdings.Holding(
        provider="lambda",
        kind="instance",
        id=item["id"],
        name=fleet.name_of(item),
        fleet=tags.get(fleet.FLEET_TAG, ""),
        owner=holdings.owner_of(tags),
        status=text_of(item.get("status")) or "",
        region=api.region_of(item) or "",
        type=api.type_of(item) or "",
        usd_per_hour=api.price_usd_per_hour(item),
        since=fleet.launched_at(item),
        expires=tags.get(ledger.EXPIRES_TAG, ""),
        protected=fleet.is_protected(item),
    )


def _file_system(item: Mapping[str, Any]) -> holdings.Holding:
    used = number(item.get("bytes_used"))
    gib = None if used is None else used / 2**30
    return holdings.Holding(
        provider="lambda",
        kind="file system",
        id=item["id"],
        name=item["name"],
        status="attached" if item.get("is_in_use") else "free",
        region=api.region_of(item) or "",
        type="" if gib is None else f"{gib:.1f} GiB",
        usd_per_hour=None if gib is None else gib * ending.STORAGE_USD_PER_GIB_MONTH / HOURS_A_MONTH,
        estimated=True,
        since=ledger.moment(text_of(item.get("created"))),
    )
