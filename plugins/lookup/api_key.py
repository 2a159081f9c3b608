# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Door from variables to ``plugin_utils/serving/api_key.py``."""

from __future__ import annotations

DOCUMENTATION = r"""
name: api_key
short_description: The fleet's API key
version_added: 0.1.0
description:
  - The key of a fleet is C(glm_api_key) where that is set. Otherwise it is read from a file on the controller, which is
    made, with mode 0600, if it does not exist.
  - A key that can have no 128 bits (22 random characters, or 32 hexadecimal digits) is refused.
  - In check mode nothing is made; before the first real run the result is then a placeholder.
options:
  _terms:
    description: The file. Exactly one.
    required: true
author:
  - glm.fleet contributors (@glm-fleet)
"""

EXAMPLES = r"""
- name: Check the endpoint with the fleet's key
  glm.fleet.endpoint_check:
    model: glm-5.1-fp8
    api_key: "{{ lookup('glm.fleet.api_key', '~/.local/state/glm-fleet/default/api_key') }}"
"""

RETURN = r"""
_raw:
  description: The key.
  type: list
  elements: str
"""

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

from ansible_collections.glm.fleet.plugins.module_utils.finding import QuotingError
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import api_key


class LookupModule(LookupBase):  # type: ignore[misc]  # ansible-core has no types
    """One file, one key."""

    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        if len(terms) != 1:
            raise AnsibleLookupError(f"glm.fleet.api_key: expected one file, found {len(terms)}")
        own = (variables or {}).get("glm_api_key")
        path = Path(str(terms[0])).expanduser()
        try:
            if own and (key := self._templar.template(own)):
                return [api_key.given(str(key))]
            if (variables or {}).get("ansible_check_mode"):
                return [api_key.read(path) or api_key.PLACEHOLDER]
            return [api_key.read_or_make(path)]
        except (QuotingError, OSError) as exc:
            raise AnsibleLookupError(f"controller, api key: {exc}") from exc
