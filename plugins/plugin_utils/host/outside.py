# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proxies of hosts as environment variables, from ``glm_proxy`` and ``glm_no_proxy``."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterable

from ansible_collections.glm.fleet.plugins.module_utils import outside
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet

_ADVICE = "set glm_proxy to http://<host>:<port>, or leave it empty"
# What a host asks of itself never goes to a proxy.
_OWN = ("localhost", "127.0.0.1", "::1")


# What would end a value in the configuration of apt or a unit, or a part of NO_PROXY.
_BREAKS = re.compile(r"[\s,\"'\\]")


def environment(proxy: str, no_proxy: Iterable[str], own: Iterable[str]) -> dict[str, str]:
    """Environment variables for a host, in lower and upper case; empty without a proxy.

    ``own``: the host's addresses. Raises Unmet for what is no address of a proxy, or holds a password: environment
    variables of units and processes are there for all users of a host to read.
    """
    if not proxy:
        return {}
    # Whatever its form: what stands before the sign may be a password, and is not shown.
    if "@" in proxy:
        raise Unmet(
            "glm_proxy without a user and a password, which every user of a host could read", "one with", _ADVICE
        )
    if not _is_address(proxy):
        raise Unmet("glm_proxy to be the address of a proxy", repr(proxy), _ADVICE)
    if isinstance(no_proxy, str) or any(_BREAKS.search(str(one)) for one in no_proxy):
        raise Unmet("glm_no_proxy to be a list of names, domains and addresses", repr(no_proxy), "correct glm_no_proxy")
    beside = ",".join(dict.fromkeys([*_OWN, *own, *(str(one) for one in no_proxy)]))
    found = {"http_proxy": proxy, "https_proxy": proxy, "no_proxy": beside}
    return outside.proxies({**found, **{name.upper(): value for name, value in found.items()}})


def _is_address(proxy: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(proxy)
        complete = parts.scheme in ("http", "https") and parts.hostname is not None and parts.port is not None
    except ValueError:
        return False
    return complete and not (_BREAKS.search(proxy) or parts.path.strip("/") or parts.query or parts.fragment)
