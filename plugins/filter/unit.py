# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the templates on ``plugin_utils/serving``; each is documented in the YAML file of its name."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.glm.fleet.plugins.plugin_utils.serving import quoting, replica


def _door(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def opened(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except quoting.UnitError as exc:
            raise AnsibleFilterError(f"glm.fleet.{function.__name__}: {exc}") from exc

    return opened


class FilterModule:
    """The filters that write units and their files."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        functions = (
            quoting.systemd_exec,
            replica.env_file,
            replica.replica,
            replica.secret_file,
            replica.unlocked,
        )
        return {function.__name__: _door(function) for function in functions}
