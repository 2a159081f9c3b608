# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a cloud says of itself, so that nothing outside its own folders has to know it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.give_back import Account
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.holdings import Reader
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.hosts import Host


@dataclass(frozen=True)
class Launcher:
    """How instances of a cloud are launched. The calls of its modules are in the role launch, in the cloud's folder."""

    # Module that launches and terminates: it returns launched_ids, instances and replaced as lambda_instance does.
    instances: str
    # Module that lists what can be launched.
    instance_types: str
    # The host that an instance of a listed type will be, as far as the type says it.
    host_of_type: Callable[[Mapping[str, Any]], Host]
    # What its account is asked with, from the arguments of that module and the environment that it would run in.
    credential_of: Callable[[Mapping[str, Any], Mapping[str, str]], dict[str, str]]
    # The account that this opens, for the guard of a run.
    account: Callable[[Mapping[str, str]], Account]


@dataclass(frozen=True)
class Provider:
    """A cloud. ``name`` is its word in ``glm_host_provider``, names of files, groups and variables."""

    name: str
    title: str
    # Variables in its own words, without their prefix -> the key of Host that they repeat.
    hostvars: Mapping[str, str]
    # Kinds of groups -> the variable (without prefix) by whose values hosts are grouped.
    groups: Mapping[str, str]
    # One of its machines, as its inventory gets it, in neutral words.
    host_of: Callable[[Mapping[str, Any]], Host]
    # The country that the name of a region says, or None.
    country_of: Callable[[Optional[str]], Optional[str]]
    # The statuses that the cloud is known to give, in lower case; whether there are no others.
    statuses: frozenset[str]
    statuses_complete: bool
    # How all that its account holds is read.
    reader: Reader
    # None: no role launches its instances, and the guard of a deploy does not end them.
    launcher: Optional[Launcher] = None
    # Without a launcher: the module that makes what costs money, which returns its ``ids``, and how that is ended.
    maker: str = ""
    ended_by: str = ""

    @property
    def makes_with(self) -> str:
        """The module after which there may be instances that no result has named; empty where there is none."""
        return self.launcher.instances if self.launcher else self.maker

    def own_names(self, host: Host) -> dict[str, Any]:
        """The host in the cloud's own words, without their prefix."""
        values: Mapping[str, Any] = host
        return {name: values[key] for name, key in self.hostvars.items()}
