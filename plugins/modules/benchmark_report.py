#!/usr/bin/python
# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin ``benchmark_report``, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: benchmark_report
short_description: Make the report of a fleet's benchmarks
version_added: 0.1.0
description:
  - Writes one HTML page that needs no network, and the same as Markdown, from the records of
    M(glm.fleet.benchmark_run). Shows them beside published results and earlier records of the fleet for the same
    workload. Records of another workload are refused, with the reason.
  - Runs on the controller, which needs matplotlib for the charts.
options:
  state_dir:
    description: Folder on the controller. Its C(benchmarks) holds the records and receives the report.
    type: path
    required: true
  hosts:
    description: Hosts that this run was to measure. The task fails when O(records) has no record of one of them.
    type: list
    elements: str
    default: []
  records:
    description: Files of the records to report on. By default the newest of each host, replica and workload.
    type: list
    elements: path
    default: []
  title:
    description: Title of the report.
    type: str
    default: Benchmarks
  usd_per_hour:
    description: What a host costs, USD per hour. V(0) takes the catalogue's prices.
    type: float
    default: 0.0
  keep:
    description: Whether to write what was measured as recipes into C(measured.yml) of the last folder of O(catalog).
    type: bool
    default: false
  catalog:
    description:
      - Folders on the controller with your own workloads, published results and prices. See M(glm.fleet.serving_plan).
    type: list
    elements: path
    default: []
extends_documentation_fragment:
  - glm.fleet.attributes
  - glm.fleet.attributes.action
attributes:
  check_mode:
    support: full
    details: In check mode nothing is written and the task is skipped.
  diff_mode:
    support: none
    details: It changes nothing that has a diff.
  idempotent:
    support: full
author:
  - glm.fleet contributors (@glm-fleet)
"""

EXAMPLES = r"""
- name: Report on everything that this fleet measured, at your own price
  glm.fleet.benchmark_report:
    state_dir: ~/.local/state/glm-fleet/default
    usd_per_hour: 41.60
"""

RETURN = r"""
page:
  description: The HTML page.
  type: str
  returned: success
markdown:
  description: The Markdown.
  type: str
  returned: success
kept:
  description: The file with the recipes, empty where nothing was a measurement.
  type: str
  returned: when O(keep=true)
records:
  description: The records in the report, by id.
  type: list
  elements: str
  returned: success
"""
