# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module: the instance types of Lambda Cloud, their prices, and where there is capacity now. Runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lambda_instance_type_info
short_description: List the instance types of Lambda Cloud with price and capacity
version_added: 0.1.0
author: glm.fleet contributors (!UNKNOWN)
description:
  - Lists instance types with their price and the regions that have capacity for them at this moment.
  - This is not a reservation. Capacity that is listed may be gone seconds later, so M(glm.fleet.lambda_instance) does
    not use the list but tries its candidates in order.
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
options:
  instance_type:
    description: Only these types. Shell patterns.
    type: list
    elements: str
    default: []
  region:
    description: Only types with capacity in one of these regions, and only these of their regions. Shell patterns.
    type: list
    elements: str
    default: []
  available:
    description: Only types that have capacity somewhere.
    type: bool
    default: false
seealso:
  - module: glm.fleet.lambda_instance
"""

EXAMPLES = r"""
- name: See where eight B200 are available now
  glm.fleet.lambda_instance_type_info:
    instance_type: ["gpu_8x_b200*"]
    available: true
  register: __types
"""

RETURN = r"""
instance_types:
  description: The types, by name.
  returned: success
  type: list
  elements: dict
  sample:
    - name: gpu_8x_b200_sxm6
      description: 8x B200 (180 GB SXM6)
      gpu_description: B200 (180 GB SXM6)
      gpus: 8
      vcpus: 208
      memory_gib: 2900
      storage_gib: 22528
      price_usd_per_hour: 53.52
      regions: [us-east-1]
types_by_region:
  description: The types that each region has capacity for.
  returned: success
  type: dict
  sample: {us-east-1: [gpu_8x_b200_sxm6]}
"""

from typing import Any, Dict, List

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import api as lambda_api
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import module as _lambda_module

ARGUMENTS: Dict[str, Dict[str, Any]] = {
    "instance_type": {"type": "list", "elements": "str", "default": []},
    "region": {"type": "list", "elements": "str", "default": []},
    "available": {"type": "bool", "default": False},
}


def summary_of(name: str, row: Dict[str, Any]) -> Dict[str, Any]:
    """What is returned of a type."""
    kind = row.get("instance_type")
    kind = kind if isinstance(kind, dict) else {}
    specs = kind.get("specs")
    specs = specs if isinstance(specs, dict) else {}
    return {
        "name": name,
        "description": kind.get("description"),
        "gpu_description": kind.get("gpu_description"),
        **{key: specs.get(key) for key in ("gpus", "vcpus", "memory_gib", "storage_gib")},
        "price_usd_per_hour": lambda_api.price_usd_per_hour(row),
        "regions": regions_of(row),
    }


def regions_of(row: Dict[str, Any]) -> List[str]:
    """The names of the regions with capacity."""
    regions = row.get("regions_with_capacity_available")
    entries = regions if isinstance(regions, list) else []
    return sorted(entry["name"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("name"), str))


def act(module: AnsibleModule, api: lambda_api.LambdaApi) -> None:
    """Ask the API and return the result."""
    params = module.params
    kinds = []
    for name, row in sorted(api.list_instance_types().items()):
        if not isinstance(row, dict) or not _lambda_module.matches(name, params["instance_type"]):
            continue
        kind = summary_of(name, row)
        kind["regions"] = [region for region in kind["regions"] if _lambda_module.matches(region, params["region"])]
        if kind["regions"] or not (params["available"] or params["region"]):
            kinds.append(kind)
    by_region: Dict[str, List[str]] = {}
    for kind in kinds:
        for region in kind["regions"]:
            by_region.setdefault(region, []).append(kind["name"])
    module.exit_json(changed=False, instance_types=kinds, types_by_region=dict(sorted(by_region.items())))


def main() -> None:
    """Run the module."""
    _lambda_module.run(lambda _params: "instance types", ARGUMENTS, act)


if __name__ == "__main__":
    main()
