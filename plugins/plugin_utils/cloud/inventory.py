# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the inventory plugins of all clouds share: accounts, caches, names, groups, pinned host keys.

A plugin says how to ask its API and how to describe one machine. What operators rely on is here, once: one whole answer
or a failure, text from outside never run as a template, construction redone on a cache hit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Optional

from ansible import constants
from ansible.errors import AnsibleParserError
from ansible.inventory.host import Host
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.cloud import api as _cloud_api
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud import hosts as cloud_hosts
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.provider import Provider
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.unsafe import text_marker

CACHE_SCHEMA = 1
FLEET_GROUP = "glm_fleet"
# ansible's own `auto` plugin hands the same file to a plugin again right after a failure.
REPEAT_SECONDS = 5.0


class Account(NamedTuple):
    """One account to ask. ``name`` is empty unless the option ``accounts`` is used; ``more`` is the cloud's own."""

    name: str
    api_key: str
    base_url: str
    more: Mapping[str, str]

    @property
    def label(self) -> str:
        """How messages name the account."""
        return f"account {self.name}" if self.name else "the account"


class CloudInventory(BaseInventoryPlugin, Constructable, Cacheable):  # type: ignore[misc]
    """An inventory plugin but for its API: subclasses set the constants and fill in the methods that raise."""

    # The cloud, where its keys come from, and the options that an account may set for itself.
    PROVIDER: ClassVar[Provider]
    # A dataclass whose fields are options; its ``accepts(machine)`` says whether a machine becomes a host.
    SELECTION: ClassVar[type[Any]]
    KEY_VARIABLE: ClassVar[str]
    KEY_PAGE: ClassVar[str]
    BASE_URL: ClassVar[str]
    ACCOUNT_OPTIONS: ClassVar[tuple[str, ...]] = ()
    NAME_SOURCES: ClassVar[tuple[str, ...]]
    TAGS: ClassVar[bool]
    # Tags whose values are as many as the machines; groups of one are of no use.
    UNGROUPED_TAGS: ClassVar[frozenset[str]] = frozenset()

    _failed: ClassVar[dict[str, float]] = {}

    def _ask(self, account: Account) -> list[dict[str, Any]]:
        """All machines of the account, without what an inventory does not need. Raises CloudError."""
        raise NotImplementedError

    def _own_of(self) -> Callable[[dict[str, Any]], dict[str, Any]]:
        """A function of a machine that gives what only this cloud has: host variables without prefix, unmarked."""
        raise NotImplementedError

    def _user_of(self) -> Callable[[dict[str, Any]], str]:
        """A function of a machine that gives ``ansible_user``; empty leaves it unset."""
        raise NotImplementedError

    def _in_fleet(self, variables: dict[str, Any], fleet: str) -> bool:
        """Whether a host belongs to the group glm_fleet; an empty ``fleet`` means any."""
        raise NotImplementedError

    def patience(self, account: Account) -> dict[str, Any]:
        """How often and how long the client of an account asks: its arguments of these names."""
        options = {"retries": "retries", "timeout": "request_timeout", "budget": "total_timeout"}
        pacer = _cloud_api.Pacer(account.api_key, self.get_option("request_interval"))
        return {"pacer": pacer, **{argument: self.get_option(option) for argument, option in options.items()}}

    def prefix(self) -> str:
        """What variables begin with. Raises AnsibleParserError for what no variable can begin with."""
        prefix: str = self.get_option("hostvars_prefix")
        if not f"{prefix}x".isidentifier():
            raise AnsibleParserError(f"hostvars_prefix: expected the beginning of a variable name, found {prefix!r}")
        # Words of the cloud would take the place of the neutral ones, such as glm_host_name.
        if prefix.startswith("glm_"):
            raise AnsibleParserError(f"hostvars_prefix: expected one that does not begin with glm_, found {prefix!r}")
        return prefix

    def verify_file(self, path: str) -> bool:
        """Whether the file is meant for this plugin, by its name; ``-vvv`` shows why not."""
        name = Path(path).name
        stem = self.PROVIDER.name
        if not re.fullmatch(rf"(.+\.)?{stem}\.ya?ml", name):
            self.display.vvv(
                f"{self.NAME}: not reading {path}: expected a file named {stem}.yml, {stem}.yaml, *.{stem}.yml or "
                f"*.{stem}.yaml, found {name}"
            )
            return False
        if not super().verify_file(path):
            self.display.vvv(f"{self.NAME}: not reading {path}: it does not exist or this user may not read it")
            return False
        return True

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """Add the hosts and groups; raises ``AnsibleParserError`` when anything about the answer is not whole."""
        super().parse(inventory, loader, path, cache)
        self._inventory_file = path
        if time.monotonic() - self._failed.get(path, -REPEAT_SECONDS) < REPEAT_SECONDS:
            raise AnsibleParserError(f"{self.NAME} could not read {path}; see what it said just before")
        try:
            self._read_config_data(path)
            if _cloud_api.REQUESTS_IMPORT_ERROR is not None:
                raise AnsibleParserError("the Python package requests is missing: install it next to ansible-core")
            with _lasting_objects():
                self._add(self._instances(path, cache))
        except (AnsibleParserError, _cloud_api.CloudError, cloud_hosts.BadInstance, ValueError) as error:
            self._failed[path] = time.monotonic()
            # ansible prints the text of every cause, and this text has it all.
            raise AnsibleParserError(f"{self.NAME}: {path}: {error}") from None

    # Where the instances come from.

    def _instances(self, path: str, cache: bool) -> list[tuple[str, dict[str, Any]]]:
        """The instances of all accounts, as ``(account name, instance)``."""
        found: list[tuple[str, dict[str, Any]]] = []
        for account in self._accounts():
            found.extend((account.name, instance) for instance in self._instances_of(account, path, cache))
        return found

    def _accounts(self) -> list[Account]:
        base_url = self.text("base_url") or self.BASE_URL
        entries = self.get_option("accounts")
        if not entries:
            key = self.text("api_key") or self._key_in_file(self.text("api_key_file"))
            if not key:
                raise AnsibleParserError(
                    f"no API key. Set the environment variable {self.KEY_VARIABLE}, or api_key or api_key_file in this "
                    f"file; keys are made at {self.KEY_PAGE}"
                )
            return [Account("", key, base_url, {name: self.text(name) for name in self.ACCOUNT_OPTIONS})]
        accounts = [self._account(entry, base_url) for entry in entries]
        names = [account.name for account in accounts]
        if len(set(names)) < len(names):
            raise AnsibleParserError(f"accounts: each needs a name of its own, found {', '.join(names)}")
        return accounts

    def _account(self, entry: dict[str, Any], base_url: str) -> Account:
        allowed = {"name", "api_key", "api_key_env", "api_key_file", "base_url", *self.ACCOUNT_OPTIONS}
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
        more = {option: values.get(option) or self.text(option) for option in self.ACCOUNT_OPTIONS}
        return Account(name, key, values.get("base_url") or base_url, more)

    @staticmethod
    def _key_in_file(path: str) -> str:
        return _cloud_api.read_api_key(path) if path else ""

    def text(self, option: str) -> str:
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
        # The key is part of it so that another account's answer is never taken for this one's.
        parts = [account.base_url, account.api_key, *(value for value in account.more.values() if value)]
        digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
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
        last_good = Path(self.get_option("stale_cache_dir")) / f"{digest}.json"
        allowed = self.get_option("stale_cache_on_error")
        try:
            instances = self._ask(account)
        except _cloud_api.AuthError as error:
            raise AnsibleParserError(f"{account.label}: the key was refused. {error}") from error
        except _cloud_api.CloudError as error:
            if not allowed:
                raise AnsibleParserError(f"{account.label}: {error}") from error
            return self._last_good(account, last_good, error)
        if allowed:
            try:
                files.write_json(last_good, {"schema": CACHE_SCHEMA, "instances": json.dumps(instances)})
            except OSError as error:
                self.display.warning(f"{self.NAME}: {account.label}: this answer could not be cached: {error}")
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
        options = {field.name: self.get_option(field.name) for field in dataclasses.fields(self.SELECTION)}
        selection = self.SELECTION(**options)
        chosen = [(account, instance) for account, instance in found if selection.accepts(instance)]
        for _account, instance in chosen:
            cloud_hosts.check_id(instance)
        hosts = [self.PROVIDER.host_of(instance) for _account, instance in chosen]
        describe = self._describer()
        described = [describe(account, instance, host) for (account, instance), host in zip(chosen, hosts)]
        groups = self._groups(described)
        names = self._names([instance for _account, instance in chosen], hosts, groups)
        self._add_hosts(names, described)
        self._add_groups(names, groups)
        self._construct(names, described)

    def _names(
        self, instances: list[dict[str, Any]], hosts: list[cloud_hosts.Host], groups: dict[str, list[int]]
    ) -> list[str]:
        sources = self.sources("hostnames", self.NAME_SOURCES)
        wanted = [
            (cloud_hosts.preferred_name(instance, host, sources), host["id"])
            for instance, host in zip(instances, hosts)
        ]
        taken = {"all", "ungrouped", *constants.LOCALHOST, *self.inventory.groups, *groups}
        names, clashing = cloud_hosts.unique_names(wanted, taken)
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

    def sources(self, option: str, plain: tuple[str, ...]) -> list[str]:
        sources: list[str] = self.get_option(option)
        for source in sources:
            if source not in plain and not (self.TAGS and source.startswith("tag:") and len(source) > 4):
                known = f"{', '.join(plain)} or tag:<key>" if self.TAGS else ", ".join(plain)
                raise AnsibleParserError(f"{option}: expected {known}, found {source!r}")
        return sources

    def pinner(self, mark: Callable[[Any], Any]) -> Callable[[str], dict[str, Any]]:
        """Make the function that gives the variables by which ssh accepts an instance's pinned key only."""
        configured = self.text("known_hosts_file")
        if not configured:
            return lambda _identity: {}
        # The folder itself, when the inventory is named by a link to it.
        file = Path(self._inventory_file).resolve().parent / Path(configured).expanduser()
        before, after = cloud_hosts.pinned_key_arguments(os.path.normpath(file))

        def pin(identity: str) -> dict[str, Any]:
            arguments = mark(f"{before}{identity}{after}")
            return {
                "ansible_ssh_extra_args": arguments,
                "ansible_sftp_extra_args": arguments,
                "ansible_scp_extra_args": arguments,
            }

        return pin

    def _describer(self) -> Callable[[str, dict[str, Any], cloud_hosts.Host], dict[str, Any]]:
        """Make the function of account, machine and host that gives the host's variables, with options read once."""
        precedence = self.sources("address", ("public", "private"))
        prefix = self.prefix()
        mark = text_marker()
        pin = self.pinner(mark)
        own_of, user_of = self._own_of(), self._user_of()
        neutral = {key: f"{cloud_hosts.HOST_PREFIX}{key}" for key in cloud_hosts.Host.__annotations__}
        repeated = [(f"{prefix}{name}", neutral[key]) for name, key in self.PROVIDER.hostvars.items()]

        def describe(account: str, machine: dict[str, Any], host: cloud_hosts.Host) -> dict[str, Any]:
            variables = {neutral[key]: mark(value) for key, value in host.items()}
            variables.update({name: variables[key] for name, key in repeated})
            variables.update({f"{prefix}{name}": mark(value) for name, value in own_of(machine).items()})
            if account:
                variables[f"{prefix}account"] = mark(account)
            user = user_of(machine)
            if user:
                variables["ansible_user"] = mark(user)
            address = cloud_hosts.address_of(machine, host, precedence)
            if address:
                variables["ansible_host"] = mark(address)
            variables.update(pin(machine["id"]))
            return variables

        return describe

    def _groups(self, described: list[dict[str, Any]]) -> dict[str, list[int]]:
        """The built-in groups: the positions of the members of each."""
        kinds = set(self.get_option("builtin_groups"))
        prefix = self.get_option("hostvars_prefix")
        group_prefix = self.get_option("group_prefix")
        fleet = self.text("fleet")
        safe = lru_cache(maxsize=None)(lambda name: self._sanitize_group_name(f"{group_prefix}{name}"))
        everything = self._sanitize_group_name(group_prefix.rstrip("_") or self.PROVIDER.name)
        # Always there, so that a play on them finds an empty group rather than an unknown one.
        groups: dict[str, list[int]] = {
            name: [] for kind, name in (("all", everything), ("fleet", FLEET_GROUP)) if kind in kinds
        }
        by = self.PROVIDER.groups
        by_variable = [(kind, f"{prefix}{variable}") for kind, variable in by.items() if kind in kinds]
        tags_name = f"{cloud_hosts.HOST_PREFIX}tags"
        for position, variables in enumerate(described):
            memberships = [f"{kind}_{variables[name]}" for kind, name in by_variable if variables.get(name)]
            if "tag" in kinds:
                memberships.extend(
                    f"tag_{key}_{value}" if value else f"tag_{key}"
                    for key, value in variables[tags_name].items()
                    if key not in self.UNGROUPED_TAGS
                )
            if "no_address" in kinds and "ansible_host" not in variables:
                memberships.append("no_address")
            for membership in memberships:
                groups.setdefault(safe(membership), []).append(position)
            if "all" in kinds:
                groups[everything].append(position)
            if "fleet" in kinds and self._in_fleet(variables, fleet):
                groups[FLEET_GROUP].append(position)
        return groups

    def _add_hosts(self, names: list[str], described: list[dict[str, Any]]) -> None:
        """Add the hosts with their variables.

        ``InventoryData.add_host`` and ``set_variable`` copy and check each value again, which costs seconds for
        thousands of hosts. Here the prefix of the names was checked and the values are fresh and marked; and what
        ``add_host`` notes about where a host comes from is the same for all of one file, so the first host's is taken
        for the others.
        """
        hosts = self.inventory.hosts
        origin: Optional[dict[str, Any]] = None
        for name, variables in zip(names, described):
            host = hosts.get(name)
            if host is None and origin is None:
                self.inventory.add_host(name)
                host = hosts[name]
                origin = dict(host.vars)
            elif host is None:
                host = hosts[name] = Host(name)
                host.vars.update(origin)
            host.vars.update(variables)

    def _add_groups(self, names: list[str], groups: dict[str, list[int]]) -> None:
        """Add the groups with their members; the first through the inventory, which then forgets the lists it keeps."""
        hosts = self.inventory.hosts
        for name, members in groups.items():
            added = self.inventory.add_group(name)
            distinct = list(dict.fromkeys(members))
            for position in distinct[:1]:
                self.inventory.add_child(added, names[position])
            add_host = self.inventory.groups[added].add_host
            for position in distinct[1:]:
                add_host(hosts[names[position]])

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


def _instances_in(stored: Any) -> Optional[list[dict[str, Any]]]:
    """The instances of a kept answer, or ``None`` if another version or something else wrote it."""
    if not isinstance(stored, dict) or stored.get("schema") != CACHE_SCHEMA:
        return None
    try:
        instances = json.loads(stored["instances"])
    except (KeyError, TypeError, ValueError):
        return None
    return instances if isinstance(instances, list) else None
