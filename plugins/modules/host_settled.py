# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: host_settled
short_description: Wait until a fresh host has finished its first boot, and refuse one without systemd
version_added: 0.1.0
description:
  - Waits until cloud-init is done and no process holds the locks of dpkg and apt. On a fresh cloud host both are busy
    for the first minutes, and a package installation that does not wait fails.
  - Reads who holds a lock without ever taking it.
  - Fails at once on a host that systemd did not boot, such as a container of a cloud.
  - Fails at the deadline with what it still waited for, and at once if cloud-init ended in an error, with that error.
author: glm.fleet contributors !UNKNOWN
options:
  timeout:
    description: Seconds until it gives up.
    type: int
    default: 900
  accept_cloud_init_errors:
    description:
      - Go on when cloud-init ended with an error. Some provider images have a harmless one; the text is returned and
        printed as a warning.
    type: bool
    default: false
  systemd_folder:
    description: Folder that is there only where systemd booted the host. Without it nobody looks.
    type: path
    version_added: 0.2.0
extends_documentation_fragment:
  - glm.fleet.attributes
attributes:
  check_mode:
    support: full
    details: It waits in check mode too.
  diff_mode:
    support: none
    details: It changes nothing.
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Wait for the first boot to finish
  glm.fleet.host_settled:
    timeout: 600
    systemd_folder: /run/systemd/system
"""

RETURN = r"""
waited_seconds:
  description: How long it waited.
  returned: always
  type: float
cloud_init:
  description: present, status, detail, errors.
  returned: always
  type: dict
waited_for:
  description: What was seen busy while waiting.
  returned: always
  type: list
  elements: str
caution:
  description: The errors of cloud-init; also printed as a warning that names the host.
  returned: when errors of cloud-init were accepted
  type: str
phase:
  description: What failed.
  returned: failure
  type: str
  sample: first boot
"""

import time
from pathlib import Path
from typing import Any, Optional

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.module_utils.host.dpkg import lock_holder
from ansible_collections.glm.fleet.plugins.module_utils.host.facts import cloud_init, first_boot_busy
from ansible_collections.glm.fleet.plugins.module_utils.host.module import end

LOCKS = ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/lib/apt/lists/lock", "/var/cache/apt/archives/lock")
LOG = "/var/log/cloud-init-output.log"
POLL_SECONDS = 2
FIRST_PROCESS = Path("/proc/1/comm")


def busy_reasons(boot: dict[str, Any]) -> list[str]:
    """What the host is still busy with; ``boot`` is the state of cloud-init."""
    reasons = [f"cloud-init is {boot['status']}"] if first_boot_busy(boot) else []
    for path in LOCKS:
        holder = lock_holder(Path(path))
        if holder:
            reasons.append(f"{path} is held by {holder}")
    return reasons


def require_systemd(folder: Path) -> None:
    """Raise Unmet where systemd did not boot the host: sd_booted(3)."""
    if folder.exists():
        return
    first = files.read_text(FIRST_PROCESS).strip() or "something unknown"
    raise Unmet(
        "a host that systemd booted",
        f"'{first}' as process 1. Most likely the host is itself a container of a cloud: replicas, their limits and "
        "their filters are units of systemd, and Docker does not run there",
        "deploy to virtual or bare-metal machines, and leave this host out, for example with the inventory's filters",
    )


def settled(timeout: int, accept_cloud_init_errors: bool, systemd_folder: Optional[str]) -> dict[str, Any]:
    """Wait until the host is busy no more, at most ``timeout`` seconds. Raises Unmet."""
    if systemd_folder:
        require_systemd(Path(systemd_folder))
    started = time.monotonic()
    seen: list[str] = []
    while True:
        boot = cloud_init()
        reasons = busy_reasons(boot)
        seen += [reason for reason in reasons if reason not in seen]
        waited = round(time.monotonic() - started, 1)
        result = {"changed": False, "waited_seconds": waited, "cloud_init": boot, "waited_for": seen}
        if not reasons:
            break
        if waited >= timeout:
            raise Unmet(
                f"the host to be ready within {timeout} s",
                "; ".join(reasons),
                f"look at {LOG} on the host, or give it more time with gpu_base_first_boot_timeout",
                **result,
            )
        time.sleep(POLL_SECONDS)
    if boot["status"] == "error":
        text = "; ".join(boot["errors"]) or boot["detail"]
        if not accept_cloud_init_errors:
            raise Unmet(
                "a clean first boot",
                f"that cloud-init ended with an error: {text}",
                f"look at {LOG} on the host, and fix the image or its user data; to continue anyway, set "
                "gpu_base_accept_cloud_init_errors: true",
                **result,
            )
        result["caution"] = f"first boot: cloud-init ended with an error, accepted as configured: {text}"
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "timeout": {"type": "int", "default": 900},
            "accept_cloud_init_errors": {"type": "bool", "default": False},
            "systemd_folder": {"type": "path"},
        },
        supports_check_mode=True,
    )
    end(module, "first boot", lambda: settled(**module.params))


if __name__ == "__main__":
    main()
