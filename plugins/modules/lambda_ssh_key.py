# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module: register or remove an ssh key of Lambda Cloud. Runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lambda_ssh_key
short_description: Register or remove an ssh key of a Lambda Cloud account
version_added: 0.1.0
author: glm.fleet contributors (!UNKNOWN)
description:
  - Makes sure that an ssh key of this name and content is registered, so that instances can be launched with it, or
    that none of this name is.
  - Instances keep the key that they were launched with.
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
    description: V(absent) removes every key of this name.
    type: str
    choices: [present, absent]
    default: present
  name:
    description: Name of the key, up to 64 characters.
    type: str
    required: true
  public_key:
    description:
      - The public key, one line as in a C(.pub) file. Its comment does not count when keys are compared.
      - Without it, any key of this name is accepted; if there is none, Lambda makes a pair and
        O(private_key_file) is needed.
    type: str
  private_key_file:
    description:
      - Where the private half of a pair that Lambda makes is written, mode 0600. It must not exist yet.
      - Lambda shows it only once, so the file is opened before the pair is made. It is never part of the result.
    type: path
  replace:
    description: Whether to replace a key of this name that has another content. Otherwise that fails.
    type: bool
    default: false
seealso:
  - module: glm.fleet.lambda_instance
"""

EXAMPLES = r"""
- name: Register the team's key
  glm.fleet.lambda_ssh_key:
    name: deploy
    public_key: "{{ lookup('ansible.builtin.file', '~/.ssh/id_ed25519.pub') }}"

- name: Let Lambda make a pair
  glm.fleet.lambda_ssh_key:
    name: deploy
    private_key_file: ~/.ssh/lambda_deploy
"""

RETURN = r"""
ssh_key:
  description: The registered key. Empty when there is none, and in check mode for one that would be registered.
  returned: success
  type: dict
  sample:
    id: ddf9a910ceb744a0bb95242cbba6cb50
    name: deploy
    public_key: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI... team
private_key_file:
  description: Where the private half was written.
  returned: when Lambda made a pair
  type: str
"""

import os
from pathlib import Path
from typing import Any, Dict, List, Optional

from ansible_collections.glm.fleet.plugins.module_utils.cloud import api as _cloud_api
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import api as lambda_api
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import module as _lambda_module

NAME_LIMIT = 64

ARGUMENTS: Dict[str, Dict[str, Any]] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "name": {"type": "str", "required": True},
    "public_key": {"type": "str", "no_log": False},
    "private_key_file": {"type": "path", "no_log": False},
    "replace": {"type": "bool", "default": False},
}


def content_of(line: Optional[str]) -> List[str]:
    """Type and data of a public key, without its comment."""
    return (line or "").split()[:2]


def summary_of(key: Optional[Dict[str, Any]]) -> Dict[str, Any]:
    """What is returned of a key; the answer to a generated one holds its private half."""
    return {} if key is None else {name: key.get(name) for name in ("id", "name", "public_key")}


class SshKey(_lambda_module.Resource):
    """The keys of one name."""

    @staticmethod
    def subject(params: Dict[str, Any]) -> str:
        """What a failure is about."""
        return f"ssh key {params['name']}"

    def find(self) -> List[Dict[str, Any]]:
        """Every key of this name."""
        return [key for key in self.api.list_ssh_keys() if key["name"] == self.name]

    def matches(self, key: Dict[str, Any]) -> bool:
        """Whether a key has the desired content."""
        return self.params["public_key"] is None or content_of(key.get("public_key")) == content_of(
            self.params["public_key"]
        )

    def end(self, before: List[Dict[str, Any]], after: Optional[Dict[str, Any]], content: str, **more: Any) -> None:
        """Return a change; ``content`` is the public key afterwards, as far as it is known."""
        self.module.exit_json(
            changed=True,
            ssh_key=summary_of(after),
            diff={
                "before": {self.name: [key.get("public_key") for key in before]},
                "after": {self.name: [content] if content else []},
            },
            **more,
        )

    def present(self) -> None:
        """Register it unless it is."""
        self.refuse_bad_options()
        found = self.find()
        fitting = [key for key in found if self.matches(key)]
        if fitting and (len(found) == 1 or not self.params["replace"]):
            self.module.exit_json(changed=False, ssh_key=summary_of(fitting[0]), diff={"before": {}, "after": {}})
        if found and not self.params["replace"]:
            self.fail(
                "present",
                f"expected {' '.join(content_of(self.params['public_key']))}, found another key of this name: "
                f"{' '.join(content_of(found[0].get('public_key')))}.",
                "choose another name, or set replace; instances keep the key they were launched with.",
            )
        content = self.params["public_key"] or "(made by Lambda)"
        if self.module.check_mode:
            self.end(found, None, content)
        if self.params["public_key"] is None:
            self.generate()
        for key in found:
            self.remove(key["id"])
        self.end(found, self.register(), content)

    def refuse_bad_options(self) -> None:
        if not 0 < len(self.name) <= NAME_LIMIT:
            self.fail("present", f"expected a name of 1 to {NAME_LIMIT} characters.", "choose another name.")
        public_key = self.params["public_key"]
        if public_key is not None and (len(content_of(public_key)) < 2 or "\n" in public_key.strip()):
            self.fail("present", "public_key: expected one line of type and data, as in a .pub file.", "give one.")

    def register(self) -> Optional[Dict[str, Any]]:
        try:
            return self.api.add_ssh_key(self.name, self.params["public_key"].strip())
        except lambda_api.LambdaError as error:
            made = [key for key in self.find() if self.matches(key)] if error.outcome_unknown else []
            if not made:
                self.fail("register", str(error), "correct the cause and run again.")
            return made[0]

    def generate(self) -> None:
        """Let the API make a pair, with the file for its private half already open."""
        path = Path(self.params["private_key_file"] or "")
        if not self.params["private_key_file"]:
            self.fail(
                "generate",
                "there is no key of this name, and neither public_key nor private_key_file is set.",
                "set public_key to register your own, or private_key_file to keep the one that Lambda makes.",
            )
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            self.fail(
                "generate",
                f"{path} cannot be made: {error.strerror}.",
                "set private_key_file to a new file in a folder that can be written.",
            )
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            key = self.made_pair(path)
            file.write(key["private_key"].rstrip("\n") + "\n")
        self.end([], key, str(key.get("public_key") or ""), private_key_file=str(path))

    def made_pair(self, path: Path) -> Dict[str, Any]:
        try:
            key = self.api.add_ssh_key(self.name)
            if not isinstance(key.get("private_key"), str):
                raise _cloud_api.BadAnswer("the answer holds no private key.")
            return key
        except lambda_api.LambdaError as error:
            path.unlink()
            left = " A key may be registered whose private half is lost." if error.outcome_unknown else ""
            self.fail("generate", f"{error}{left}", "run with state absent, then again.")

    def absent(self) -> None:
        """Remove every key of this name."""
        found = self.find()
        if not found:
            self.module.exit_json(changed=False, ssh_key={}, diff={"before": {}, "after": {}})
        if not self.module.check_mode:
            for key in found:
                self.remove(key["id"])
        self.end(found, None, "")

    def remove(self, key_id: str) -> None:
        try:
            self.api.delete_ssh_key(key_id)
        except lambda_api.LambdaError as error:
            if not error.outcome_unknown or any(key["id"] == key_id for key in self.find()):
                self.fail("remove", str(error), "correct the cause and run again.")


def main() -> None:
    """Run the module."""
    _lambda_module.bring(SshKey, ARGUMENTS)


if __name__ == "__main__":
    main()
