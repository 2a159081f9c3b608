# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: door_certificate
short_description: Give a host's front door its certificate, and renew it in time
version_added: 0.2.0
description:
  - Reads the certificate that the host has, and replaces it with its key, in one step, where it expired, ends soon, is
    for other names, or is another authority's. What uses the file has to read it again afterwards.
  - With O(origin=fleet) the certificate is issued on the controller by the fleet's own authority, which is made there
    once, in O(authority), and whose key never leaves it. Clients trust C(ca.pem) in that folder. A certificate is
    issued for 397 days and renewed when a third of them is left.
  - With O(origin=own) it is the one in O(certificate) and O(key) on the controller, which must belong together, be
    valid, and be for the first of O(names).
author: glm.fleet contributors !UNKNOWN
options:
  path:
    description: File on the host that holds the certificate and its key, as HAProxy reads them.
    type: path
    required: true
  origin:
    description: Whose certificate it is.
    type: str
    choices: [fleet, own]
    default: fleet
  names:
    description: DNS names and IP addresses by which clients reach the host, the main one first.
    type: list
    elements: str
    required: true
  fleet:
    description: Name of the fleet, for the authority's own name.
    type: str
    default: default
  authority:
    description: Folder on the controller that holds the fleet's authority. Required for O(origin=fleet).
    type: path
  certificate:
    description: File on the controller with the certificate and its intermediates, as PEM.
    type: path
  key:
    description: File on the controller with the certificate's key, as PEM without a pass phrase, mode 0600.
    type: path
  group:
    description: Group on the host that may read the file.
    type: str
    default: root
  content:
    description: For internal use. What to write.
    type: str
extends_documentation_fragment:
  - glm.fleet.attributes
attributes:
  check_mode:
    support: full
    details: Says why the certificate would be replaced. Makes no authority.
  diff_mode:
    support: none
    details: The file holds a key. RV(reason) says what changes.
  idempotent:
    support: full
  action:
    support: full
    description: The controller issues and judges certificates, the host keeps them.
"""

EXAMPLES = r"""
- name: Give the door a certificate of the fleet's own authority
  glm.fleet.door_certificate:
    path: /etc/glm/door/door.pem
    names: [10.0.0.5, glm-1.example.com]
    authority: ~/.local/state/glm-fleet/default/tls
    group: glm-door
"""

RETURN = r"""
reason:
  description: Why the certificate was replaced; empty when it was not.
  returned: success
  type: str
  sample: its certificate ends on 2027-12-31
ends:
  description: When the certificate ends, in UTC. In check mode that of the one that the host has.
  returned: success
  type: str
  sample: "2027-12-31T12:00:00Z"
sha256:
  description: SHA-256 of the same certificate and its intermediates, in hexadecimal digits.
  returned: success
  type: str
"""

import grp
import os
import re
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils import arguments, files
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.module_utils.host.module import end

# Only these leave the host, and never the key beside them.
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----\n?")


def work(params: dict[str, Any]) -> dict[str, Any]:
    """What the file shows now, or what it is after it was written. Raises Unmet."""
    path = Path(params["path"])
    if params["content"] is None:
        try:
            return {"changed": False, "certificates": "".join(_CERTIFICATE.findall(path.read_text("utf-8")))}
        except FileNotFoundError:
            return {"changed": False, "certificates": ""}
        except (OSError, UnicodeDecodeError) as exc:
            found = getattr(exc, "strerror", None) or "no text"
            raise Unmet(f"to read the certificate in {path}", found, "look at the file on the host") from exc
    try:
        group = grp.getgrnam(params["group"]).gr_gid
    except KeyError as exc:
        raise Unmet(f"the group {params['group']}", "no such group", "run the role glm.fleet.door") from exc

    def move(new: str, name: str) -> None:
        os.chown(new, -1, group)
        Path(new).replace(name)

    files.write_text(path, params["content"], 0o640, move=move)
    return {"changed": True, "certificates": ""}


def main() -> None:
    module = AnsibleModule(argument_spec=arguments.DOOR_CERTIFICATE, supports_check_mode=True)
    end(module, "door", lambda: work(module.params))


if __name__ == "__main__":
    main()
