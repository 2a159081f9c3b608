# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: host_in_force
short_description: Compare the settings that were written with those in force
version_added: 0.2.0
description:
  - Reads what the collection's own files for kernel, journal, logins, modules, apt and needrestart say, and compares it
    with what is in force now and with what all files together say, as the next boot will read them.
  - A file of the vendor or of yours that is read later wins. It is named in a warning, and never changed.
author: glm.fleet contributors !UNKNOWN
options:
  kernel:
    description: Whether the host's kernel is its own. A container's is another machine's, and is not looked at.
    type: bool
    default: true
extends_documentation_fragment:
  - glm.fleet.attributes
attributes:
  check_mode:
    support: full
    details: It changes nothing. Files that a real run would write are not there yet.
  diff_mode:
    support: none
    details: It changes nothing.
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Compare the settings with what is in force
  glm.fleet.host_in_force:
"""

RETURN = r"""
findings:
  description: What is not in force, or cannot be read, as findings. They are also printed as a warning.
  returned: success
  type: list
  elements: dict
caution:
  description: The findings as one text.
  returned: when there are any
  type: str
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils.finding import render
from ansible_collections.glm.fleet.plugins.module_utils.host import in_force


def main() -> None:
    module = AnsibleModule(argument_spec={"kernel": {"type": "bool", "default": True}}, supports_check_mode=True)
    findings = in_force.look(Path("/"), module.params["kernel"])
    said = {"caution": "\n".join(render(finding, in_force.PHASE) for finding in findings)} if findings else {}
    module.exit_json(changed=False, findings=findings, **said)


if __name__ == "__main__":
    main()
