# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_facts
short_description: Describe a GPU host in one call
version_added: 0.1.0
description:
  - Gathers what a GPU host is and has - distribution, accelerators, driver, NVLink fabric, CDI specs, Docker, disks,
    memory, addresses, first boot - and returns it as C(ansible_facts['gpu_facts']).
  - With O(subset), the parts that were gathered before in the same run are kept.
  - Never fails because something is broken. C(gpu_facts.errors) lists what is wrong, each entry with its phase.
  - Needs nothing on the host but Python.
author: glm.fleet contributors !UNKNOWN
options:
  subset:
    description:
      - Which parts to gather. V(drivers) is what of a driver is installed, working or not, and is gathered only when it
        is named.
    type: list
    elements: str
    choices: [system, gpu, cdi, docker, disks, drivers]
    default: [system, gpu, cdi, docker, disks]
  paths:
    description: Paths whose mount and free space to report under C(disks). They need not exist yet.
    type: list
    elements: path
    default: [/]
  timeout:
    description: Seconds that each command may take. A driver without its persistence daemon needs ten or more.
    type: int
    default: 60
  fabric_wait:
    description: Seconds to wait for an NVLink fabric that is still in progress, as it is for a while after a boot.
    type: int
    default: 0
extends_documentation_fragment:
  - glm.fleet.attributes
  - glm.fleet.attributes.action
attributes:
  check_mode:
    support: full
    details: It only reads.
  diff_mode:
    support: none
    details: It changes nothing.
  idempotent:
    support: full
  facts:
    support: full
    description: Returns C(ansible_facts).
"""

EXAMPLES = r"""
- name: Describe the host
  glm.fleet.gpu_facts:
    paths: [/var/lib/glm]

- name: Describe only what Docker and its devices look like
  glm.fleet.gpu_facts:
    subset: [docker, cdi]
"""

RETURN = r"""
ansible_facts:
  description: Facts to add to C(ansible_facts).
  returned: always
  type: dict
  contains:
    gpu_facts:
      description: The description of the host. Parts that O(subset) leaves out are absent.
      returned: always
      type: dict
      contains:
        errors:
          description: "What is broken: C(phase) (system, driver, gpu, fabric, cdi, docker) and C(message)."
          type: list
          elements: dict
          returned: always
        epoch:
          description: Clock of the host in seconds since 1970, taken first.
          type: float
          returned: always
        clock_skew_seconds:
          description: >-
            How far the host's clock is outside the time in which the controller made this call; 0 when it is inside.
          type: float
          returned: always
        gpus:
          description: Index, name, uuid, bus_id, memory_used_mib, memory_total_mib, driver_version, vendor per GPU.
          type: list
          elements: dict
          returned: when gpu is in O(subset)
          sample:
            - index: 0
              name: NVIDIA B200
              uuid: GPU-0a1b2c3d-0000-0000-0000-000000000000
              bus_id: 00000000:1B:00.0
              memory_used_mib: 0
              memory_total_mib: 183359
              driver_version: 580.126.09
              vendor: nvidia
        gpu_source:
          description: Source of the list of GPUs - C(nvidia-smi), C(amd-smi), C(rocm-smi), C(pci) or C(none).
          type: str
          returned: when gpu is in O(subset)
        gpu_holders:
          description: >-
            Processes that have a GPU open (C(python3 (pid 812))), a driver's daemons and monitors left out; null where
            not every process of the machine can be seen.
          type: list
          elements: str
          returned: when gpu is in O(subset)
        driver:
          description: >-
            version, module_version (loaded in the kernel; of AMD's own module only), library_version (if it refuses),
            cuda_version, loaded (whether a module of the vendor is), tool (path of the one that was asked, or null).
          type: dict
          returned: when gpu is in O(subset)
        fabric:
          description: present, state (V(Completed) when every GPU is), states per GPU.
          type: dict
          returned: when gpu is in O(subset)
        pci:
          description: Accelerators and NVSwitches on the PCI bus, whatever their driver.
          type: dict
          returned: when gpu is in O(subset)
        cdi:
          description: >-
            specs (path, kind, devices, driver_version, lost - device nodes that are not as the spec has them), devices,
            nvidia_ctk and amd_ctk (paths of the tools or null), unlinked (device nodes of NVIDIA GPUs without a link in
            /dev/char).
          type: dict
          returned: when cdi is in O(subset)
        docker:
          description: >-
            installed, running, version, root_dir, cdi, cgroups (driver and version of control groups), mirrors,
            live_restore, log_driver, image_store, images (number of them), containers (names of the running ones, null
            where these cannot be known), swarm (whether it is in one, or has the state of one), packages (version and
            held).
          type: dict
          returned: when docker is in O(subset)
        neighbours:
          description: >-
            Who runs containers or virtual machines beside this host's Docker (Kubernetes, containerd, CRI-O, Podman,
            LXD, libvirt, a snap's Docker) - name, running, signs.
          type: list
          elements: dict
          returned: when docker is in O(subset)
        disks:
          description: >-
            path, mount, device, filesystem, kind, read_mb_s, measured_at, size_bytes, free_bytes for each of O(paths).
            C(kind) is V(network), V(nvme) (local), V(volume) (a block device that comes over a network), V(block) (any
            other) or V(memory), and null where it is not known. C(read_mb_s) is what the last acceptance read from this
            device past the page cache, null where none did.
          type: list
          elements: dict
          returned: when disks is in O(subset)
        distribution:
          description: id, version, codename, pretty, family.
          type: dict
          returned: when system is in O(subset)
        drivers:
          description: >-
            flavour of the loaded NVIDIA module, nouveau, dkms, kernels (whether each has the module), secure_boot,
            modules (whether those that NVLink 5 needs are loaded), units, enabled (those of them that start at boot),
            packages (version and held); on AMD hosts also nodes (device nodes with group and mode), groups and users.
          type: dict
          returned: when drivers is in O(subset)
        container:
          description: Kind of container the host itself is, or null for a real or virtual machine.
          type: str
          returned: when system is in O(subset)
        can_raise_limits:
          description: Whether root of this host may raise resource limits (CAP_SYS_RESOURCE).
          type: bool
          returned: when system is in O(subset)
        nr_open:
          description: The most open files that a process may have (C(fs.nr_open)), null when it cannot be read.
          type: int
          returned: when system is in O(subset)
        cloud_init:
          description: present, status, detail, errors of the first boot.
          type: dict
          returned: when system is in O(subset)
        reboot_required:
          description: Whether the distribution asks for a reboot.
          type: bool
          returned: when system is in O(subset)
        time_synchronised:
          description: What timedatectl says, null when it is not there.
          type: bool
          returned: when system is in O(subset)
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils.host.facts import EXTRA_SUBSETS, SUBSETS, Gatherer


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "subset": {"type": "list", "elements": "str", "choices": [*SUBSETS, *EXTRA_SUBSETS], "default": [*SUBSETS]},
            "paths": {"type": "list", "elements": "path", "default": ["/"]},
            "timeout": {"type": "int", "default": 60},
            "fabric_wait": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    params = module.params
    gatherer = Gatherer(Path("/"), params["timeout"], params["paths"], params["fabric_wait"])
    module.exit_json(changed=False, ansible_facts={"gpu_facts": gatherer.gather(module.params["subset"])})


if __name__ == "__main__":
    main()
