# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the Lambda Cloud API is reached: the options shared by the inventory plugin and the modules."""

from __future__ import annotations


class ModuleDocFragment:
    """``glm.fleet.lambda_auth`` for modules; ``glm.fleet.lambda_auth.plugin`` adds what only plugins can have."""

    DOCUMENTATION = r"""
options:
  api_key:
    description:
      - A Lambda Cloud API key, made at U(https://cloud.lambda.ai/api-keys).
      - Without it, the environment variables E(LAMBDA_API_KEY) and E(LAMBDALABS_API_KEY) are looked at, in this order,
        then O(api_key_file).
    type: str
  base_url:
    description:
      - Address of the API. Without it, the environment variable E(LAMBDA_API_URL) is looked at, then
        C(https://cloud.lambda.ai).
      - The key is never sent to an address that this one redirects to, and over plain http only to loopback.
    type: str
    default: https://cloud.lambda.ai
  request_interval:
    description:
      - Seconds between two requests with one key, all processes of the user together. Lambda allows one per second.
    type: float
    default: 1
"""

    PLUGIN = r"""
options:
  api_key:
    env:
      - name: LAMBDALABS_API_KEY
      - name: LAMBDA_API_KEY
    vars:
      - name: lambda_api_key
  api_key_file:
    env:
      - name: LAMBDA_API_KEY_FILE
  base_url:
    env:
      - name: LAMBDA_API_URL
    vars:
      - name: lambda_api_url
"""
