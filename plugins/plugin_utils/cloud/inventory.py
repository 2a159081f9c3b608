# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the inventory plugins of all clouds share: accounts, caches, names, groups, pinned host keys.

A plugin says how to ask its API and how to describe one machine. What operators rely on is here, once: one whole answer
or a failure, text from outside never run as a template, construction redone on a cache hit.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Optional

from ansible import constants
from ansible.errors import AnsibleParserError
from ansible.inventory.host import Host
from ansible.plugins.inventory import Constructable

from ansible_collections.glm.fleet.plugins.module_utils.cloud import api as _cloud_api
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud import hosts as cloud_hosts
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud import selection
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.answers import Answer, Answers
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.unsafe import text_marker

FLEET_GROUP = "glm_fleet"
# Each file of this run's inventory -> the fleet that its group glm_fleet holds; empty means any. Workers inherit it.
NARROWED: dict[str, str] = {}
# ansible's own `auto` plugin hands the same file to a plugin again right after a failure.
REPEAT_SECONDS = 5.0


class CloudInventory(Answers, Constructable):  # type: ignore[misc]
    """An inventory plugin but for its API: subclasses set the constants and fill in the methods that raise."""

    NAME_SOURCES: ClassVar[tuple[str, ...]]
    TAGS: ClassVar[bool]
    # Tags whose values are as many as the machines; groups of one are of no use.
    UNGROUPED_TAGS: ClassVar[frozenset[str]] = frozenset()

    _failed: ClassVar[dict[str, float]] = {}

    def _own_of(self) -> Callable[[dict[str, Any]], dict[str, Any]]:
        """A function of a machine that gives what only this cloud has: host variables without prefix, unmarked."""
        raise NotImplementedError

    def _user_of(self) -> Callable[[dict[str, Any]], str]:
        """A function of a machine that gives ``ansible_user``; empty leaves it unset."""
        raise NotImplementedError

    def _own_conditions(self, machines: Sequence[Mapping[str, Any]]) -> list[selection.Condition]:
        """The conditions of options that only this cloud has. Raises BadOption."""
        return []

    def _in_fleet(self, variables: dict[str, Any], fleet: str) -> bool:
        """Whether a host belongs to the group glm_fleet; an empty ``fleet`` means any."""
        raise NotImplementedError

    def own_name(self) -> Callable[[str], str]:
        """The function that names a variable in the cloud's words. Raises AnsibleParserError for what cannot be one."""
        prefix, suffix = (self.get_option(f"hostvars_{part}") or "" for part in ("prefix", "suffix"))
        if not f"{prefix}x".isidentifier():
            raise AnsibleParserError(f"hostvars_prefix: expected the beginning of a variable name, found {prefix!r}")
        if not f"x{suffix}".isidentifier():
            raise AnsibleParserError(f"hostvars_suffix: expected the end of a variable name, found {suffix!r}")
        # Words of the cloud would take the place of the neutral ones, such as glm_host_name.
        if prefix.startswith("glm_"):
            raise AnsibleParserError(f"hostvars_prefix: expected one that does not begin with glm_, found {prefix!r}")
        return lambda name: f"{prefix}{name}{suffix}"

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
        try:
            self._parse(path, cache)
        except Exception:
            # Core looks at this after a plugin failed, and otherwise goes on with the hosts of the other sources: a
            # part of the fleet. A checkout's ansible.cfg sets it, too.
            constants.INVENTORY_ANY_UNPARSED_IS_FAILED = True
            raise

    def _parse(self, path: str, cache: bool) -> None:
        if time.monotonic() - self._failed.get(path, -REPEAT_SECONDS) < REPEAT_SECONDS:
            raise AnsibleParserError(f"{self.NAME} could not read {path}; see what it said just before")
        try:
            self.read_options(path)
            if _cloud_api.REQUESTS_IMPORT_ERROR is not None:
                raise AnsibleParserError("the Python package requests is missing: install it next to ansible-core")
            with _lasting_objects():
                self._add(self.answers(path, cache))
        except (AnsibleParserError, _cloud_api.CloudError, cloud_hosts.BadInstance, ValueError) as error:
            self._failed[path] = time.monotonic()
            # ansible prints the text of every cause, and this text has it all.
            raise AnsibleParserError(f"{self.NAME}: {path}: {error}") from None

    # What becomes of them.

    def _add(self, answers: Sequence[tuple[str, Answer]]) -> None:
        found = [(account, machine) for account, answer in answers for machine in answer.machines]
        every = [self.PROVIDER.host_of(machine) for _account, machine in found]
        self._check_names(every, [answer for _account, answer in answers])
        options = {option: self.get_option(option) for option in (*selection.OPTIONS, *self.names_in_the_cloud())}
        conditions = selection.conditions(options, self.names_in_the_cloud(), self.PROVIDER.title, self.TAGS)
        own = self._own_conditions([machine for _account, machine in found])
        picked = selection.choose(every, [*conditions, *own])
        chosen = [found[position] for position in picked.positions]
        hosts = [every[position] for position in picked.positions]
        self._say_what_was_chosen(len(every), hosts, picked)
        for _account, machine in chosen:
            cloud_hosts.check_id(machine)
        describe = self._describer()
        described = [describe(account, machine, host) for (account, machine), host in zip(chosen, hosts)]
        groups = self._groups(described)
        names = self._names([machine for _account, machine in chosen], hosts, described, groups)
        self._add_hosts(names, described)
        self._add_groups(names, groups)
        self._construct(names, described)

    def _patterns(self, option: str) -> list[str]:
        return selection.patterns_in(option, self.get_option(option) or [])

    def _check_names(self, hosts: Sequence[cloud_hosts.Host], answers: Sequence[Answer]) -> None:
        """Refuse what an option names and neither the cloud nor the account has. Raises BadOption."""
        for option, key in self.names_in_the_cloud().items():
            lists = [answer.known.get(option) for answer in answers]
            asked = [names for names in lists if names is not None]
            if asked:
                names = [*map(selection.reader(key), hosts), *itertools.chain.from_iterable(asked)]
                complete = len(asked) == len(lists)
                selection.refuse_unseen(option, self._patterns(option), names, complete=complete)
        statuses = {*self.PROVIDER.statuses, *map(cloud_hosts.status_of, hosts)}
        for option in ("statuses", "exclude_statuses"):
            wanted = [status.lower() for status in self._patterns(option)]
            selection.refuse_unseen(option, wanted, statuses, complete=self.PROVIDER.statuses_complete)

    def _say_what_was_chosen(self, total: int, hosts: Sequence[cloud_hosts.Host], picked: selection.Chosen) -> None:
        if picked.left_out:
            counts = ", ".join(f"{option} {count}" for option, count in picked.left_out.most_common())
            text = f"{self.NAME}: of {total} machines the filters of this file left out {total - len(hosts)}: {counts}"
            if hosts:
                self.display.vv(text)
            else:
                self.display.warning(f"{text}. So there is no host, though the account is not empty.")
        strange: dict[str, list[str]] = {}
        for host in hosts:
            if cloud_hosts.status_of(host) not in self.PROVIDER.statuses:
                strange.setdefault(repr(host["status"]), []).append(host["name"] or host["id"])
        for status, names in strange.items():
            self.display.warning(
                f"{self.NAME}: the status {status} of {cloud_hosts.some(names)} is none that {self.PROVIDER.title} is "
                "known to give. What may run is kept; exclude_statuses leaves it out."
            )

    def _names(
        self,
        machines: list[dict[str, Any]],
        hosts: list[cloud_hosts.Host],
        described: list[dict[str, Any]],
        groups: dict[str, list[int]],
    ) -> list[str]:
        sources = self._name_sources()
        wanted = [
            (cloud_hosts.preferred_name(machine, host, variables, sources), host["id"])
            for machine, host, variables in zip(machines, hosts, described)
        ]
        taken = {"all", "ungrouped", *constants.LOCALHOST, *self.inventory.groups, *groups}
        names, clashing = cloud_hosts.unique_names(wanted, taken)
        if clashing:
            shown = cloud_hosts.some(clashing)
            if self.get_option("duplicates") == "error":
                raise AnsibleParserError(
                    f"host names are not unique or taken by a group: {shown}. Rename the instances, change hostnames, "
                    "or set duplicates: suffix"
                )
            self.display.warning(
                f"{self.NAME}: host names that are not unique or taken by a group get a part of the id: {shown}"
            )
        return names

    def sources(self, option: str, plain: Sequence[str], values: Sequence[Any]) -> list[str]:
        """The values of an option that name where a text comes from. Raises AnsibleParserError for any other."""
        for source in values:
            tag = isinstance(source, str) and source.startswith("tag:") and len(source) > 4
            if source not in plain and not (self.TAGS and tag):
                known = f"{', '.join(plain)} or tag:<key>" if self.TAGS else ", ".join(plain)
                raise AnsibleParserError(f"{option}: expected {known}, found {source!r}")
        return list(values)

    def _name_sources(self) -> list[cloud_hosts.NameSource]:
        """What names a host, by preference: a source, a source with another before it, or a template."""
        return [self._name_source(entry) for entry in self.get_option("hostnames")]

    def _name_source(self, entry: Any) -> cloud_hosts.NameSource:
        if isinstance(entry, str) and "{{" in entry:
            return lambda _machine, _host, variables: self._from_template(entry, variables)
        if not isinstance(entry, Mapping):
            (source,) = self.sources("hostnames", self.NAME_SOURCES, [entry])
            return lambda machine, host, _variables: cloud_hosts.said(machine, host, source)
        selection.known("hostnames", entry, ("name", "prefix", "separator"), "key")
        words = [entry.get("name"), *([entry["prefix"]] if "prefix" in entry else [])]
        name, *before = self.sources("hostnames", (*self.NAME_SOURCES, *selection.FILTER_KEYS), words)
        return cloud_hosts.with_prefix(name, before, str(entry.get("separator", "_")))

    def _from_template(self, template: str, variables: Mapping[str, Any]) -> Optional[str]:
        self.templar.available_variables = variables
        try:
            return str(self.templar.template(template))
        except Exception as error:
            if self.get_option("strict"):
                raise AnsibleParserError(f"hostnames: {template} cannot be evaluated: {error}") from error
            return None

    def pinner(self, mark: Callable[[Any], Any]) -> Callable[[dict[str, Any], str], dict[str, Any]]:
        """Make the function of machine and user that gives ssh's arguments: the pinned key only, and the way there."""
        configured = self.text("known_hosts_file")
        before, after = self._pinned(configured) if configured else ("", "")

        def pin(machine: dict[str, Any], user: str) -> dict[str, Any]:
            jump = machine.get("jump")
            if not configured and not jump:
                return {}
            words = [f"{before}{machine['id']}{after}"] if configured else []
            if jump:
                cloud_hosts.check_id(jump)
                own = f"{before}{jump['id']}{after}" if configured else ""
                words.append(cloud_hosts.jump_arguments(own, user, jump["address"]))
            arguments = mark(" ".join(words))
            return {
                "ansible_ssh_extra_args": arguments,
                "ansible_sftp_extra_args": arguments,
                "ansible_scp_extra_args": arguments,
            }

        return pin

    def _pinned(self, configured: str) -> tuple[str, str]:
        # The folder itself, when the inventory is named by a link to it.
        file = Path(self._inventory_file).resolve().parent / Path(configured).expanduser()
        return cloud_hosts.pinned_key_arguments(os.path.normpath(file))

    def _describer(self) -> Callable[[str, dict[str, Any], cloud_hosts.Host], dict[str, Any]]:
        """Make the function of account, machine and host that gives the host's variables, with options read once."""
        precedence = self.sources("address", ("public", "private"), self.get_option("address"))
        named = self.own_name()
        mark = text_marker()
        pin = self.pinner(mark)
        own_of, user_of = self._own_of(), self._user_of()
        neutral = {key: f"{cloud_hosts.HOST_PREFIX}{key}" for key in cloud_hosts.Host.__annotations__}
        repeats = self.PROVIDER.hostvars if self.get_option("repeated_hostvars") else {}
        repeated = [(named(name), neutral[key]) for name, key in repeats.items()]

        def describe(account: str, machine: dict[str, Any], host: cloud_hosts.Host) -> dict[str, Any]:
            variables = {neutral[key]: mark(value) for key, value in host.items()}
            variables.update({name: variables[key] for name, key in repeated})
            variables.update({named(name): mark(value) for name, value in own_of(machine).items()})
            if account:
                variables[named("account")] = mark(account)
            user = user_of(machine)
            if user:
                variables["ansible_user"] = mark(user)
            # A machine behind another one is reached from there.
            way = ["private"] if machine.get("jump") else precedence
            address = cloud_hosts.address_of(machine, host, way)
            if address:
                variables["ansible_host"] = mark(address)
            variables.update(pin(machine, user))
            return variables

        return describe

    def _groups(self, described: list[dict[str, Any]]) -> dict[str, list[int]]:
        """The built-in groups: the positions of the members of each."""
        kinds = set(self.get_option("builtin_groups"))
        named = self.own_name()
        group_prefix = self.get_option("group_prefix")
        fleet = NARROWED[self._inventory_file] = self.text("fleet")
        safe = lru_cache(maxsize=None)(lambda name: self._sanitize_group_name(f"{group_prefix}{name}"))
        everything = self._sanitize_group_name(group_prefix.rstrip("_") or self.PROVIDER.name)
        # Always there, so that a play on them finds an empty group rather than an unknown one.
        groups: dict[str, list[int]] = {
            name: [] for kind, name in (("all", everything), ("fleet", FLEET_GROUP)) if kind in kinds
        }
        neutral = {name: f"{cloud_hosts.HOST_PREFIX}{key}" for name, key in self.PROVIDER.hostvars.items()}
        by = self.PROVIDER.groups
        by_variable = [
            (kind, neutral.get(variable) or named(variable)) for kind, variable in by.items() if kind in kinds
        ]
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
        """Add the groups with their members; the first through the inventory, which then forgets the lists it keeps.

        The others as ``Group.add_host`` does, but what it does for each host anew is done once: finding the ancestors
        of the group, and forgetting who is in it.
        """
        hosts = self.inventory.hosts
        for name, members in groups.items():
            added = self.inventory.add_group(name)
            for position in members[:1]:
                self.inventory.add_child(added, names[position])
            group = self.inventory.groups[added]
            ancestors = group.get_ancestors()
            for host in (hosts[names[position]] for position in dict.fromkeys(members)):
                if host.name not in group.host_names:
                    group.hosts.append(host)
                    group.host_names.add(host.name)
                    host.populate_ancestors([*ancestors, group])
            group.clear_hosts_cache()

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
