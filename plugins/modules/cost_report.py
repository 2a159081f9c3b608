#!/usr/bin/python
# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin ``cost_report``, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cost_report
short_description: Show what the accounts of the inventory's clouds cost
version_added: 0.2.0
description:
  - Reads everything that costs money in the account of each cloud of the inventory, or, without one, of each cloud that
    there is a key for. That is instances of all fleets and of none, file systems, and addresses where they cost money.
  - Reads every account that the inventory asks with keys of its own (its option C(accounts)), too. What is past its
    time there is only named, because the modules of a run reach one account.
  - Reads the ledgers of launches on this controller, and adds up what each fleet cost in each month (UTC).
  - Prints a table and writes C(cost.json) in O(state_dir). It changes nothing in an account. What the account shows to
    be gone is written into the ledgers, which stops its bill.
  - What is not known is shown as unknown, and sums as C(at least). The task fails, after all has been shown, when a
    part could not be read, an instance is past its time, or the fleet has spent more than its budget.
  - Keys come from the variables C(<cloud>_api_key) and C(<cloud>_api_key_file) or the environment variables that the
    cloud's inventory knows.
options:
  fleet:
    description: The fleet that O(usd_per_month) is for, and whose clients are counted in C(usage/) of O(state_dir).
    type: str
    required: true
  state_dir:
    description: Folder on the controller for the report.
    type: path
    required: true
  usd_per_month:
    description: Budget of the fleet for each month (UTC).
    type: float
  expired:
    description:
      - What an instance past its time means. V(fail) makes the task fail; V(reap) prints which may be ended, and which
        are kept and why.
    type: str
    choices: [fail, reap]
    default: fail
  unrecorded:
    description:
      - Whether the tag C(glm-expires) alone is enough to end an instance that no ledger here has. Another controller
        may have extended its time, which tags cannot show.
    type: bool
    default: false
  asked:
    description:
      - The hosts that were asked whether requests run and when one was last seen, with the result registered as
        C(__reap_said). Of others it is unknown. What no host answered for is kept, unless O(hard).
    type: list
    elements: str
    default: []
  hard:
    description: Whether what serves requests, or may, is ended when its time is over.
    type: bool
    default: false
extends_documentation_fragment:
  - glm.fleet.attributes
  - glm.fleet.attributes.action
attributes:
  check_mode:
    support: full
    details: Writes no file and no ledger.
  diff_mode:
    support: N/A
  idempotent:
    support: full
author:
  - glm.fleet contributors (@glm-fleet)
"""

EXAMPLES = r"""
- name: Show what everything costs
  glm.fleet.cost_report:
    fleet: production
    state_dir: ~/.local/state/glm-fleet/production
  register: __cost
"""

RETURN = r"""
report:
  description:
    - The report, as in C(cost.json). C(items) is what the accounts hold, C(fleets) what each fleet costs and has cost,
      C(problems) why the task failed.
  returned: when the clouds are known
  type: dict
past:
  description: For each fleet with instances that are past their time and may be ended, its name and their ids.
  returned: success
  type: list
  elements: dict
  sample:
    - provider: lambda
      fleet: production
      ids: [0920582c7ff041399e34823a0be62549]
      described: glm-production-1 (0920582c…, fleet production, 53.52 USD per hour, expires 2026-11-29T08:00:00Z)
protected:
  description: What is past its time and kept because of the tag C(glm-protect).
  returned: success
  type: list
  elements: str
doubtful:
  description: What is kept because it is not certain that its time is over, with the reason.
  returned: success
  type: list
  elements: str
path:
  description: The file with the report.
  returned: success
  type: str
"""
