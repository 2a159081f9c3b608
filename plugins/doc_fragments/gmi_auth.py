# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How GMI Cloud's Cluster Engine API is reached: the options shared by the inventory plugin and the modules."""

from __future__ import annotations


class ModuleDocFragment:
    """``glm.fleet.gmi_auth`` for modules; ``glm.fleet.gmi_auth.plugin`` adds what only plugins can have."""

    DOCUMENTATION = r"""
options:
  api_key:
    description:
      - A GMI Cloud API key with the Cluster Engine scope (C(ce_resource)). Keys with the common inference scope are
        refused by this API.
      - Without it, the environment variables E(GMI_API_KEY) and E(GMI_CLOUD_API_KEY) are looked at, in this order, then
        O(api_key_file).
    type: str
  organization:
    description:
      - Organisation to ask for, sent as C(X-Organization-ID); for keys that belong to several. In an inventory, each of
        its accounts may have its own.
      - Without it, the environment variable E(GMI_ORGANIZATION_ID) is looked at.
    type: str
  base_url:
    description:
      - Address of the API. Without it, the environment variable E(GMI_API_URL) is looked at, then
        C(https://console.gmicloud.ai).
      - The key is never sent to an address that this one redirects to, and over plain http only to loopback.
    type: str
    default: https://console.gmicloud.ai
  request_interval:
    description:
      - Seconds between two requests with one key, all processes of the user together. The vendor publishes no limit.
    type: float
    default: 0.2
"""

    PLUGIN = r"""
options:
  api_key:
    env:
      - name: GMI_CLOUD_API_KEY
      - name: GMI_API_KEY
    vars:
      - name: gmi_api_key
  api_key_file:
    env:
      - name: GMI_API_KEY_FILE
  organization:
    env:
      - name: GMI_ORGANIZATION_ID
  base_url:
    env:
      - name: GMI_API_URL
    vars:
      - name: gmi_api_url
"""
