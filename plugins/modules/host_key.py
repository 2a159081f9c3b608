# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: host_key
short_description: Wait for a host's ssh server and pin its host key at first contact
version_added: 0.1.0
description:
  - Waits until the ssh server of the host answers, fetches its host key and pins it in the fleet's own C(known_hosts)
    under the id of the instance. From then on ssh checks it strictly, and a changed key is an error that shows both
    fingerprints.
  - An instance that M(glm.fleet.lambda_instance) launched with a host key of its own has to show that key, also at
    first contact; any other is an error with both fingerprints, and nothing is pinned. Of other hosts the first key is
    trusted as it comes.
  - Runs on the controller only, and the host needs nothing but its ssh server.
  - Does nothing for a host whose ssh arguments name no C(UserKnownHostsFile) and C(HostKeyAlias). The inventory plugins
    of this collection set them; for other hosts the user's own ssh configuration applies.
  - ssh is called as the connection plugin calls it, with its options from variables, C(ansible.cfg) and the
    environment, and C(ssh -G) resolves them together with the user's C(~/.ssh/config).
  - Behind a jump host (C(ProxyJump), C(ProxyCommand) or C(-J) in any of these) the key is fetched with the ssh client
    through that same jump host, since the controller cannot reach the host itself. That client has no terminal for
    prompts, and leaves no process behind.
author: glm.fleet contributors !UNKNOWN
options:
  known_hosts_file:
    description: The file to pin in. Default is C(UserKnownHostsFile) of the host's ssh arguments.
    type: path
  alias:
    description: Name to pin under. Default is C(HostKeyAlias) of the host's ssh arguments.
    type: str
  expected_dir:
    description:
      - Folder with C(<alias>.pub), the public key that an instance was launched with. Default is C(host_keys) in
        C(glm_state_dir), where the role P(glm.fleet.launch#role) keeps them.
    type: path
  timeout:
    description: Seconds until the ssh server must answer. A cloud host has an address minutes before it has one.
    type: int
    default: 900
extends_documentation_fragment:
  - glm.fleet.attributes
  - glm.fleet.attributes.action
attributes:
  check_mode:
    support: partial
    details: Pins in check mode too; without a pinned key no check of the host would be possible.
  diff_mode:
    support: none
    details: Returns fingerprints instead.
  idempotent:
    support: full
  action:
    details: Nothing runs on the host.
"""

EXAMPLES = r"""
- name: Wait for ssh and pin the host key
  hosts: glm_fleet
  gather_facts: false
  tasks:
    - name: Wait for ssh and pin the host key
      glm.fleet.host_key:
        timeout: 1200
"""

RETURN = r"""
fingerprint:
  description: SHA256 fingerprint of the host key.
  returned: when a key was fetched
  type: str
alias:
  description: Name that the key is pinned under.
  returned: when a key was fetched
  type: str
known_before:
  description: Whether the key was compared with the one that the instance was launched with.
  returned: when a key was fetched
  type: bool
waited_seconds:
  description: How long it took until the ssh server answered.
  returned: when a key was fetched
  type: float
"""
