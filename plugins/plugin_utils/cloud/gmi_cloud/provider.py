# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""GMI Cloud, as the rest of the collection knows it. No role launches there; modules make and end what it rents."""

from __future__ import annotations

from ansible_collections.glm.fleet.plugins.module_utils.cloud.gmi_cloud import api
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.gmi_cloud import holdings, hosts
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.holdings import Reader
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.provider import Provider

GMI = Provider(
    name="gmi",
    title="GMI Cloud",
    hostvars={
        **{name: name for name in ("id", "name", "status", "region", "country")},
        **{name: name for name in ("accelerator", "accelerator_count", "architecture")},
        "product": "instance_type",
        "ip": "public_address",
        "private_ip": "private_address",
    },
    groups={
        "region": "region",
        "country": "country",
        "product": "product",
        "kind": "kind",
        "accelerator": "accelerator",
        "status": "status",
        "account": "account",
    },
    host_of=hosts.host_of,
    # The API says where a data centre is; its name does not.
    country_of=lambda _region: None,
    # Those of containers are published, those of bare metal are not: usual words.
    statuses=frozenset({"unknown", "creating", "running", "terminating", "stopped", "error", "zombie"})
    | frozenset({"active", "terminated", "deleting", "deleted"}),
    reader=Reader(holdings.read, api.DEFAULT_BASE_URL, api.KEY_ENVIRONMENT),
    statuses_complete=False,
    maker="glm.fleet.gmi_container",
    ended_by="glm.fleet.gmi_container with state absent (gmi_baremetal for a node), in check mode first, or "
    "https://console.gmicloud.ai",
)
