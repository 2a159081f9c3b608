# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: door_usage
short_description: Count what each key used on a host
version_added: 0.2.0
description:
  - Counts the lines that the host's front door wrote to the journal since the last time, keeps the totals, and returns
    them. The timer C(glm-door-usage.timer) does the same every five minutes.
  - Each line is counted once, whatever is interrupted, and none is lost while the journal has it.
author: glm.fleet contributors !UNKNOWN
options:
  folder:
    description: Folder of the totals and of a CSV file for each month.
    type: path
    default: /var/lib/glm/usage
extends_documentation_fragment:
  - glm.fleet.attributes
attributes:
  check_mode:
    support: full
    details: Counts, too. That changes nothing but the totals, which are what was asked for.
  diff_mode:
    support: N/A
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Count what each key used
  glm.fleet.door_usage:
  register: __usage
"""

RETURN = r"""
months:
  description:
    - Month (C(2026-11), UTC), then name of the key, then C(requests), C(refused) (by a limit), C(uncounted) (answers of
      the model that did not say their tokens), C(prompt_tokens), C(completion_tokens), C(estimated_prompt_tokens) and
      C(estimated_completion_tokens) (what stands in for those of the uncounted), C(first_use) and C(last_use).
  returned: success
  type: dict
phase:
  description: What failed.
  returned: failure
  type: str
  sample: door
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils.door import usage
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.module_utils.host.module import end


def work(folder: Path) -> dict[str, Any]:
    """The totals. Raises Unmet."""
    try:
        return {"changed": False, "months": usage.collect(folder)["months"]}
    except (usage.UsageError, OSError) as exc:
        raise Unmet("to count the usage of keys", str(exc), "fix that on the host and run again") from exc


def main() -> None:
    module = AnsibleModule(
        argument_spec={"folder": {"type": "path", "default": str(usage.FOLDER)}}, supports_check_mode=True
    )
    end(module, "door", lambda: work(Path(module.params["folder"])))


if __name__ == "__main__":
    main()
