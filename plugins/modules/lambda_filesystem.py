# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module: create or delete a file system of a Lambda Cloud region. Runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lambda_filesystem
short_description: Create or delete a Lambda Cloud file system
version_added: 0.1.0
author: glm.fleet contributors (!UNKNOWN)
description:
  - Makes sure that a file system exists in a region, for weights that all instances of the region share, or deletes it.
  - A file system can be attached in its own region only, and only while an instance is launched.
extends_documentation_fragment:
  - glm.fleet.lambda_auth
  - glm.fleet.cloud_connection
  - glm.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  state:
    description:
      - V(absent) deletes the file system and all that it holds. Fails at once while an instance that is not going away
        has it attached.
    type: str
    choices: [present, absent]
    default: present
  name:
    description: Its name, a letter and then up to 59 letters, digits and C(-). Unique within a region.
    type: str
    required: true
  region:
    description: The region it is in.
    type: str
    required: true
  wait_timeout:
    description:
      - Seconds to wait for its release when deleting. The API reports a file system as in use for a while after its
        last instance was terminated.
    type: float
    default: 600
  wait_interval:
    description: Seconds between two attempts to delete.
    type: float
    default: 5
seealso:
  - module: glm.fleet.lambda_instance
"""

EXAMPLES = r"""
- name: Create a file system for the weights of all instances
  glm.fleet.lambda_filesystem:
    name: weights
    region: us-east-1

- name: Delete it with all its data
  glm.fleet.lambda_filesystem:
    name: weights
    region: us-east-1
    state: absent
"""

RETURN = r"""
filesystem:
  description: The file system. Empty when there is none, and in check mode for one that would be made.
  returned: success
  type: dict
  sample:
    id: 398578a2336b49079e74043f0bd2cfe8
    name: weights
    region: us-east-1
    mount_point: /lambda/nfs/weights
    is_in_use: false
    bytes_used: 0
    created: "2026-10-02T09:11:42.000000Z"
"""

import re
from typing import Any, Dict, List, Optional

from ansible_collections.glm.fleet.plugins.module_utils.cloud import api as _cloud_api
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import api as lambda_api
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import module as _lambda_module

NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9-]{0,59}")

ARGUMENTS: Dict[str, Dict[str, Any]] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "name": {"type": "str", "required": True},
    "region": {"type": "str", "required": True},
    "wait_timeout": {"type": "float", "default": 600},
    "wait_interval": {"type": "float", "default": 5},
}


def summary_of(found: Optional[Dict[str, Any]]) -> Dict[str, Any]:
    """What is returned of a file system."""
    if found is None:
        return {}
    summary = {key: found.get(key) for key in ("id", "name", "mount_point", "is_in_use", "bytes_used", "created")}
    return {**summary, "region": lambda_api.region_of(found)}


class FileSystem(_lambda_module.Resource):
    """One file system, named by name and region."""

    @staticmethod
    def subject(params: Dict[str, Any]) -> str:
        """What a failure is about."""
        return f"file system {params['name']} in {params['region']}"

    @property
    def region(self) -> str:
        return str(self.params["region"])

    def find(self) -> Optional[Dict[str, Any]]:
        """The file system, or None; the API keeps names unique within a region."""
        rows = self.api.list_file_systems()
        return next((row for row in rows if (row["name"], lambda_api.region_of(row)) == (self.name, self.region)), None)

    def end(self, changed: bool, before: Optional[Dict[str, Any]], after: Optional[Dict[str, Any]], here: bool) -> None:
        """Return the result; ``here``: whether there is, or in check mode would be, a file system afterwards."""
        place = {"name": self.name, "region": self.region}
        diff = {"before": place if before else {}, "after": place if here else {}}
        self.module.exit_json(changed=changed, filesystem=summary_of(after), diff=diff)

    def present(self) -> None:
        """Make it unless it is there."""
        if not NAME.fullmatch(self.name):
            self.fail(
                "present",
                f"expected a letter followed by up to 59 letters, digits and -, found the name {self.name!r}.",
                "choose another name.",
            )
        found = self.find()
        if found is not None or self.module.check_mode:
            self.end(found is None, found, found, True)
        self.end(True, None, self.create(), True)

    def create(self) -> Optional[Dict[str, Any]]:
        try:
            return self.api.create_file_system(self.name, self.region)
        except lambda_api.LambdaError as error:
            # Made by this request without an answer, or by somebody else since it was looked for.
            duplicate = isinstance(error, _cloud_api.ApiError) and error.code == lambda_api.DUPLICATE
            found = self.find() if error.outcome_unknown or duplicate else None
            if found is None:
                self.fail("create", str(error), "correct the cause and run again; one that exists is not made twice.")
            return found

    def absent(self) -> None:
        """Delete it if it is there, once its last instance has released it."""
        found = self.find()
        if found is None or self.module.check_mode:
            self.end(found is not None, found, found, False)
            return
        self.refuse_attached()
        error = self.delete_when_released(
            lambda: self.api.delete_file_system(found["id"]), lambda_api.FILE_SYSTEM_IN_USE
        )
        if error is not None:
            self.fail("delete", str(error), "run again; an instance just terminated releases it within minutes.")
        self.end(True, found, None, False)

    def refuse_attached(self) -> None:
        users: List[str] = [
            f"{item.get('name') or item['id']} ({item.get('status')})"
            for item in self.api.list_instances()
            if item.get("status") not in lambda_api.GONE
            and lambda_api.region_of(item) == self.region
            and self.name in (item.get("file_system_names") or [])
        ]
        if users:
            self.fail(
                "delete",
                f"expected no instance to have it attached, found {', '.join(users)}.",
                "terminate these first.",
            )


def main() -> None:
    """Run the module."""
    _lambda_module.bring(FileSystem, ARGUMENTS)


if __name__ == "__main__":
    main()
