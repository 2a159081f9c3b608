# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a host reaches what is outside: its proxies, and the certificates that it trusts.

This module util is PRIVATE to the collection. Standard library, Python 3.9 or newer. Modules have the proxies in their
environment (play header, lookup ``proxy_environment``); what they start elsewhere, as units and containers, gets them
from here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

PROXIES = ("http_proxy", "https_proxy", "no_proxy")
# Where Debian and Ubuntu keep the certificates of all authorities that a host trusts, in one file.
TRUSTED = "/etc/ssl/certs/ca-certificates.crt"


def proxies(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What an environment says of proxies: programs differ in whether they read lower or upper case."""
    names = (*PROXIES, *(name.upper() for name in PROXIES))
    return {name: environment[name] for name in names if environment.get(name)}


def trust(path: str = TRUSTED) -> dict[str, str]:
    """What makes programs trust whom the host trusts that bring their own list of authorities (pip, uv, requests)."""
    if not Path(path).is_file():
        return {}
    return dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT"), path)
