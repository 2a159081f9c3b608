# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: node_acceptance
short_description: Prove that a rented node is worth its price before anything is deployed on it
version_added: 0.1.0
description:
  - Looks at everything that makes a GPU node fail later - missing or wrong GPUs, memory errors, row remapping, a driver
    that wants a reset, MIG, slow PCIe links and NVLinks, clocks that are held down, errors in the kernel log, a fabric
    that is not up, a driver whose packages, module or fabric manager do not agree, kernels without a module, slow disks
    and networks, containers that do not see every GPU - and returns one verdict, each check with what was expected,
    what was found, and what to do next.
  - Fails when the verdict does, unless O(fail) is off or in check mode. The report is written first, so that a node can
    be terminated with evidence.
  - Has an action plugin of the same name, which judges on the controller.
author: glm.fleet contributors !UNKNOWN
options:
  plans:
    description:
      - The serving plans of the host, one for each replica.
      - The action plugin takes C(ansible_facts['glm_plans']) when this is not given.
    type: list
    elements: dict
  data_dir:
    description: Folder whose disk is measured. It need not exist yet.
    type: path
    default: /var/lib/glm
  measure_disk:
    description: Write and read a file of 256 MiB in O(data_dir), and keep on the host how fast it was read.
    type: bool
    default: true
  network_url:
    description: Address (http or https) to measure the network with. Nothing is measured without one.
    type: str
  network_seconds:
    description: Longest time that the download may take.
    type: float
    default: 10
  container:
    description: Start a container of each plan's image with its devices, if the image is on the host.
    type: bool
    default: true
  measure_gpus:
    description:
      - Measure idle GPUs for up to a minute in a container of the first plan's image, if it is on the host - copies
        from the host and between GPUs, arithmetic, one all-reduce. The floors are those of the platform.
      - Where PyTorch of the image sees no GPU, as in a rehearsal, the same runs on the CPU over gloo, and says so.
    type: bool
    default: true
    version_added: 0.2.0
  floors:
    description: Lowest MB/s of C(disk_write), C(disk_read) and C(network).
    type: dict
    default: {disk_write: 200, disk_read: 200, network: 50}
  leave_out:
    description:
      - Names of checks that are not judged, because what they check is installed later or does not matter here. They
        are in the verdict, as left out.
    type: list
    elements: str
    default: []
  fabric_wait:
    description: Seconds to wait for an NVLink fabric that is still in progress, as it is for a while after a boot.
    type: int
    default: 0
  report:
    description:
      - File on the controller that the verdict is written to, as JSON.
      - Beside it the same name with C(.ticket.txt) has the evidence for a provider's support - serial numbers, VBIOS,
        versions, findings, lines of the kernel log - without addresses and secrets.
    type: path
  strict:
    description:
      - Whether what applies and could not be read counts against the node - a row that is missing or N/A, ECC that is
        off, no CUDA context on an idle GPU. It is reported as not proven in any case, and never as passed.
    type: bool
    default: false
    version_added: 0.2.0
  fail:
    description: Fail when the verdict does.
    type: bool
    default: true
  timeout:
    description: Seconds that each command may take; to initialise CUDA or HIP on every GPU may take three times that.
    type: int
    default: 60
  probe_timeout:
    description: Seconds that the container may take, whose image may lie on a slow disk.
    type: int
    default: 600
extends_documentation_fragment:
  - glm.fleet.attributes
  - glm.fleet.attributes.action
attributes:
  check_mode:
    support: full
    details: Measures nothing that writes, and warns where a run would fail, since a host may not be prepared yet.
  diff_mode:
    support: none
    details: It changes nothing.
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Accept the node or fail with the reasons
  glm.fleet.node_acceptance:
    report: "reports/{{ inventory_hostname }}.acceptance.json"

- name: Check a new node before Docker is set up on it
  glm.fleet.node_acceptance:
    leave_out: [docker, cdi]
    container: false
    fabric_wait: 300

- name: Only look, on a node with small disks
  glm.fleet.node_acceptance:
    measure_disk: false
    fail: false
"""

RETURN = r"""
verdict:
  description: The verdict.
  returned: always, from the action plugin
  type: dict
  contains:
    host: {description: Name of the host., type: str, returned: always}
    ok: {description: Whether no check counts against the node., type: bool, returned: always}
    strict: {description: Whether what could not be read counts., type: bool, returned: always}
    checks:
      description:
        - Findings, with phase, check, outcome (passed, failed or not_proven), expected, found and next; C(unread) is
          true for what applies and could not be read.
        - The schema is docs/schemas/report.schema.json.
      type: list
      elements: dict
      returned: always
"""

import contextlib
import shutil
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import ConnectionError as UrlError

from ansible_collections.glm.fleet.plugins.module_utils import arguments
from ansible_collections.glm.fleet.plugins.module_utils.host import data_disk, health, in_force, probe, speed
from ansible_collections.glm.fleet.plugins.module_utils.host.docker import DockerError, Engine
from ansible_collections.glm.fleet.plugins.module_utils.host.facts import Gatherer


def existing(path: Path) -> Path:
    """``path`` or the nearest folder above it that is there."""
    while not path.is_dir():
        path = path.parent
    return path


def disk(folder: Path) -> dict[str, Any]:
    """Speed of the disk under ``folder``; nothing when it has no room: what fills it fails with the arithmetic."""
    if shutil.disk_usage(folder).free < 4 * health.DISK_BYTES:
        return {}
    try:
        speed = health.disk_speed(folder)
    except OSError as error:
        return {"disk_write": f"{folder}: {error}"}
    with contextlib.suppress(OSError):
        # A figure that cannot be kept for later is still this run's.
        data_disk.keep(str(folder.resolve()), speed["read_mb_s"])
    return {"disk_write": speed["write_mb_s"], "disk_read": speed["read_mb_s"]}


def measure(module: AnsibleModule, errors: list[dict[str, Any]]) -> dict[str, Any]:
    """What costs load: disk, network, a container. A measurement that failed is its error's text.

    ``errors`` of the facts: a disk that did not answer there is not waited for again.
    """
    params, measured = module.params, {}
    stuck = [error["message"] for error in errors if error["phase"] == "disk"]
    if stuck:
        measured["disk_write"] = stuck[0]
    elif params["measure_disk"] and not module.check_mode:
        measured.update(disk(existing(Path(params["data_dir"]))))
    if params["network_url"]:
        try:
            measured["network"] = health.download_speed(params["network_url"], params["network_seconds"])
        except (OSError, UrlError) as error:
            # Without its query, which may be a signature.
            measured["network"] = f"{params['network_url'].partition('?')[0]}: {error}"
    contained = in_containers(params["plans"])
    if params["container"] and contained:
        measured["container"] = inside(contained, params["probe_timeout"])
    return measured


def in_containers(plans: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The plans whose engines run in containers."""
    return [plan for plan in plans if plan["runtime"]["kind"] == "container"]


def inside(plans: list[dict[str, Any]], timeout: float) -> object:
    """What the engine's image sees with the devices of each plan; None while the image is not on the host."""
    found: list[dict[str, Any]] = []
    problems: list[str] = []
    for plan in plans:
        reference = plan["image"]["reference"]
        try:
            if Engine().inspect_image(reference) is None:
                return None
            expected = probe.expected_of(plan)
            options = [*probe.network(plan), *probe.device_arguments(plan)]
            found.append(probe.run_probe(reference, options, expected, timeout))
        except DockerError:
            return None
        except probe.ProbeError as error:
            return {"problem": str(error)}
        problems += probe.judge(found[-1], expected)
    return {"found": found, "problems": problems}


def main() -> None:
    module = AnsibleModule(argument_spec=arguments.NODE_ACCEPTANCE, supports_check_mode=True)
    params = module.params
    if not params["plans"]:
        module.fail_json(msg="acceptance: expected a serving plan, found none; run the role glm.fleet.plan first.")
    url = params["network_url"]
    if url and not url.startswith(("http://", "https://")):
        module.fail_json(msg=f"acceptance: expected network_url to be http or https, found {url}.")
    gatherer = Gatherer(Path("/"), params["timeout"], [params["data_dir"]], params["fabric_wait"])
    facts = gatherer.gather(["system", "gpu", "cdi", "docker", "disks"])
    signs = health.Health(params["plans"][0]["accelerator"]["vendor"], timeout=params["timeout"]).gather()
    signs["settings"] = in_force.look(Path("/"), kernel=facts["container"] is None)
    measured = measure(module, facts["errors"])
    contained = in_containers(params["plans"])
    if params["measure_gpus"] and contained and not module.check_mode:
        # An engine may have started meanwhile.
        now = Gatherer(Path("/"), params["timeout"], [], 0).gather(["gpu"])
        measured["gpu_speed"] = speed.measure(contained, now, params["probe_timeout"])
    module.exit_json(changed=False, gathered={"facts": facts, "health": signs, "measured": measured})


if __name__ == "__main__":
    main()
