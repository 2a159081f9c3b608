# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The clouds there are: the one place where a cloud is registered."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Optional

from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.gmi_cloud.provider import GMI
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.lambda_cloud.provider import LAMBDA
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.provider import Launcher, Provider

REGISTERED = (LAMBDA, GMI)


def named(name: str) -> Provider:
    """The cloud of that name. Raises ValueError for one that is not registered."""
    for provider in REGISTERED:
        if provider.name == name:
            return provider
    raise ValueError(f"expected {' or '.join(provider.name for provider in REGISTERED)}, found {name!r}")


def launcher_of(provider: Provider) -> Launcher:
    """How the cloud launches. Raises ValueError for one whose instances are launched by hand."""
    if provider.launcher is None:
        raise ValueError(f"instances of {provider.title} are launched in its console")
    return provider.launcher


def launching() -> list[Provider]:
    """The clouds whose instances can be launched from here."""
    return [provider for provider in REGISTERED if provider.launcher]


def in_inventory(groups: Iterable[str], sources: Iterable[str]) -> list[Provider]:
    """Those of them whose instances turn up in an inventory with these groups, read from these sources."""
    return [provider for provider in read_from(groups, sources) if provider.launcher]


def read_from(groups: Iterable[str], sources: Iterable[str]) -> list[Provider]:
    """The clouds of an inventory with these groups, read from these sources.

    The group may have another name (group_prefix) or not be there (builtin_groups); then the file's name says it.
    """
    there, files = set(groups), list(sources)
    return [
        provider
        for provider in REGISTERED
        if provider.name in there or any(re.search(rf"{provider.name}(\.ya?ml)?$", file) for file in files)
    ]


def makes(action: str) -> bool:
    """Whether a task with this action may make what costs money."""
    name = action.rpartition(".")[2]
    return any(name == provider.makes_with.rpartition(".")[2] for provider in REGISTERED if provider.makes_with)


def launching_with(action: str) -> Optional[Launcher]:
    """The cloud whose instances a task with this action launches or terminates."""
    name = action.rpartition(".")[2]
    launchers = [launcher_of(provider) for provider in launching()]
    return next((one for one in launchers if one.instances.rpartition(".")[2] == name), None)
