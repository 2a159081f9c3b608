# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the API of any cloud is asked: the options that are the same for all of them, in inventories and modules."""

from __future__ import annotations


class ModuleDocFragment:
    """``glm.fleet.cloud_connection``, beside the fragment of a cloud, which has its keys and its address."""

    DOCUMENTATION = r"""
requirements:
  - requests
options:
  api_key_file:
    description: A file on the controller that holds the key alone on one line, or a line C(api_key = ...).
    type: path
  request_timeout:
    description: Seconds of silence after which an answer is given up.
    type: float
    default: 30
  total_timeout:
    description: Seconds one question may take, all waits and repeats included, also when an answer comes drop by drop.
    type: float
    default: 300
  retries:
    description:
      - How often a question is repeated after a refusal for being too fast (429), a failure of the server (5xx, or
        Lambda's C(provider/) codes) or a broken connection. Requests that make something are never repeated.
    type: int
    default: 5
  validate_certs:
    description:
      - Whether the certificate of the API must be valid. Without that, anybody on the way can take the key.
    type: bool
    default: true
  ca_path:
    description:
      - A file with the certificates of the authorities to trust instead of the usual ones, for a proxy that opens TLS.
        Without it, the environment variable E(REQUESTS_CA_BUNDLE) is looked at.
    type: path
"""
