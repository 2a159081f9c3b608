"""data_volume: the empty local disks are found, and nothing that holds anything is ever formatted."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.module_utils.host import data_volume as volumes
from ansible_collections.glm.fleet.plugins.modules import data_volume

GB = 10**9
needs_mkfs = pytest.mark.skipif(not shutil.which("mkfs.ext4"), reason="needs e2fsprogs")


@pytest.fixture
def tree(fixture_text: Callable[[str], str]) -> Callable[[str], list[dict[str, Any]]]:
    return lambda name: volumes.parse_lsblk(fixture_text(f"disks/{name}.json"))  # type: ignore[return-value]


def test_the_empty_local_nvme_disks_of_the_largest_size_are_found(tree: Any) -> None:
    choice = volumes.choose(tree("bare_metal"), 400 * GB, {"nvme8n1": "tcp"})
    assert [node["path"] for node in choice.disks] == [f"/dev/nvme{number}n1" for number in (1, 2, 3, 4)]
    assert choice.left_out == {
        "/dev/nvme0n1": (
            "a partition table (gpt), part nvme0n1p1 (mounted at /boot/efi, the signature of vfat), "
            "part nvme0n1p2 (mounted at /, the signature of ext4 named cloudimg-rootfs)"
        ),
        "/dev/nvme5n1": "an LVM physical volume, lvm vg0-old (the signature of xfs)",
        "/dev/nvme6n1": "smaller than the 4 taken",
        "/dev/nvme7n1": "empty, but a network volume (Amazon Elastic Block Store)",
        "/dev/nvme8n1": "empty, but reached over tcp",
        "/dev/sda": "empty, but no NVMe (sas)",
    }


def test_small_disks_are_not_taken(tree: Any) -> None:
    choice = volumes.choose(tree("bare_metal"), 4000 * GB, {})
    assert choice.disks == () and choice.left_out["/dev/nvme1n1"] == "empty, but only 3841 GB"


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/dev/nvme0n1", "a partition table (gpt)"),
        ("/dev/nvme0n1p1", "mounted at /boot/efi"),
        ("/dev/nvme5n1", "an LVM physical volume"),
        ("/dev/vg0-old", "lvm"),
        ("/dev/loop0", "read-only"),
        ("/dev/nvme99n1", "no such block device"),
    ],
)
def test_a_disk_that_holds_anything_is_refused_also_by_name(tree: Any, path: str, found: str) -> None:
    nodes = tree("bare_metal")
    nodes[0]["fstype"], nodes[0]["mountpoints"] = None, []
    with pytest.raises(Unmet, match="Nothing was changed") as refused:
        volumes.named(nodes, ["/dev/nvme1n1", path])
    assert path in str(refused.value) and found in str(refused.value)


def test_old_lsblk_writes_booleans_as_text() -> None:
    assert not volumes.is_set("0") and volumes.is_set("1") and volumes.is_set(True) and not volumes.is_set(False)
    with pytest.raises(ValueError, match="not the JSON of lsblk"):
        volumes.parse_lsblk("{}")


def test_nvme_over_fabrics_is_told_by_its_controller(tmp_path: Path) -> None:
    for name, transport in (("nvme0n1", "pcie"), ("nvme1n1", "rdma")):
        (tmp_path / f"sys/block/{name}/device").mkdir(parents=True)
        (tmp_path / f"sys/block/{name}/device/transport").write_text(f"{transport}\n")
    assert volumes.transports(tmp_path) == {"nvme0n1": "pcie", "nvme1n1": "rdma"}


def test_bytes_of_no_known_kind_are_found(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with disk.open("wb") as handle:
        handle.truncate(64 * 2**20)
    assert volumes.stray_bytes(str(disk)) is None
    for offset in (512, 32 * 2**20 + 100, 64 * 2**20 - 1):
        with disk.open("r+b") as handle:
            handle.seek(offset)
            handle.write(b"x")
        assert volumes.stray_bytes(str(disk)) is not None
        with disk.open("r+b") as handle:
            handle.seek(offset)
            handle.write(b"\0")
    disk.write_bytes(b"\xff" * 2**21)
    assert volumes.stray_bytes(str(disk)) is None


def test_mounts_and_fstab() -> None:
    info = (
        "36 35 98:0 / /mnt/my\\040data rw,noatime master:1 - ext4 /dev/md127 rw\n"
        "37 36 0:5 /sub /mnt/nfs rw - nfs4 10.0.0.2:/export rw\n"
    )
    assert volumes.mounted_at("/mnt/my data", info) == {"source": "/dev/md127", "filesystem": "ext4"}
    assert volumes.mounted_at("/mnt/nfs", info) == {"source": "10.0.0.2:/export", "filesystem": "nfs4"}
    assert volumes.mounted_at("/mnt", info) is None
    line = volumes.fstab_line("1-2", "/mnt/my data", "ext4")
    assert line == "UUID=1-2 /mnt/my\\040data ext4 defaults,noatime,nofail,x-systemd.device-timeout=60s 0 2"
    assert volumes.fstab_entry(f"# comment\n{line}\n", "/mnt/my data/") == line
    assert volumes.fstab_entry("#UUID=1 /mnt ext4 x 0 0\n", "/mnt") is None


class Host:
    """A host whose disks are files, whose file system is a folder, and whose mounts are lines in a file."""

    def __init__(self, folder: Path, monkeypatch: Any, fake_command: Callable[..., Path]) -> None:
        self.folder = folder
        self.mount = folder / "mnt"
        self.data = self.mount / "glm"
        self.mountinfo = folder / "mountinfo"
        self.mountinfo.write_text("")
        self.disks: list[dict[str, Any]] = []
        self.extra: list[dict[str, Any]] = []
        for name in ("FSTAB", "STATE"):
            monkeypatch.setattr(data_volume, name, folder / "etc" / name.lower())
        (folder / "etc").mkdir()
        monkeypatch.setattr(data_volume, "MOUNTINFO", self.mountinfo)
        fake_command("lsblk", f"cat {folder}/lsblk.json")
        self.mounts = fake_command(
            "mount", f'mkdir -p "$1"; echo "1 2 3:4 / $1 rw - ext4 /dev/fake rw" >> {self.mountinfo}'
        )

    def add(self, name: str, content: bytes = b"", megabytes: int = 64) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        with path.open("r+b") as handle:
            handle.truncate(megabytes * 2**20)
        self.disks.append({"name": name, "path": str(path), "type": "disk", "size": path.stat().st_size, "ro": False,
                           "tran": "nvme", "serial": name, "mountpoints": [None]})  # fmt: skip
        return path

    def look(self) -> None:
        """Let lsblk see what the disks hold now."""
        for disk in self.disks:
            done = subprocess.run(["blkid", "-p", "-o", "export", disk["path"]], capture_output=True, text=True)
            found = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
            disk.update(fstype=found.get("TYPE"), label=found.get("LABEL"), pttype=found.get("PTTYPE"))
        (self.folder / "lsblk.json").write_text(json.dumps({"blockdevices": self.disks + self.extra}))

    @property
    def fstab(self) -> str:
        path = self.folder / "etc/fstab"
        return path.read_text() if path.exists() else ""


@pytest.fixture
def host(tmp_path: Path, monkeypatch: Any, fake_command: Callable[..., Path]) -> Host:
    return Host(tmp_path, monkeypatch, fake_command)


@pytest.fixture
def volume(host: Host, run_module: Any) -> Callable[..., dict[str, Any]]:
    def run(check: bool = False, **options: Any) -> dict[str, Any]:
        host.look()
        wanted = {"path": str(host.data), "mount": str(host.mount), "volume": "create", "minimum_gb": 0, **options}
        result: dict[str, Any] = run_module(data_volume.main, check=check, **wanted)
        return result

    return run


def test_without_being_asked_only_the_folder_is_made(host: Host, run_module: Any) -> None:
    host.add("nvme1n1")
    assert run_module(data_volume.main, check=True, path=str(host.data))["changed"] and not host.data.exists()
    first = run_module(data_volume.main, path=str(host.data))
    again = run_module(data_volume.main, path=str(host.data))
    assert (first["action"], again["action"], again["changed"]) == ("folder", "none", False)
    assert host.data.is_dir() and host.fstab == ""


@needs_mkfs
def test_an_empty_disk_is_formatted_mounted_and_left_alone_afterwards(host: Host, volume: Any) -> None:
    disk = host.add("nvme1n1")
    check = volume(check=True)
    assert (check["action"], check["disks"]) == ("created", [str(disk)])
    assert "format " + str(disk) in check["diff"]["after"] and not host.mount.exists() and host.fstab == ""
    assert volumes.signatures(str(disk)) == []
    first = volume()
    assert (first["action"], first["changed"], first["device"]) == ("created", True, "/dev/fake")
    assert host.data.is_dir() and not (host.folder / "etc/state").exists()
    assert host.fstab.startswith("UUID=") and f" {host.mount} ext4 " in host.fstab and "nofail" in host.fstab
    before = disk.read_bytes()
    again = volume()
    assert (again["action"], again["changed"]) == ("none", False) and disk.read_bytes() == before
    assert volume(check=True)["changed"] is False


@needs_mkfs
def test_a_volume_of_an_earlier_run_is_found_by_its_label(host: Host, volume: Any) -> None:
    """As after a new system disk, or an interruption between formatting and mounting."""
    disk = host.add("nvme1n1")
    host.add("nvme2n1")
    subprocess.run(["mkfs.ext4", "-q", "-L", "glm-data", str(disk)], check=True)
    assert volume(check=True)["action"] == "mounted" and host.fstab == ""
    assert (volume()["action"], volumes.signatures(str(host.folder / "nvme2n1"))) == ("mounted", [])
    assert host.fstab.count("UUID=") == 1


@needs_mkfs
@pytest.mark.parametrize("interrupted", [True, False])
def test_only_our_own_half_made_file_system_is_taken_up_again(host: Host, volume: Any, interrupted: bool) -> None:
    disk = host.add("nvme1n1", b"\0" * 8192 + b"half-written inode tables")
    if interrupted:
        (host.folder / "etc/state").write_text(json.dumps([[str(disk), disk.stat().st_size, "nvme1n1"]]))
    result = volume()
    if interrupted:
        assert result["action"] == "created"
    else:
        assert result["failed"] and f"expected {disk} to be empty, found bytes of no known kind" in result["msg"]
        assert disk.read_bytes()[8192:8196] == b"half" and host.fstab == ""


@needs_mkfs
@pytest.mark.parametrize("disks", [True, False], ids=["named", "found"])
@pytest.mark.parametrize("what", ["ext4", "swap", "partition table"])
def test_a_disk_that_holds_anything_is_never_formatted(host: Host, volume: Any, what: str, disks: bool) -> None:
    # One Linux partition in a table of the old kind.
    table = b"\0" * 446 + bytes.fromhex("80202100 83dd1e3f 00080000 00f00100") + b"\0" * 48 + b"\x55\xaa"
    disk = host.add("nvme1n1", table if what == "partition table" else b"")
    if what != "partition table":
        subprocess.run([{"ext4": "mkfs.ext4", "swap": "mkswap"}[what], str(disk)], check=True, capture_output=True)
    before = disk.read_bytes()
    for check in (True, False):
        result = volume(check=check, **({"disks": [str(disk)]} if disks else {}))
        assert result["failed"] and result["phase"] == "data volume"
        assert str(disk) in result["msg"] and "Nothing was changed" in result["msg"] and "Next:" in result["msg"]
    assert disk.read_bytes() == before and host.fstab == "" and not host.mounts.exists()


@needs_mkfs
@pytest.mark.parametrize("label", ["precious", "glm-data"])
def test_what_lsblk_does_not_know_is_read_from_the_disk(host: Host, volume: Any, monkeypatch: Any, label: str) -> None:
    """lsblk asks udev, which does not run everywhere."""
    disk = host.add("nvme1n1")
    subprocess.run(["mkfs.ext4", "-q", "-L", label, str(disk)], check=True)
    monkeypatch.setattr(host, "look", lambda: None)
    (host.folder / "lsblk.json").write_text(json.dumps({"blockdevices": host.disks}))
    result = volume()
    if label == "glm-data":
        assert result["action"] == "mounted"
    else:
        assert result["failed"] and f"{disk}: the signature of ext4 named precious" in result["msg"]


@needs_mkfs
def test_a_signature_that_both_missed_still_saves_the_disk(
    host: Host, volume: Any, fake_command: Callable[..., Path]
) -> None:
    disk = host.add("nvme1n1")
    subprocess.run(["mkfs.ext4", "-q", str(disk)], check=True)
    fake_command("blkid", "exit 2")
    result = volume()
    assert result["failed"] and f"expected {disk} to be empty, found the signature of ext4 at" in result["msg"]


def test_a_disk_in_use_is_refused(host: Host, volume: Any, monkeypatch: Any) -> None:
    host.add("nvme1n1")
    monkeypatch.setattr(volumes, "in_use", lambda _path: True)
    assert "found in use by the kernel. Nothing was changed" in volume()["msg"]


def test_several_disks_are_joined_first(host: Host, volume: Any, fake_command: Callable[..., Path]) -> None:
    disks = [str(host.add(name)) for name in ("nvme1n1", "nvme2n1")]
    mdadm, mkfs = fake_command("mdadm", "true"), fake_command("mkfs.xfs", "true")
    fake_command("blkid", "echo 1-2-3")
    result = volume(filesystem="xfs")
    assert (result["action"], result["disks"]) == ("created", disks)
    assert mdadm.read_text() == (
        f"--create /dev/md/glm-data --name=glm-data --homehost=any --level=0 --raid-devices=2 --run {' '.join(disks)}\n"
    )
    assert mkfs.read_text() == "-q -L glm-data /dev/md/glm-data\n"
    assert host.fstab.startswith(f"UUID=1-2-3 {host.mount} xfs ")


def array(host: Host, **child: Any) -> str:
    """Members of our array on the host; ``child`` is what the running array shows, nothing where it does not run."""
    device = str(host.add("md127"))
    host.disks.pop()
    running = [{"name": "md127", "path": device, "type": "raid0", "size": 1, "mountpoints": [], **child}]
    host.extra = [
        {"name": name, "path": f"/dev/{name}", "type": "disk", "size": 1, "fstype": "linux_raid_member",
         "label": "any:glm-data", "mountpoints": [], **({"children": running} if child else {})}
        for name in ("nvme1n1", "nvme2n1")
    ]  # fmt: skip
    return device


@needs_mkfs
def test_an_array_that_was_never_formatted_is_formatted(host: Host, volume: Any) -> None:
    device = array(host, fstype=None)
    assert (volume()["action"], volumes.signatures(device) != []) == ("created", True)


@needs_mkfs
def test_an_array_with_anything_on_it_is_not(host: Host, volume: Any) -> None:
    device = array(host, fstype="ext4", label="precious")
    subprocess.run(["mkfs.ext4", "-q", "-L", "precious", device], check=True)
    result = volume()
    assert result["failed"] and f"expected {device} to be empty" in result["msg"]


def test_an_array_that_does_not_run_is_assembled(
    host: Host, volume: Any, fake_command: Callable[..., Path], tmp_path: Path
) -> None:
    array(host)
    running = {"name": "md0", "path": "/dev/md0", "type": "raid0", "size": 1, "fstype": "ext4", "label": "glm-data"}
    assembled = {"blockdevices": [{**host.extra[0], "children": [running]}]}
    (tmp_path / "after.json").write_text(json.dumps(assembled))
    calls = fake_command("mdadm", f"cp {tmp_path}/after.json {tmp_path}/lsblk.json")
    fake_command("blkid", "echo 1-2-3")
    assert volume(check=True)["action"] == "mounted" and not calls.exists()
    assert volume()["action"] == "mounted"
    assert calls.read_text() == "--assemble /dev/md/glm-data /dev/nvme1n1 /dev/nvme2n1\n"


def test_what_is_mounted_already_is_adopted(host: Host, volume: Any) -> None:
    host.mountinfo.write_text(f"1 2 0:5 / {host.mount} rw - nfs4 10.0.0.2:/fleet rw\n")
    for wanted in ("create", "mounted"):
        result = volume(volume=wanted)
        assert result["device"] == "10.0.0.2:/fleet" and result["disks"] == [] and host.fstab == ""
    assert host.data.is_dir()


def test_what_fstab_has_is_mounted(host: Host, volume: Any) -> None:
    line = f"/dev/disk/by-label/scratch {host.mount} xfs defaults 0 0\n"
    (host.folder / "etc/fstab").write_text(line)
    assert volume(volume="mounted")["action"] == "mounted" and host.fstab == line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"volume": "mounted"}, "expected a file system mounted at"),
        ({"path": "/elsewhere/glm"}, "expected the data folder /elsewhere/glm to be inside its volume"),
        ({}, "expected an empty local NVMe disk of 0 GB or more, found no disk. Nothing was changed"),
    ],
)
def test_refusals(volume: Any, options: dict[str, Any], message: str) -> None:
    result = volume(**options)
    assert result["failed"] and message in result["msg"] and "Next:" in result["msg"]


def test_a_host_with_one_disk_is_told_what_was_found(
    host: Host, volume: Any, fixture_text: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(host, "look", lambda: None)
    (host.folder / "lsblk.json").write_text(fixture_text("disks/one_disk.json"))
    message = volume()["msg"]
    assert "/dev/vda: a partition table (gpt), part vda1 (mounted at /" in message and "zram0" not in message


def test_nothing_is_hidden_under_a_mount(host: Host, volume: Any) -> None:
    host.add("nvme1n1")
    host.data.mkdir(parents=True)
    (host.data / "weights").touch()
    result = volume()
    assert result["failed"] and "as a mount would hide what is in it, found glm" in result["msg"]


@pytest.mark.parametrize("points", [["/old"], []])
def test_a_volume_that_is_elsewhere_or_not_the_only_one_is_refused(host: Host, volume: Any, points: list[str]) -> None:
    ours = {"type": "disk", "size": 1, "fstype": "ext4", "label": "glm-data"}
    host.extra = [{**ours, "name": "nvme1n1", "path": "/dev/nvme1n1", "mountpoints": points}]
    if not points:
        host.extra.append({**ours, "name": "nvme2n1", "path": "/dev/nvme2n1", "mountpoints": []})
    message = volume()["msg"]
    assert ("found it mounted at /old" if points else "found /dev/nvme1n1, /dev/nvme2n1") in message
