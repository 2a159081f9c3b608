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
  - glm.fleet.gmi_auth
  - glm.fleet.cloud_connection
  - glm.fleet.gmi_auth.plugin
  - glm.fleet.cloud_inventory
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
options:
  plugin:
    description: Marks the file as meant for this plugin.
    type: str
    required: true
    choices: [glm.fleet.gmi_cloud]
  kinds:
    description: Only machines of these kinds.
    type: list
    elements: str
    choices: [container, baremetal]
    default: [container, baremetal]
  exclude_statuses:
    description:
      - No machines with one of these statuses; not looked at when O(statuses) is given. Statuses of bare-metal nodes
        are not published.
      - A status that this collection does not know is kept, with a warning, because the machine may run and cost money.
    type: list
    elements: str
    default: [terminating, terminated, deleting, deleted, stopped, error, zombie]
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
  exclude_products:
    description: No machines of these products.
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
      - What names a host, in order of preference. V(name), V(id), V(ip) or V(private_ip), a template or a mapping, as
        in the second example.
      - Characters with a meaning in host patterns are replaced by C(_). The variable C(gmi_name) keeps the original.
    type: list
    elements: raw
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
  - C(gmi_inbound_ip) is what the API calls C(inboundIP). Nobody says which network it is on, so it is used for nothing.
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
# By template, with the variables of the host; else the country and the name, such as US.glm-1; else the id.
hostnames:
  - "{{ gmi_name | lower }}.{{ gmi_region }}"
  - {name: name, prefix: country, separator: .}
  - id
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
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Optional

from ansible_collections.glm.fleet.plugins.module_utils.cloud.api import AuthError, CloudError
from ansible_collections.glm.fleet.plugins.module_utils.cloud.gmi_cloud import api as gmi_api
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud import selection
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.accounts import Account
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.answers import Answer
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.gmi_cloud import hosts as gmi_hosts
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.gmi_cloud.provider import GMI
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.inventory import CloudInventory

# What only this cloud has.
OWN_HOSTVARS = ("kind", "reason", "created", "inbound_ip")
KINDS = ("container", "baremetal")


class InventoryModule(CloudInventory):
    """See DOCUMENTATION."""

    NAME = "glm.fleet.gmi_cloud"
    PROVIDER = GMI
    TEXT_FILTERS: ClassVar[Mapping[str, str]] = {"regions": "region", "products": "instance_type"}
    KEY_VARIABLE = "GMI_API_KEY"
    KEY_PAGE = "https://console.gmicloud.ai (organisation settings, scope Cluster Engine)"
    BASE_URL = gmi_api.DEFAULT_BASE_URL
    ACCOUNT_OPTIONS = ("organization",)
    NAME_SOURCES = ("name", "id", "ip", "private_ip")
    TAGS = False

    def _ask(self, account: Account) -> Answer:
        api = gmi_api.GmiApi(
            account.api_key,
            account.base_url,
            organization=account.more["organization"] or None,
            **self.manner(account),
        )
        missing: list[CloudError] = []
        containers = self._served(account, api.list_containers, missing)
        nodes = self._served(account, api.list_baremetals, missing)
        gmi_api.refuse_unserved(missing)
        idcs = api.list_idcs()
        addresses = self._served(account, api.list_elastic_ips)
        asked = [kind for kind, found in (("containers", containers), ("baremetals", nodes)) if found]
        products = self._products(account, api, asked)
        machines = [dict(found) for found in gmi_hosts.machines(containers, nodes, addresses, idcs, products or ())]
        return Answer(machines, self._known(account, api, machines, idcs))

    def _products(self, account: Account, api: gmi_api.GmiApi, kinds: Iterable[str]) -> Optional[list[dict[str, Any]]]:
        """The products of these kinds; None when the API does not say, because only names are taken from them."""
        try:
            return [product for kind in kinds for product in self._served(account, partial(api.list_products, kind))]
        except AuthError:
            raise
        except CloudError as error:
            self.display.warning(f"{self.NAME}: {account.label}: products are taken by their id alone: {error}")
            return None

    def _known(
        self, account: Account, api: gmi_api.GmiApi, machines: list[dict[str, Any]], idcs: list[dict[str, Any]]
    ) -> dict[str, Optional[list[str]]]:
        """The names that the cloud has for the options with a value that no machine has."""
        known: dict[str, Optional[list[str]]] = {}
        for option in self.unseen(machines):
            if self.TEXT_FILTERS[option.removeprefix("exclude_")] == "region":
                known[option] = [str(idc["idcId"]) for idc in idcs if idc.get("idcId")]
            else:
                found = self._products(account, api, ("containers", "baremetals"))
                known[option] = None if found is None else [str(item["name"]) for item in found if item.get("name")]
        return known

    def _own_conditions(self, machines: Sequence[Mapping[str, Any]]) -> list[selection.Condition]:
        selection.known("ssh_users", self.get_option("ssh_users"), KINDS, "kind")
        made: list[selection.Condition] = []
        kinds = self.get_option("kinds")
        if kinds:
            of_kinds = {machine["id"] for machine in machines if machine["kind"] in kinds}
            made.append(selection.Condition("kinds", lambda host: host["id"] in of_kinds))
        countries = [country.upper() for country in selection.patterns_in("countries", self.get_option("countries"))]
        for country in countries:
            if not re.fullmatch("[A-Z]{2}", country):
                raise selection.BadOption(f"countries: expected codes of two letters such as US, found {country!r}")
        return made + selection.by_text("countries", selection.reader("country"), countries)

    def _served(
        self, account: Account, ask: Callable[[], list[dict[str, Any]]], missing: Optional[list[CloudError]] = None
    ) -> list[dict[str, Any]]:
        """A list, or an empty one where this account has no such collection, which is added to ``missing``."""
        try:
            return ask()
        except gmi_api.NotServed as error:
            if missing is not None:
                missing.append(error)
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
