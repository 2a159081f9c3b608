# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lambda Cloud, as the rest of the collection knows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import api as lambda_api
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.holdings import Reader
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.hosts import Host
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.lambda_cloud import account, holdings, hosts
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.provider import Launcher, Provider


def host_of_type(row: Mapping[str, Any]) -> Host:
    """The host that an instance will be, by a row of lambda_instance_type_info."""
    kind = {
        "name": row.get("name"),
        "gpu_description": row.get("gpu_description"),
        "specs": {"gpus": row.get("gpus")},
    }
    return hosts.host_of({"id": "", "instance_type": kind})


LAMBDA = Provider(
    name="lambda",
    title="Lambda Cloud",
    hostvars={
        **{name: name for name in ("id", "name", "status", "region", "instance_type", "tags", "price_usd_per_hour")},
        **{name: name for name in ("accelerator", "accelerator_count", "architecture")},
        "ip": "public_address",
        "private_ip": "private_address",
    },
    groups={
        "region": "region",
        "type": "instance_type",
        "accelerator": "accelerator",
        "status": "status",
        "account": "account",
        "cluster": "cluster_id",
        "cluster_role": "cluster_role",
    },
    host_of=hosts.host_of,
    country_of=hosts.country_of,
    # Of the API's document, and one that other clients wait for.
    statuses=frozenset({*lambda_api.ALIVE, *lambda_api.GONE, "contactable"}),
    reader=Reader(holdings.read, lambda_api.DEFAULT_BASE_URL, lambda_api.KEY_ENVIRONMENT),
    statuses_complete=True,
    launcher=Launcher(
        instances="glm.fleet.lambda_instance",
        instance_types="glm.fleet.lambda_instance_type_info",
        host_of_type=host_of_type,
        credential_of=account.credential_of,
        account=account.Account,
    ),
)
