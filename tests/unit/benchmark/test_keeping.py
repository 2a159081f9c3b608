"""What was measured becomes a recipe of the team's catalogue, with which the same command is planned again."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.glm.fleet.plugins.plugin_utils.benchmark import keeping
from ansible_collections.glm.fleet.plugins.plugin_utils.benchmark.runs import RunError
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.build import CatalogError
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import compare, disks, lockfile, own, text
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import make as planner
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Intent
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan
from tests.unit.benchmark import records

KNOWN = catalog.load()
INTENT = Intent("GLM-5.1", "B200", 8, engine_args={"max-num-seqs": 40, "enable-prefix-caching": False})


def record_of(plan: Plan, **more: Any) -> Any:
    """A record of a measurement of this plan: the records' own figures, as of another one."""
    made = records.record(**more)
    served = {
        "model": {"name": plan["model"]["name"], "precision": plan["model"]["precision"]},
        "engine": dict(plan["engine"]), "node": {"count": plan["node"]["count"]}, "profile": plan["profile"],
        "accelerator": {"name": plan["accelerator"]["name"], "count": plan["accelerator"]["count"]},
        "gpus": len(plan["accelerator"]["indices"]), "command": plan["command"], "env": plan["env"],
    }  # fmt: skip
    return {**made, "plan": {**made["plan"], **served}}


def kept(folder: Path, intent: Intent, **more: Any) -> Plan:
    """The plan that was measured, whose recipe is now in the folder."""
    made = planner.make(intent, KNOWN)
    keeping.keep(str(folder), [keeping.recipe_of(record_of(made, **more), KNOWN)])
    return made


def test_the_same_command_is_planned_again_without_the_users_arguments(tmp_path: Path) -> None:
    measured = kept(tmp_path, dataclasses.replace(INTENT, engine_env={"NCCL_P2P_LEVEL": "NVL"}))
    plain = dataclasses.replace(INTENT, engine_args={})
    again = planner.make(plain, own.known([str(tmp_path)]))
    assert sorted(again["command"]) == sorted(measured["command"]) != sorted(planner.make(plain, KNOWN)["command"])
    assert again["env"] == measured["env"]
    assert again["recipe"]["basis"] == "own"
    found = again["recipe"]["measured"]
    assert found is not None and found["same"]
    assert (found["date"], found["workload"], found["users"]) == ("2026-11-18", "glm51_agentic", 32)
    assert found["hardware"] == "8x NVIDIA B200, driver 580.65.06" and found["tokens_per_second"] > 900
    [row] = [
        one
        for one in compare.rows(plain, own.known([str(tmp_path)]))
        if one.hardware == "8x B200" and one.engine == "vllm 0.32.0" and "agentic" in one.profiles
    ]
    assert row.speed == compare.Speed(found["tokens_per_second"], "measured", 32)
    lines = " ".join(" ".join(text.report({"a": again})).split())
    assert re.search(
        r"measured here on 2026-11-18 \(8x NVIDIA B200, driver 580\.65\.06\): [\d,]+ tokens/s out at 32 ", lines
    )


def test_a_plan_that_is_not_what_was_measured_says_so(tmp_path: Path) -> None:
    kept(tmp_path, INTENT)
    known = own.known([str(tmp_path)])
    for change in ({"engine_args": {"max-num-seqs": 8}}, {"engine_version": "0.33.0", "engine_args": {}},
                   {"engine_env": {"X": "1"}, "engine_args": {}}):  # fmt: skip
        made = planner.make(dataclasses.replace(INTENT, **change), known)
        assert made["recipe"]["measured"] is not None and not made["recipe"]["measured"]["same"], change
        assert "this plan has other arguments" in " ".join(" ".join(text.report({"a": made})).split())


DISK = disks.disk_of(
    {
        "hf_home": "/var/lib/glm/huggingface", "device": "fs", "filesystem": "virtiofs", "kind": "network",
        "read_mb_s": None, "measured_at": None, "memory_gib": 2000.0,
    }
)  # fmt: skip


def test_what_was_chosen_by_the_disk_is_not_kept_for_other_disks(tmp_path: Path) -> None:
    strategy = "--safetensors-load-strategy"
    measured = kept(tmp_path, dataclasses.replace(INTENT, disk=DISK))
    assert strategy in measured["command"]
    known, plain = own.known([str(tmp_path)]), dataclasses.replace(INTENT, engine_args={})
    for disk in (DISK, {**DISK, "filesystem": "ext4", "kind": "nvme"}):
        again = planner.make(dataclasses.replace(plain, disk=disk), known)
        assert (strategy in again["command"]) == (disk is DISK)
        assert again["recipe"]["measured"] is not None and again["recipe"]["measured"]["same"]


def test_a_second_repository_is_kept_by_its_name(tmp_path: Path) -> None:
    draft = {"method": "dspark", "model": "acme/draft", "num_speculative_tokens": 7}
    lock = lockfile.empty()
    lock["models"]["acme/draft@main"] = {"commit": "1" * 40}
    intent = Intent(
        "GLM-5.2", "H200", 8, engine_args={"speculative-config": draft}, extra_repositories=["acme/draft"]
    )  # fmt: skip
    measured = planner.make(intent, KNOWN, lock)
    recipe = keeping.recipe_of(record_of(measured), KNOWN)
    assert recipe["args"]["speculative-config"]["model"] == "acme/draft"
    keeping.keep(str(tmp_path), [recipe])
    known, plain = own.known([str(tmp_path)]), dataclasses.replace(intent, engine_args={})
    again = planner.make(plain, known, lock)
    assert sorted(again["command"]) == sorted(measured["command"])
    assert again["recipe"]["measured"] is not None and again["recipe"]["measured"]["same"]
    # Another commit is another folder, and hosts that nobody told of the repository have none.
    lock["models"]["acme/draft@main"] = {"commit": "2" * 40}
    assert any("2" * 40 in word for word in planner.make(plain, known, lock)["command"])
    with pytest.raises(planner.PlanError, match="glm_extra_repositories does not name that repository"):
        planner.make(dataclasses.replace(plain, extra_repositories=[]), known, lock)


@pytest.mark.parametrize("index", range(len(KNOWN.recipes)))
def test_every_published_recipe_can_be_kept(tmp_path: Path, index: int) -> None:
    recipe = KNOWN.recipes[index]
    intent = Intent(
        recipe.models[0], recipe.accelerators[0], recipe.count, precision=recipe.precisions[0], engine=recipe.engine,
        profile=recipe.profiles[0], nodes=recipe.nodes, head_address="10.0.0.1" if recipe.nodes > 1 else None,
    )  # fmt: skip
    if KNOWN.models[recipe.models[0]].precisions[recipe.precisions[0]].repository is None:
        intent = dataclasses.replace(intent, repository="acme/weights")
    measured = kept(tmp_path, intent)
    again = planner.make(intent, own.known([str(tmp_path)]))
    assert again["engine"] == measured["engine"] and again["recipe"]["measured"] is not None
    assert sorted(again["command"]) == sorted(measured["command"])
    assert again["env"] == measured["env"] and again["memory"] == measured["memory"]
    assert again["recipe"]["measured"]["same"]


def test_a_second_measurement_takes_the_place_of_the_first_and_leaves_others(tmp_path: Path) -> None:
    kept(tmp_path, INTENT)
    kept(tmp_path, dataclasses.replace(INTENT, engine="sglang", engine_args={}))
    kept(tmp_path, dataclasses.replace(INTENT, engine_args={"max-num-seqs": 20}), started=1796000000.0)
    content = yaml.safe_load((tmp_path / keeping.FILE).read_text("utf-8"))["recipes"]
    assert [(entry["engine"], entry["args"].get("max-num-seqs")) for entry in content] == [
        ("sglang", None),
        ("vllm", 20),
    ]
    assert oct((tmp_path / keeping.FILE).stat().st_mode)[-3:] == "644"


def test_what_the_team_wrote_is_left_alone_and_a_conflict_writes_nothing(tmp_path: Path) -> None:
    mine = {
        "models": ["GLM-5.1"], "precisions": ["fp8"], "engine": "vllm", "profiles": ["agentic"],
        "accelerators": ["B200"], "count": 8, "since": "0.32.0", "sources": [{"who": "us"}],
    }  # fmt: skip
    file = tmp_path / "recipes.yml"
    file.write_text("# ours\n" + yaml.safe_dump({"recipes": [mine]}), encoding="utf-8")
    with pytest.raises(CatalogError, match=rf"{tmp_path}/.*covers a cell of {tmp_path}/.*recipes\[0\] as well"):
        kept(tmp_path, INTENT)
    assert not (tmp_path / keeping.FILE).exists()
    file.write_text("# ours\n" + yaml.safe_dump({"recipes": [{**mine, "since": "0.30.0"}]}), encoding="utf-8")
    kept(tmp_path, INTENT)
    assert file.read_text("utf-8").startswith("# ours\n")
    assert own.known([str(tmp_path)]).recipes[0].measured is not None


def test_what_cannot_be_kept_is_refused_before_it_is_measured() -> None:
    keeping.require(KNOWN, ["/srv/catalog"], "GLM-5.1", 1.0)
    for folders, model, scale, message in (
        ([], "GLM-5.1", 1.0, "name its folder in glm_catalog"),
        (["/x"], "GLM-5.1", 0.02, "a rehearsal of 0.02"),
        (["/x"], "GLM-9", 1.0, "add GLM-9 to models.yml"),
    ):
        with pytest.raises(RunError, match=message):
            keeping.require(KNOWN, folders, model, scale)


def test_what_is_no_measurement_is_not_kept() -> None:
    made = planner.make(INTENT, KNOWN)
    for changes, message in (({"ok": False}, "which is none"), ({"points": []}, "which is none")):
        with pytest.raises(RunError, match=message):
            keeping.recipe_of({**record_of(made), **changes}, KNOWN)
    older = record_of(made)
    del older["plan"]["profile"]
    with pytest.raises(RunError, match="names its profile"):
        keeping.recipe_of(older, KNOWN)
