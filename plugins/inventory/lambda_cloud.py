# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Inventory plugin: the instances of one or more Lambda Cloud accounts as hosts, with one request per account."""

from __future__ import annotations

DOCUMENTATION = r"""
name: lambda_cloud
short_description: Lambda Cloud instances as an inventory
version_added: 0.1.0
author: glm.fleet contributors (!UNKNOWN)
description:
  - Makes a host of each Lambda Cloud instance, with its accelerators, address, price and tags as variables, and groups
    by region, instance type, accelerator, status, tag and fleet.
  - Asks the API once per account, whatever the size of the fleet. If it does not answer, the inventory fails; it is
    never a part of the fleet.
  - Reads files named C(lambda.yml), C(lambda.yaml), C(*.lambda.yml) or C(*.lambda.yaml).
  - Text from the API (names, tags) is never run as a template. Jupyter tokens and addresses are dropped on arrival.
extends_documentation_fragment:
  - glm.fleet.lambda_auth
  - glm.fleet.cloud_connection
  - glm.fleet.lambda_auth.plugin
  - glm.fleet.cloud_inventory
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
options:
  plugin:
    description: Marks the file as meant for this plugin.
    type: str
    required: true
    choices: [glm.fleet.lambda_cloud]
  exclude_statuses:
    description:
      - No instances with one of these statuses; not looked at when O(statuses) is given.
      - A status that this collection does not know is kept, with a warning, because it may run and cost money.
    type: list
    elements: str
    default: [terminating, terminated, preempted]
  cluster_ids:
    description:
      - B(Experimental.) 1-Click Clusters whose instances belong to the inventory, too, by their ids from the console;
        the API cannot list clusters.
      - Head nodes (without GPUs, with a public address) are reached as others. Compute nodes take no connection from
        outside, so C(ansible_host) is their private address and ssh goes through a head node, with its pinned key and
        the keys of the user's agent or C(~/.ssh). They get C(lambda_cluster_id) and C(lambda_cluster_role) (C(head) or
        C(compute)) and groups by them.
    type: list
    elements: str
    default: []
  instance_types:
    description: Only instances of these types.
    type: list
    elements: str
    default: []
  exclude_instance_types:
    description: No instances of these types.
    type: list
    elements: str
    default: []
  hostnames:
    description:
      - What names a host, in order of preference; the first that the instance has is used.
      - V(name), V(hostname), V(id), V(ip), V(private_ip) or C(tag:<key>); a template, evaluated with the host's
        variables; or a mapping with C(name), C(prefix) and C(separator), where name and prefix are such words, too, and
        the prefix is left out where an instance has none.
      - Characters with a meaning in host patterns are replaced by C(_). The variable C(lambda_name) keeps the original.
    type: list
    elements: raw
    default: [name, id]
  address:
    description:
      - What becomes C(ansible_host), in order of preference. V(public), V(private) or C(tag:<key>).
      - An instance that has none of them (yet) is kept, in the group C(lambda_no_address), without C(ansible_host).
    type: list
    elements: str
    default: [public]
  ssh_user:
    description: Value of C(ansible_user). Empty to leave it unset.
    type: str
    default: ubuntu
  hostvars_prefix:
    description: What the variables in Lambda's words begin with. Those named C(glm_host_*) keep their names.
    type: str
    default: lambda_
  more_hostvars:
    description:
      - Variables that few need, left out by default because each costs core noticeable time in a large fleet.
      - C(hostname), the name in the instance's own DNS; C(vcpus), C(memory_gib) and C(storage_gib) of the whole
        instance; C(file_systems) and C(ssh_keys), lists of names;
        C(unavailable_actions), what the API would refuse now (migrate, rebuild, restart, cold_reboot, terminate), each
        with the reason.
    type: list
    elements: str
    choices: [hostname, vcpus, memory_gib, storage_gib, file_systems, ssh_keys, unavailable_actions]
    default: []
  builtin_groups:
    description:
      - Groups made without templates, which is tens of times faster than O(keyed_groups).
      - C(region), C(type), C(accelerator), C(status) give C(lambda_region_<region>) and so on; C(tag) gives
        C(lambda_tag_<key>_<value>), but not for
        C(glm-launched) and C(glm-run), when and by which run it was launched; C(account) gives
        C(lambda_account_<name>) for each of O(accounts); C(cluster) gives C(lambda_cluster_<id>) and C(cluster_role)
        C(lambda_cluster_role_head) and C(lambda_cluster_role_compute), with O(cluster_ids); C(no_address) gives
        C(lambda_no_address); C(all) gives C(lambda); C(fleet) gives C(glm_fleet).
    type: list
    elements: str
    choices: [all, region, type, accelerator, status, tag, account, cluster, cluster_role, no_address, fleet]
    default: [all, region, type, accelerator, status, tag, account, cluster, cluster_role, no_address, fleet]
  group_prefix:
    description: What the names of the built-in groups begin with, except C(glm_fleet).
    type: str
    default: lambda_
  fleet:
    description:
      - The group C(glm_fleet) holds the instances whose tag C(glm-fleet) has this value. Without it, any value will do.
    type: str
    vars:
      - name: glm_fleet_name
notes:
  - "The same and more in Lambda's words, here with the default O(hostvars_prefix):"
  - C(lambda_id), C(lambda_name), C(lambda_status), C(lambda_region), C(lambda_instance_type), C(lambda_ip),
    C(lambda_private_ip) are strings, or null when the API does not (yet) say.
  - C(lambda_accelerator) (such as B200, H200, H100, GH200, A100; null on a CPU instance), C(lambda_accelerator_count),
    C(lambda_accelerator_memory_gib) (of one accelerator, the number in the product's name) and C(lambda_architecture)
    (x86_64, or arm64 on Grace machines) are derived, since the API has no such fields.
  - C(lambda_price_usd_per_hour) is the price of the whole instance.
  - C(lambda_tags) is a mapping.
  - With O(more_hostvars), C(lambda_hostname) is a string or null, C(lambda_vcpus), C(lambda_memory_gib) and
    C(lambda_storage_gib) are numbers, C(lambda_file_systems) and C(lambda_ssh_keys) are lists,
    C(lambda_unavailable_actions) is a mapping.
  - C(lambda_account) is the name of the account, when O(accounts) is used.
  - Keep C(ansible_ssh_common_args) for options of your own, such as a jump host; this plugin does not set it.
seealso:
  - module: glm.fleet.lambda_instance
"""

EXAMPLES = r"""
---
# lambda.yml: everything in the account that can serve; the key comes from LAMBDA_API_KEY.
plugin: glm.fleet.lambda_cloud
---
# One fleet, in two regions, reached over a private network.
plugin: glm.fleet.lambda_cloud
api_key: "{{ lookup('ansible.builtin.file', '~/.lambda/key') }}"
fleet: production
tags:
  glm-fleet: production
regions: [us-east-1, us-south-*]
hostnames:
  - "{{ lambda_tags['dns'] ~ '.example.com' }}"
  - {name: name, prefix: "tag:env", separator: "-"}
  - id
address: [private, public]
---
# Chosen by an expression on tags and by either of two filters; variables lambda_id_gpu and so on.
plugin: glm.fleet.lambda_cloud
tag_selector: env in (prod, stage-*), role!=head, !old
include_filters:
  - {instance_type: gpu_8x_*, accelerator: [B200, H100]}
  - {"tag:role": spare, region: us-*}
exclude_filters:
  - {name: "scratch-*"}
hostvars_suffix: _gpu
ca_path: ~/certificates/proxy.pem
---
# Two workspaces, cached for five minutes, and the last good answer when the API is down.
plugin: glm.fleet.lambda_cloud
accounts:
  - name: research
    api_key_env: LAMBDA_API_KEY_RESEARCH
  - name: serving
    api_key_file: ~/.lambda/serving.key
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: ~/.cache/glm-fleet/ansible
cache_timeout: 300
stale_cache_on_error: true
---
# A 1-Click Cluster, by its id from the console: its compute nodes, through a head node.
plugin: glm.fleet.lambda_cloud
cluster_ids: [0123456789abcdef0123456789abcdef]
exclude_filters:
  - {instance_type: "cpu_*"}
---
# Groups and variables of your own, on top.
plugin: glm.fleet.lambda_cloud
strict: true
compose:
  gpu_memory_gib: lambda_accelerator_count * (lambda_accelerator_memory_gib or 0)
groups:
  big: lambda_accelerator_count == 8
keyed_groups:
  - key: lambda_tags.role | default('none')
    prefix: role
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Optional

from ansible_collections.glm.fleet.plugins.module_utils.cloud.api import ApiError, RateLimited, text_of
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import api as lambda_api
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud.fleet import FLEET_TAG, LAUNCHED_TAG, RUN_TAG
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud import hosts as cloud_hosts
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud import selection
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.accounts import Account
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.answers import Answer
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.inventory import CloudInventory
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.lambda_cloud import hosts as lambda_hosts
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.lambda_cloud.provider import LAMBDA

MORE_HOSTVARS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "accelerator_memory_gib": lambda instance: lambda_hosts.hardware_of(instance.get("instance_type")).memory_gib,
    "cluster_id": lambda instance: instance.get("cluster_id"),
    "cluster_role": lambda instance: instance.get("cluster_role"),
    "hostname": lambda instance: text_of(instance.get("hostname")),
    "vcpus": lambda instance: lambda_hosts.spec(instance, "vcpus"),
    "memory_gib": lambda instance: lambda_hosts.spec(instance, "memory_gib"),
    "storage_gib": lambda instance: lambda_hosts.spec(instance, "storage_gib"),
    "file_systems": lambda instance: cloud_hosts.texts(instance.get("file_system_names")),
    "ssh_keys": lambda instance: cloud_hosts.texts(instance.get("ssh_key_names")),
    "unavailable_actions": lambda_hosts.unavailable_actions,
}


class InventoryModule(CloudInventory):
    """See DOCUMENTATION."""

    NAME = "glm.fleet.lambda_cloud"
    PROVIDER = LAMBDA
    TEXT_FILTERS: ClassVar[Mapping[str, str]] = {"regions": "region", "instance_types": "instance_type"}
    KEY_VARIABLE = "LAMBDA_API_KEY"
    KEY_PAGE = lambda_api.API_KEY_PAGE
    BASE_URL = lambda_api.DEFAULT_BASE_URL
    NAME_SOURCES = ("name", "hostname", "id", "ip", "private_ip")
    TAGS = True
    UNGROUPED_TAGS = frozenset({LAUNCHED_TAG, RUN_TAG})

    def _ask(self, account: Account) -> Answer:
        api = lambda_api.LambdaApi(
            account.api_key,
            account.base_url,
            **self.manner(account),
        )
        # First: a key that is refused, or an API that is down, is not the fault of an option.
        alone = api.list_instances()
        clusters = {cluster: self._members(api, cluster) for cluster in self._clusters()}
        machines = lambda_hosts.with_clusters(alone, clusters)
        return Answer(machines, {option: self._known(account, api, option) for option in self.unseen(machines)})

    def _clusters(self) -> list[str]:
        clusters = selection.patterns_in("cluster_ids", self.get_option("cluster_ids"))
        if clusters and self.get_option("accounts"):
            raise selection.BadOption("cluster_ids: with accounts, name them in a file for the account that has them")
        return clusters

    def _asked_for(self) -> Sequence[str]:
        return self._clusters()

    def _members(self, api: lambda_api.LambdaApi, cluster: str) -> list[lambda_api.Instance]:
        try:
            return api.list_instances(cluster)
        except ApiError as error:
            if error.outcome_unknown or isinstance(error, RateLimited):
                raise
            # The API has the same words for a cluster of others as for a key that it refuses.
            raise selection.BadOption(f"cluster_ids: {cluster} cannot be listed: {error}") from error

    def _known(self, account: Account, api: lambda_api.LambdaApi, option: str) -> Optional[list[str]]:
        """The names that the cloud has for an option; None when it does not say."""
        try:
            if self.TEXT_FILTERS[option.removeprefix("exclude_")] == "instance_type":
                return sorted(api.list_instance_types())
            return [row["name"] for row in api.list_regions()]
        except lambda_api.LambdaError as error:
            self.display.warning(f"{self.NAME}: {account.label}: {option} could not be checked for spelling: {error}")
            return None

    def _in_fleet(self, variables: dict[str, Any], fleet: str) -> bool:
        tags = variables["glm_host_tags"]
        return FLEET_TAG in tags and fleet in ("", tags[FLEET_TAG])

    def _own_of(self) -> Callable[[dict[str, Any]], dict[str, Any]]:
        cluster = ("cluster_id", "cluster_role") if self.get_option("cluster_ids") else ()
        names = ("accelerator_memory_gib", *cluster, *self.get_option("more_hostvars"))
        more = {name: MORE_HOSTVARS[name] for name in names}
        return lambda machine: {name: derive(machine) for name, derive in more.items()}

    def _user_of(self) -> Callable[[dict[str, Any]], str]:
        user = self.text("ssh_user")
        return lambda _machine: user
