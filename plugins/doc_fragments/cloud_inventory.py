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
  statuses:
    description:
      - Only machines with one of these statuses, whatever their case. Without it, O(exclude_statuses) decides.
      - In this and the options below, text is also a shell pattern such as C(us-*). What fits nothing that the cloud
        has is refused, with the nearest name, because a misspelt filter chooses nothing or everything.
    type: list
    elements: str
    default: []
  regions:
    description: Only machines in these regions.
    type: list
    elements: str
    default: []
  exclude_regions:
    description: No machines in these regions.
    type: list
    elements: str
    default: []
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
  tags:
    description:
      - Only machines that carry all these tags. A value is text, a shell pattern or a list of them, of which one must
        fit; null accepts any value.
      - This and the other options about tags are refused where the cloud has no tags (GMI Cloud).
    type: dict
    default: {}
  exclude_tags:
    description: No machines that carry any of these tags, with values as in O(tags).
    type: dict
    default: {}
  tag_selector:
    description:
      - Only machines whose tags meet this expression, of parts with commas between them that must all be met. C(key)
        and C(!key) ask whether there is the tag; C(key=value), C(key!=value), C(key in (a,b)) and C(key notin (a,b))
        ask for its value. Values may be shell patterns.
      - C(!=) and C(notin) accept machines without the tag, too.
    type: str
  include_filters:
    description:
      - Only machines that meet at least one of these mappings. A mapping is met when all its entries are.
      - "Keys are C(accelerator), C(architecture), C(country), C(id), C(instance_type), C(name), C(private_address),
        C(public_address), C(region), C(status) and C(tag:<key>); values are as in O(tags)."
    type: list
    elements: dict
    default: []
  exclude_filters:
    description: No machines that meet one of these mappings, which are as in O(include_filters).
    type: list
    elements: dict
    default: []
  repeated_hostvars:
    description:
      - Whether what the variables C(glm_host_*) say is also in variables in the cloud's words. With a large fleet,
        ansible-core spends most of its time on variables.
      - Without them, use C(glm_host_*) in O(compose), O(groups), O(keyed_groups) and templates of O(hostnames). What
        only the cloud has words for stays.
    type: bool
    default: true
    version_added: 0.2.0
  hostvars_suffix:
    description: What the variables in the cloud's words end with. Those named C(glm_host_*) keep their names.
    type: str
    default: ''
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
