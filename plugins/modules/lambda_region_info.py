# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module: the regions of Lambda Cloud. Runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lambda_region_info
short_description: List the regions of Lambda Cloud
version_added: 0.1.0
author: glm.fleet contributors (!UNKNOWN)
description:
  - Lists the regions that the account's API knows. M(glm.fleet.lambda_instance_type_info) says which of them have
    capacity.
extends_documentation_fragment:
  - glm.fleet.lambda_auth
  - glm.fleet.cloud_connection
  - glm.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: N/A
    description: Changes nothing.
  idempotent:
    support: full
seealso:
  - module: glm.fleet.lambda_instance_type_info
"""

EXAMPLES = r"""
- name: See where there is a data centre
  glm.fleet.lambda_region_info:
  register: __regions
"""

RETURN = r"""
regions:
  description: The regions, by name.
  returned: success
  type: list
  elements: dict
  sample:
    - {name: us-east-1, description: "Virginia, USA"}
"""

from typing import Any, Dict

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import api as lambda_api
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import module as _lambda_module

ARGUMENTS: Dict[str, Dict[str, Any]] = {}


def act(module: AnsibleModule, api: lambda_api.LambdaApi) -> None:
    """Ask the API and return the result."""
    rows = sorted(api.list_regions(), key=lambda row: row["name"])
    regions = [{"name": row["name"], "description": row.get("description")} for row in rows]
    module.exit_json(changed=False, regions=regions)


def main() -> None:
    """Run the module."""
    _lambda_module.run(lambda _params: "regions", ARGUMENTS, act)


if __name__ == "__main__":
    main()
