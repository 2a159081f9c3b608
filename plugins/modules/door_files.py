# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: door_files
short_description: Give a host's front door its configuration and certificate, checked together
version_added: 0.2.0
description:
  - Writes the configuration of a host's HAProxy, its Lua filter and its certificate with the key. HAProxy checks all of
    them together first; what it refuses replaces nothing, and the error has its reason. It waits while another run or
    the timer that renews an ordered certificate changes the door's files. A port that another program
    has is refused as well. What uses the files has to read them again afterwards.
  - The certificate is replaced where the host has none, where it expired, ends soon, is for other names, or is another
    authority's. With O(origin=fleet) it is issued on the controller by the fleet's own authority, which is made there
    once, in O(authority), and whose key never leaves it. Clients trust C(ca.pem) in that folder. A certificate is
    issued for 397 days and renewed when a third of them is left.
  - With O(origin=own) it is the one in O(certificate) and O(key) on the controller, which must belong together, be
    valid, in order, and be for the first of O(names).
  - With O(origin=acme) a host without a certificate gets one of the fleet's authority, until another has been ordered;
    any other certificate is left alone.
author: glm.fleet contributors !UNKNOWN
options:
  place:
    description: Where the files are on the host.
    type: dict
    required: true
    suboptions:
      program:
        description: HAProxy.
        type: path
        required: true
      config:
        description: The configuration.
        type: path
        required: true
      usage:
        description: The Lua filter that it loads.
        type: path
        required: true
      certificate:
        description: The certificate and its key, as HAProxy reads them.
        type: path
        required: true
      engine_key:
        description: The key that engines know. It is read here, on the host. Without it, no text stands for a key.
        type: path
      group:
        description: Group that may read the files.
        type: str
        default: root
  config:
    description: >-
      Text of the configuration. C(@engine-key@) in it stands for the engines' key; the value of its line C(description)
      becomes the checksum of all the files, that of C(setenv GLM_CERTIFICATE_ENDS) the certificate's end.
    type: str
    required: true
  usage:
    description: Text of the Lua filter.
    type: str
    default: ''
  unit:
    description: Unit of the door, which may have the ports.
    type: str
    default: glm-door.service
  listen:
    default: []
  origin:
    description: Whose certificate it is.
    type: str
    choices: [none, fleet, own, acme]
    default: none
  names:
    description: DNS names and IP addresses by which clients reach the host, the main one first.
    type: list
    elements: str
    default: []
  fleet:
    description: Name of the fleet, for the authority's own name.
    type: str
    default: default
  authority:
    description: Folder on the controller with the fleet's authority. Required for O(origin=fleet) and O(origin=acme).
    type: path
  certificate:
    description: File on the controller with the certificate and its intermediates, as PEM.
    type: path
  key:
    description: File on the controller with the certificate's key, as PEM without a pass phrase, mode 0600.
    type: path
  step:
    description: For internal use. What to do on the host.
    type: str
    choices: [read, write]
    default: write
  content:
    description: For internal use. The certificate and its key.
    type: str
extends_documentation_fragment:
  - glm.fleet.attributes
  - glm.fleet.attributes.action
  - glm.fleet.door
attributes:
  check_mode:
    support: full
    details: Says what would be replaced, and why the certificate would be. Makes no authority.
  diff_mode:
    support: full
    details: Shows the configuration, without a key. RV(reason) says what changes about the certificate.
  idempotent:
    support: full
  action:
    details: The controller issues and judges certificates, the host keeps them.
"""

EXAMPLES = r"""
- name: Give the door its configuration, and a certificate of the fleet's own authority
  glm.fleet.door_files:
    place:
      program: /usr/sbin/haproxy
      config: /etc/glm/door/haproxy.cfg
      usage: /etc/glm/door/usage.lua
      certificate: /etc/glm/door/door.pem
      engine_key: /etc/glm/engine.key
      group: glm-door
    config: "{{ lookup('ansible.builtin.template', 'haproxy.cfg.j2') }}"
    origin: fleet
    names: [10.0.0.5, glm-1.example.com]
    authority: ~/.local/state/glm-fleet/default/tls
"""

RETURN = r"""
written:
  description: Files that were replaced (or would be).
  returned: success
  type: list
  elements: str
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
phase:
  description: What failed.
  returned: failure
  type: str
  sample: door
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils import arguments, files
from ansible_collections.glm.fleet.plugins.module_utils.door import gateway, owned, staged
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.module_utils.host import commands
from ansible_collections.glm.fleet.plugins.module_utils.host.module import end
from ansible_collections.glm.fleet.plugins.module_utils.serving import occupancy


def shown(place: staged.Place) -> dict[str, Any]:
    """The certificates that the host has, without the key. Raises Unmet."""
    text = files.text_of(place.certificate, f"the certificate in {place.certificate}", "look at the file on the host")
    return {"changed": False, "certificates": staged.certificates(text or "")}


def prepared(place: staged.Place) -> bool:
    """Whether the host has what an earlier task of a real run makes: the folder, the user, HAProxy and the key."""
    try:
        owned.group_of(place.group)
    except Unmet:
        return False
    needed = [place.config.parent, Path(place.program), *([place.engine_key] if place.engine_key else [])]
    return all(path.exists() for path in needed)


def difference(path: Path, wanted: staged.Files) -> dict[str, str]:
    """The configuration before and after, without the key that engines know."""
    before, after = (wanted.without_key(text).strip() for text in (files.text_of(path) or "", wanted.wanted[path]))
    return {"before": before, "after": after, "before_header": str(path), "after_header": str(path)}


def written(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Replace what differs, if HAProxy accepts all of it and the ports are there. Raises Unmet."""
    place = staged.place_of(params["place"])
    if check_mode and not prepared(place):
        return {"changed": True, "written": [str(place.config)], "certificates": ""}
    # Files that stay as they are were written by others, such as the host's timer: they are read under the lock, too.
    with owned.alone(place.config.parent):
        return _replaced(params, place, check_mode)


def _replaced(params: dict[str, Any], place: staged.Place, check_mode: bool) -> dict[str, Any]:
    wanted = staged.Files(place, params["config"], params["usage"], params["content"])
    different = wanted.different(owned.group_of(place.group))
    result: dict[str, Any] = {"changed": bool(different), "written": [str(path) for path in different]}
    if different:
        occupancy.require_places(commands.run, params["unit"], params["listen"], check_mode)
        # A check run makes no authority, which might be what the certificate needs.
        if not check_mode or wanted.wanted[place.certificate]:
            wanted.check()
        if place.config in different:
            result["diff"] = difference(place.config, wanted)
        if not check_mode:
            wanted.write()
    return {**result, "certificates": staged.certificates(wanted.wanted[place.certificate])}


def work(module: AnsibleModule) -> dict[str, Any]:
    """What the host has, or what became of it. Raises Unmet."""
    if module.params["step"] == "read":
        return shown(staged.place_of(module.params["place"]))
    try:
        return written(module.params, module.check_mode)
    except OSError as exc:
        raise Unmet("to write the door's files", exc.strerror or exc, "make room on the host, and run again") from exc


def main() -> None:
    module = AnsibleModule(argument_spec=arguments.DOOR_FILES, supports_check_mode=True)
    end(module, gateway.front(module.params["unit"]), lambda: work(module))


if __name__ == "__main__":
    main()
