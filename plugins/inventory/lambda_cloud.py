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
  - glm.fleet.lambda_auth.plugin
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
options:
  plugin:
    description: Marks the file as meant for this plugin.
    type: str
    required: true
    choices: [glm.fleet.lambda_cloud]
  accounts:
    description:
      - Several accounts or workspaces, side by side. Each is asked and cached on its own; if one fails, all fail.
      - Without it, there is one account, described by O(api_key) or O(api_key_file) and O(base_url).
      - Each entry has a C(name), one of C(api_key), C(api_key_env) (name of an environment variable) and
        C(api_key_file), and optionally a C(base_url).
    type: list
    elements: dict
    default: []
  stale_cache_on_error:
    description:
      - When the API does not answer, use the last good answer, with a warning that tells its age.
      - While this is on, each good answer is kept in O(stale_cache_dir), whether or not O(cache) is on.
      - Never done for a refused key.
    type: bool
    default: false
  stale_cache_max_age:
    description: Seconds after which a kept answer is too old to be used.
    type: int
    default: 86400
  stale_cache_dir:
    description: Where good answers are kept for O(stale_cache_on_error), readable by the user only.
    type: path
    default: ~/.cache/glm-fleet/inventory
  statuses:
    description: Only instances with one of these statuses. An empty list accepts all, terminated ones included.
    type: list
    elements: str
    default: [booting, active, unhealthy]
  regions:
    description: Only instances in these regions. Shell patterns such as C(us-*) work here and in the options below.
    type: list
    elements: str
    default: []
  instance_types:
    description: Only instances of these types.
    type: list
    elements: str
    default: []
  name_patterns:
    description: Only instances whose name matches one of these.
    type: list
    elements: str
    default: []
  tags:
    description: Only instances that carry all these tags. A null value accepts any value of the tag.
    type: dict
    default: {}
  exclude_regions:
    description: No instances in these regions.
    type: list
    elements: str
    default: []
  exclude_instance_types:
    description: No instances of these types.
    type: list
    elements: str
    default: []
  exclude_name_patterns:
    description: No instances whose name matches one of these.
    type: list
    elements: str
    default: []
  exclude_tags:
    description: No instances that carry any of these tags. A null value means any value of the tag.
    type: dict
    default: {}
  hostnames:
    description:
      - What names a host, in order of preference; the first that the instance has is used.
      - V(name), V(hostname), V(id), V(ip), V(private_ip) or C(tag:<key>).
      - Characters with a meaning in host patterns are replaced by C(_). The variable C(lambda_name) keeps the original.
    type: list
    elements: str
    default: [name, id]
  duplicates:
    description:
      - Lambda does not keep names unique. V(suffix) renames all instances of a clash to C(<name>_<first 8 of the id>)
        and warns; V(error) fails. A name that is a group or C(localhost) counts as a clash too.
    type: str
    choices: [suffix, error]
    default: suffix
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
  known_hosts_file:
    description:
      - Where the fleet's ssh host keys are pinned. Sets C(ansible_ssh_extra_args), C(ansible_sftp_extra_args) and
        C(ansible_scp_extra_args) so that only the key recorded for an instance's id is accepted, whatever its address.
      - The keys are recorded by M(glm.fleet.host_key). Empty to leave host key checking to ssh's own settings.
    type: str
    default: ~/.local/state/glm-fleet/known_hosts
  hostvars_prefix:
    description: What the names of all variables from the API begin with.
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
        C(lambda_tag_<key>_<value>); C(account) gives C(lambda_account_<name>) for each of O(accounts); C(no_address)
        gives C(lambda_no_address); C(all) gives C(lambda); C(fleet) gives C(glm_fleet).
    type: list
    elements: str
    choices: [all, region, type, accelerator, status, tag, account, no_address, fleet]
    default: [all, region, type, accelerator, status, tag, account, no_address, fleet]
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
  - "Host variables, here with the default O(hostvars_prefix):"
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
hostnames: ["tag:role-name", name, id]
address: [private, public]
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
# Groups and variables of your own, on top.
plugin: glm.fleet.lambda_cloud
strict: true
compose:
  gpu_memory_gib: lambda_accelerator_count * lambda_accelerator_memory_gib
groups:
  big: lambda_accelerator_count == 8
keyed_groups:
  - key: lambda_tags.role | default('none')
    prefix: role
"""

import contextlib
import gc
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Optional

from ansible import constants
from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable

from ansible_collections.glm.fleet.plugins.module_utils import lambda_api
from ansible_collections.glm.fleet.plugins.plugin_utils import lambda_hosts
from ansible_collections.glm.fleet.plugins.plugin_utils.unsafe import text_marker

CACHE_SCHEMA = 1
FLEET_TAG = "glm-fleet"
FLEET_GROUP = "glm_fleet"
FILE_NAME = re.compile(r"(.+\.)?lambda\.ya?ml")
# ansible's own `auto` plugin hands the same file to this plugin again right after a failure.
REPEAT_SECONDS = 5.0

MORE_HOSTVARS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "hostname": lambda instance: lambda_hosts.text(instance.get("hostname")),
    "vcpus": lambda instance: lambda_hosts.spec(instance, "vcpus"),
    "memory_gib": lambda instance: lambda_hosts.spec(instance, "memory_gib"),
    "storage_gib": lambda instance: lambda_hosts.spec(instance, "storage_gib"),
    "file_systems": lambda instance: lambda_hosts.texts(instance.get("file_system_names")),
    "ssh_keys": lambda instance: lambda_hosts.texts(instance.get("ssh_key_names")),
    "unavailable_actions": lambda_hosts.unavailable_actions,
}


class Account(NamedTuple):
    """One account to ask. ``name`` is empty unless the option ``accounts`` is used."""

    name: str
    api_key: str
    base_url: str

    @property
    def label(self) -> str:
        """How messages name the account."""
        return f"account {self.name}" if self.name else "the account"


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):  # type: ignore[misc]
    """See DOCUMENTATION."""

    NAME = "glm.fleet.lambda_cloud"

    _failed: ClassVar[dict[str, float]] = {}

    def verify_file(self, path: str) -> bool:
        """Whether the file is meant for this plugin, by its name; ``-vvv`` tells why not."""
        name = Path(path).name
        if not FILE_NAME.fullmatch(name):
            self.display.vvv(
                f"{self.NAME}: not reading {path}: expected a file named lambda.yml, lambda.yaml, *.lambda.yml or "
                f"*.lambda.yaml, found {name}"
            )
            return False
        if not super().verify_file(path):
            self.display.vvv(f"{self.NAME}: not reading {path}: it does not exist or this user may not read it")
            return False
        return True

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """Add the hosts and groups; raises ``AnsibleParserError`` when anything about the answer is not whole."""
        super().parse(inventory, loader, path, cache)
        if time.monotonic() - self._failed.get(path, -REPEAT_SECONDS) < REPEAT_SECONDS:
            raise AnsibleParserError(f"{self.NAME} could not read {path}; see what it said just before")
        try:
            self._read_config_data(path)
            if lambda_api.REQUESTS_IMPORT_ERROR is not None:
                raise AnsibleParserError("the Python package requests is missing: install it next to ansible-core")
            with _lasting_objects():
                self._add(self._instances(path, cache))
        except (AnsibleParserError, lambda_api.LambdaError, lambda_hosts.BadInstance, ValueError) as error:
            self._failed[path] = time.monotonic()
            raise AnsibleParserError(f"{self.NAME}: {path}: {error}") from error

    # Where the instances come from.

    def _instances(self, path: str, cache: bool) -> list[tuple[str, dict[str, Any]]]:
        """The instances of all accounts, as ``(account name, instance)``."""
        found: list[tuple[str, dict[str, Any]]] = []
        for account in self._accounts():
            found.extend((account.name, instance) for instance in self._instances_of(account, path, cache))
        return found

    def _accounts(self) -> list[Account]:
        base_url = self._text("base_url") or lambda_api.DEFAULT_BASE_URL
        entries = self.get_option("accounts")
        if not entries:
            key = self._text("api_key") or self._key_in_file(self._text("api_key_file"))
            if not key:
                raise AnsibleParserError(
                    "no API key. Set the environment variable LAMBDA_API_KEY, or api_key or api_key_file in this "
                    f"file; keys are made at {lambda_api.API_KEY_PAGE}"
                )
            return [Account("", key, base_url)]
        accounts = [self._account(entry, base_url) for entry in entries]
        names = [account.name for account in accounts]
        if len(set(names)) < len(names):
            raise AnsibleParserError(f"accounts: each needs a name of its own, found {', '.join(names)}")
        return accounts

    def _account(self, entry: dict[str, Any], base_url: str) -> Account:
        allowed = {"name", "api_key", "api_key_env", "api_key_file", "base_url"}
        unknown = sorted(set(entry) - allowed)
        if unknown:
            raise AnsibleParserError(
                f"accounts: unknown key {', '.join(unknown)}; allowed: {', '.join(sorted(allowed))}"
            )
        values = {key: self._templated(f"accounts: {key}", value) for key, value in entry.items()}
        name = values.get("name")
        if not name:
            raise AnsibleParserError("accounts: each entry needs a name")
        sources = [key for key in ("api_key", "api_key_env", "api_key_file") if key in values]
        if len(sources) != 1:
            raise AnsibleParserError(
                f"account {name}: give exactly one of api_key, api_key_env and api_key_file, found "
                f"{' and '.join(sources) or 'none'}"
            )
        if sources[0] == "api_key_env":
            key = os.environ.get(values["api_key_env"], "")
        elif sources[0] == "api_key_file":
            key = self._key_in_file(values["api_key_file"])
        else:
            key = values["api_key"]
        if not key:
            raise AnsibleParserError(f"account {name}: no API key in {sources[0]}")
        return Account(name, key, values.get("base_url") or base_url)

    @staticmethod
    def _key_in_file(path: str) -> str:
        return lambda_api.read_api_key(path) if path else ""

    def _text(self, option: str) -> str:
        return self._templated(option, self.get_option(option))

    def _templated(self, what: str, value: Any) -> str:
        """The value as text, with templates evaluated against extra variables."""
        if value is None:
            return ""
        self.templar.available_variables = self._vars
        try:
            return str(self.templar.template(value)).strip()
        except Exception as error:
            raise AnsibleParserError(f"{what} cannot be evaluated: {error}") from error

    def _instances_of(self, account: Account, path: str, cache: bool) -> list[dict[str, Any]]:
        """The instances of one account from the cache, the API or, if allowed, the last good answer."""
        # The key takes part so that another account's answer is never taken for this one's.
        digest = hashlib.sha256(f"{account.base_url}\n{account.api_key}".encode()).hexdigest()[:16]
        cache_key = f"{self.get_cache_key(path)}_{digest}"
        use_cache = self.get_option("cache")
        if use_cache and cache:
            instances = self._cached(cache_key)
            if instances is not None:
                return instances
        instances = self._asked(account, digest)
        if use_cache:
            # As text, because cache plugins spend seconds on the nested form of a large fleet.
            self._cache[cache_key] = {"schema": CACHE_SCHEMA, "instances": json.dumps(instances)}
        return instances

    def _cached(self, cache_key: str) -> Optional[list[dict[str, Any]]]:
        try:
            stored = self._cache[cache_key]
        except KeyError:
            return None
        return _instances_in(stored)

    def _asked(self, account: Account, digest: str) -> list[dict[str, Any]]:
        api = lambda_api.LambdaApi(
            account.api_key,
            account.base_url,
            pacer=lambda_api.Pacer(account.api_key, request_interval=self.get_option("request_interval")),
            retries=self.get_option("retries"),
            timeout=self.get_option("request_timeout"),
            budget=self.get_option("total_timeout"),
        )
        last_good = Path(self.get_option("stale_cache_dir")) / f"{digest}.json"
        allowed = self.get_option("stale_cache_on_error")
        try:
            instances = [lambda_hosts.kept(instance) for instance in api.list_instances()]
        except lambda_api.AuthError as error:
            raise AnsibleParserError(f"{account.label}: the key was refused. {error}") from error
        except lambda_api.LambdaError as error:
            if not allowed:
                raise AnsibleParserError(f"{account.label}: {error}") from error
            return self._last_good(account, last_good, error)
        if allowed:
            try:
                _keep(last_good, instances)
            except OSError as error:
                self.display.warning(f"{self.NAME}: {account.label}: this answer could not be kept: {error}")
        return instances

    def _last_good(self, account: Account, file: Path, error: Exception) -> list[dict[str, Any]]:
        try:
            age = time.time() - file.stat().st_mtime
            instances = _instances_in(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            instances = None
        if instances is None:
            raise AnsibleParserError(f"{account.label}: {error} There is no earlier answer to fall back to.")
        limit = self.get_option("stale_cache_max_age")
        if age > limit:
            raise AnsibleParserError(
                f"{account.label}: {error} The last good answer is {age:.0f} s old, more than stale_cache_max_age "
                f"({limit} s)."
            )
        self.display.warning(
            f"{self.NAME}: {account.label}: {error} Using the answer of {age:.0f} s ago ({len(instances)} instances); "
            "instances may have come or gone since."
        )
        return instances

    # What becomes of them.

    def _add(self, found: Iterable[tuple[str, dict[str, Any]]]) -> None:
        selection = self._selection()
        chosen = [(account, instance) for account, instance in found if selection.accepts(instance)]
        ids = [lambda_hosts.checked_id(instance) for _account, instance in chosen]
        describe = self._describer()
        described = [describe(account, instance) for account, instance in chosen]
        groups = self._groups(described)
        names = self._names([instance for _account, instance in chosen], ids, groups)
        self._add_hosts(names, described)
        self._add_groups(names, groups)
        self._construct(names, described)

    def _selection(self) -> lambda_hosts.Selection:
        listed = (
            "statuses", "regions", "instance_types", "name_patterns",
            "exclude_regions", "exclude_instance_types", "exclude_name_patterns",
        )  # fmt: skip
        return lambda_hosts.Selection(
            tags=self.get_option("tags"),
            exclude_tags=self.get_option("exclude_tags"),
            **{option: self.get_option(option) for option in listed},
        )

    def _names(self, instances: list[dict[str, Any]], ids: list[str], groups: dict[str, list[int]]) -> list[str]:
        precedence = self._sources("hostnames", ("name", "hostname", "id", "ip", "private_ip"))
        wanted = [
            (lambda_hosts.preferred_name(instance, precedence), identity) for instance, identity in zip(instances, ids)
        ]
        taken = {"all", "ungrouped", *constants.LOCALHOST, *self.inventory.groups, *groups}
        names, clashing = lambda_hosts.unique_names(wanted, taken)
        if clashing:
            shown = ", ".join(clashing[:10]) + (f" and {len(clashing) - 10} more" if len(clashing) > 10 else "")
            if self.get_option("duplicates") == "error":
                raise AnsibleParserError(
                    f"host names are not unique or taken by a group: {shown}. Rename the instances, change hostnames, "
                    "or set duplicates: suffix"
                )
            self.display.warning(
                f"{self.NAME}: host names that are not unique or taken by a group get a part of the id: {shown}"
            )
        return names

    def _sources(self, option: str, plain: tuple[str, ...]) -> list[str]:
        sources: list[str] = self.get_option(option)
        for source in sources:
            if source not in plain and not (source.startswith("tag:") and len(source) > 4):
                raise AnsibleParserError(f"{option}: expected {', '.join(plain)} or tag:<key>, found {source!r}")
        return sources

    def _describer(self) -> Callable[[str, dict[str, Any]], dict[str, Any]]:
        """Make the function that turns an instance into its host variables, with the options read once."""
        precedence = self._sources("address", ("public", "private"))
        prefix = self.get_option("hostvars_prefix")
        if not f"{prefix}x".isidentifier():
            raise AnsibleParserError(f"hostvars_prefix: expected the beginning of a variable name, found {prefix!r}")
        mark = text_marker()
        ssh_user = mark(self._text("ssh_user"))
        pin = self._pinner(mark)
        text, mapping = lambda_hosts.text, lambda_hosts.mapping
        types: dict[str, dict[str, Any]] = {}
        plain = [(f"{prefix}{name}", name) for name in ("id", "name", "status", "ip", "private_ip")]
        region, tags, account_name = (f"{prefix}{name}" for name in ("region", "tags", "account"))
        more = [(f"{prefix}{name}", MORE_HOSTVARS[name]) for name in self.get_option("more_hostvars")]

        def describe(account: str, instance: dict[str, Any]) -> dict[str, Any]:
            kind = mapping(instance.get("instance_type"))
            # Equal descriptions are frequent; the text of one identifies it, price included.
            described = repr(kind)
            if described not in types:
                types[described] = mark(_type_variables(prefix, kind, instance))
            variables = dict(types[described])
            for variable, name in plain:
                variables[variable] = mark(text(instance.get(name)))
            variables[region] = mark(text(mapping(instance.get("region")).get("name")))
            variables[tags] = mark(lambda_api.tags_of(instance))
            for variable, derive in more:
                variables[variable] = mark(derive(instance))
            if account:
                variables[account_name] = mark(account)
            if ssh_user:
                variables["ansible_user"] = ssh_user
            address = lambda_hosts.address_of(instance, precedence)
            if address:
                variables["ansible_host"] = mark(address)
            variables.update(pin(instance["id"]))
            return variables

        return describe

    def _pinner(self, mark: Callable[[Any], Any]) -> Callable[[str], dict[str, Any]]:
        """Make the function that gives the variables by which ssh accepts an instance's pinned key only."""
        configured = self._text("known_hosts_file")
        if not configured:
            return lambda _identity: {}
        before, after = lambda_hosts.pinned_key_arguments(str(Path(configured).expanduser()))

        def pin(identity: str) -> dict[str, Any]:
            arguments = mark(f"{before}{identity}{after}")
            return {
                "ansible_ssh_extra_args": arguments,
                "ansible_sftp_extra_args": arguments,
                "ansible_scp_extra_args": arguments,
            }

        return pin

    def _groups(self, described: list[dict[str, Any]]) -> dict[str, list[int]]:
        """The built-in groups: the positions of the members of each."""
        kinds = set(self.get_option("builtin_groups"))
        prefix = self.get_option("hostvars_prefix")
        group_prefix = self.get_option("group_prefix")
        fleet = self._text("fleet")
        safe = lru_cache(maxsize=None)(lambda name: self._sanitize_group_name(f"{group_prefix}{name}"))
        everything = self._sanitize_group_name(group_prefix.rstrip("_") or "lambda")
        # Always there, so that a play on them finds an empty group rather than an unknown one.
        groups: dict[str, list[int]] = {
            name: [] for kind, name in (("all", everything), ("fleet", FLEET_GROUP)) if kind in kinds
        }
        by_variable = [
            (kind, f"{prefix}{variable}")
            for kind, variable in (
                ("region", "region"), ("type", "instance_type"), ("accelerator", "accelerator"), ("status", "status"),
                ("account", "account"),
            )
            if kind in kinds
        ]  # fmt: skip
        tags_name = f"{prefix}tags"
        for position, variables in enumerate(described):
            memberships = [f"{kind}_{variables[name]}" for kind, name in by_variable if variables.get(name)]
            tags = variables[tags_name]
            if "tag" in kinds:
                memberships.extend(f"tag_{key}_{value}" if value else f"tag_{key}" for key, value in tags.items())
            if "no_address" in kinds and "ansible_host" not in variables:
                memberships.append("no_address")
            for membership in memberships:
                groups.setdefault(safe(membership), []).append(position)
            if "all" in kinds:
                groups[everything].append(position)
            if "fleet" in kinds and FLEET_TAG in tags and fleet in ("", tags[FLEET_TAG]):
                groups[FLEET_GROUP].append(position)
        return groups

    def _add_hosts(self, names: list[str], described: list[dict[str, Any]]) -> None:
        add_host = self.inventory.add_host
        hosts = self.inventory.hosts
        for name, variables in zip(names, described):
            add_host(name)
            # ``set_variable`` copies and re-checks each value, which costs seconds for thousands of hosts; these names
            # are valid (the prefix was checked) and the values fresh and marked.
            hosts[name].vars.update(variables)

    def _add_groups(self, names: list[str], groups: dict[str, list[int]]) -> None:
        add_child = self.inventory.add_child
        for group, members in groups.items():
            added = self.inventory.add_group(group)
            for position in dict.fromkeys(members):
                add_child(added, names[position])

    def _construct(self, names: list[str], described: list[dict[str, Any]]) -> None:
        compose, groups, keyed_groups, strict = (
            self.get_option(option) for option in ("compose", "groups", "keyed_groups", "strict")
        )
        if not (compose or groups or keyed_groups):
            return
        for name, variables in zip(names, described):
            self._set_composite_vars(compose, variables, name, strict=strict)
            self._add_host_to_composed_groups(groups, variables, name, strict=strict)
            self._add_host_to_keyed_groups(keyed_groups, variables, name, strict=strict)


@contextlib.contextmanager
def _lasting_objects() -> Iterator[None]:
    """Keep the garbage collector from going through a fleet's objects again and again.

    Hundreds of thousands of objects are made here that live until the process ends. Collecting while they are made
    finds nothing, and afterwards they would be looked at in each full collection; frozen, they are left alone, and
    worker processes share their memory (https://docs.python.org/3/library/gc.html#gc.freeze).
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


def _type_variables(prefix: str, kind: Any, instance: dict[str, Any]) -> dict[str, Any]:
    """The host variables that follow from the instance type alone."""
    hardware = lambda_hosts.hardware_of(kind)
    values = {
        "instance_type": lambda_hosts.text(kind.get("name")),
        "accelerator": hardware.accelerator,
        "accelerator_count": hardware.total,
        "accelerator_memory_gib": hardware.memory_gib,
        "architecture": hardware.architecture,
        "price_usd_per_hour": lambda_api.price_usd_per_hour(instance),
    }
    return {f"{prefix}{name}": value for name, value in values.items()}


def _instances_in(stored: Any) -> Optional[list[dict[str, Any]]]:
    """The instances of a kept answer, or ``None`` if another version or something else wrote it."""
    if not isinstance(stored, dict) or stored.get("schema") != CACHE_SCHEMA:
        return None
    try:
        instances = json.loads(stored["instances"])
    except (KeyError, TypeError, ValueError):
        return None
    return instances if isinstance(instances, list) else None


def _keep(file: Path, instances: list[dict[str, Any]]) -> None:
    """Write the answer beside its last version and put it in place in one step."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = file.with_name(f"{file.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        json.dump({"schema": CACHE_SCHEMA, "instances": json.dumps(instances)}, stream)
    draft.replace(file)
