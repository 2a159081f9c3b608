"""What kind of disk weights are on, from the mounts and block devices of machines of many kinds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Optional

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.host import data_disk
from ansible_collections.glm.fleet.plugins.module_utils.host.facts import Gatherer

# Lines of /proc/self/mountinfo of one machine each, with what holds the path beside them.
LAMBDA_VM = """
24 1 253:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,discard,errors=remount-ro
90 24 0:52 / /lambda/nfs/weights rw,relatime shared:40 - virtiofs 4f6c1d0e-6d7b-4c58-9a7e-0c1f5b9f9a11 rw
91 24 0:53 / /home/ubuntu/old rw,relatime shared:41 - nfs4 10.19.0.3:/export/ab rw,vers=4.2,rsize=1048576,hard
"""
BARE_METAL = """
22 1 9:127 / / rw,relatime shared:1 - ext4 /dev/md127 rw
30 22 259:9 / /boot/efi rw,relatime shared:30 - vfat /dev/nvme0n1p1 rw
31 22 9:0 / /mnt/my\\040data rw,noatime shared:31 - xfs /dev/md0 rw
32 31 253:3 / /mnt/my\\040data/lv rw shared:32 - ext4 /dev/mapper/vg-data rw
33 22 0:40 / /scratch rw shared:33 - btrfs /dev/nvme3n1 rw,ssd
34 22 0:41 / /tank rw shared:34 - zfs tank rw,xattr
35 22 0:42 / /dev/shm rw shared:35 - tmpfs tmpfs rw
36 22 8:1 / /srv rw shared:36 - ext4 /dev/sda1 rw
37 22 8:17 / /iscsi rw shared:37 - ext4 /dev/sdb1 rw
38 22 251:0 / /rbd rw shared:38 - ext4 /dev/rbd0 rw
39 22 259:20 / /ebs rw shared:39 - ext4 /dev/nvme9n1 rw
40 22 259:21 / /of rw shared:40 - xfs /dev/nvme8n1 rw
41 22 259:22 / /mixed rw shared:41 - ext4 /dev/md1 rw
"""
OTHERS = """
22 1 0:30 / / rw,relatime - overlay overlay rw,lowerdir=/a,upperdir=/b
50 22 0:60 / /n/nfs rw - nfs filer:/vol rw,nolock
51 22 0:61 / /n/lustre rw - lustre 10.0.0.1@o2ib:/fs1 rw,flock
52 22 0:62 / /n/ceph rw - ceph 10.0.0.1:6789:/ rw
53 22 0:63 / /n/cephfuse rw - fuse.ceph-fuse ceph-fuse rw
54 22 0:64 / /n/cifs rw - cifs //filer/share rw
55 22 0:65 / /n/smb3 rw - smb3 //filer/share rw
56 22 0:66 / /n/9p rw - 9p hostshare rw,trans=virtio
57 22 0:67 / /n/weka rw - wekafs backend/default rw
58 22 0:68 / /n/gpfs rw - gpfs gpfs0 rw
59 22 0:69 / /n/beegfs rw - beegfs beegfs_nodev rw
60 22 0:70 / /n/gluster rw - fuse.glusterfs host:/vol rw
61 22 0:71 / /n/juice rw - fuse.juicefs JuiceFS:myfs rw
62 22 0:72 / /n/s3 rw - fuse.mountpoint-s3 mountpoint-s3 ro
63 22 0:73 / /n/gcs rw - fuse.gcsfuse bucket rw
64 22 0:74 / /u/mergerfs rw - fuse.mergerfs 1:2 rw
65 22 0:75 / /u/exotic rw - exoticfs where rw
66 22 0:76 / /u/fuse rw - fuse something rw
67 22 0:77 / /u/gone rw - ext4 /dev/vanished rw
"""


def machine(tmp_path: Path, mountinfo: str) -> Path:
    """The root of a machine with these mounts and the block devices of BARE_METAL and LAMBDA_VM."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_text(mountinfo)
    block(tmp_path, "253:1", "virtio0/vda", part="vda1")
    for number, minor in (("0", "259:0"), ("1", "259:1"), ("2", "259:2")):
        nvme(tmp_path, f"nvme{number}n1", minor, "SAMSUNG MZWLO3T8HCLS-00A07", "pcie")
    nvme(tmp_path, "nvme3n1", "259:3", "Micron_7450_MTFDKCB3T8TFR", "pcie")
    nvme(tmp_path, "nvme9n1", "259:20", "Amazon Elastic Block Store", "pcie")
    nvme(tmp_path, "nvme8n1", "259:21", "Linux", "tcp")
    block(tmp_path, "259:9", "pci0/nvme/nvme0/nvme0n1", part="nvme0n1p1")
    block(tmp_path, "8:1", "pci0/ata1/host0/sda", part="sda1")
    block(tmp_path, "8:17", "platform/host7/session1/target7:0:0/sdb", part="sdb1")
    block(tmp_path, "251:0", "virtual/rbd0")
    block(tmp_path, "9:127", "virtual/md127", below=["nvme0n1", "nvme1n1"])
    block(tmp_path, "9:0", "virtual/md0", below=["nvme1n1", "nvme2n1"])
    block(tmp_path, "253:3", "virtual/dm-3", below=["md0"])
    block(tmp_path, "259:22", "virtual/md1", below=["nvme2n1", "nvme9n1"])
    return tmp_path


def block(root: Path, number: str, place: str, part: str = "", below: Optional[list[str]] = None) -> Path:
    disk = root / "sys/devices" / place
    device = disk / part if part else disk
    device.mkdir(parents=True, exist_ok=True)
    if part:
        (device / "partition").write_text("1\n")
    for folder, name in (("sys/dev/block", number), ("sys/class/block", device.name)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / name).symlink_to(os.path.relpath(device, root / folder))
    for member in below or []:
        (device / "slaves").mkdir(exist_ok=True)
        (device / "slaves" / member).symlink_to(os.path.realpath(root / "sys/class/block" / member))
    return disk


def nvme(root: Path, name: str, number: str, model: str, transport: str) -> None:
    disk = block(root, number, f"pci0/nvme/{name[:5]}/{name}")
    (disk / "device").mkdir(exist_ok=True)
    (disk / "device/model").write_text(f"{model}                 \n")
    (disk / "device/transport").write_text(f"{transport}\n")


@pytest.mark.parametrize(
    ("mountinfo", "path", "filesystem", "kind"),
    [
        (LAMBDA_VM, "/var/lib/glm", "ext4", "block"),
        (LAMBDA_VM, "/lambda/nfs/weights/glm/huggingface", "virtiofs", "network"),
        (LAMBDA_VM, "/lambda/nfs/weights2", "ext4", "block"),
        (LAMBDA_VM, "/home/ubuntu/old", "nfs4", "network"),
        (BARE_METAL, "/var/lib/glm", "ext4", "nvme"),
        (BARE_METAL, "/mnt/my data/glm", "xfs", "nvme"),
        (BARE_METAL, "/mnt/my data/lv/glm", "ext4", "nvme"),
        (BARE_METAL, "/scratch/glm", "btrfs", "nvme"),
        (BARE_METAL, "/boot/efi", "vfat", "nvme"),
        (BARE_METAL, "/tank/glm", "zfs", None),
        (BARE_METAL, "/dev/shm/glm", "tmpfs", "memory"),
        (BARE_METAL, "/srv/glm", "ext4", "block"),
        (BARE_METAL, "/iscsi/glm", "ext4", "volume"),
        (BARE_METAL, "/rbd/glm", "ext4", "volume"),
        (BARE_METAL, "/ebs/glm", "ext4", "volume"),
        (BARE_METAL, "/of/glm", "xfs", "volume"),
        (BARE_METAL, "/mixed/glm", "ext4", "volume"),
        (OTHERS, "/var/lib/glm", "overlay", None),
        (OTHERS, "/n/nfs/glm", "nfs", "network"),
        (OTHERS, "/n/lustre/glm", "lustre", "network"),
        (OTHERS, "/n/ceph/glm", "ceph", "network"),
        (OTHERS, "/n/cephfuse/glm", "fuse.ceph-fuse", "network"),
        (OTHERS, "/n/cifs/glm", "cifs", "network"),
        (OTHERS, "/n/smb3/glm", "smb3", "network"),
        (OTHERS, "/n/9p/glm", "9p", "network"),
        (OTHERS, "/n/weka/glm", "wekafs", "network"),
        (OTHERS, "/n/gpfs/glm", "gpfs", "network"),
        (OTHERS, "/n/beegfs/glm", "beegfs", "network"),
        (OTHERS, "/n/gluster/glm", "fuse.glusterfs", "network"),
        (OTHERS, "/n/juice/glm", "fuse.juicefs", "network"),
        (OTHERS, "/n/s3/glm", "fuse.mountpoint-s3", "network"),
        (OTHERS, "/n/gcs/glm", "fuse.gcsfuse", "network"),
        (OTHERS, "/u/mergerfs/glm", "fuse.mergerfs", None),
        (OTHERS, "/u/exotic/glm", "exoticfs", None),
        (OTHERS, "/u/fuse/glm", "fuse", None),
        (OTHERS, "/u/gone/glm", "ext4", None),
        ("nothing that is a mount", "/var/lib/glm", "", None),
    ],
)
def test_the_kind_of_disk(tmp_path: Path, mountinfo: str, path: str, filesystem: str, kind: Optional[str]) -> None:
    found = data_disk.describe(path, machine(tmp_path, mountinfo))
    assert (found["filesystem"], found["kind"]) == (filesystem, kind)


def test_longest_and_latest_mount_wins() -> None:
    mounts = [
        data_disk.Mount("1:1", point, "ext4", source)
        for source, point in (("/dev/a", "/"), ("/dev/b", "/mnt"), ("/dev/c", "/mnt"), ("/dev/d", "/mn"))
    ]
    found = data_disk.mount_of("/mnt/data", mounts)
    assert found is not None and found.source == "/dev/c"


def test_a_speed_is_of_the_device_that_was_measured(tmp_path: Path) -> None:
    root = machine(tmp_path, BARE_METAL)
    assert data_disk.describe("/srv/glm", root)["read_mb_s"] is None
    data_disk.keep("/srv/glm", 512.5, root)
    found = data_disk.describe("/srv/glm/huggingface", root)
    assert found["read_mb_s"] == 512.5 and found["measured_at"].endswith("Z")
    # Another disk, and another one that is mounted in the same place later.
    assert data_disk.describe("/ebs/glm", root)["read_mb_s"] is None
    (root / "proc/self/mountinfo").write_text(BARE_METAL.replace("/dev/sda1", "/dev/sdc1"))
    assert data_disk.describe("/srv/glm", root)["read_mb_s"] is None


def test_a_record_that_was_cut_off_is_no_speed(tmp_path: Path) -> None:
    root = machine(tmp_path, BARE_METAL)
    data_disk.keep("/srv/glm", 512.5, root)
    (root / data_disk.MEASURED).write_text('{"device": "/dev/sda1", "read_')
    assert data_disk.describe("/srv/glm", root)["read_mb_s"] is None
    (root / data_disk.MEASURED).write_text("[]")
    assert data_disk.describe("/srv/glm", root)["measured_at"] is None


def test_facts_name_the_disk_of_a_path_that_is_not_there_yet(tmp_path: Path) -> None:
    facts: dict[str, Any] = Gatherer(machine(tmp_path, BARE_METAL), paths=["/srv/not/yet"]).gather(["disks"])
    assert {name: facts["disks"][0][name] for name in ("mount", "device", "filesystem", "kind", "read_mb_s")} == {
        "mount": "/srv", "device": "/dev/sda1", "filesystem": "ext4", "kind": "block", "read_mb_s": None,
    }  # fmt: skip
