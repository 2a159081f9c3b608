"""The loader that a plan chooses for the disk of the weights, who goes before it, and what is kept of disks."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Optional

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import references
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.build import CatalogError
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.engine import Loading
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.records import KnownIssue
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import disks, flags, reading, request, text
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import make as planner
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan

CATALOG = catalog.load()
AT = "2026-12-01T10:00:00Z"
PREFETCH = {"weight-loader-prefetch-checkpoints": True, "weight-loader-prefetch-num-threads": 8}
WHOLE = {"weight-loader-disable-mmap": True, "model-loader-extra-config": {"enable_multithread_load": False}}


def disk(filesystem: str, kind: Optional[str], memory_gib: float = 2000.0, **more: Any) -> disks.HostDisk:
    return disks.disk_of(
        {
            "hf_home": "/var/lib/glm/huggingface", "device": "where", "filesystem": filesystem, "kind": kind,
            "read_mb_s": None, "measured_at": None, "memory_gib": memory_gib, **more,
        }
    )  # fmt: skip


def plan(found: Optional[disks.HostDisk], known: Any = CATALOG, **changes: Any) -> Plan:
    return planner.make(planner.Intent("GLM-5.1", "B200", 8, disk=found, **changes), known)


def arguments(made: Plan) -> dict[str, Any]:
    """What the command says about loading."""
    engine = CATALOG.engines[made["engine"]["name"]]
    table = flags.load(made["engine"]["name"], made["engine"]["version"])
    said = reading.arguments(table, engine, made["command"])
    return {name: value for name, value in said.items() if f"--{name}" in engine.loading.options}


@pytest.mark.parametrize(
    ("engine", "version", "filesystem", "kind", "wanted"),
    [
        ("vllm", "0.32.0", "virtiofs", "network", {"safetensors-load-strategy": "prefetch"}),
        ("vllm", "0.33.0", "ceph", "network", {"safetensors-load-strategy": "prefetch"}),
        # These read ahead by themselves.
        ("vllm", "0.32.0", "nfs4", "network", {}),
        ("vllm", "0.32.0", "nfs", "network", {}),
        ("vllm", "0.32.0", "lustre", "network", {}),
        ("vllm", "0.19.0", "nfs4", "network", {}),
        ("vllm", "0.19.0", "lustre", "network", {"safetensors-load-strategy": "prefetch"}),
        ("vllm", "0.18.1", "nfs4", "network", {"safetensors-load-strategy": "eager"}),
        ("vllm", "0.18.1", "lustre", "network", {"safetensors-load-strategy": "eager"}),
        ("vllm", "0.18.1", "virtiofs", "network", {}),
        # Of these nobody has published a figure.
        ("vllm", "0.32.0", "cifs", "network", {}),
        ("vllm", "0.32.0", "fuse.juicefs", "network", {}),
        ("vllm", "0.32.0", "ext4", "nvme", {}),
        ("vllm", "0.32.0", "ext4", "volume", {}),
        ("vllm", "0.32.0", "xfs", "block", {}),
        ("vllm", "0.32.0", "tmpfs", "memory", {}),
        ("vllm", "0.32.0", "fuse.mergerfs", None, {}),
        ("sglang", "0.5.14", "nfs4", "network", PREFETCH),
        ("sglang", "0.5.14", "lustre", "network", {"weight-loader-prefetch-checkpoints": True}),
        ("sglang", "0.5.14", "virtiofs", "network", PREFETCH),
        ("sglang", "0.5.14", "ceph", "network", {}),
        ("sglang", "0.5.10", "virtiofs", "network", WHOLE),
        ("sglang", "0.5.9", "nfs4", "network", {"weight-loader-disable-mmap": True}),
        ("sglang", "0.5.10", "ext4", "nvme", {}),
    ],
)
def test_the_loader_suits_version_and_disk(
    engine: str, version: str, filesystem: str, kind: Optional[str], wanted: dict[str, Any]
) -> None:
    # These do not know GLM-5.1 yet.
    older = {"0.18.1": "GLM-5", "0.5.9": "GLM-4.7"}
    model: dict[str, Any] = {"model": older.get(version, "GLM-5.1")}
    intent = planner.Intent("GLM-5.1", "B200", 8, engine=engine, engine_version=version, runtime="venv")
    made = planner.make(dataclasses.replace(intent, disk=disk(filesystem, kind), **model), CATALOG)
    plain = planner.make(dataclasses.replace(intent, **model), CATALOG)
    assert arguments(made) == wanted
    assert made["loading"]["options"] == sorted(f"--{name}" for name in wanted)
    # Nothing else of the plan follows from it.
    assert set(plain["command"]) <= set(made["command"])
    assert {name: made[name] for name in ("memory", "env", "notes")} == {
        name: plain[name] for name in ("memory", "env", "notes")
    }
    assert made["recipe"]["basis"] == plain["recipe"]["basis"]
    assert made["recipe"]["adapted"] == plain["recipe"]["adapted"]
    assert [made["recipe"]["origins"][name] for name in made["loading"]["options"]] == ["disk"] * len(wanted)
    if wanted:
        assert made["loading"]["source"]


def test_where_nothing_is_known_nothing_is_added_and_the_plan_says_so() -> None:
    made = plan(None)
    assert arguments(made) == {}
    assert made["loading"] == {
        "disk": "unknown", "filesystem": None, "kind": None, "read_mb_s": None, "measured_at": None, "options": [],
        "reason": "the disk of the weights is not known yet, a deploy keeps it: nothing is added", "source": None,
    }  # fmt: skip
    assert plan(disk("exoticfs", None))["loading"]["reason"] == "nothing is known of exoticfs: nothing is added"
    assert plan(disk("", None))["loading"]["reason"] == "nothing is known of this disk: nothing is added"
    reason = plan(disk("cifs", "network"))["loading"]["reason"]
    assert reason == "no figure is known of vllm 0.32.0 on cifs: nothing is added"


def test_a_disk_counts_in_the_place_where_it_was_seen() -> None:
    made = plan(disk("virtiofs", "network"), data_dir="/mnt/other")
    assert made["loading"]["disk"] == "unknown" and arguments(made) == {}
    elsewhere = disk("virtiofs", "network", hf_home="/mnt/other/huggingface")
    assert arguments(plan(elsewhere, data_dir="/mnt/other/")) == {"safetensors-load-strategy": "prefetch"}


@pytest.mark.parametrize(
    ("own", "left"),
    [
        ({"safetensors-load-strategy": "lazy"}, {"safetensors-load-strategy": "lazy"}),
        ({"safetensors-load-strategy": None}, {}),
        ({"load-format": "fastsafetensors"}, {"load-format": "fastsafetensors"}),
        (
            {"model-loader-extra-config": {"enable_multithread_load": True}},
            {"model-loader-extra-config": {"enable_multithread_load": True}},
        ),
    ],
)
def test_whoever_says_how_weights_are_loaded_says_all_of_it(own: dict[str, Any], left: dict[str, Any]) -> None:
    made = plan(disk("virtiofs", "network"), engine_args=own)
    assert arguments(made) == left
    assert made["loading"]["options"] == []
    assert made["loading"]["reason"] == f"--{next(iter(own))} is set: nothing is added"
    assert set(made["recipe"]["origins"].values()) & {"disk"} == set()


def test_a_recipe_goes_before_the_disk() -> None:
    recipe = next(
        one
        for one in CATALOG.recipes
        if "GLM-5.1" in one.models and "B200" in one.accelerators and one.engine == "vllm"
    )
    said = dataclasses.replace(recipe, args={**recipe.args, "safetensors-load-strategy": "lazy"})
    known = dataclasses.replace(CATALOG, recipes=[said if one is recipe else one for one in CATALOG.recipes])
    profile = {"profile": recipe.profiles[0], "engine": "vllm"}
    made = plan(disk("virtiofs", "network"), known, **profile)
    assert made["recipe"]["basis"] in ("published", "adapted")
    assert arguments(made) == {"safetensors-load-strategy": "lazy"}
    assert made["recipe"]["origins"]["--safetensors-load-strategy"] == "recipe"


@pytest.mark.parametrize("status", ["broken", "workaround"])
def test_a_loader_that_a_known_issue_names_is_never_chosen(status: Any) -> None:
    wrong = KnownIssue(
        id="prefetch-is-wrong", status=status, text="wrong weights", link="https://example.com", engine="vllm",
        since="0.32.0", below="0.33.0", arguments={"safetensors-load-strategy": "prefetch"},
    )  # fmt: skip
    known = dataclasses.replace(CATALOG, known_issues=[*CATALOG.known_issues, wrong])
    made = plan(disk("virtiofs", "network"), known)
    assert arguments(made) == {}
    assert "prefetch-is-wrong" not in [issue["id"] for issue in made["known_issues"]]
    assert made["loading"]["reason"] == "no figure is known of vllm 0.32.0 on virtiofs: nothing is added"
    assert arguments(plan(disk("virtiofs", "network"), known, engine_version="0.33.0"))


@pytest.mark.parametrize(("engine", "version"), [("vllm", "0.20.0"), ("vllm", "0.32.0"), ("sglang", "0.5.10")])
def test_a_loader_that_is_known_to_bring_wrong_weights_is_refused(engine: str, version: str) -> None:
    with pytest.raises(planner.PlanError, match="gibberish"):
        plan(None, engine=engine, engine_version=version, engine_args={"load-format": "runai_streamer"}, runtime="venv")


def test_files_that_memory_does_not_hold_are_not_read_ahead() -> None:
    made = plan(disk("virtiofs", "network", memory_gib=800))
    assert arguments(made) == {}
    reason = made["loading"]["reason"]
    assert (
        reason == "704 GiB of weights are more than the 605 GiB of memory that the host has for files: nothing is added"
    )
    assert arguments(plan(disk("virtiofs", "network", memory_gib=950)))


def test_a_slow_disk_has_the_time_that_it_needs_and_a_fast_one_no_less() -> None:
    usual = plan(None)["timeouts"]["phases"]["load"]
    slow = plan(disk("ext4", "block", read_mb_s=250.0, measured_at=AT))
    assert slow["timeouts"]["phases"]["load"] == pytest.approx(2 * usual, abs=1)
    assert (slow["loading"]["read_mb_s"], slow["loading"]["measured_at"]) == (250.0, AT)
    fast = plan(disk("ext4", "nvme", read_mb_s=6000.0, measured_at=AT))
    assert fast["timeouts"]["phases"]["load"] == usual
    # What acceptance would refuse is no measure for hours of waiting.
    stuck = plan(disk("ext4", "block", read_mb_s=0.1, measured_at=AT))
    assert stuck["timeouts"]["phases"]["load"] == pytest.approx(5 * usual, abs=5)


@pytest.mark.parametrize("engine", list(CATALOG.engines))
def test_every_version_has_the_options_of_its_rules(engine: str) -> None:
    known = CATALOG.engines[engine]
    for version in known.versions:
        table = flags.load(engine, version)
        for rule in known.loading.rules:
            if rule.holds(version):
                found = flags.merge(table, rule.args, {})
                assert set(found) <= set(table.options), (version, rule)
    assert len({rule.disk for rule in known.loading.rules}) == 2


def test_every_rule_says_where_it_is_from_and_some_version_meets_it() -> None:
    for engine in CATALOG.engines.values():
        for rule in engine.loading.rules:
            assert rule.source and rule.because and rule.date
            assert any(rule.holds(version) for version in engine.versions), rule


def test_a_rule_adds_nothing_but_what_says_how_weights_are_loaded() -> None:
    vllm = CATALOG.engines["vllm"]
    rule = dataclasses.replace(vllm.loading.rules[0], args={"max-num-seqs": 8})
    loading = Loading(vllm.loading.options, [rule])
    known = dataclasses.replace(
        CATALOG, engines={**CATALOG.engines, "vllm": dataclasses.replace(vllm, loading=loading)}
    )
    with pytest.raises(CatalogError, match="--max-num-seqs"):
        references.check_references(known)


def test_the_report_says_which_disk_and_why() -> None:
    [line] = [line for line in text.report({"h1": plan(disk("virtiofs", "network"))}) if line.startswith("loading")]
    assert line.startswith(
        "loading     network (virtiofs): --safetensors-load-strategy; mapped files are read page by page"
    )
    [line] = [line for line in text.report({"h1": plan(disk("ext4", "nvme"))}) if line.startswith("loading")]
    assert line.startswith("loading     local (ext4): files are mapped")
    # Hosts of one disk are one block whatever each was measured at.
    same = {f"h{speed}": plan(disk("ext4", "nvme", read_mb_s=float(speed), measured_at=AT)) for speed in (3000, 4000)}
    assert len([line for line in text.report(same) if line.startswith("loading")]) == 1


# What is kept ------------------------------------------------------------------------------------------------------


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "glm.lock.yml"


def kept(lock: Path, host: str) -> disks.HostDisk:
    found = disks.of_host(lock, host)
    assert found is not None
    return found


def test_disks_are_kept_beside_the_lock_file_and_plans_read_them(lock: Path) -> None:
    assert disks.KEPT.path_of(lock) == lock.with_name("glm.disks.json")
    asked = {"model": "GLM-5.1", "accelerator": "B200", "accelerator_count": 8, "bind": "loopback", "port": 8000}
    [before] = request.plans_of({**asked, "lock_file": str(lock)}, "h1")
    assert disks.keep(lock, "h1", disk("virtiofs", "network"))
    assert not disks.keep(lock, "h1", disk("virtiofs", "network"))
    [after] = request.plans_of({**asked, "lock_file": str(lock)}, "h1")
    [other] = request.plans_of({**asked, "lock_file": str(lock)}, "h2")
    assert arguments(before) == arguments(other) == {}
    assert arguments(after) == {"safetensors-load-strategy": "prefetch"}


def test_a_figure_stays_while_the_disk_is_the_same(lock: Path) -> None:
    """Each acceptance measures anew: plans, and so units, would change with every deploy."""
    assert disks.keep(lock, "h1", disk("ext4", "nvme"))
    first = disk("ext4", "nvme", read_mb_s=3000.0, measured_at=AT)
    assert disks.keep(lock, "h1", first), "there was none"
    assert not disks.keep(lock, "h1", disk("ext4", "nvme", read_mb_s=3100.0, measured_at="2026-12-02T10:00:00Z"))
    assert not disks.keep(lock, "h1", disk("ext4", "nvme"))
    assert kept(lock, "h1") == first
    assert disks.keep(lock, "h1", disk("ext4", "nvme", device="another", read_mb_s=900.0, measured_at=AT))
    assert kept(lock, "h1")["read_mb_s"] == 900.0
    assert disks.keep(lock, "h1", disk("ext4", "nvme", device="a third"))
    assert kept(lock, "h1")["read_mb_s"] is None


def test_another_kernel_is_no_other_host_and_more_memory_is(lock: Path) -> None:
    assert disks.keep(lock, "h1", disk("ext4", "nvme", memory_gib=2000.0))
    assert not disks.keep(lock, "h1", disk("ext4", "nvme", memory_gib=1999.2))
    assert disks.keep(lock, "h1", disk("ext4", "nvme", memory_gib=1000.0))


def test_hosts_that_are_gone_do_not_pile_up(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disks, "MOST_HOSTS", 3)
    for number in range(5):
        disks.keep(lock, f"h{number}", disk("ext4", "nvme"))
    assert list(disks.KEPT.read(lock)) == ["h2", "h3", "h4"]


@pytest.mark.parametrize("content", ["<<<<<<< ours", "[]", '{"schema": 2}', '{"schema": 1, "disks": {"h1": {}}}'])
def test_a_file_of_another_form_is_named(lock: Path, content: str) -> None:
    disks.KEPT.path_of(lock).write_text(content, "utf-8")
    with pytest.raises(Unmet, match=r"glm\.disks\.json.*remove it: deploys write it again"):
        disks.of_host(lock, "h1")


def test_the_file_is_what_a_person_can_read(lock: Path) -> None:
    disks.keep(lock, "h1", disk("nfs4", "network"))
    content = json.loads(disks.KEPT.path_of(lock).read_text("utf-8"))
    assert content["schema"] == 1 and content["disks"]["h1"]["filesystem"] == "nfs4"
