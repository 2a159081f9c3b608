# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Inventory plugin: the containers and bare-metal nodes of one or more GMI Cloud organisations as hosts."""

from __future__ import annotations

DOCUMENTATION = r"""
name: gmi_cloud
short_description: GMI Cloud containers and bare-metal nodes as an inventory (experimental)
version_added: 0.1.0
author: glm.fleet contributors (!UNKNOWN)
description:
  - Makes a host of each container and each bare-metal node of GMI Cloud's Cluster Engine, with its accelerators,
    elastic IP, data centre and country as variables, and groups by them.
  - "B(Experimental): the vendor publishes the fields of containers and elastic IPs, but not those of bare-metal nodes,
    nor how long lists are divided. Unknown fields are ignored; an answer that may be partial is refused."
  - Reads files named C(gmi.yml), C(gmi.yaml), C(*.gmi.yml) or C(*.gmi.yaml).
  - Text from the API is never run as a template. Environment values, arguments and user data, which the API sends in
    clear, are dropped on arrival.
extends_documentation_fragment:
  - glm.fleet.cloud_inventory
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
requirements:
  - requests
options:
  plugin:
    description: Marks the file as meant for this plugin.
    type: str
    required: true
    choices: [glm.fleet.gmi_cloud]
  api_key:
    description:
      - A GMI Cloud API key with the Cluster Engine scope (C(ce_resource)). Keys with the common inference scope are
        refused by this API.
    type: str
    env:
      - name: GMI_CLOUD_API_KEY
      - name: GMI_API_KEY
    vars:
      - name: gmi_api_key
  api_key_file:
    description: A file on the controller that holds the key alone on one line, or a line C(api_key = ...).
    type: path
    env:
      - name: GMI_API_KEY_FILE
  base_url:
    description:
      - Address of the API.
      - The key is never sent to an address that this one redirects to, and over plain http only to loopback.
    type: str
    default: https://console.gmicloud.ai
    env:
      - name: GMI_API_URL
    vars:
      - name: gmi_api_url
  organization:
    description: Organisation to ask for, sent as C(X-Organization-ID); for keys that belong to several. An entry of
      O(accounts) may have its own.
    type: str
    env:
      - name: GMI_ORGANIZATION_ID
  request_timeout:
    description: Seconds to wait for one answer.
    type: float
    default: 30
  total_timeout:
    description: Seconds one question may take, all waits and repeats included.
    type: float
    default: 300
  retries:
    description: How often a question is repeated after a refusal for being too fast (429), a failure of the server
      (5xx) or a broken connection.
    type: int
    default: 5
  request_interval:
    description: Seconds between two requests with one key. The vendor publishes no limit.
    type: float
    default: 0.2
  kinds:
    description: Only machines of these kinds.
    type: list
    elements: str
    choices: [container, baremetal]
    default: [container, baremetal]
  exclude_statuses:
    description: No machines with one of these statuses. Statuses of bare-metal nodes are not published.
    type: list
    elements: str
    default: [terminating, terminated, deleting, deleted, stopped, error, zombie]
  regions:
    description: Only machines in these data centres (IDCs). Shell patterns such as C(us-*) work, in O(products) too.
    type: list
    elements: str
    default: []
  countries:
    description: Only machines in these countries, such as C(US). Machines whose country is unknown are left out then.
    type: list
    elements: str
    default: []
  products:
    description: Only machines of these products, such as C(container.h200.x8).
    type: list
    elements: str
    default: []
  fleet_names:
    description:
      - This API has no tags, so the group C(glm_fleet) holds the machines whose name matches one of these.
      - With O(fleet), C(*) in them is preceded by its value and a dash, so that C(glm-*) becomes C(glm-<fleet>-*).
    type: list
    elements: str
    default: [glm-*]
  fleet:
    description: Name of the fleet, when several share an organisation.
    type: str
  hostnames:
    description:
      - What names a host, in order of preference. V(name), V(id), V(ip) or V(private_ip).
      - Characters with a meaning in host patterns are replaced by C(_). The variable C(gmi_name) keeps the original.
    type: list
    elements: str
    default: [name, id]
  address:
    description:
      - What becomes C(ansible_host), in order of preference. V(public) is the elastic IP that is bound to the machine,
        or the public address it has itself; V(private).
      - A machine that has none of them (yet) is kept, in the group C(gmi_no_address), without C(ansible_host).
    type: list
    elements: str
    default: [public]
  ssh_users:
    description: Value of C(ansible_user) by kind of machine. An empty or absent one leaves it unset.
    type: dict
    default: {container: root, baremetal: ubuntu}
  hostvars_prefix:
    description: What the variables in GMI's words begin with. Those named C(glm_host_*) keep their names.
    type: str
    default: gmi_
  builtin_groups:
    description:
      - Groups made without templates. C(region), C(country), C(product), C(kind), C(accelerator), C(status) give
        C(gmi_region_<idc>) and so on; C(account) gives C(gmi_account_<name>) for each of O(accounts); C(no_address)
        gives C(gmi_no_address); C(all) gives C(gmi); C(fleet) gives C(glm_fleet).
    type: list
    elements: str
    choices: [all, region, country, product, kind, accelerator, status, account, no_address, fleet]
    default: [all, region, country, product, kind, accelerator, status, account, no_address, fleet]
  group_prefix:
    description: What the names of the built-in groups begin with, except C(glm_fleet).
    type: str
    default: gmi_
notes:
  - "The same and more in GMI Cloud's words, here with the default O(hostvars_prefix):"
  - C(gmi_id), C(gmi_kind), C(gmi_name), C(gmi_status), C(gmi_reason), C(gmi_region) (the IDC), C(gmi_country),
    C(gmi_product), C(gmi_created), C(gmi_ip), C(gmi_private_ip) are strings, or null when the API does not (yet) say.
  - C(gmi_accelerator) (such as H200; null when the product does not say), C(gmi_accelerator_count) and
    C(gmi_architecture) are derived from the product.
  - C(gmi_account) is the name of the account, when O(accounts) is used.
  - Bare metal and containers need an elastic IP and a firewall that lets ssh in before they can be reached.
seealso:
  - plugin: glm.fleet.lambda_cloud
    plugin_type: inventory
"""

EXAMPLES = r"""
---
# gmi.yml: everything the key can see; the key comes from GMI_API_KEY.
plugin: glm.fleet.gmi_cloud
---
# Only machines in the United States and Taiwan, by their data centre.
plugin: glm.fleet.gmi_cloud
countries: [US, TW]
fleet_names: [glm-*, serve-*]
---
# Two organisations.
plugin: glm.fleet.gmi_cloud
accounts:
  - name: research
    api_key_env: GMI_API_KEY_RESEARCH
    organization: org-0123
  - name: serving
    api_key_file: ~/.gmi/serving.key
"""

import fnmatch
from collections.abc import Callable
from functools import partial
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils.cloud.gmi_cloud import api as gmi_api
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.gmi_cloud import hosts as gmi_hosts
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.gmi_cloud.provider import GMI
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.inventory import Account, CloudInventory

# What only this cloud has.
OWN_HOSTVARS = ("kind", "reason", "created")


class InventoryModule(CloudInventory):
    """See DOCUMENTATION."""

    NAME = "glm.fleet.gmi_cloud"
    PROVIDER = GMI
    SELECTION = gmi_hosts.Selection
    KEY_VARIABLE = "GMI_API_KEY"
    KEY_PAGE = "https://console.gmicloud.ai (organisation settings, scope Cluster Engine)"
    BASE_URL = gmi_api.DEFAULT_BASE_URL
    ACCOUNT_OPTIONS = ("organization",)
    NAME_SOURCES = ("name", "id", "ip", "private_ip")
    TAGS = False

    def _ask(self, account: Account) -> list[dict[str, Any]]:
        api = gmi_api.GmiApi(
            account.api_key,
            account.base_url,
            organization=account.more["organization"] or None,
            **self.patience(account),
        )
        containers = self._served(account, api.list_containers)
        nodes = self._served(account, api.list_baremetals)
        products = [
            product
            for kind, machines in (("containers", containers), ("baremetals", nodes))
            if machines
            for product in self._served(account, partial(api.list_products, kind))
        ]
        addresses = self._served(account, api.list_elastic_ips)
        return [dict(found) for found in gmi_hosts.machines(containers, nodes, addresses, api.list_idcs(), products)]

    def _served(self, account: Account, ask: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
        """A list, or an empty one where this account has no such collection."""
        try:
            return ask()
        except gmi_api.NotServed as error:
            self.display.v(f"{self.NAME}: {account.label}: treated as empty: {error}")
            return []

    def _in_fleet(self, variables: dict[str, Any], fleet: str) -> bool:
        name = variables["glm_host_name"] or ""
        patterns = self.get_option("fleet_names")
        if fleet:
            patterns = [pattern.replace("*", f"{fleet}-*", 1) for pattern in patterns]
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)

    def _own_of(self) -> Callable[[dict[str, Any]], dict[str, Any]]:
        return lambda machine: {name: machine[name] for name in OWN_HOSTVARS}

    def _user_of(self) -> Callable[[dict[str, Any]], str]:
        users = self.get_option("ssh_users")
        return lambda machine: str(users.get(machine["kind"]) or "")
