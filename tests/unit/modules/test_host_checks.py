"""Refusals of a host: each names host, phase, expected, found and the next step."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.filter.host import FilterModule
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.host import checks as host_checks
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import make as planner

PLAN: dict[str, Any] = {
    "accelerator": {"name": "B200", "count": 8, "vendor": "nvidia", "memory_gib": 179.06},
    "image": {"min_driver": "580.65.06", "cuda": "13.0", "reference": "vllm/vllm-openai:v0.32.0"},
    "devices": ["nvidia.com/gpu=all"],
    "confinement": {"shared_memory_gib": 64},
}


def gpu(index: int, name: str = "NVIDIA B200", total: int | None = 183359) -> dict[str, Any]:
    return {"index": index, "name": name, "memory_total_mib": total, "vendor": "nvidia"}


def healthy() -> dict[str, Any]:
    return {
        "gpus": [gpu(index) for index in range(8)],
        "gpu_source": "nvidia-smi",
        "driver": {"version": "580.126.09"},
        "fabric": {"present": True, "state": "Completed"},
        "pci": {"nvswitches": 2, "gpus": []},
        "cdi": {
            "devices": ["nvidia.com/gpu=0", "nvidia.com/gpu=all"],
            "specs": [
                {"path": "/etc/cdi/nvidia.yaml", "kind": "nvidia.com/gpu", "driver_version": "580.126.09",
                 "devices": ["nvidia.com/gpu=0", "nvidia.com/gpu=all"]}
            ],
            "nvidia_ctk": "/usr/bin/nvidia-ctk",
        },
        "docker": {"running": True, "version": "28.5.1", "cdi": True, "cgroups": "systemd v2"},
        "clock_skew_seconds": 0.4,
        "errors": [],
    }  # fmt: skip


def problems(facts: dict[str, Any], *parts: str, plan: dict[str, Any] = PLAN) -> str:
    return host_checks.host_problems(facts, [plan], "gpu-3", parts or ("gpu", "docker", "devices"))


def test_a_healthy_host_has_no_problems() -> None:
    assert problems(healthy()) == ""


def test_seven_of_eight() -> None:
    facts = healthy()
    facts["gpus"].pop()
    assert problems(facts) == (
        "gpu-3, gpu: expected 8 GPUs, found 7. Next: look for errors in the kernel log (dmesg | grep -iE 'xid|amdgpu') "
        "and terminate the instance if a GPU fell off the bus."
    )


def test_a_gpu_that_does_not_answer_does_not_count() -> None:
    facts = healthy()
    facts["gpus"][7] = gpu(7, total=None)
    facts["errors"] = [{"phase": "gpu", "message": "GPU 7 (00000000:DF:00.0) does not answer: NVIDIA B200"}]
    assert "expected 8 GPUs, found 7 (GPU 7 (00000000:DF:00.0) does not answer" in problems(facts)


def test_more_gpus_than_planned_is_a_matter_of_the_plan() -> None:
    facts = healthy()
    plan = copy.deepcopy(PLAN)
    plan["accelerator"]["count"] = 4
    assert "found 8. Next: set glm_accelerator_count" in problems(facts, "gpu", plan=plan)


@pytest.mark.parametrize(
    ("reported", "wanted", "same"),
    [
        ("NVIDIA B200", "B200", True),
        ("NVIDIA H100 80GB HBM3", "H100", True),
        ("NVIDIA GH200 480GB", "H200", False),
        ("NVIDIA GB200", "B200", False),
        ("NVIDIA A100-SXM4-80GB", "A100", True),
        ("NVIDIA B300 SXM6 AC", "B200", False),
    ],
)
def test_kinds_are_compared_by_whole_words(reported: str, wanted: str, same: bool) -> None:
    assert host_checks.is_kind(reported, wanted) is same


def test_other_kind_of_gpu() -> None:
    facts = healthy()
    facts["gpus"] = [gpu(index, "NVIDIA H200", 143771) for index in range(8)]
    text = problems(facts)
    assert "expected B200 with 183357 MiB each (within 3%), found NVIDIA H200 with 143771 MiB at index 0, 1," in text


def test_less_memory_than_planned() -> None:
    facts = healthy()
    facts["gpus"][3]["memory_total_mib"] = 91000
    assert "found NVIDIA B200 with 91000 MiB at index 3" in problems(facts)


def test_broken_driver_is_reported_alone() -> None:
    facts = healthy()
    facts.update(gpus=[], gpu_source="none", driver={"version": None}, fabric={"present": False, "state": None})
    facts["errors"] = [{"phase": "driver", "message": "nvidia-smi ended with 18: Driver/library version mismatch"}]
    text = problems(facts, "gpu")
    assert text.startswith("gpu-3, driver: expected a working nvidia driver for 8x B200, found nvidia-smi ended")
    assert "reboot the host if its driver was upgraded" in text
    assert "gpu-3, gpu:" not in text


def test_driver_older_than_the_image_needs() -> None:
    facts = healthy()
    facts["driver"]["version"] = "570.195.03"
    text = problems(facts, "gpu")
    assert "expected driver 580.65.06 or newer, which CUDA 13.0 in vllm/vllm-openai:v0.32.0 needs" in text
    assert "found 570.195.03" in text
    assert "glm_image_variant" in text


@pytest.mark.parametrize("state", ["In Progress", "Completed with status Failure"])
def test_fabric_that_is_not_up(state: str) -> None:
    facts = healthy()
    facts["fabric"]["state"] = state
    assert f"expected the NVLink fabric Completed on every GPU, found {state}. Next: systemctl" in problems(facts)


def test_nvswitches_without_a_fabric() -> None:
    facts = healthy()
    facts["fabric"] = {"present": False, "state": None}
    assert "found none, though the host has 2 NVSwitches" in problems(facts)


@pytest.mark.parametrize(("device", "refused"), [("0x20b2", False), ("0x2330", True)])
def test_an_a100_does_not_tell_of_its_fabric(device: str, refused: bool) -> None:
    facts = healthy()
    facts["fabric"] = {"present": False, "state": None}
    facts["pci"] = {"nvswitches": 6, "gpus": [{"vendor": "nvidia", "device": device}] * 8}
    assert ("found none, though the host has 6 NVSwitches" in problems(facts)) is refused


def test_no_fabric_is_right_where_there_are_no_switches() -> None:
    facts = healthy()
    facts["fabric"] = {"present": False, "state": None}
    facts["pci"]["nvswitches"] = 0
    assert problems(facts) == ""


def test_clock() -> None:
    facts = healthy()
    facts["clock_skew_seconds"] = -310.0
    assert "expected a clock within 60 s of the controller's, found -310 s" in problems(facts)


def test_device_without_a_spec() -> None:
    facts = healthy()
    facts["cdi"] = {"devices": [], "specs": [], "nvidia_ctk": None}
    assert "expected nvidia.com/gpu=all, found no CDI spec in /etc/cdi or /var/run/cdi" in problems(facts)
    assert "install nvidia-container-toolkit" in problems(facts)


def test_a_spec_that_could_not_be_read_is_named_beside_the_devices_that_are_known() -> None:
    facts = healthy()
    facts["cdi"].update(devices=["nvidia.com/gpu=0"], specs=[])
    facts["errors"] = [{"phase": "cdi", "message": "/etc/cdi/all.yaml: line 3: an anchor is not read here"}]
    assert "found nvidia.com/gpu=0; /etc/cdi/all.yaml: line 3: an anchor is not read here" in problems(facts)


def test_spec_made_for_another_driver() -> None:
    facts = healthy()
    facts["cdi"]["specs"][0]["driver_version"] = "570.195.03"
    text = problems(facts)
    assert "expected a CDI spec for driver 580.126.09" in text
    assert "found /etc/cdi/nvidia.yaml was made for driver 570.195.03" in text
    assert "nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml" in text


def spec(path: str, driver: str, *names: str) -> dict[str, Any]:
    devices = [f"nvidia.com/gpu={name}" for name in names]
    return {"path": path, "kind": "nvidia.com/gpu", "driver_version": driver, "devices": devices}


def with_specs(*specs: dict[str, Any]) -> dict[str, Any]:
    """Facts of a host with driver 580.126.09; specs in the order of gpu_facts, whose last folder wins."""
    facts = healthy()
    facts["cdi"]["specs"] = list(specs)
    facts["cdi"]["devices"] = sorted({device for made in specs for device in made["devices"]})
    return facts


OLD, NEW = "570.195.03", "580.126.09"
ETC, RUN = "/etc/cdi/nvidia.yaml", "/var/run/cdi/nvidia.yaml"


@pytest.mark.parametrize(
    ("specs", "outputs", "found"),
    [
        ([spec(ETC, OLD, "all"), spec(RUN, NEW, "0", "all")], [], ""),
        ([spec(ETC, NEW, "all"), spec(RUN, OLD, "0", "all")], [RUN], f"{RUN} was made for driver {OLD}"),
        ([spec(ETC, OLD, "all"), spec(RUN, NEW, "0")], [ETC], f"{ETC} was made for driver {OLD}"),
        ([spec(ETC, NEW, "all"), spec(RUN, OLD, "0")], [], ""),
        ([spec("/etc/cdi/gpus.json", OLD, "all")], ["/etc/cdi/gpus.json"], "/etc/cdi/gpus.json was made for driver"),
        ([spec(RUN, NEW, "0")], [ETC], "found nvidia.com/gpu=0"),
        ([], [ETC], "no CDI spec in /etc/cdi or /var/run/cdi"),
    ],
)
def test_the_spec_that_docker_takes_is_judged_and_written(
    specs: list[dict[str, Any]], outputs: list[str], found: str
) -> None:
    facts = with_specs(*specs)
    assert host_checks.cdi_outputs(facts, [PLAN]) == outputs
    text = problems(facts, "devices")
    assert found in text and bool(text) is bool(found)
    assert all(f"nvidia-ctk cdi generate --output={path}" in text for path in outputs)


def test_filters_take_what_is_documented_by_its_name() -> None:
    facts, filters = with_specs(spec(ETC, OLD, "all")), FilterModule().filters()
    assert filters["cdi_outputs"](facts, plans=[PLAN]) == [ETC]
    assert filters["host_problems"](facts, plans=[PLAN], host="gpu-3", parts=["devices"]) == problems(facts, "devices")


def test_two_specs_of_one_folder_are_not_written_over() -> None:
    twice = with_specs(spec("/etc/cdi/a.yaml", NEW, "all"), spec(ETC, OLD, "all"), spec(RUN, NEW, "all"))
    assert host_checks.cdi_outputs(twice, [PLAN]) == []
    text = problems(twice, "devices")
    assert f"found nvidia.com/gpu=all in /etc/cdi/a.yaml and {ETC}, of which Docker then uses none" in text
    assert "Next: remove all but one of these files" in text


def test_each_stale_spec_is_written() -> None:
    plan = {**PLAN, "devices": ["nvidia.com/gpu=0", "nvidia.com/gpu=1", "nvidia.com/gpu=2"]}
    facts = with_specs(spec(ETC, OLD, "0", "1"), spec(RUN, OLD, "1", "2"))
    assert host_checks.cdi_outputs(facts, [plan]) == [ETC, RUN]
    text = problems(facts, "devices", plan=plan)
    assert f"nvidia-ctk cdi generate --output={ETC} and nvidia-ctk cdi generate --output={RUN}" in text


def test_docker_that_does_not_answer_and_docker_without_cdi() -> None:
    facts = healthy()
    facts["docker"] = {"running": False, "version": None, "cdi": False}
    facts["errors"] = [{"phase": "docker", "message": "docker info: Cannot connect to the Docker daemon"}]
    assert "found docker info: Cannot connect to the Docker daemon" in problems(facts)
    facts["docker"] = {"running": True, "version": "20.10.24", "cdi": False}
    assert "expected Docker 25 or newer with features.cdi on, found Docker 20.10.24 without CDI" in problems(facts)


def test_docker_that_does_not_name_its_containers_is_refused() -> None:
    facts = healthy()
    facts["docker"]["containers"] = None
    facts["errors"] = [{"phase": "docker", "message": "docker ps: no answer within 60 s"}]
    text = problems(facts, "docker")
    assert "expected a Docker engine that names its containers, found docker ps: no answer within 60 s. Next: " in text


@pytest.mark.parametrize("cgroups", ["cgroupfs v2", "systemd v1", "None vNone", None])
def test_docker_whose_containers_systemd_cannot_filter_is_refused(cgroups: str | None) -> None:
    facts = healthy()
    facts["docker"]["cgroups"] = cgroups
    text = problems(facts)
    assert f"found {cgroups}" in text and "native.cgroupdriver" in text and "unified_cgroup_hierarchy" in text


@pytest.mark.parametrize(
    ("module", "rocm", "found"),
    [
        ("6.16.13", "7.2", ""),
        (None, "7.2", ""),
        ("6.12.12", None, ""),
        ("6.12.12", "7.2", "found 6.4 (amdgpu 6.12.12)"),
    ],
)
def test_an_amd_driver_too_old_for_the_rocm_of_the_image(module: str | None, rocm: str | None, found: str) -> None:
    facts = healthy()
    row = {"name": "AMD Instinct MI355X", "memory_total_mib": 294896, "vendor": "amd"}
    facts["gpus"] = [{"index": index, **row} for index in range(8)]
    facts.update(gpu_source="amd-smi", driver={"version": module or "6.8.0-60-generic", "module_version": module})
    facts["fabric"] = {"present": False, "state": None}
    facts["pci"]["nvswitches"] = 0
    plan = {
        "accelerator": {"name": "MI355X", "count": 8, "vendor": "amd", "memory_gib": 287.98},
        "image": {"min_driver": None, "cuda": None, "rocm": rocm, "reference": "vllm/vllm-openai-rocm:v0.25.1"},
        "confinement": None,
    }
    text = problems(facts, "gpu", plan=plan)
    assert (found in text) if found else text == ""
    if found:
        assert text.startswith("gpu-3, driver: expected driver 30.10 or newer, which ROCm 7.2 in vllm/vllm-openai-rocm")


def test_partitions_are_not_gpus_that_somebody_forgot_to_count() -> None:
    facts = healthy()
    row = {"name": "AMD Instinct MI300X", "memory_total_mib": 24574, "vendor": "amd"}
    facts["gpus"] = [{"index": index, **row} for index in range(64)]
    facts["pci"]["gpus"] = [{"vendor": "amd", "device": "0x74a1"}] * 8
    facts.update(gpu_source="amd-smi", driver={"version": "6.14.14", "module_version": "6.14.14"})
    facts["fabric"] = {"present": False, "state": None}
    accelerator = {"name": "MI300X", "count": 8, "vendor": "amd", "memory_gib": 191.98}
    plan = {"accelerator": accelerator, "image": None, "confinement": None}
    text = problems({**facts, "cgroups": 2}, "gpu", plan=plan)
    assert "expected 8 GPUs, found 64 partitions of 8 GPUs. Next: amd-smi set" in text


def test_the_devices_of_every_replica_are_judged() -> None:
    """Only the first replica's devices were looked at: half the GPUs could be unknown to Docker."""
    intent = planner.Intent("GLM-5", "B200", 8, precision="nvfp4", replicas=2)
    plans = planner.make_all(intent, catalog.load())
    facts = healthy()
    facts["cdi"]["specs"][0]["devices"] = facts["cdi"]["devices"] = [f"nvidia.com/gpu={index}" for index in range(4)]
    found = host_checks.host_problems(facts, plans, "gpu-3", ("gpu", "docker", "devices"))
    missing = ", ".join(f"nvidia.com/gpu={index}" for index in range(4, 8))
    assert found.startswith(f"gpu-3, cdi: expected {missing}, found nvidia.com/gpu=0")
    assert host_checks.host_problems(facts, plans[:1], "gpu-3", ("devices",)) == ""
    assert host_checks.cdi_outputs(facts, plans) == [ETC]


def test_what_is_wrong_for_every_replica_is_said_once() -> None:
    facts = healthy()
    facts["gpus"].pop()
    assert host_checks.host_problems(facts, [PLAN, PLAN], "gpu-3", ("gpu",)) == problems(facts, "gpu")


@pytest.mark.parametrize(("cgroups", "found"), [(1, "found v1"), (None, "found none")])
def test_bare_metal_without_control_groups_v2_is_refused_before_anything_is_fetched(
    cgroups: int | None, found: str
) -> None:
    """There systemd accepts IPAddressDeny= and filters nothing."""
    bare = {**copy.deepcopy(PLAN), "image": None, "confinement": None}
    text = problems({**healthy(), "cgroups": cgroups}, "gpu", plan=bare)
    assert "gpu-3, cgroups: expected control groups v2" in text and found in text and "unified_cgroup_hierarchy" in text
    assert problems({**healthy(), "cgroups": 2}, "gpu", plan=bare) == ""
    assert problems({**healthy(), "cgroups": cgroups}, "gpu") == "", "Docker says so of containers"


@pytest.mark.parametrize(
    ("memory", "container", "text"),
    [(1_900_000, None, ""), (100_000, None, "found 98 GiB"), (100_000, "podman", ""), (0, None, "")],
)
def test_the_memory_of_a_host_holds_what_its_replicas_take(memory: int, container: str | None, text: str) -> None:
    facts = {**healthy(), "memory_mib": memory, "container": container}
    half = {**copy.deepcopy(PLAN), "host_memory": {"needed_gib": 64, "offloaded_gib": 0}}
    said = host_checks.host_problems(facts, [half, half], "gpu-3", ["gpu"])
    assert ("expected memory of 128 GiB" in said and text in said) if text else said == ""
    earlier = copy.deepcopy(PLAN)
    earlier.pop("host_memory", None)
    assert host_checks.host_problems({**facts, "memory_mib": 100_000}, [earlier], "gpu-3", ["gpu"]) == ""
    # What moves to the host counts.
    half["host_memory"] = {"needed_gib": 1064, "offloaded_gib": 1000}
    said = host_checks.host_problems({**healthy(), "memory_mib": 1_900_000}, [half, half], "gpu-3", ["gpu"])
    assert "expected memory of 2128 GiB" in said and "2000 GiB offloaded" in said and "offload less" in said
