"""What starts reported of the GPUs' memory: kept beside the lock file, used by later plans, changing no argument."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import make as planner
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import request, starts
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan

CATALOG = catalog.load()
AT = "2026-12-01T10:00:00Z"
# A model whose context the estimate shortens on this hardware.
TIGHT = ("GLM-5.2", "H200")


def plan(lock: Path | None = None, model: str = TIGHT[0], accelerator: str = TIGHT[1], **changes: Any) -> Plan:
    known = starts.read(lock) if lock else {}
    return planner.make(planner.Intent(model, accelerator, 8, starts=known, **changes), CATALOG)


def pool_with(made: Plan, more_gib: float) -> int:
    """Tokens of a KV cache that is so many GiB of each GPU larger than the plan's."""
    memory = made["memory"]
    size = memory["kv_pool_gib_per_gpu"] + more_gib
    return int(size * 2**30 / memory["kv_bytes_per_token"]) * made["parallel"]["data"]


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "glm.lock.yml"


def test_the_file_lies_beside_the_lock_file_under_its_name(tmp_path: Path) -> None:
    assert starts.KEPT.path_of(tmp_path / "glm.lock.yml") == tmp_path / "glm.starts.json"
    assert starts.KEPT.path_of(tmp_path / "blue.yml") == tmp_path / "blue.starts.json"
    assert starts.KEPT.path_of(tmp_path / "blue") == tmp_path / "blue.starts.json"


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
@pytest.mark.parametrize("profile", ["agentic", "throughput"])
def test_a_reported_pool_is_the_planned_one_from_then_on(lock: Path, engine: str, profile: str) -> None:
    before = plan(model="GLM-5.1", accelerator="B200", engine=engine, profile=profile)
    assert (before["memory"]["own_basis"], before["memory"]["starts"]) == ("estimated", 0)
    pool = pool_with(before, -1.5)
    assert starts.keep(lock, before, "gpu-1", pool, AT)
    after = plan(lock, model="GLM-5.1", accelerator="B200", engine=engine, profile=profile)
    assert (after["memory"]["own_basis"], after["memory"]["starts"]) == ("reported", 1)
    assert after["memory"]["token_pool"] == pytest.approx(pool, rel=0.001)
    assert "reported by a start of this fleet" in after["memory"]["arithmetic"]
    assert after["command"] == before["command"]
    # A second look at the same engine finds nothing new, whatever the plan says of it by now.
    assert not starts.keep(lock, after, "gpu-1", pool, "2026-12-02T10:00:00Z")


def test_more_room_than_estimated_changes_no_argument_and_is_offered(lock: Path) -> None:
    before = plan()
    length = before["contract"]["context_length"]
    assert length and length < 1_048_576
    starts.keep(lock, before, "gpu-1", pool_with(before, 1.0), AT)
    after = plan(lock)
    assert after["command"] == before["command"]
    [offer] = [note for note in after["notes"] if "leaves room for" in note]
    longer = int(offer.split("leaves room for ")[1].split(" tokens")[0].replace(",", ""))
    assert longer > length and f"set max-model-len to {longer} in glm_engine_args" in offer
    asked = {"engine_args": {"max-model-len": longer}}
    assert any("less than the margin" in note for note in plan(**asked)["notes"])
    taken = plan(lock, **asked)
    assert str(longer) in taken["command"] and taken["memory"]["own_basis"] == "reported"
    assert not any("less than the margin" in note for note in taken["notes"])
    assert taken["memory"]["spare_gib"] >= taken["memory"]["margin_gib"] - 0.01


def test_less_room_than_estimated_ends_nothing_that_runs(lock: Path) -> None:
    before = plan()
    starts.keep(lock, before, "gpu-1", pool_with(before, -3.0), AT)
    after = plan(lock)
    assert after["command"] == before["command"]
    assert after["memory"]["token_pool"] < before["memory"]["token_pool"]
    assert not any("leaves room for" in note for note in after["notes"])
    # What the user asks for is held against what was seen.
    length = before["contract"]["context_length"] or 0
    with pytest.raises(planner.PlanError, match="reported by a start of this fleet"):
        plan(lock, engine_args={"max-model-len": length})


@pytest.mark.parametrize(("engine", "option"), [("vllm", "gpu-memory-utilization"), ("sglang", "mem-fraction-static")])
def test_a_share_in_which_nothing_is_left_by_what_starts_reported_is_refused(
    lock: Path, engine: str, option: str
) -> None:
    model = {"model": "GLM-5.1", "accelerator": "B200", "engine": engine}
    before = plan(**model)
    memory = before["memory"]
    starts.keep(lock, before, "gpu-1", pool_with(before, -20.0), AT)
    # Weights, what is estimated, and half of the 20 GiB that starts took more than that.
    own = memory["own_gib"] if engine == "vllm" else 0.0
    share = round((memory["weights_per_gpu_gib"] + own + 10) / before["accelerator"]["memory_gib"], 3)
    args = {"engine_args": {option: share}}
    assert plan(**model, **args)["memory"]["token_pool"] > 0
    with pytest.raises(planner.PlanError, match=r"does not fit.*reported by a start of this fleet"):
        plan(lock, **model, **args)


def test_what_starts_reported_never_lowers_what_verify_requires(lock: Path) -> None:
    before = plan(model="GLM-5.1", accelerator="B200")
    made, floor = before, before["promises"]["token_pool"]
    for less in (10.0, 20.0, 30.0):
        starts.keep(lock, made, "gpu-1", pool_with(before, -less), AT)
        made = plan(lock, model="GLM-5.1", accelerator="B200")
        assert made["promises"]["token_pool"] == pytest.approx(floor, rel=0.001)


def test_the_host_that_keeps_most_counts_and_their_difference_is_the_uncertainty(lock: Path) -> None:
    before = plan(model="GLM-5.1", accelerator="B200")
    for host, more in (("gpu-1", -1.0), ("gpu-2", -1.5), ("gpu-3", 0.5)):
        starts.keep(lock, before, host, pool_with(before, more), AT)
    memory = plan(lock, model="GLM-5.1", accelerator="B200")["memory"]
    assert memory["kv_pool_gib_per_gpu"] == pytest.approx(before["memory"]["kv_pool_gib_per_gpu"] - 1.5, abs=0.02)
    assert memory["own_uncertainty_gib"] == pytest.approx(2.0, abs=0.02) and memory["starts"] == 3
    assert "reported by 3 starts of this fleet" in memory["arithmetic"]
    # Its next start counts, and not the one before.
    starts.keep(lock, before, "gpu-2", pool_with(before, 0.0), AT)
    assert plan(lock, model="GLM-5.1", accelerator="B200")["memory"]["own_uncertainty_gib"] < 1.6


@pytest.mark.parametrize(
    ("more", "same"),
    [
        ({"gpu-memory-utilization": 0.88}, True),
        ({"max-model-len": 65536}, True),
        ({"tool-call-parser": "glm47", "enable-log-requests": True}, True),
        ({"max-num-seqs": 24}, False),
        ({"max-num-batched-tokens": 4096}, False),
        ({"enforce-eager": True}, False),
        ({"kv-cache-dtype": "fp8"}, False),
        ({"speculative-config": None}, False),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_decides_the_size_is_another_configuration(lock: Path, more: dict[str, Any], same: bool) -> None:
    before = plan(model="GLM-5.1", accelerator="B200")
    starts.keep(lock, before, "gpu-1", pool_with(before, -1.0), AT)
    after = plan(lock, model="GLM-5.1", accelerator="B200", engine_args=more)
    assert (after["memory"]["own_basis"] == "reported") is same


@pytest.mark.parametrize(
    "changes",
    [{"engine_version": "0.31.0"}, {"accelerator": "H200"}, {"engine_env": {"NCCL_NVLS_ENABLE": "1"}},
     {"profile": "throughput"}, {"image": "acme/vllm:0.32.0-patched", "engine_version": "0.32.0"}],
    ids=lambda changes: next(iter(changes)),
)  # fmt: skip
def test_another_engine_gpu_or_image_is_another_configuration(lock: Path, changes: dict[str, Any]) -> None:
    before = plan(model="GLM-5.1", accelerator="B200")
    starts.keep(lock, before, "gpu-1", pool_with(before, -1.0), AT)
    assert plan(lock, **{"model": "GLM-5.1", "accelerator": "B200", **changes})["memory"]["own_basis"] == "estimated"


def test_what_cannot_be_the_engines_own_choice_is_not_kept(lock: Path) -> None:
    made = plan(model="GLM-5.1", accelerator="B200")
    own = made["memory"]["own_gib"]
    assert not starts.keep(lock, made, "gpu-1", 0, AT)
    # More than there is room for, as with a tiny stand-in for a model.
    assert not starts.keep(lock, made, "gpu-1", pool_with(made, own + 1), AT)
    by_hand = plan(model="GLM-5.1", accelerator="B200", engine_args={"kv-cache-memory-bytes": 20 * 2**30})
    assert by_hand["memory"]["configuration"] is None
    assert not starts.keep(lock, by_hand, "gpu-1", pool_with(made, 0), AT)
    old = plan(model="GLM-5.1", accelerator="B200")
    old["memory"] = {"token_pool": 1}  # type: ignore[typeddict-item]  # a release of an earlier version
    assert not starts.keep(lock, old, "gpu-1", pool_with(made, 0), AT)
    assert not starts.KEPT.path_of(lock).exists()


def test_the_youngest_are_kept(lock: Path) -> None:
    made = plan(model="GLM-5.1", accelerator="B200")
    for number in range(starts.MOST_HOSTS + 3):
        starts.keep(lock, made, f"gpu-{number}", pool_with(made, 0), f"2026-12-01T10:00:{number:02}Z")
    [hosts] = starts.read(lock).values()
    assert len(hosts) == starts.MOST_HOSTS and "gpu-2/0" not in hosts and "gpu-3/0" in hosts


@pytest.mark.parametrize(
    "text", ["<<<<<<< ours\n", "[]", '{"schema": 2, "starts": {}}', '{"schema": 1, "starts": {"a": {"b": {}}}}'],
    ids=["conflict", "list", "newer", "incomplete"],
)  # fmt: skip
def test_a_file_of_another_form_is_refused_with_its_name(lock: Path, text: str) -> None:
    starts.KEPT.path_of(lock).write_text(text, "utf-8")
    with pytest.raises(Unmet, match=r"glm\.starts\.json.*another form.*remove it"):
        request.plans_of({**_asked(), "lock_file": str(lock)})
    with pytest.raises(Unmet, match="another form"):
        starts.keep(lock, plan(), "gpu-1", 100_000, AT)
    assert starts.KEPT.path_of(lock).read_text("utf-8") == text


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unmet, match=r"to keep what starts of this fleet reported, in .*, found .*glm_lock_file"):
        starts.keep(tmp_path / "file/glm.lock.yml", plan(), "gpu-1", pool_with(plan(), 0), AT)


def test_a_plan_reads_what_is_beside_its_lock_file(lock: Path) -> None:
    [before] = request.plans_of({**_asked(), "lock_file": str(lock)})
    starts.keep(lock, before, "gpu-1", pool_with(before, -1.0), AT)
    [after] = request.plans_of({**_asked(), "lock_file": str(lock)})
    assert after["memory"]["own_basis"] == "reported"
    assert json.loads(starts.KEPT.path_of(lock).read_text("utf-8"))["schema"] == 1


def _asked() -> dict[str, Any]:
    return {"model": "GLM-5.1", "accelerator": "B200", "accelerator_count": 8, "bind": "loopback", "port": 8000}
