# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module: the images that Lambda Cloud instances can be launched from. Runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lambda_image_info
short_description: List the images of Lambda Cloud
version_added: 0.1.0
author: glm.fleet contributors (!UNKNOWN)
description:
  - Lists images, one entry for each region that has one, and which families every region has.
  - Which image a launch gets without asking for one differs between regions, so M(glm.fleet.lambda_instance) always
    asks for a family.
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
  family:
    description: Only images of these families. Shell patterns.
    type: list
    elements: str
    default: []
  region:
    description: Only images in these regions. Shell patterns.
    type: list
    elements: str
    default: []
  architecture:
    description: Only images for this architecture, such as V(x86_64) or V(arm64).
    type: str
seealso:
  - module: glm.fleet.lambda_instance
"""

EXAMPLES = r"""
- name: See which regions have the image that fleets are launched from
  glm.fleet.lambda_image_info:
    family: [gpu-base-24-04]
    architecture: x86_64
  register: __images
"""

RETURN = r"""
images:
  description: The images, by family, region and architecture.
  returned: success
  type: list
  elements: dict
  sample:
    - id: 9211995d-2377-4ea8-94d2-18eea01ec3f6
      name: GPU Base 24.04
      family: gpu-base-24-04
      version: 24.4.4-2141
      architecture: x86_64
      region: us-east-1
      updated_time: "2026-09-01T00:00:00+00:00"
regions_by_family:
  description: The regions that have an image of each family.
  returned: success
  type: dict
  sample: {gpu-base-24-04: [us-east-1, us-west-2]}
"""

from typing import Any, Dict, List

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import api as lambda_api
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import module as _lambda_module

ARGUMENTS: Dict[str, Dict[str, Any]] = {
    "family": {"type": "list", "elements": "str", "default": []},
    "region": {"type": "list", "elements": "str", "default": []},
    "architecture": {"type": "str"},
}
SHOWN = ("id", "name", "family", "version", "architecture", "updated_time")


def chosen(image: Dict[str, Any], params: Dict[str, Any]) -> bool:
    """Whether the options let an image through."""
    named = all(_lambda_module.matches(str(image[key]), params[key]) for key in ("family", "region"))
    return named and params["architecture"] in (None, image["architecture"])


def act(module: AnsibleModule, api: lambda_api.LambdaApi) -> None:
    """Ask the API and return the result."""
    rows = api.list_images()
    images = [{**{key: row.get(key) for key in SHOWN}, "region": lambda_api.region_of(row)} for row in rows]
    images = [image for image in images if chosen(image, module.params)]
    images.sort(key=lambda image: [str(image[key]) for key in ("family", "region", "architecture", "id")])
    families: Dict[str, List[str]] = {}
    for image in images:
        regions = families.setdefault(str(image["family"]), [])
        if image["region"] and image["region"] not in regions:
            regions.append(image["region"])
    module.exit_json(changed=False, images=images, regions_by_family=families)


def main() -> None:
    """Run the module."""
    _lambda_module.run(lambda _params: "images", ARGUMENTS, act)


if __name__ == "__main__":
    main()
