"""gpu_facts: every state of a GPU host that is met in the field, and never a failure."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.action.gpu_facts import merge
from ansible_collections.glm.fleet.plugins.module_utils.host import facts as host_facts
from ansible_collections.glm.fleet.plugins.module_utils.host import gpu
from ansible_collections.glm.fleet.plugins.modules import gpu_facts
from ansible_collections.glm.fleet.plugins.plugin_utils.host import driver
from ansible_collections.glm.fleet.plugins.plugin_utils.host.clock import skew
from tests.patience import PATIENCE_SECONDS

Text = Callable[[str], str]


def smi(fake_command: Callable[..., Path], tmp_path: Path, csv: str, xml: str = "", rc: int = 0) -> Path:
    (tmp_path / "smi.csv").write_text(csv, "utf-8")
    (tmp_path / "smi.xml").write_text(xml, "utf-8")
    return fake_command(
        "nvidia-smi",
        f'case "$*" in *query-gpu*) cat {tmp_path}/smi.csv; exit {rc};; "-q -x") cat {tmp_path}/smi.xml;; esac',
    )


def pci_device(root: Path, bus: str, vendor: str, device: str, kind: str, driver: str = "") -> None:
    folder = root / "sys/bus/pci/devices" / bus
    folder.mkdir(parents=True)
    for name, value in (("vendor", vendor), ("device", device), ("class", kind)):
        (folder / name).write_text(value + "\n", "utf-8")
    if driver:
        target = root / "sys/bus/pci/drivers" / driver
        target.mkdir(parents=True, exist_ok=True)
        (folder / "driver").symlink_to(target)


@pytest.mark.parametrize(
    ("name", "product", "memory", "driver", "cuda"),
    [("b200_8", "NVIDIA B200", 183359, "580.126.09", "13.0"), ("h200_8", "NVIDIA H200", 143771, "570.195.03", "12.8")],
)
def test_healthy_host(
    fake_command: Any, tmp_path: Path, fixture_text: Text, name: str, product: str, memory: int, driver: str, cuda: str
) -> None:
    smi(fake_command, tmp_path, fixture_text(f"nvidia/{name}.csv"), fixture_text(f"nvidia/{name}.xml"))
    gatherer = host_facts.Gatherer(tmp_path)
    facts = gatherer.gather(["gpu"])
    assert [entry["index"] for entry in facts["gpus"]] == list(range(8))
    assert {entry["name"] for entry in facts["gpus"]} == {product}
    assert {entry["memory_total_mib"] for entry in facts["gpus"]} == {memory}
    assert facts["gpus"][1]["bus_id"] == "00000000:43:00.0"
    assert facts["driver"]["version"] == driver
    assert facts["driver"]["cuda_version"] == cuda
    assert facts["fabric"]["state"] == "Completed"
    assert len(facts["fabric"]["states"]) == 8
    assert facts["gpu_source"] == "nvidia-smi"
    assert facts["errors"] == []


def test_a_gpu_that_is_on_the_bus_but_not_in_nvidia_smi_is_reported(
    fake_command: Any, tmp_path: Path, fixture_text: Text
) -> None:
    smi(fake_command, tmp_path, fixture_text("nvidia/b200_7.csv"), fixture_text("nvidia/b200_7.xml"))
    for slot in range(8):
        pci_device(tmp_path, f"0000:{slot:02x}:00.0", "0x10de", "0x2901", "0x030200", "nvidia")
    facts = host_facts.Gatherer(tmp_path).gather(["gpu"])
    assert len(facts["gpus"]) == 7
    assert [error["message"] for error in facts["errors"]] == [
        "1 GPUs are on the PCI bus but nvidia-smi does not show them"
    ]


def test_a_gpu_that_needs_a_reset_is_kept_and_named(fake_command: Any, tmp_path: Path, fixture_text: Text) -> None:
    csv = fixture_text("nvidia/b200_8_one_needs_reset.csv")
    smi(fake_command, tmp_path, csv, fixture_text("nvidia/b200_8.xml"))
    facts = host_facts.Gatherer(tmp_path).gather(["gpu"])
    assert facts["gpus"][7]["memory_total_mib"] is None
    assert facts["errors"] == [{"phase": "gpu", "message": "GPU 7 (00000000:DF:00.0) does not answer: NVIDIA B200"}]


def test_lost_gpu_is_a_driver_error_with_nvidia_smis_own_words(
    fake_command: Any, tmp_path: Path, fixture_text: Text
) -> None:
    smi(fake_command, tmp_path, fixture_text("nvidia/gpu_lost.txt"), rc=15)
    facts = host_facts.Gatherer(tmp_path).gather(["gpu"])
    assert facts["gpus"] == []
    assert "nvidia-smi ended with 15" in facts["errors"][0]["message"]
    assert "GPU is lost" in facts["errors"][0]["message"]


def test_driver_and_library_of_different_versions(fake_command: Any, tmp_path: Path, fixture_text: Text) -> None:
    smi(fake_command, tmp_path, fixture_text("nvidia/driver_library_mismatch.txt"), rc=18)
    version = tmp_path / "proc/driver/nvidia/version"
    version.parent.mkdir(parents=True)
    version.write_text(fixture_text("nvidia/proc_version_open.txt"), "utf-8")
    facts = host_facts.Gatherer(tmp_path).gather(["gpu"])
    assert facts["driver"]["module_version"] == "570.195.03"
    assert facts["driver"]["library_version"] == "570.211"
    assert [error["phase"] for error in facts["errors"]] == ["driver", "driver"]
    assert "a reboot loads the new one" in facts["errors"][1]["message"]


def test_no_driver_falls_back_to_the_pci_bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_facts, "which", lambda name: None)
    pci_device(tmp_path, "0000:1b:00.0", "0x10de", "0x2335", "0x030200")
    pci_device(tmp_path, "0000:1c:00.0", "0x10de", "0x22a3", "0x068000", "nvidia-nvswitch")
    pci_device(tmp_path, "0000:1d:00.0", "0x8086", "0x0b60", "0x030000")
    facts = host_facts.Gatherer(tmp_path).gather(["gpu"])
    assert facts["gpu_source"] == "pci"
    assert facts["gpus"] == [
        {"index": 0, "name": "nvidia 0x2335", "vendor": "nvidia", "device": "0x2335", "bus_id": "0000:1b:00.0",
         "driver": None}
    ]  # fmt: skip
    assert facts["pci"]["nvswitches"] == 1
    assert facts["errors"][0]["phase"] == "driver"
    assert "no driver is installed" in facts["errors"][0]["message"]


def test_device_nodes_of_a_cdi_spec_that_are_not_as_it_has_them(tmp_path: Path) -> None:
    null = Path("/dev/null").stat()
    real = {"path": "/dev/null", "major": os.major(null.st_rdev), "minor": os.minor(null.st_rdev), "gid": null.st_gid}
    nodes = [real, {**real, "path": "/dev/dri/renderD129"}, {"path": "/dev/without-numbers"}]
    text = json.dumps({"kind": "amd.com/gpu", "devices": [{"name": "all", "containerEdits": {"deviceNodes": nodes}}]})
    assert gpu.lost_nodes(text, Path("/")) == ["/dev/dri/renderD129"]
    assert gpu.lost_nodes(text.replace('"gid": 0', '"gid": 4242'), Path("/")) == ["/dev/dri/renderD129", "/dev/null"]
    assert gpu.lost_nodes(text, tmp_path) == ["/dev/dri/renderD129", "/dev/null"]
    assert gpu.lost_nodes("kind: nvidia.com/gpu\n", tmp_path) == []
    (tmp_path / "etc/cdi").mkdir(parents=True)
    (tmp_path / "etc/cdi/amd.json").write_text(text, "utf-8")
    facts = host_facts.Gatherer(tmp_path).gather(["cdi"])
    assert facts["cdi"]["specs"][0]["lost"] == ["/dev/dri/renderD129", "/dev/null"]


def test_nouveau_on_the_boards_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_facts, "which", lambda name: None)
    pci_device(tmp_path, "0000:1b:00.0", "0x10de", "0x2335", "0x030200", "nouveau")
    errors = host_facts.Gatherer(tmp_path).gather(["gpu"])["errors"]
    assert errors[0]["phase"] == "driver" and "nouveau drives 1 GPUs" in errors[0]["message"]
    assert "gpu_base_reboot_allowed" in errors[0]["message"]


def test_amd_accelerators_are_found_on_the_bus(tmp_path: Path) -> None:
    pci_device(tmp_path, "0000:05:00.0", "0x1002", "0x74a1", "0x120000", "amdgpu")
    found = gpu.scan_pci(tmp_path)
    assert found["gpus"] == [{"vendor": "amd", "device": "0x74a1", "bus_id": "0000:05:00.0", "driver": "amdgpu"}]


def test_driver_that_is_installed_but_not_loaded(fake_command: Any, tmp_path: Path, fixture_text: Text) -> None:
    smi(fake_command, tmp_path, fixture_text("nvidia/no_driver.txt"), rc=9)
    facts = host_facts.Gatherer(tmp_path).gather(["gpu"])
    assert "couldn't communicate with the NVIDIA driver" in facts["errors"][0]["message"]


def test_nvidia_smi_that_hangs_is_an_error_not_a_hang(fake_command: Any, tmp_path: Path) -> None:
    fake_command("nvidia-smi", f"exec sleep {2 * PATIENCE_SECONDS}")
    started = time.monotonic()
    facts = host_facts.Gatherer(tmp_path, timeout=0.3).gather(["gpu"])
    assert time.monotonic() - started < 60
    assert "no answer within 0.3 s" in facts["errors"][0]["message"]


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("b200_8_fabric_in_progress", "In Progress"),
        ("b200_8_fabric_failed", "Completed with status Failure"),
        ("a10_no_fabric", None),
    ],
)
def test_fabric_states(fixture_text: Text, name: str, state: str | None) -> None:
    fabric = gpu.parse_smi_xml(fixture_text(f"nvidia/{name}.xml"))["fabric"]
    assert fabric["state"] == state
    assert fabric["present"] is (state is not None)


def test_fabric_in_progress_is_waited_for(
    fake_command: Any, tmp_path: Path, fixture_text: Text, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_facts, "FABRIC_POLL_SECONDS", 0.05)
    for name in ("b200_8_fabric_in_progress.xml", "b200_8.xml", "b200_8.csv"):
        (tmp_path / name).write_text(fixture_text(f"nvidia/{name}"), "utf-8")
    fake_command(
        "nvidia-smi",
        f'cd {tmp_path}\ncase "$*" in *query-gpu*) cat b200_8.csv; exit;; esac\n'
        "if [ -e asked ]; then cat b200_8.xml; else touch asked; cat b200_8_fabric_in_progress.xml; fi",
    )
    assert host_facts.Gatherer(tmp_path, fabric_wait=10).gather(["gpu"])["fabric"]["state"] == "Completed"
    (tmp_path / "asked").unlink()
    assert host_facts.Gatherer(tmp_path).gather(["gpu"])["fabric"]["state"] == "In Progress"


def test_csv_with_unexpected_columns_is_an_error_in_its_phase(fake_command: Any, tmp_path: Path) -> None:
    smi(fake_command, tmp_path, "0, NVIDIA B200\n")
    facts = host_facts.Gatherer(tmp_path).gather(["gpu"])
    assert facts["errors"][0]["phase"] == "gpu"
    assert "expected 7 columns, found 2" in facts["errors"][0]["message"]


@pytest.mark.parametrize(
    ("name", "version"), [("proc_version_open", "570.195.03"), ("proc_version_proprietary", "535.104.05")]
)
def test_module_version_of_both_flavours(fixture_text: Text, name: str, version: str) -> None:
    assert gpu.driver_of_proc(fixture_text(f"nvidia/{name}.txt")) == version


def test_cdi_spec_of_nvidia_ctk(fixture_text: Text) -> None:
    spec = gpu.parse_cdi(fixture_text("nvidia/cdi_nvidia_ctk.yaml"))
    assert spec == {
        "kind": "nvidia.com/gpu",
        "devices": ["nvidia.com/gpu=0", "nvidia.com/gpu=1", "nvidia.com/gpu=all"],
        "driver_version": "580.126.09",
    }


def test_cdi_spec_written_by_hand(fixture_text: Text) -> None:
    spec = gpu.parse_cdi(fixture_text("nvidia/cdi_by_hand.yaml"))
    assert spec["devices"] == ["nvidia.com/gpu=all", "nvidia.com/gpu=1:0"]
    assert spec["driver_version"] is None


def test_cdi_spec_in_json() -> None:
    text = json.dumps({"kind": "amd.com/gpu", "devices": [{"name": "all"}, {"name": "0"}]})
    assert gpu.parse_cdi(text)["devices"] == ["amd.com/gpu=all", "amd.com/gpu=0"]


def test_only_the_files_that_docker_reads_are_cdi_specs_and_the_stronger_folder_is_last(tmp_path: Path) -> None:
    for name in ("var/run/cdi/a.yaml", "etc/cdi/b.json", "etc/cdi/c.yml", "etc/cdi/d.yaml.new"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('{"kind": "nvidia.com/gpu", "devices": [{"name": "all"}]}', "utf-8")
    paths = [spec["path"] for spec in host_facts.Gatherer(tmp_path).gather(["cdi"])["cdi"]["specs"]]
    assert paths == ["/etc/cdi/b.json", "/var/run/cdi/a.yaml"]


def test_unreadable_cdi_spec_is_reported_not_raised(tmp_path: Path) -> None:
    folder = tmp_path / "etc/cdi"
    folder.mkdir(parents=True)
    (folder / "broken.json").write_text("{", "utf-8")
    (folder / "empty.yaml").write_text("cdiVersion: 0.5.0\n", "utf-8")
    facts = host_facts.Gatherer(tmp_path).gather(["cdi"])
    assert facts["cdi"]["specs"] == []
    assert [error["phase"] for error in facts["errors"]] == ["cdi", "cdi"]
    assert facts["errors"][0]["message"].startswith("/etc/cdi/broken.json")


def test_disk_of_a_path_that_does_not_exist_yet(tmp_path: Path) -> None:
    facts = host_facts.Gatherer(paths=[str(tmp_path / "not/yet")]).gather(["disks"])
    assert facts["disks"][0]["path"] == str(tmp_path / "not/yet")
    assert facts["disks"][0]["free_bytes"] > 0
    assert str(tmp_path).startswith(facts["disks"][0]["mount"])


def test_system_part_reads_the_distribution(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text('ID=ubuntu\nID_LIKE=debian\nVERSION_ID="22.04"\nVERSION_CODENAME=jammy\n')
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal:       2113929216 kB\n")
    (tmp_path / "proc/self/status").write_text("CapBnd:\t000001fffeffffff\n")
    facts = host_facts.Gatherer(tmp_path).gather(["system"])
    assert facts["distribution"]["family"] == "debian"
    assert (facts["distribution"]["id"], facts["distribution"]["version"]) == ("ubuntu", "22.04")
    assert facts["memory_mib"] == 2064384
    assert facts["can_raise_limits"] is False
    assert facts["nr_open"] is None
    (tmp_path / "proc/sys/fs").mkdir(parents=True)
    (tmp_path / "proc/sys/fs/nr_open").write_text("524288\n")
    assert host_facts.Gatherer(tmp_path).gather(["system"])["nr_open"] == 524288
    assert facts["cgroups"] is None


@pytest.mark.parametrize(
    ("path", "version"), [("memory", 1), ("cgroup.controllers", 2), ("unified/cgroup.controllers", 2)]
)
def test_the_version_of_control_groups_is_that_of_systemd_s_units(tmp_path: Path, path: str, version: int) -> None:
    place = tmp_path / "sys/fs/cgroup" / path
    place.parent.mkdir(parents=True)
    place.touch()
    assert host_facts.Gatherer(tmp_path).gather(["system"])["cgroups"] == version


def test_cloud_init_old_and_new(fake_command: Any) -> None:
    fake_command("cloud-init", """echo '{"status": "error", "detail": "x", "errors": ["boom"]}'; exit 1""")
    assert host_facts.cloud_init()["errors"] == ["boom"]
    fake_command(
        "cloud-init", 'case "$*" in *format*) echo "unrecognized arguments" >&2; exit 2;; esac; echo "status: running"'
    )
    assert host_facts.cloud_init()["status"] == "running"


def test_module_returns_facts_and_no_change(run_module: Any) -> None:
    result = run_module(gpu_facts.main, subset=["system", "disks"], paths=["/"])
    assert result["changed"] is False
    facts = result["ansible_facts"]["gpu_facts"]
    assert facts["architecture"] and facts["disks"][0]["mount"] == "/"
    assert "gpus" not in facts


def test_skew_is_zero_inside_the_call_and_signed_outside() -> None:
    assert skew(10.0, 9.0, 11.0) == 0
    assert skew(8.0, 9.0, 11.0) == -1.0
    assert skew(14.0, 9.0, 11.0) == 3.0


def test_merging_keeps_other_parts_and_forgets_mended_errors() -> None:
    of_cdi, of_gpu = {"phase": "cdi", "message": "x"}, {"phase": "gpu", "message": "y"}
    known = {"gpus": [1], "cdi": {"a": 1}, "errors": [of_cdi, of_gpu]}
    fresh = {"cdi": {"a": 2}, "errors": []}
    assert merge(known, fresh) == {"gpus": [1], "cdi": {"a": 2}, "errors": [of_gpu]}


def test_a_file_system_that_does_not_answer_is_named_and_the_others_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = str(tmp_path / "gone")
    stale = "import sys, time\nif sys.argv[1].endswith('gone'): time.sleep(3600)\n"
    monkeypatch.setattr(host_facts, "_SPACE", stale + host_facts._SPACE)
    run = host_facts.run
    monkeypatch.setattr(
        host_facts, "run", lambda argv, timeout: run(argv, timeout if gone in argv else PATIENCE_SECONDS)
    )
    facts = host_facts.Gatherer(paths=[gone, str(tmp_path)], timeout=1).gather(["disks"])
    assert [disk["path"] for disk in facts["disks"]] == [str(tmp_path)]
    assert facts["errors"] == [{"phase": "disk", "message": f"{gone}: no answer within 1 s"}]
    monkeypatch.setattr(host_facts, "_SPACE", "raise OSError(116, 'Stale file handle')")
    errors = host_facts.Gatherer(paths=[gone]).gather(["disks"])["errors"]
    assert "Stale file handle" in errors[0]["message"]


def test_a_broken_tool_says_nothing_while_the_other_describes_the_boards(
    fake_command: Any, tmp_path: Path, fixture_text: Text
) -> None:
    (tmp_path / "rocm.json").write_text(fixture_text("amd/mi300x_8_rocm_smi.json"), "utf-8")
    fake_command("amd-smi", "echo \"No module named 'amdsmi'\" >&2; exit 1")
    (tmp_path / "sys/module/amdgpu").mkdir(parents=True)
    for index in range(8):
        pci_device(tmp_path, f"0000:{index:02x}:00.0", "0x1002", "0x74a1", "0x120000")
    errors = host_facts.Gatherer(tmp_path).gather(["gpu"])["errors"]
    assert [error["phase"] for error in errors] == ["driver"] and "amd-smi: No module" in errors[0]["message"]
    fake_command("rocm-smi", f"cat {tmp_path}/rocm.json")
    facts = host_facts.Gatherer(tmp_path).gather(["gpu"])
    assert (facts["gpu_source"], len(facts["gpus"]), facts["errors"]) == ("rocm-smi", 8, [])


def test_modules_of_the_fabric_are_told(tmp_path: Path) -> None:
    (tmp_path / "sys/module/ib_umad").mkdir(parents=True)
    facts = host_facts.Gatherer(tmp_path).gather(["drivers"])
    assert facts["drivers"]["modules"] == {"mlx5_ib": False, "ib_umad": True}


INFOROM = "WARNING: infoROM is corrupted at gpu 00000000:52:00.0\n"


def b200_host(tmp_path: Path, driver: str = "nvidia") -> None:
    """The bus of a host with eight B200 and their module loaded."""
    for slot in range(8):
        pci_device(tmp_path, f"0000:{slot:02x}:00.0", "0x10de", "0x2901", "0x030200", driver)
    (tmp_path / "sys/module/nvidia").mkdir(parents=True)
    version = tmp_path / "proc/driver/nvidia/version"
    version.parent.mkdir(parents=True)
    version.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.126.09  Release Build\n", "utf-8")


@pytest.mark.parametrize(
    ("rc", "before", "after", "words"),
    [
        (0, "", INFOROM, "nvidia-smi: infoROM corrupted: GPU 52:00.0 (WARNING: "),
        (14, INFOROM, "", "nvidia-smi ended with 14 beside its answer: infoROM corrupted: GPU 52:00.0"),
        (15, "", "", "nvidia-smi ended with 15 beside its answer: nothing else"),
    ],
)
def test_rows_that_can_be_read_are_used_and_what_stands_beside_them_is_kept(
    fake_command: Any, tmp_path: Path, fixture_text: Text, rc: int, before: str, after: str, words: str
) -> None:
    b200_host(tmp_path)
    csv, xml = fixture_text("nvidia/b200_8.csv"), fixture_text("nvidia/b200_8.xml")
    smi(fake_command, tmp_path, before + csv + after, before + xml + after, rc)
    facts = host_facts.Gatherer(tmp_path).gather(["gpu"])
    assert (len(facts["gpus"]), facts["driver"]["version"]) == (8, "580.126.09")
    assert (facts["gpu_source"], facts["fabric"]["state"]) == ("nvidia-smi", "Completed")
    assert [error["phase"] for error in facts["errors"]] == ["gpu"] and words in facts["errors"][0]["message"]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("sleep 30", "no answer within"),
        ("echo 'GPU6: 0000:D1:00.0: GPU is lost'; exit 15", "nvidia-smi ended with 15: GPU6"),
        ("true", "nvidia-smi ended well and describes no GPU"),
        ("echo 'garbage, x'", "nvidia-smi ended well and describes no GPU: garbage, x"),
    ],
)
def test_a_tool_that_describes_nothing_does_not_make_a_host_without_a_driver(
    fake_command: Any, tmp_path: Path, script: str, words: str
) -> None:
    b200_host(tmp_path)
    fake_command("nvidia-smi", script.replace("sleep", "exec sleep"))
    facts = host_facts.Gatherer(tmp_path, timeout=1 if "sleep" in script else 30).gather(["gpu"])
    said = [error["message"] for error in facts["errors"] if error["phase"] == "driver"]
    assert words in said[0]
    assert said[1] == (
        "there is a driver, which does not answer: the driver's module 580.126.09 is loaded; 8 GPUs are bound to nvidia"
    )
    assert facts["driver"]["loaded"] and facts["driver"]["tool"]
    assert {entry.get("memory_used_mib") for entry in facts["gpus"]} == {None}
    assert len(driver.busy_gpus(facts)) == 8, "memory that cannot be read is memory in use"


def process(root: Path, pid: int, name: str, *opened: str) -> Path:
    """A process of the machine with these files open."""
    folder = root / f"proc/{pid}"
    (folder / "fd").mkdir(parents=True)
    (folder / "comm").write_text(f"{name}\n")
    for number, path in enumerate(opened):
        (folder / f"fd/{number}").symlink_to(path)
    return folder


def busy(root: Path, fake_command: Any) -> tuple[Any, int]:
    """Who has a GPU open, and how many GPUs count as in use, on a host whose nvidia-smi fails."""
    fake_command("nvidia-smi", "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18")
    facts = host_facts.Gatherer(root).gather(["gpu"])
    return facts["gpu_holders"], len(driver.busy_gpus(facts))


def test_gpus_that_nobody_has_open_are_idle_though_no_tool_reads_their_memory(
    fake_command: Any, tmp_path: Path
) -> None:
    """A driver that was upgraded under its module: only a reboot ends that."""
    b200_host(tmp_path)
    process(tmp_path, 2, "kthreadd")
    process(tmp_path, 9, "bash", "/dev/null", "/dev/nvidiactl", "/home/dev/nvidia0")
    for pid, name in enumerate(("nvidia-persiste", "nv-fabricmanage", "nv-hostengine", "nvidia-imex", "dcgm-exporter")):
        process(tmp_path, 20 + pid, name, "/dev/nvidia0", "/dev/nvidia-uvm")
    (tmp_path / "proc/77").mkdir()
    assert busy(tmp_path, fake_command) == ([], 0)


@pytest.mark.parametrize(
    "node", ["/dev/nvidia0", "/dev/nvidia13", "/dev/nvidia-uvm", "/dev/kfd", "/dev/nvidia1 (deleted)"]
)
def test_gpus_that_somebody_has_open_are_in_use(fake_command: Any, tmp_path: Path, node: str) -> None:
    b200_host(tmp_path)
    process(tmp_path, 2, "kthreadd")
    process(tmp_path, 812, "python3", "/dev/null", node)
    assert busy(tmp_path, fake_command) == (["python3 (pid 812)"], 8)


def test_processes_that_cannot_be_seen_may_use_the_gpus(fake_command: Any, tmp_path: Path) -> None:
    b200_host(tmp_path)
    process(tmp_path, 3, "bash")
    assert busy(tmp_path, fake_command) == (None, 8), "the processes of a container are not all"
    process(tmp_path, 2, "kthreadd")
    assert busy(tmp_path, fake_command) == ([], 0)
    (tmp_path / "proc/4").mkdir()
    (tmp_path / "proc/4/fd").touch()
    assert busy(tmp_path, fake_command) == (None, 8)


def test_a_driver_without_its_tool_is_a_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_facts, "which", lambda name: None)
    b200_host(tmp_path)
    [error] = host_facts.Gatherer(tmp_path).gather(["gpu"])["errors"]
    assert "no nvidia-smi: there is a driver, which nothing can ask" in error["message"]


def test_a_version_that_one_gpu_does_not_tell_is_the_others(
    fake_command: Any, tmp_path: Path, fixture_text: Text
) -> None:
    lines = fixture_text("nvidia/b200_8.csv").splitlines()
    lines[0] = lines[0].replace("580.126.09", "[Unknown Error]")
    smi(fake_command, tmp_path, "\n".join(lines), fixture_text("nvidia/b200_8.xml"))
    assert host_facts.Gatherer(tmp_path).gather(["gpu"])["driver"]["version"] == "580.126.09"


def test_amds_tool_may_print_words_where_an_object_belongs(
    fake_command: Any, tmp_path: Path, fixture_text: Text
) -> None:
    for index in range(8):
        pci_device(tmp_path, f"0000:{index:02x}:00.0", "0x1002", "0x74a1", "0x120000", "amdgpu")
    (tmp_path / "sys/module/amdgpu").mkdir(parents=True)
    document = json.loads(fixture_text("amd/mi300x_8_static_rocm7.json"))
    document["gpu_data"][2].update(vram="N/A", driver="N/A")
    document["gpu_data"][3]["vram"]["size"] = "N/A"
    (tmp_path / "amd.json").write_text(f"WARNING: [amdsmi] a word\n{json.dumps(document)}\nbye\n", "utf-8")
    fake_command("amd-smi", f"cat {tmp_path}/amd.json; exit 3")
    facts = host_facts.Gatherer(tmp_path).gather(["gpu"])
    assert (facts["gpu_source"], len(facts["gpus"])) == ("amd-smi", 8)
    assert [entry["index"] for entry in facts["gpus"] if entry["memory_total_mib"] is None] == [2, 3]
    messages = [error["message"] for error in facts["errors"]]
    assert {error["phase"] for error in facts["errors"]} == {"gpu"} and len(messages) == 3
    assert "amd-smi ended with 3 beside its answer" in messages[0] and "GPU 2 " in messages[1]
