#!/usr/bin/python
# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Order the certificate of a host's front door, or of its gateway, where one is due."""

from __future__ import annotations

DOCUMENTATION = r"""
module: door_order
short_description: Order the certificate of a front door or a gateway from an ACME authority, and renew it in time
version_added: 0.2.0
description:
  - Has certbot order a certificate for public names of the host where it has none of them, or where less than a third
    of its life is left, and gives it to the running door without losing a request. HAProxy checks it first.
  - The authority asks at port 80 of the names. The running door passes its questions to certbot on loopback; so does a
    gateway on a host without a door.
  - The key is made on the host and never leaves it. A failed order leaves the certificate that is there; the authority
    is asked again after 5 minutes, then 10, up to 12 hours.
options:
  order:
    description: What is ordered, as the roles C(door) and C(gateway) give it to a timer of the host, too.
    type: dict
    required: true
    suboptions:
      names:
        description: DNS names that the certificate is for.
        type: list
        elements: str
        required: true
      directory:
        description: URL of the authority's directory.
        type: str
        required: true
      email:
        description: What the authority writes to about the account.
        type: str
        default: ''
      authorities:
        description: File on the host with the certificates that the directory's own must be signed by.
        type: str
        default: ''
      answers:
        description: Address and port of the host where certbot answers.
        type: str
        required: true
      address:
        description: Where the names should lead, for errors.
        type: str
        default: ''
      folder:
        description: Folder on the host for account, keys and certificates.
        type: path
        required: true
      place:
        description: The files of the door or gateway, as for M(glm.fleet.door_files).
        type: dict
        required: true
      unit:
        description: Unit of the door or gateway. What it is ordered for is called as the unit is.
        type: str
        required: true
      socket:
        description: Socket of its master process.
        type: path
        required: true
extends_documentation_fragment:
  - glm.fleet.attributes
attributes:
  check_mode:
    support: full
    details: Asks nobody. Says whether a certificate would be ordered, and why.
  diff_mode:
    support: none
  idempotent:
    support: full
author:
  - glm.fleet contributors (@glm-fleet)
"""

EXAMPLES = r"""
- name: Order the certificate of the door
  glm.fleet.door_order:
    order: "{{ (ansible_facts['glm_plans'] | glm.fleet.door)['acme']['order'] }}"
"""

RETURN = r"""
reason:
  description: Why one was due; empty when none was.
  returned: success
  type: str
  sample: it ends on 2027-02-27 10:00 UTC
ends:
  description: When the certificate ends that was ordered, in seconds since 1970.
  returned: success
  type: float
caution:
  description: Why none came although one was due, where the one that is there still serves.
  returned: when an order failed
  type: str
phase:
  description: What failed.
  returned: failure
  type: str
  sample: door, certificate
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils.door import gateway, order
from ansible_collections.glm.fleet.plugins.module_utils.host.module import end


def main() -> None:
    text: dict[str, Any] = {"type": "str", "required": True}
    optional: dict[str, Any] = {"type": "str", "default": ""}
    path: dict[str, Any] = {"type": "path", "required": True}
    options = {
        "names": {"type": "list", "elements": "str", "required": True},
        "directory": text,
        "email": optional,
        "authorities": optional,
        "answers": text,
        "address": optional,
        "folder": path,
        "place": {"type": "dict", "required": True},
        "unit": text,
        "socket": path,
    }
    module = AnsibleModule(
        argument_spec={"order": {"type": "dict", "required": True, "options": options}}, supports_check_mode=True
    )
    ordered = module.params["order"]
    phase = f"{gateway.front(ordered['unit'])}, certificate"
    end(module, phase, lambda: order.brought(order.of(ordered), module.check_mode))


if __name__ == "__main__":
    main()
