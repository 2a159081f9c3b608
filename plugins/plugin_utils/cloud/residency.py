# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""In which country a host is, as far as it is known, and which hosts are outside the allowed ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Optional

# Lambda names no country, and its API's descriptions are prose. Only what the region's name itself says counts.
_LAMBDA_REGIONS = {"us-": "US", "australia-": "AU"}


def country_of(variables: Mapping[str, Any]) -> Optional[str]:
    """The country of a host by its variables: ``glm_country``, GMI Cloud's, or what a Lambda region's name says."""
    own = variables.get("glm_country") or variables.get("gmi_country")
    if own:
        return str(own)
    region = str(variables.get("lambda_region") or "")
    return next((country for prefix, country in _LAMBDA_REGIONS.items() if region.startswith(prefix)), None)


def outside(hosts: Iterable[tuple[str, Mapping[str, Any]]], allowed: Iterable[str]) -> list[str]:
    """``host (country)`` of each host that is not in an allowed country; an unknown country is not an allowed one."""
    wanted = {country.upper() for country in allowed}
    found = ((host, country_of(variables)) for host, variables in hosts)
    return [
        f"{host} ({country or 'country unknown'})" for host, country in found if (country or "").upper() not in wanted
    ]
