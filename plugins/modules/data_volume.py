# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: data_volume
short_description: Prepare the volume and the folder for a host's data, without ever losing any
version_added: 0.1.0
description:
  - Creates the data folder and, only if O(volume) says so, prepares the file system that it is on - one that is mounted
    already, or a new one on the host's big local NVMe disks, joined as RAID 0 where there are several.
  - Formats nothing that holds anything - a partition table, any signature that libblkid knows, a member of an array or
    a volume group, a mount, a device in use, or bytes of no known kind. It then changes nothing and says what it found.
  - A volume that an earlier run made is recognised by its label C(glm-data) and mounted, also after the system disk was
    reinstalled. The next run continues an interrupted one.
  - Mounts by UUID with an entry in C(/etc/fstab) that does not keep the host from booting when a disk is lost
    (C(nofail)). RAID 0 has no redundancy; what goes there (weights, caches, images) can be fetched again.
author: glm.fleet contributors !UNKNOWN
options:
  path:
    description: The data folder. Created when it is missing.
    type: path
    required: true
  volume:
    description:
      - V(none) leaves disks and mounts alone.
      - V(mounted) requires that something is mounted at O(mount), and refuses a host where it is missing.
      - V(create) adopts what is mounted there, or what an earlier run made, and otherwise formats empty disks.
    type: str
    choices: [none, mounted, create]
    default: none
  mount:
    description: Where the volume is mounted, O(path) or a folder above it. Default is O(path).
    type: path
  disks:
    description:
      - Block devices for the volume; all of them are used. Names below C(/dev/disk/by-id) stay the same over reboots.
      - Empty takes every empty local NVMe disk of at least O(minimum_gb), of the largest size there is.
    type: list
    elements: path
    default: []
  filesystem:
    description: Type of a new file system.
    type: str
    choices: [ext4, xfs]
    default: ext4
  minimum_gb:
    description: Smallest disk that is taken when O(disks) is empty, in GB (10^9 bytes).
    type: int
    default: 500
extends_documentation_fragment:
  - glm.fleet.attributes
attributes:
  check_mode:
    support: full
    details: Looks at the disks and says which would be formatted.
  diff_mode:
    support: full
    details: Shows the entry of C(/etc/fstab) and the disks.
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Create the data folder on the disk that holds its place
  glm.fleet.data_volume:
    path: /var/lib/glm

- name: Join the local NVMe disks
  glm.fleet.data_volume:
    path: /mnt/data/glm
    mount: /mnt/data
    volume: create

- name: Refuse a host whose persistent file system is not mounted
  glm.fleet.data_volume:
    path: /lambda/nfs/fleet/glm
    mount: /lambda/nfs/fleet
    volume: mounted
"""

RETURN = r"""
action:
  description: >-
    V(none) (nothing to be done), V(folder) (only the folder was made), V(mounted) (a volume that was there was mounted)
    or V(created). In check mode what would be done.
  returned: success
  type: str
device:
  description: What is mounted at O(mount), null when nothing is (or not yet, in check mode).
  returned: success
  type: str
disks:
  description: Disks that were formatted (or would be).
  returned: success
  type: list
  elements: str
left_out:
  description: Disks that were examined and left alone, each with the reason.
  returned: success
  type: dict
phase:
  description: What failed.
  returned: failure
  type: str
  sample: data volume
"""

import fcntl
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.module_utils.host import data_volume as volumes
from ansible_collections.glm.fleet.plugins.module_utils.host.commands import run, which
from ansible_collections.glm.fleet.plugins.module_utils.host.module import end

FSTAB = Path("/etc/fstab")
MOUNTINFO = Path("/proc/self/mountinfo")
# Outlives an interrupted run, so that the next one knows whose half-made file system it sees.
STATE = Path("/var/lib/glm-fleet/data-volume.json")
ARRAY = f"/dev/md/{volumes.LABEL}"
# mkfs of tens of terabytes discards them first.
FORMAT_TIMEOUT = 1800
PACKAGES = {"mdadm": "mdadm", "mkfs.ext4": "e2fsprogs", "mkfs.xfs": "xfsprogs"}


class Volume:
    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.check = module.check_mode
        # The kernel lists mounts by their real names.
        self.path = Path(os.path.realpath(module.params["path"]))
        self.mount = Path(os.path.realpath(module.params["mount"] or self.path))
        self.left_out: dict[str, str] = {}
        self.disks: list[str] = []
        self.entry = ""

    def run(self) -> dict[str, Any]:
        wanted = self.module.params["volume"]
        action = "none"
        if wanted != "none":
            if self.mount not in (self.path, *self.path.parents):
                raise Unmet(
                    f"the data folder {self.path} to be inside its volume",
                    f"that {self.mount} is mounted elsewhere",
                    "correct gpu_base_data_mount or gpu_base_data_dir",
                )
            action = self.require_mounted() if wanted == "mounted" else self.create()
        made = self.make_folder()
        if made and action == "none":
            action = "folder"
        now = self.mounted()
        return {
            "changed": action != "none",
            "action": action,
            "device": now["source"] if now else None,
            "disks": self.disks,
            "left_out": self.left_out,
            "diff": {"before": "", "after": self.describe(action)},
        }

    def describe(self, action: str) -> str:
        rows = [f"{action} {self.mount if action != 'folder' else self.path}"] if action != "none" else []
        rows += [f"format {disk}" for disk in self.disks]
        rows += [f"{FSTAB}: {self.entry}"] if self.entry else []
        return "".join(f"{row}\n" for row in rows)

    # -- what is there ----------------------------------------------------------------------------------------------

    def mounted(self) -> Optional[dict[str, str]]:
        return volumes.mounted_at(str(self.mount), MOUNTINFO.read_text("utf-8", "replace"))

    def fstab(self) -> str:
        try:
            return FSTAB.read_text("utf-8")
        except FileNotFoundError:
            return ""

    def make_folder(self) -> bool:
        if self.path.is_dir():
            return False
        if not self.check:
            self.path.mkdir(parents=True, mode=0o755)
            self.path.chmod(0o755)
        return True

    def require_mounted(self) -> str:
        if self.mounted():
            return "none"
        entry = volumes.fstab_entry(self.fstab(), str(self.mount))
        if not entry:
            raise Unmet(
                f"a file system mounted at {self.mount}",
                f"none, and no entry in {FSTAB}. Nothing was changed",
                "attach and mount it, correct gpu_base_data_mount, or set gpu_base_data_volume: none",
            )
        return self.mount_entry()

    def mount_entry(self) -> str:
        """Mount what /etc/fstab has for the place."""
        self.require_empty_folder()
        if not self.check:
            self.mount.mkdir(parents=True, exist_ok=True)
            self.checked(("mount", str(self.mount)), f"mount {self.mount}", "look at its entry in /etc/fstab")
        return "mounted"

    def require_empty_folder(self) -> None:
        entries = sorted(path.name for path in self.mount.iterdir()) if self.mount.is_dir() else []
        if entries:
            raise Unmet(
                f"{self.mount} to be empty, as a mount would hide what is in it",
                f"{', '.join(entries[:5])}. Nothing was changed",
                "move these away, or choose another gpu_base_data_mount",
            )

    # -- what is to be made -----------------------------------------------------------------------------------------

    def create(self) -> str:
        if self.check:
            return self.create_locked()
        STATE.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        with STATE.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return self.create_locked()

    def create_locked(self) -> str:
        if self.mounted():
            return "none"
        if volumes.fstab_entry(self.fstab(), str(self.mount)):
            return self.mount_entry()
        self.require_empty_folder()
        nodes = volumes.read_tree()
        members = volumes.array_members(nodes)
        if members and not any(node.get("children") for node in members):
            if self.check:
                return "mounted"
            nodes = self.assemble(sorted(str(node["path"]) for node in members))
        known = volumes.ours(nodes)
        if known:
            self.attach_known(known)
            return "mounted"
        device = self.array(nodes) or self.new_device(nodes)
        kind = self.module.params["filesystem"]
        if not self.check:
            self.format(device, kind)
        self.attach(device, kind)
        return "created"

    def attach_known(self, known: Sequence[volumes.Node]) -> None:
        """Mount the volume that an earlier run made."""
        if len(known) > 1:
            raise Unmet(
                f"one file system named {volumes.LABEL}",
                f"{', '.join(str(n['path']) for n in known)}. Nothing was changed",
                "mount the right one yourself, or rename the other",
            )
        points = volumes.mounts_of(known[0])
        if points:
            raise Unmet(
                f"the volume {volumes.LABEL} ({known[0]['path']}) at {self.mount}",
                f"it mounted at {', '.join(points)}. Nothing was changed",
                "set gpu_base_data_mount to that, or unmount it",
            )
        self.attach(str(known[0]["path"]), str(known[0]["fstype"]))

    def assemble(self, members: Sequence[str]) -> list[volumes.Node]:
        """Start our array, which nothing started at this boot; the tree of devices with it."""
        self.need("mdadm")
        self.checked(
            ("mdadm", "--assemble", ARRAY, *members),
            f"mdadm --assemble {ARRAY}",
            f"find the disk that is missing; if the others hold nothing that is needed: wipefs --all "
            f"{' '.join(members)}, and run again",
        )
        return volumes.read_tree()

    def array(self, nodes: Sequence[volumes.Node]) -> str:
        """The array that an interrupted run made and did not format yet; empty when there is none."""
        members = volumes.array_members(nodes)
        arrays = {str(child["path"]) for node in members for child in node.get("children") or []}
        if not arrays:
            return ""
        if len(arrays) > 1:
            raise Unmet(
                f"one array named {volumes.LABEL}",
                f"{', '.join(sorted(arrays))}. Nothing was changed",
                "stop the one that is not needed",
            )
        self.disks = sorted(str(node["path"]) for node in members)
        device = arrays.pop()
        volumes.require_empty(device, trusted=True)
        return device

    def new_device(self, nodes: Sequence[volumes.Node]) -> str:
        """An empty disk, or the array of several."""
        paths = [os.path.realpath(path) for path in self.module.params["disks"]]
        chosen = (
            volumes.named(nodes, paths)
            if paths
            else volumes.choose(nodes, self.module.params["minimum_gb"] * 10**9, volumes.transports())
        )
        self.left_out = chosen.left_out
        if not chosen.disks:
            found = "; ".join(f"{path}: {reason}" for path, reason in sorted(chosen.left_out.items())) or "no disk"
            raise Unmet(
                f"an empty local NVMe disk of {self.module.params['minimum_gb']} GB or more",
                f"{found}. Nothing was changed",
                "name the disks in gpu_base_data_disks, or set gpu_base_data_volume: none to keep the data "
                "on the disk that holds the folder now",
            )
        self.disks = [str(node["path"]) for node in chosen.disks]
        identity = [[node["path"], node["size"], node.get("serial")] for node in chosen.disks]
        # An interrupted run began to format this disk.
        trusted = len(self.disks) == 1 and files.read_json(STATE) == identity
        for disk in self.disks:
            volumes.require_empty(disk, trusted)
        if self.check:
            return self.disks[0] if len(self.disks) == 1 else ARRAY
        self.need(f"mkfs.{self.module.params['filesystem']}")
        if len(self.disks) == 1:
            files.write_text(STATE, json.dumps(identity), files.READABLE, durable=True)
            return self.disks[0]
        self.need("mdadm")
        self.checked(
            ("mdadm", "--create", ARRAY, f"--name={volumes.LABEL}", "--homehost=any", "--level=0",
             f"--raid-devices={len(self.disks)}", "--run", *self.disks),
            f"mdadm --create {ARRAY}",
            "look at the kernel log on the host",
        )  # fmt: skip
        return ARRAY

    def format(self, device: str, kind: str) -> None:
        # No blocks kept for root: 5 % of a data volume are terabytes.
        options = ("-q", "-m", "0") if kind == "ext4" else ("-q",)
        self.checked(
            (f"mkfs.{kind}", *options, "-L", volumes.LABEL, device),
            f"mkfs.{kind} {device}",
            "look at the kernel log on the host",
            FORMAT_TIMEOUT,
        )

    def attach(self, device: str, kind: str) -> None:
        """Enter the volume into fstab and mount it. In this order: what is mounted is then also there after a boot."""
        uuid = "(new)"
        if not self.check:
            uuid = run(("blkid", "--probe", "--match-tag", "UUID", "--output", "value", device)).stdout.strip()
            if not uuid:
                raise Unmet(f"a file system on {device}", "none", f"run blkid --probe {device} there")
        self.entry = volumes.fstab_line(uuid, str(self.mount), kind)
        if self.check:
            return
        text = self.fstab()
        self.write_fstab(f"{text}{'' if text.endswith(chr(10)) or not text else chr(10)}{self.entry}\n")
        self.mount_entry()
        STATE.unlink(missing_ok=True)

    def write_fstab(self, text: str) -> None:
        files.write_text(FSTAB, text, files.READABLE, move=self.module.atomic_move)

    def need(self, program: str) -> None:
        if which(program) is None:
            raise Unmet(f"{program} on the host", "none. Nothing was changed", f"install {PACKAGES[program]}")

    def checked(self, argv: tuple[str, ...], what: str, next_step: str, timeout: int = 120) -> None:
        done = run(argv, timeout)
        if not done.ok:
            raise Unmet(f"{what} to work", f"{done.rc}: {done.evidence()}", next_step)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "volume": {"type": "str", "choices": ["none", "mounted", "create"], "default": "none"},
            "mount": {"type": "path"},
            "disks": {"type": "list", "elements": "path", "default": []},
            "filesystem": {"type": "str", "choices": ["ext4", "xfs"], "default": "ext4"},
            "minimum_gb": {"type": "int", "default": 500},
        },
        supports_check_mode=True,
    )
    end(module, "data volume", Volume(module).run)


if __name__ == "__main__":
    main()
