"""The state that drivers report of GPUs: healthy ones of every platform give no finding, unhealthy ones are named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.host import gpu_state, health, links
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import platforms
from ansible_collections.glm.fleet.plugins.plugin_utils.host import gpu_states
from tests.unit.modules import gpu_documents

PLATFORMS = {row.name: row for row in platforms.load()}
NVIDIA = [row for row in PLATFORMS.values() if row.vendor == "nvidia"]
AMD = [row for row in PLATFORMS.values() if row.vendor == "amd"]
H100 = PLATFORMS["H100 SXM"]


def facts_of(platform: platforms.Platform, count: int = 8, fabric: bool = True) -> dict[str, Any]:
    """As gpu_facts has them of a host with that many GPUs."""
    device = {"vendor": platform.vendor, "device": f"0x{platform.devices[0]}"}
    switches = 4 if platform.fabric == "fabricmanager" and fabric else 0
    there = fabric and platform.fabric != "none"
    return {
        "gpus": [{}] * count,
        "pci": {"gpus": [device] * count, "nvswitches": switches},
        "fabric": {"present": there, "state": "Completed" if there else None},
    }


def judged(text: str, status: str, platform: platforms.Platform = H100, **more: Any) -> dict[str, Any]:
    """By name, the findings about a host whose driver prints this."""
    found = gpu_states.judge(facts_of(platform, **more), gpu_state.parse_nvidia(text, status), None, platform)
    return {entry["check"]: entry for entry in found}


@pytest.mark.parametrize("form", [gpu_documents.NEW, gpu_documents.OLD], ids=["570", "535"])
@pytest.mark.parametrize("platform", NVIDIA, ids=lambda row: row.name)
def test_healthy_gpus_of_nvidia_give_no_finding(platform: platforms.Platform, form: str) -> None:
    for count in (8, 4, 1):
        text, status = gpu_documents.nvidia(platform, count, form)
        found = judged(text, status, platform, count=count)
        assert {entry["outcome"] for entry in found.values()} == {"passed"}, found
        assert {"GPU recovery", "GPU modes", "clocks"} <= set(found)
        assert ("PCIe links" in found) == bool(platform.pcie)
    assert health.parse_memory_errors(text)[0]["uncorrected"] == 0


@pytest.mark.parametrize("platform", AMD, ids=lambda row: row.name)
def test_healthy_gpus_of_amd_give_no_finding(platform: platforms.Platform, tmp_path: Path) -> None:
    states = gpu_state.read_amd(tmp_path, gpu_documents.amd(tmp_path, platform.devices[0]))
    found = gpu_states.judge(facts_of(platform), states, None, platform)
    assert [(entry["check"], entry["outcome"]) for entry in found] == [
        ("GPU modes", "passed"),
        ("PCIe links", "passed"),
        ("bad pages", "passed"),
    ]


def one_of(text: str, old: str, new: str) -> str:
    """The document with another text for its fourth GPU only."""
    parts = text.split("\t<gpu id=")
    assert old in parts[4], old
    parts[4] = parts[4].replace(old, new)
    return "\t<gpu id=".join(parts)


UNHEALTHY = [
    ("GPU recovery", "_action>None<", "_action>Reset<", "the driver wants: Reset", "gpu-reset -i 00000000:13:00.0"),
    ("GPU recovery", "_action>None<", "_action>Reboot<", "the driver wants: Reboot", "reboot it"),
    ("GPU recovery", "_action>None<", "_action>Drain P2P<", "the driver wants: Drain P2P", "reboot it"),
    ("GPU recovery", "_action>None<", "_action>Drain and Reset<", "wants: Drain and Reset", "gpu-reset"),
    ("GPU recovery", "<performance_state>P0<", "<performance_state>[GPU requires reset]<", "requires reset", "reboot"),
    ("GPU recovery", "<compute_mode>Default<", "<compute_mode>GPU is lost<", "GPU is lost", "terminate"),
    ("GPU modes", "<current_mig>Disabled<", "<current_mig>Enabled<", "MIG is on", "nvidia-smi -mig 0"),
    ("GPU modes", "_mode>Default<", "_mode>Exclusive_Process<", "compute mode Exclusive_Process", "--compute-mode=0"),
    ("PCIe links", "current_link_width>16x<", "current_link_width>8x<", "PCIe 5 x8", "trains the link again"),
    ("PCIe links", "device_current_link_gen>5<", "device_current_link_gen>3<", "PCIe 3 x16", "trains the link again"),
    ("clocks", "hw_thermal_slowdown>Not Active<", "hw_thermal_slowdown>Active<", "hw thermal slowdown", "temperature"),
    ("clocks", "_brake_slowdown>Not Active<", "_brake_slowdown>Active<", "hw power brake slowdown", "power"),
    ("clocks", "current_power_limit>700", "current_power_limit>350", "350 of 700 W", "--power-limit=700"),
    ("fabric health", "<bandwidth>Full<", "<bandwidth>Degraded<", "bandwidth Degraded", "reboot the node"),
    ("fabric health", "unhealthy>False<", "unhealthy>True<", "route_unhealthy True", "reboot the node"),
    ("fabric health", "<summary>Healthy<", "<summary>Limited Capacity<", "summary Limited Capacity", "reboot"),
    ("fabric health", "configuration>None<", "configuration>Incorrect SysGuid<", "Incorrect SysGuid", "reboot"),
]


@pytest.mark.parametrize(
    ("check", "old", "new", "found", "step"), UNHEALTHY, ids=[f"{c[0]}: {c[3]}" for c in UNHEALTHY]
)
def test_one_unhealthy_gpu_of_eight_is_named_with_what_to_do(
    check: str, old: str, new: str, found: str, step: str
) -> None:
    text, status = gpu_documents.nvidia(H100)
    entry = judged(one_of(text, old, new), status)[check]
    assert entry["outcome"] == "failed" and "00000000:13:00.0: " in entry["found"] and found in entry["found"]
    assert "00000000:12" not in entry["found"] and step in entry["next"]


@pytest.mark.parametrize("flag", ["reset_required", "drain_and_reset_recommended"])
def test_drivers_before_570_say_it_by_other_elements(flag: str) -> None:
    text, status = gpu_documents.nvidia(H100, form=gpu_documents.OLD)
    assert (
        "the driver wants: " in judged(one_of(text, f"<{flag}>No<", f"<{flag}>Yes<"), status)["GPU recovery"]["found"]
    )
    slow = one_of(text, "reason_hw_slowdown>Not Active<", "reason_hw_slowdown>Active<")
    assert "hw slowdown" in judged(slow, status)["clocks"]["found"]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda text: text.replace("Link 7: 26.562 GB/s", "Link 7: <inactive>", 1), "17 of 18 NVLinks are up"),
        (lambda text: text.replace("Link 2: 26.562 GB/s", "Link 2: 1.562 GB/s", 1), "NVLinks of 1.562 GB/s"),
    ],
)
def test_nvlinks_that_are_down_or_slow_are_named(change: Callable[[str], str], found: str) -> None:
    text, status = gpu_documents.nvidia(H100)
    entry = judged(text, change(status))["NVLink"]
    assert entry["outcome"] == "failed" and entry["found"] == f"00000000:10:00.0: {found}"


SILENT = [
    ("GPU recovery", "_action>None<", "_action>N/A<"),
    ("GPU recovery", "_action>None<", "_action>Unknown Error<"),
    ("GPU modes", "<current_mig>Disabled<", "<current_mig>Unknown Error<"),
    ("GPU modes", "<persistence_mode>Enabled</persistence_mode>", ""),
    ("PCIe links", "current_link_width>16x<", "current_link_width>N/A<"),
    ("clocks", "reason_hw_slowdown>Not Active<", "reason_hw_slowdown>Unknown Error<"),
    ("clocks", "current_power_limit>700.00 W<", "current_power_limit>N/A<"),
    ("fabric health", "<bandwidth>Full<", "<bandwidth>Turquoise<"),
]


@pytest.mark.parametrize(("check", "old", "new"), SILENT)
def test_what_a_gpu_does_not_say_is_never_passed(check: str, old: str, new: str) -> None:
    text, status = gpu_documents.nvidia(H100)
    entry = judged(one_of(text, old, new), status)[check]
    assert entry["outcome"] == "not_proven" and entry["unread"] and entry["next"], entry
    assert entry["found"].startswith("00000000:13:00.0: ")


def test_rows_that_are_missing_and_links_that_cannot_be_read_are_never_passed() -> None:
    text, status = gpu_documents.nvidia(H100, 7)
    assert {entry["outcome"] for entry in judged(text, status).values()} == {"not_proven"}
    found = judged(*gpu_documents.nvidia(H100)[:1], "")
    assert found["NVLink"]["unread"] and found["PCIe links"]["outcome"] == "passed"
    (entry, *_more) = gpu_states.judge(facts_of(H100), [], "nvidia-smi -q -x: no answer within 60 s", H100)
    assert entry["unread"] and "rows of 0 of 8 GPUs (nvidia-smi -q -x: no answer within 60 s)" in entry["found"]


def test_what_a_gpu_has_not_is_nothing_against_it() -> None:
    text, status = gpu_documents.nvidia(H100)
    plain = text.replace("<current_mig>Disabled<", "<current_mig>N/A<")
    assert judged(plain, status)["GPU modes"]["outcome"] == "passed"
    idle = text.replace("device_current_link_gen>5<", "device_current_link_gen>1<").replace(">P0<", ">P8<")
    assert "idle state P8" in judged(idle, status)["PCIe links"]["found"]
    loose = judged(text.replace("<persistence_mode>Enabled<", "<persistence_mode>Disabled<"), status)["GPU modes"]
    assert loose["outcome"] == "not_proven" and "unread" not in loose and "nvidia-persistenced" in loose["next"]
    mute = text
    for word in ("Healthy", "Full", "False"):
        mute = mute.replace(f">{word}<", ">N/A<")
    mute = mute.replace("configuration>None<", "configuration>N/A<")
    health_of = judged(mute, status)["fabric health"]
    assert health_of["outcome"] == "not_proven" and "unread" not in health_of
    assert "NVLink" not in judged(text, "", count=8, fabric=False), "a share of a board without its switches"


def test_gpus_of_no_platform_owe_nothing_and_are_still_refused_for_what_they_say() -> None:
    text, status = gpu_documents.nvidia(H100)
    states = gpu_state.parse_nvidia(text.replace("<gpu_recovery_action>None<", "<gpu_recovery_action>N/A<"), status)
    found = gpu_states.judge(facts_of(H100), states, None, None)
    assert found[0]["outcome"] == "not_proven" and "unread" not in found[0]
    states = gpu_state.parse_nvidia(text.replace("<gpu_recovery_action>None<", "<gpu_recovery_action>Reset<"), status)
    assert gpu_states.judge(facts_of(H100), states, None, None)[0]["outcome"] == "failed"


@pytest.mark.parametrize(
    ("name", "text", "check", "found"),
    [
        ("current_compute_partition", "CPX", "GPU modes", "in partitions CPX/NPS1"),
        ("current_memory_partition", "NPS4", "GPU modes", "in partitions SPX/NPS4"),
        ("current_link_width", "8", "PCIe links", "PCIe 5 x8"),
        ("current_link_speed", "16.0 GT/s PCIe", "PCIe links", "PCIe 4 x16"),
        ("ras/gpu_vram_bad_pages", "0x01 : 0x1000 : R\n0x02 : 0x1000 : P", "bad pages", "1 bad pages wait"),
        ("ras/gpu_vram_bad_pages", "0x01 : 0x1000 : F", "bad pages", "cannot be retired"),
    ],
)
def test_one_unhealthy_gpu_of_amd_is_named(tmp_path: Path, name: str, text: str, check: str, found: str) -> None:
    platform = PLATFORMS["MI300X"]
    buses = gpu_documents.amd(tmp_path, "74a1")
    (tmp_path / "sys/bus/pci/devices" / buses[2] / name).write_text(text + "\n", "ascii")
    made = gpu_states.judge(facts_of(platform), gpu_state.read_amd(tmp_path, buses), None, platform)
    entry = next(entry for entry in made if entry["check"] == check)
    assert entry["outcome"] == "failed" and f"{buses[2]}: " in entry["found"] and found in entry["found"]
    assert entry["next"] and buses[1] not in entry["found"]


def test_virtual_functions_of_amd_owe_no_files_and_one_of_eight_owes_what_the_others_have(tmp_path: Path) -> None:
    platform = PLATFORMS["MI300X"]
    buses = gpu_documents.amd(tmp_path, "74b5")
    folders = [tmp_path / "sys/bus/pci/devices" / bus for bus in buses]

    def outcome() -> tuple[str, bool]:
        made = gpu_states.judge(facts_of(platform), gpu_state.read_amd(tmp_path, buses), None, platform)
        entry = next(entry for entry in made if entry["check"] == "PCIe links")
        return entry["outcome"], "unread" in entry

    (folders[0] / "current_link_speed").write_text("Unknown\n", "ascii")
    assert outcome() == ("not_proven", True)
    for folder in folders:
        (folder / "current_link_speed").write_text("Unknown\n", "ascii")
        (folder / "current_link_width").write_text("0\n", "ascii")
    assert outcome() == ("not_proven", False)


def test_half_a_word_of_partitions_is_no_fault_and_no_proof(tmp_path: Path) -> None:
    buses = gpu_documents.amd(tmp_path, "74a1")
    for bus in buses:
        (tmp_path / "sys/bus/pci/devices" / bus / "current_memory_partition").unlink()
    states = gpu_state.read_amd(tmp_path, buses)
    entry = gpu_states.judge(facts_of(PLATFORMS["MI300X"]), states, None, PLATFORMS["MI300X"])[0]
    assert entry["outcome"] == "not_proven" and "but SPX" in entry["found"]


def test_a_retired_page_is_dealt_with(tmp_path: Path) -> None:
    buses = gpu_documents.amd(tmp_path, "74a1", 1)
    pages = tmp_path / "sys/bus/pci/devices" / buses[0] / "ras/gpu_vram_bad_pages"
    pages.write_text("gpu pfn : gpu page size : flags\n0x01 : 0x1000 : R\n", "ascii")
    (state,) = gpu_state.read_amd(tmp_path, buses)
    assert state["bad_pages"] == {"retired": 1, "pending": 0, "failed": 0}
    assert (state["uuid"], state["vbios"]) == ("8c2d11a000000000", "113-M3000100-103")
    pages.write_text("what is this\n", "ascii")
    assert gpu_state.read_amd(tmp_path, buses)[0]["bad_pages"] is None


def port(name: str, state: str = "ACTIVE", link: str = "LinkUp", gbit: int = 400) -> dict[str, Any]:
    return {"name": name, "state": state, "link": link, "gbit": gbit, "layer": "InfiniBand"}


@pytest.mark.parametrize(
    ("ports", "hosts", "outcome", "words"),
    [
        ([port("mlx5_0/1"), port("mlx5_1/1")], 2, "passed", "mlx5_0/1 ACTIVE, 400 Gbit/s (InfiniBand)"),
        ([port("mlx5_0/1"), port("mlx5_1/1", "DOWN", "Disabled")], 2, "passed", "mlx5_1/1 DOWN"),
        ([port("mlx5_0/1", "DOWN", "Polling")], 2, "failed", "mlx5_0/1 DOWN"),
        ([port("mlx5_0/1", "DOWN", "Polling")], 1, "passed", "mlx5_0/1 DOWN"),
        ([port("mlx5_0/1"), port("mlx5_1/1", "INIT")], 2, "not_proven", "mlx5_1/1 INIT"),
        ([port("mlx5_0/1"), port("mlx5_1/1", gbit=100)], 1, "not_proven", "mlx5_1/1 ACTIVE, 100 Gbit/s"),
        ([], 2, "passed", "eth0 up, 25 Gbit/s, MTU 9000"),
    ],
)
def test_links_to_other_hosts(ports: list[dict[str, Any]], hosts: int, outcome: str, words: str) -> None:
    interfaces = [{"name": "eth0", "up": True, "mbit": 25000, "mtu": 9000}]
    entry = gpu_states.network({"interfaces": interfaces, "ports": ports}, hosts)
    assert entry["outcome"] == outcome and words in entry["found"] and "unread" not in entry


def test_links_are_read_as_the_kernel_shows_them(tmp_path: Path) -> None:
    content = {
        "sys/class/net/eth0/device/vendor": "0x15b3", "sys/class/net/eth0/operstate": "up",
        "sys/class/net/eth0/speed": "100000", "sys/class/net/eth0/mtu": "1500",
        "sys/class/net/eth1/device/vendor": "0x1af4", "sys/class/net/eth1/operstate": "down",
        "sys/class/net/eth1/speed": "-1", "sys/class/net/eth1/mtu": "1500",
        "sys/class/net/docker0/operstate": "up", "sys/class/infiniband/mlx5_0/ports/1/state": "4: ACTIVE",
        "sys/class/infiniband/mlx5_0/ports/1/phys_state": "5: LinkUp",
        "sys/class/infiniband/mlx5_0/ports/1/rate": "400 Gb/sec (4X NDR)",
        "sys/class/infiniband/mlx5_0/ports/1/link_layer": "InfiniBand",
    }  # fmt: skip
    for name, text in content.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n", "ascii")
    assert links.read(tmp_path) == {
        "interfaces": [
            {"name": "eth0", "up": True, "mbit": 100000, "mtu": 1500},
            {"name": "eth1", "up": False, "mbit": None, "mtu": 1500},
        ],
        "ports": [{"name": "mlx5_0/1", "state": "ACTIVE", "link": "LinkUp", "gbit": 400, "layer": "InfiniBand"}],
    }
    assert links.read(tmp_path / "nothing") == {"interfaces": [], "ports": []}


def test_no_gpu_is_no_healthy_gpu_and_one_has_no_links_to_others() -> None:
    facts = {**facts_of(H100), "gpus": []}
    for entry in gpu_states.judge(facts, [], "nvidia-smi is not there", H100):
        assert entry["outcome"] != "passed", entry
    assert not gpu_states.has_nvlink({**facts_of(H100), "gpus": facts_of(H100)["gpus"][:1]}, H100)


def test_gpus_that_say_the_same_are_one_sentence() -> None:
    said = [("00:10", "no word of its NVLinks"), ("00:11", ""), ("00:12", "no word of its NVLinks"), ("00:13", "MIG")]
    assert gpu_states._by_gpu(said) == ["2 GPUs (00:10, 00:12): no word of its NVLinks", "00:13: MIG"]
