# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Door from variables to ``plugin_utils/keys/``."""

from __future__ import annotations

DOCUMENTATION = r"""
name: client_keys
short_description: The keys that clients of the fleet may use now
version_added: 0.2.0
description:
  - Reads the store of client keys, C(keys.json) in the fleet's state folder, and adds the fleet's own key as C(fleet).
  - Keys that are revoked or expired are left out. A key that was replaced is there beside the new one until it expires.
  - It gives hashes. The plain keys stay where they are.
  - Each change of the store is a generation, from which a host never goes back. A store that was changed by hand, or
    whose fleet has another key of its own, gets its next generation here, unless this is check mode.
options:
  _terms:
    description: The state folder of the fleet (C(glm_state_dir)). Exactly one.
    required: true
  api_key:
    description: The fleet's own key, from P(glm.fleet.api_key#lookup).
    type: str
    required: true
author:
  - glm.fleet contributors (@glm-fleet)
"""

EXAMPLES = r"""
- name: Let the clients in that have a key
  glm.fleet.door_keys:
    store: "{{ lookup('glm.fleet.client_keys', glm_state_dir, api_key=door_api_key) }}"
"""

RETURN = r"""
_raw:
  description:
    - One mapping. Its C(keys) has a mapping for each key, with C(name), C(sha256) (of the key, hexadecimal), C(expires)
      (seconds since 1970, 0 is never) and C(limits) (those of C(requests_per_minute), C(parallel) and
      C(tokens_per_minute) that the key has).
    - Its C(generation) has the C(number) of the store's changes, C(by) whom and when (C(at)) the last one was made, and
      the C(stamps) of its last states. It is null where there is no store.
  type: list
  elements: dict
"""

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

from ansible_collections.glm.fleet.plugins.module_utils.finding import QuotingError
from ansible_collections.glm.fleet.plugins.plugin_utils.keys import store


class LookupModule(LookupBase):  # type: ignore[misc]  # ansible-core has no types
    """One state folder, all its keys."""

    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[dict[str, Any]]:
        """Entry point of the lookup."""
        if len(terms) != 1 or not kwargs.get("api_key"):
            raise AnsibleLookupError(
                f"glm.fleet.client_keys: expected one state folder and api_key, found {len(terms)} folder(s) and "
                f"{'an' if kwargs.get('api_key') else 'no'} api_key"
            )
        check = bool((variables or {}).get("ansible_check_mode"))
        try:
            return [store.for_doors(Path(str(terms[0])).expanduser(), str(kwargs["api_key"]), check)]
        except QuotingError as exc:
            raise AnsibleLookupError(f"controller, keys: {exc}") from exc
