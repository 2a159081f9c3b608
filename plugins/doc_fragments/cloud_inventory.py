# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that the inventory plugins of all clouds have; plugin_utils/cloud/inventory.py acts on them."""

from __future__ import annotations


class ModuleDocFragment:
    """``glm.fleet.cloud_inventory``."""

    DOCUMENTATION = r"""
options:
  accounts:
    description:
      - Several accounts or workspaces, side by side. Each is asked and cached on its own; if one fails, all fail.
      - Without it, there is one account, described by O(api_key) or O(api_key_file) and O(base_url).
      - Each entry has a C(name), one of C(api_key), C(api_key_env) (name of an environment variable) and
        C(api_key_file), and optionally a C(base_url) and what else distinguishes accounts of the cloud.
    type: list
    elements: dict
    default: []
  stale_cache_on_error:
    description:
      - When the API does not answer, use the last good answer, with a warning that gives its age.
      - While this is on, each good answer is kept in O(stale_cache_dir), whether or not O(cache) is on.
      - Never done for a refused key.
    type: bool
    default: false
  stale_cache_max_age:
    description: Seconds after which a kept answer is too old to be used.
    type: int
    default: 86400
  stale_cache_dir:
    description: Where good answers are kept for O(stale_cache_on_error), readable by the user only.
    type: path
    default: ~/.cache/glm-fleet/inventory
  name_patterns:
    description: Only machines whose name matches one of these.
    type: list
    elements: str
    default: []
  exclude_name_patterns:
    description: No machines whose name matches one of these.
    type: list
    elements: str
    default: []
  duplicates:
    description:
      - Clouds do not keep names unique. V(suffix) renames all machines of a clash to C(<name>_<first 8 of the id>)
        and warns; V(error) fails. A name that is a group or C(localhost) counts as a clash too.
    type: str
    choices: [suffix, error]
    default: suffix
  known_hosts_file:
    description:
      - Where the fleet's ssh host keys are pinned. Sets C(ansible_ssh_extra_args), C(ansible_sftp_extra_args) and
        C(ansible_scp_extra_args) so that only the key recorded for a machine's id is accepted, whatever its address.
      - The keys are recorded by M(glm.fleet.host_key). Empty to leave host key checking to ssh's own settings. A
        relative path counts from the folder of this file.
    type: str
    default: ~/.local/state/glm-fleet/known_hosts
notes:
  - "The host variables that roles and playbooks read. Every inventory of a cloud sets all of them, whatever its
    C(hostvars_prefix):"
  - C(glm_host_id), C(glm_host_name), C(glm_host_status), C(glm_host_instance_type), C(glm_host_region) (text in the
    cloud's own words), C(glm_host_country) (such as C(US)), C(glm_host_public_address), C(glm_host_private_address),
    C(glm_host_accelerator) (a name such as C(B200)) and C(glm_host_price_usd_per_hour) (of the whole instance) are null
    where the cloud does not (yet) say.
  - C(glm_host_provider) is the cloud, C(lambda) or C(gmi); C(glm_host_accelerator_count) is 0 on an instance without
    accelerators; C(glm_host_architecture) is C(x86_64) or C(arm64); C(glm_host_tags) is a mapping, empty where the
    cloud has no tags.
"""
