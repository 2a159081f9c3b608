# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the Lambda Cloud API is reached: the options shared by the inventory plugin and the modules."""

from __future__ import annotations


class ModuleDocFragment:
    """``glm.fleet.lambda_auth`` for modules; ``glm.fleet.lambda_auth.plugin`` adds what only plugins can have."""

    DOCUMENTATION = r"""
requirements:
  - requests
options:
  api_key:
    description:
      - A Lambda Cloud API key, made at U(https://cloud.lambda.ai/api-keys).
      - Without it, the environment variables E(LAMBDA_API_KEY) and E(LAMBDALABS_API_KEY) are looked at, in this order,
        then O(api_key_file).
    type: str
  api_key_file:
    description: A file on the controller that holds the key alone on one line, or a line C(api_key = ...).
    type: path
  base_url:
    description:
      - Address of the API. Without it, the environment variable E(LAMBDA_API_URL) is looked at, then
        C(https://cloud.lambda.ai).
      - The key is never sent to an address that this one redirects to, and over plain http only to loopback.
    type: str
    default: https://cloud.lambda.ai
  request_timeout:
    description: Seconds to wait for one answer.
    type: float
    default: 30
  total_timeout:
    description: Seconds one question may take, all waits and repeats included.
    type: float
    default: 300
  retries:
    description:
      - How often a question is repeated after a refusal for being too fast (429), a failure of the server (5xx or a
        C(provider/) code) or a broken connection. Requests that change something are never repeated.
    type: int
    default: 5
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
