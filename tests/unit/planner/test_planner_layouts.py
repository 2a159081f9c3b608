"""How GPUs are divided and engines run: replicas, hosts, bare metal, ROCm, layouts nobody published."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import make as planner
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import text as plan_text

CATALOG = catalog.load()


def intent(model: str, accelerator: str, count: int = 8, **changes: Any) -> planner.Intent:
    return planner.Intent(model, accelerator, count, **changes)


def plan(model: str, accelerator: str, count: int = 8, **changes: Any) -> dict[str, Any]:
    return planner.make(intent(model, accelerator, count, **changes), CATALOG)


def option(made: dict[str, Any], name: str) -> str:
    return str(made["command"][made["command"].index(name) + 1])


def refusal(model: str, accelerator: str, count: int = 8, **changes: Any) -> str:
    with pytest.raises(planner.PlanError) as refused:
        plan(model, accelerator, count, **changes)
    return str(refused.value)


def test_two_replicas_share_a_host() -> None:
    asked = intent("GLM-5", "B200", precision="nvfp4", engine="sglang", profile="throughput", replicas=2)
    first, second = planner.make_all(asked, CATALOG)
    assert first["devices"] == [f"nvidia.com/gpu={index}" for index in range(4)]
    assert second["devices"] == [f"nvidia.com/gpu={index}" for index in range(4, 8)]
    assert (first["listen"]["port"], second["listen"]["port"]) == (8000, 8001)
    assert (first["replica"], second["replica"], second["accelerator"]["indices"]) == (0, 1, [4, 5, 6, 7])
    assert {made["recipe"]["basis"] for made in (first, second)} == {"adapted"}
    assert option(first, "--tp-size") == "4"
    assert "cannot be shared evenly by 3 replicas" in refusal("GLM-5", "B200", precision="nvfp4", replicas=3)
    # What would work is not what was asked for.
    text = refusal("GLM-5.1", "B200", replicas=4)
    assert "8x B200 (fp8, vllm, glm_replicas 1)" in text


def test_one_replica_spans_two_hosts() -> None:
    hosts = {"nodes": 2, "head_address": "fd00::1", "interface": "ens3", "rdma": True}
    head = plan("GLM-5.1", "H100", engine="sglang", **hosts)
    worker = plan("GLM-5.1", "H100", engine="sglang", node_rank=1, **hosts)
    assert option(head, "--dist-init-addr") == "[fd00::1]:20000"
    assert (option(head, "--node-rank"), option(worker, "--node-rank")) == ("0", "1")
    assert head["parallel"]["tensor"] == 16 and head["runtime"]["network"] == "host"
    assert head["env"]["NCCL_SOCKET_IFNAME"] == head["env"]["GLOO_SOCKET_IFNAME"] == "ens3"
    assert any("only the first an API" in note for note in head["notes"])
    vllm = [plan("GLM-5.1", "H100", engine="vllm", node_rank=rank, **hosts) for rank in (0, 1)]
    assert ["--headless" in made["command"] for made in vllm] == [False, True]
    assert option(vllm[1], "--master-addr") == "fd00::1"
    assert "glm_nodes, which knows the hosts" in refusal(
        "GLM-5.1", "H100", engine="vllm", engine_args={"nnodes": 4}, **hosts
    )


@pytest.mark.parametrize(
    ("model", "accelerator", "engine"),
    [("GLM-5.1", "H100", "vllm"), ("GLM-5.1", "H100", "sglang"), ("GLM-4.7", "A100", "vllm"),
     ("GLM-4.7", "A100", "sglang"), ("GLM-5.2", "H200", "sglang")],
)  # fmt: skip
def test_hosts_without_rdma_are_stages_of_a_pipeline(model: str, accelerator: str, engine: str) -> None:
    asked = {"nodes": 2, "engine": engine, "head_address": "10.0.0.1", "precision": "bf16" if "4.7" in model else "fp8"}
    made = plan(model, accelerator, **asked)
    assert made["parallel"] == {"tensor": 8, "pipeline": 2, "data": 1, "expert": 1}
    assert made["recipe"]["basis"] == "derived" and made["promises"]["draft_tokens"] == 0
    assert option(made, "--pipeline-parallel-size" if engine == "vllm" else "--pp-size") == "2"
    said = [note for note in made["notes"] if "Is there RDMA" in note]
    assert len(said) == 1 and "glm_rdma" in said[0] and "TP8 x PP2" in said[0]
    linked = plan(model, accelerator, rdma=True, **asked)
    assert linked["parallel"]["tensor"] == 16 and linked["parallel"]["pipeline"] == 1
    assert not [note for note in linked["notes"] if "RDMA" in note]


def test_stages_that_would_lose_the_selection_of_an_earlier_layer_are_refused() -> None:
    text = refusal("GLM-5.2", "H200", nodes=2, engine="vllm")
    assert "get none where a stage begins" in text and "glm_rdma" in text
    old = refusal("GLM-5.2", "H200", nodes=2, engine="sglang", engine_version="0.5.13.post1")
    assert "get none where a stage begins" in old and "0.5.14" in old
    assert plan("GLM-5.2", "H200", nodes=2, engine="vllm", rdma=True)["parallel"]["tensor"] == 16


def test_a_tensor_group_over_hosts_may_be_asked_for() -> None:
    asked = {"nodes": 2, "engine_args": {"tensor-parallel-size": 16}}
    made = plan("GLM-5.1", "H200", engine="vllm", **asked)
    assert (made["parallel"]["tensor"], made["parallel"]["pipeline"]) == (16, 1)
    assert not [note for note in made["notes"] if "stage of a pipeline" in note]
    busy = plan("GLM-5.1", "H200", nodes=2, engine="vllm", rdma=True, profile="throughput")
    assert (busy["parallel"]["tensor"], busy["parallel"]["pipeline"]) == (16, 1)
    with pytest.raises(planner.PlanError):
        plan("GLM-5.1", "H200", nodes=79, engine="vllm")


def test_the_largest_stage_of_a_pipeline_counts() -> None:
    """GLM-5.1 has 78 layers, the first three without experts: the second stage has 39 of the 75 with experts."""
    one = plan("GLM-5.1", "H200", engine_args={"speculative-config": None, "kv-cache-dtype": None})["memory"]
    two = plan("GLM-5.1", "H200", nodes=2, head_address="10.0.0.1")["memory"]
    assert two["weights_per_gpu_gib"] == pytest.approx(one["weights_per_gpu_gib"] * 39 / 75, abs=0.02)
    assert two["kv_bytes_per_token"] == one["kv_bytes_per_token"] / 2
    assert "TP8 x PP2" in two["arithmetic"]


@pytest.mark.parametrize(("engine", "variable"), [("vllm", "VLLM_HOST_IP"), ("sglang", "SGLANG_HOST_IP")])
def test_each_host_of_a_replica_names_the_address_that_the_others_know(engine: str, variable: str) -> None:
    hosts = {"nodes": 2, "head_address": "10.0.0.5", "node_addresses": ["10.0.0.5", "10.0.0.6"], "engine": engine}
    made = [plan("GLM-5.1", "H100", node_rank=rank, **hosts) for rank in (0, 1)]
    assert [one["env"][variable] for one in made] == ["10.0.0.5", "10.0.0.6"]
    assert variable not in plan("GLM-5.1", "B200", engine=engine)["env"]


def test_blocks_of_weights_are_not_cut() -> None:
    # 32 parts would be too narrow, so four hosts are a pipeline, whatever is between them.
    for rdma in (True, False):
        assert plan("GLM-5.1", "H100", nodes=4, engine="sglang", rdma=rdma)["parallel"]["pipeline"] == 4
    text = refusal("GLM-5.1", "H100", nodes=4, engine="sglang", engine_args={"tp-size": 32, "pp-size": 1})
    assert "does not divide" in text or "blocks of 128" in text
    # Weights of GLM-4.x are scaled by channel: eight parts of 192 columns are published.
    assert plan("GLM-4.6", "H200", engine="sglang")["parallel"]["tensor"] == 8


def test_bare_metal_runs_the_package_from_host_paths() -> None:
    made = plan("GLM-5.1", "H200", engine="sglang", runtime="venv", listen_address="10.0.0.5", listen_port=9000)
    assert made["image"] is None and made["mounts"] == []
    assert made["runtime"]["package"] == "sglang==0.5.10"
    assert made["command"][:3] == ["/opt/glm/engines/sglang-0.5.10/bin/python", "-m", "sglang.launch_server"]
    assert (option(made, "--host"), option(made, "--port")) == ("127.0.0.1", "18000")
    assert (made["listen"]["address"], made["listen"]["port"]) == ("10.0.0.5", 9000)
    assert option(made, "--config") == made["secret"]["container_path"] == "/run/glm-serve-0/engine.yaml"
    assert made["env"]["HF_HOME"] == "/var/lib/glm/huggingface"
    second = plan("GLM-4.5-Air", "H200", engine="vllm", runtime="venv", replicas=2, replica=1)
    assert second["env"]["CUDA_VISIBLE_DEVICES"] == "4,5,6,7"


def test_container_and_bare_metal_have_caches_of_their_own() -> None:
    """Root without capabilities cannot write what the user of bare metal owns, and the other way round."""
    cached = {plan("GLM-5.1", "H200", runtime=runtime)["paths"]["cache"] for runtime in ("container", "venv")}
    assert cached == {f"/var/lib/glm/cache/vllm-0.32.0-{runtime}" for runtime in ("container", "venv")}


def test_shared_memory_follows_the_gpus_of_a_replica() -> None:
    made = planner.make_all(intent("GLM-5", "B200", precision="nvfp4", engine="sglang", replicas=2), CATALOG)
    assert [one["confinement"]["shared_memory_gib"] for one in made] == [32, 32]
    assert plan("GLM-5.1", "B200")["confinement"]["shared_memory_gib"] == 64


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_aiter_builds_kernels_in_the_cache_of_a_container(engine: str) -> None:
    made = plan("GLM-5.1", "MI300X", engine=engine)
    assert made["env"]["AITER_JIT_DIR"] == "/var/cache/glm/aiter"
    assert "AITER_JIT_DIR" not in plan("GLM-5.1", "H200", engine=engine)["env"]
    # Nobody would put the package's own kernels there.
    assert "AITER_JIT_DIR" not in plan("GLM-5.1", "MI325X", engine="vllm", runtime="venv")["env"]


def test_bare_metal_brings_a_transformers_that_knows_the_model() -> None:
    assert plan("GLM-5", "H200", engine_version="0.16.0", runtime="venv")["runtime"]["overrides"] == [
        "transformers==5.4.0"
    ]
    assert plan("GLM-5", "H200", runtime="venv")["runtime"]["overrides"] == []
    assert plan("GLM-5", "H200", engine_version="0.16.0")["image"]["build"]["packages"] == ["transformers==5.4.0"]


def test_bare_metal_on_amd_takes_only_what_is_built_for_it() -> None:
    made = plan("GLM-5.1", "MI325X", engine="vllm", runtime="venv")
    assert made["engine"]["version"] == "0.25.1"
    assert made["runtime"]["index_urls"] == ["https://wheels.vllm.ai/rocm"]
    assert "set glm_runtime to container" in refusal("GLM-5.1", "MI325X", engine="sglang", runtime="venv")
    assert "no package of vllm 0.32.0 for AMD GPUs is known" in refusal(
        "GLM-5.1", "MI325X", engine="vllm", engine_version="0.32.0", runtime="venv"
    )


def test_amd_containers_get_devices_and_groups() -> None:
    made = plan("GLM-5.1", "MI300X", engine="sglang")
    assert (made["devices"], made["device_nodes"]) == ([], ["/dev/kfd", "/dev/dri"])
    assert made["device_groups"] == ["video", "render"]
    assert made["image"]["reference"] == "lmsysorg/sglang:v0.5.10-rocm720-mi30x"
    assert (made["image"]["cuda"], made["image"]["rocm"]) == (None, "7.2")
    assert option(made, "--nsa-prefill-backend") == "tilelang", "0.5.10 knows the backends by their old name"
    assert "--speculative-algorithm" not in made["command"]
    newer = plan("GLM-5.1", "MI355X", engine="sglang")
    assert newer["engine"]["version"] == "0.5.13.post1" and option(newer, "--dsa-prefill-backend") == "tilelang"
    assert plan("GLM-4.7", "MI300X", precision="bf16")["env"]["SAFETENSORS_FAST_GPU"] == "1"


def test_left_over_gpus_become_copies_behind_one_endpoint() -> None:
    made = plan("GLM-4.7-Flash", "H100", precision="bf16")
    assert made["parallel"] == {"tensor": 4, "pipeline": 1, "data": 2, "expert": 8}
    assert made["recipe"]["basis"] == "derived"


def test_throughput_divides_the_cache_of_sparse_models() -> None:
    assert plan("GLM-5.1", "B200", profile="throughput")["parallel"]["data"] == 8
    newer = plan("GLM-5.1", "B200", engine="sglang", engine_version="0.5.23", runtime="venv", profile="throughput")
    assert option(newer, "--attn-dp-size") == "8" and "--enable-dp-attention" not in newer["command"]
    assert newer["parallel"]["data"] == 8


@pytest.mark.parametrize(
    ("model", "accelerator", "precision"),
    [("GLM-5.2", "H200", "fp8"), ("GLM-5.1", "MI300X", "fp8"), ("GLM-4.7", "H200", "fp8"),
     ("GLM-4.5-Air", "H100", "fp8"), ("GLM-4.7-Flash", "H100", "bf16")],
)  # fmt: skip
def test_throughput_takes_the_division_with_most_room(model: str, accelerator: str, precision: str) -> None:
    """Two requests of 65,536 tokens for each rank, then the most tokens in all: GLM-5.2 had a third of it at TP8."""
    made = plan(model, accelerator, precision=precision, profile="throughput")
    assert made["memory"]["token_pool"] / made["parallel"]["data"] >= 2 * 65_536
    for tensor in (1, 2, 4, 8):
        sizes = {"tensor-parallel-size": tensor, "data-parallel-size": 8 // tensor}
        try:
            other = plan(model, accelerator, precision=precision, profile="throughput", engine_args={
                **sizes, "enable-expert-parallel": tensor < 8,
            })  # fmt: skip
        except planner.PlanError:
            continue
        if other["memory"]["token_pool"] * tensor / 8 >= 2 * 65_536:
            assert made["memory"]["token_pool"] >= other["memory"]["token_pool"], sizes


def test_a_derived_context_is_what_the_cache_holds() -> None:
    made = plan("GLM-5.1", "MI325X", precision="bf16", engine="vllm")
    context = int(option(made, "--max-model-len"))
    assert context < 202_752 and context % 1024 == 0 and context <= made["memory"]["token_pool"]
    assert any(f"{context:,} and not 202,752 tokens" in note for note in made["notes"])


def test_weights_nobody_publishes_need_a_repository() -> None:
    text = refusal("GLM-5.1", "H200", precision="int4")
    assert "these weights have no official repository" in text and "set glm_repository" in text
    made = plan("GLM-5.1", "H200", precision="int4", repository="acme/GLM-5.1-AWQ")
    assert made["model"]["repository"] == "acme/GLM-5.1-AWQ"
    assert made["model"]["weights_bytes"] == pytest.approx(389.5e9, rel=1e-3)


def test_a_renamed_accelerator_is_found() -> None:
    assert plan("GLM-4.5-Air", "A100-80GB", precision="bf16")["accelerator"]["name"] == "A100"


def test_replicas_and_hosts_of_one_replica_are_printed_once() -> None:
    replicas = planner.make_all(intent("GLM-5", "B200", precision="nvfp4", replicas=2), CATALOG)
    text = "\n".join(plan_text.report({f"gpu#{made['replica']}": made for made in replicas}))
    assert text.count("fits ") == 1
    assert "8x B200, 2 replicas" in text and "gpu#1 http://127.0.0.1:8001/v1" in text
    pair = {f"h{rank}": plan("GLM-5.1", "H100", nodes=2, node_rank=rank, head_address="10.0.0.1") for rank in (0, 1)}
    text = " ".join("\n".join(plan_text.report(pair)).split())
    assert text.count("fits ") == 1 and "h1 answers at the first host of its replica (10.0.0.1)" in text
    assert "63.84 together" in text


def test_hosts_that_are_served_differently_are_not_mixed() -> None:
    fewer = plan("GLM-5.1", "B200", engine_args={"max-num-seqs": 8})
    text = "\n".join(plan_text.report({"a": plan("GLM-5.1", "B200"), "b": fewer}))
    assert text.count("fits ") == 2
