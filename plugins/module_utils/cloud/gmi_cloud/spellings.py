# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What GMI Cloud calls a fact of a machine. Pure.

The schema of a bare-metal node is not published, so each fact has a list of spellings; one that is absent under all of
them is unknown (None) and never an error. Only these facts leave the client's rows: environment values, arguments and
user data come back in clear from this API, and they hold tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Dict, Optional

from ansible_collections.glm.fleet.plugins.module_utils.cloud.api import text_of

SPELLINGS: Dict[str, Sequence[str]] = {
    "id": ("id",),
    "name": ("name", "hostname"),
    "status": ("status", "state"),
    "reason": ("reason", "statusReason"),
    "idc": ("idc", "idcId", "idcID"),
    "product": ("product", "productName", "productId"),
    "created": ("createdAt", "created_at"),
    "inbound_ip": ("inboundIP", "inboundIp"),
}


def known(record: Mapping[str, Any]) -> Dict[str, Optional[str]]:
    """Each of these facts."""
    return {name: first(record, spellings) for name, spellings in SPELLINGS.items()}


def first(record: Mapping[str, Any], spellings: Sequence[str]) -> Optional[str]:
    """The first of these that is a text; an address may be given as ``{ipAddress, status}``."""
    values = (record.get(spelling) for spelling in spellings)
    texts = (text_of(value.get("ipAddress") if isinstance(value, Mapping) else value) for value in values)
    return next(filter(None, texts), None)
