# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""In which country a host is, as far as it is known, and which hosts are outside the allowed ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Optional


def country_of(variables: Mapping[str, Any]) -> Optional[str]:
    """The country of a host by its variables: ``glm_country``, else what its cloud says."""
    found = variables.get("glm_country") or variables.get("glm_host_country")
    return str(found) if found else None


def outside(hosts: Iterable[tuple[str, Mapping[str, Any]]], allowed: Iterable[str]) -> list[str]:
    """``host (country)`` of each host that is not in an allowed country; an unknown country is not an allowed one."""
    wanted = {country.upper() for country in allowed}
    found = ((host, country_of(variables)) for host, variables in hosts)
    return [
        f"{host} ({country or 'country unknown'})" for host, country in found if (country or "").upper() not in wanted
    ]
