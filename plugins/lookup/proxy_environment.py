# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Door from the public variables to ``plugin_utils/host/outside.py``."""

from __future__ import annotations

DOCUMENTATION = r"""
name: proxy_environment
short_description: Environment variables with which a host reaches what is outside
version_added: 0.2.0
description:
  - Gives E(HTTP_PROXY), E(HTTPS_PROXY) and E(NO_PROXY), in lower and upper case, from C(glm_proxy) and C(glm_no_proxy).
    Plays that prepare hosts have them as their environment.
  - The host's own addresses are always among those that are reached without the proxy.
options:
  _terms:
    description: None.
author:
  - glm.fleet contributors (@glm-fleet)
"""

EXAMPLES = r"""
- name: Install Docker through a proxy
  hosts: glm_fleet
  environment: "{{ lookup('glm.fleet.proxy_environment') }}"
  roles:
    - role: glm.fleet.docker
"""

RETURN = r"""
_raw:
  description: One mapping of names to values; empty without C(glm_proxy).
  type: list
  elements: dict
"""

from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible.template import Templar

from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.plugin_utils.host import outside

_OWN = ("ansible_host", "glm_host_private_address", "glm_host_public_address")


class LookupModule(LookupBase):  # type: ignore[misc]
    """The proxies of one host."""

    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[Any]:
        """Entry point of the lookup."""
        given = {**(variables or {}), **kwargs}
        # Most fleets have none, and a play asks for each of its tasks on each host.
        if not given.get("glm_proxy"):
            return [{}]
        templar = Templar(loader=self._loader, variables=given)
        proxy, beside, *own = (templar.template(given.get(name)) for name in ("glm_proxy", "glm_no_proxy", *_OWN))
        try:
            return [outside.environment(str(proxy or ""), beside or [], [str(one) for one in own if one])]
        except Unmet as exc:
            raise AnsibleLookupError(f"{given.get('inventory_hostname', 'localhost')}, proxy: {exc}") from exc
