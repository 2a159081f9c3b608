"""From a workload and a plan to the client's arguments, in the order they run."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.benchmark import runs as bench
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.records import Point
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import asking
from tests.unit.serve.plans import REVISION, SNAPSHOT, listening, plan

KNOWN = catalog.load()
FOLDER = "/var/lib/glm/benchmarks/0"
HOST_SNAPSHOT = SNAPSHOT.replace("/root/.cache/huggingface", "/var/lib/glm/huggingface")
OWN = {
    "text": "Short.",
    "interface": "chat",
    "input_tokens": 600,
    "output_tokens": 200,
    "points": [{"prompts": 200, "parallel": 20}],
    "source": {"who": "us"},
}


def runs(name: str, repeats: int = 1, warmup: int = 32, **changes: Any) -> list[dict[str, Any]]:
    made = plan(**changes)
    workload = KNOWN.workloads[name]
    address = bench.endpoint_address(made, "", "", "203.0.113.5")
    return bench.runs(made, workload, bench.client(made, FOLDER, "", ""), address, repeats, warmup, 100)


def option(run: dict[str, Any], name: str) -> str | None:
    argv = run["argv"]
    return argv[argv.index(name) + 1] if name in argv else None


def test_the_arguments_are_those_of_the_source_and_what_it_forgot() -> None:
    warm, run = runs("glm51_agentic")
    for name, value in {
        "--backend": "openai-chat",
        "--endpoint": "/v1/chat/completions",
        "--base-url": "http://10.0.0.5:8000",
        "--served-model-name": "glm-5.1-fp8",
        "--model": SNAPSHOT,
        "--dataset-name": "random",
        "--random-input-len": "8192",
        "--random-output-len": "2048",
        "--num-prompts": "512",
        "--max-concurrency": "32",
        "--result-dir": "/results",
    }.items():
        assert option(run, name) == value
    assert {"--ignore-eos", "--save-result", "--save-detailed"} <= set(run["argv"])
    assert (warm["point"], option(warm, "--num-prompts"), option(warm, "--max-concurrency")) == (None, "32", "32")


def test_a_burst_has_a_rate_and_no_limit() -> None:
    _warm, one, *_others, last = runs("glm4x_prompt_heavy")
    assert option(last, "--request-rate") == "10000" and option(last, "--max-concurrency") is None
    assert option(last, "--endpoint") == "/v1/completions" and option(last, "--backend") == "openai"
    assert (one["name"], last["name"]) == ("1 prompts, all at once", "512 prompts, all at once")


def test_no_two_runs_share_a_seed() -> None:
    made = runs("concurrency_sweep", repeats=3)
    assert [run["seed"] for run in made] == list(range(100, 100 + 1 + 9 * 3))
    assert [option(run, "--seed") for run in made] == [str(run["seed"]) for run in made]
    assert len({run["result"] for run in made}) == len(made)


def test_the_warm_up_is_as_crowded_as_the_workload_allows_and_may_be_left_out() -> None:
    assert runs("concurrency_sweep", warmup=8)[0]["prompts"] == 8
    assert runs("glm51_agentic", warmup=500)[0]["prompts"] == 32
    assert [run["point"] for run in runs("glm51_agentic", warmup=0)] == [0]


@pytest.mark.parametrize(
    ("address", "url"),
    [("0.0.0.0", "http://127.0.0.1:8000"), ("fd00::5", "http://[fd00::5]:8000"), ("::", "http://[::1]:8000")],
)
def test_the_endpoint_is_asked_where_the_host_reaches_it(address: str, url: str) -> None:
    listen = listening(address, 8000)
    assert option(runs("glm51_agentic", listen=listen)[0], "--base-url") == url


# --- which client ---


def test_vllm_is_measured_by_its_own_image() -> None:
    client = bench.client(plan(), FOLDER, "other", "")
    assert client == bench.Client("vllm", plan()["image"]["reference"], SNAPSHOT, "/results")
    assert bench.container(plan(), client, "gpu-1") == {
        "name": "glm-benchmark-0",
        "image": plan()["image"]["reference"],
        "source": "/var/lib/glm/huggingface",
        "target": "/root/.cache/huggingface",
        "results": "/results",
    }


def test_sglang_is_measured_by_vllm_s_image() -> None:
    assert bench.client(plan("sglang"), FOLDER, "vllm/vllm-openai@sha256:1", "").image == "vllm/vllm-openai@sha256:1"
    with pytest.raises(bench.RunError, match="expected benchmark_client_image to name an image of vLLM"):
        bench.client(plan("sglang"), FOLDER, "", "")


def test_without_containers_the_environment_s_program_measures() -> None:
    venv = {**plan()["runtime"], "kind": "venv", "path": "/opt/glm/engines/vllm-0.32.0"}
    client = bench.client(plan(runtime=venv), FOLDER, "", "")
    assert client == bench.Client("/opt/glm/engines/vllm-0.32.0/bin/vllm", None, HOST_SNAPSHOT, FOLDER)
    assert bench.container(plan(), client, "gpu-1") is None
    with pytest.raises(bench.RunError, match="set benchmark_client_path"):
        bench.client(plan("sglang", runtime=venv), FOLDER, "", "")
    assert bench.client(plan("sglang", runtime=venv), FOLDER, "", "/opt/b/vllm").program == "/opt/b/vllm"


def test_another_host_measures_with_the_tokenizer_that_was_brought_there() -> None:
    client = bench.client(plan(), FOLDER, "", "", "bench-1", "/var/lib/glm/tok")
    assert client == bench.Client("vllm", plan()["image"]["reference"], "/tokenizer", "/results", "bench-1")
    container = bench.container(plan(), client, "gpu 1.example", "/var/lib/glm/tok")
    assert container and container["name"] == "glm-benchmark-gpu-1.example-0"
    assert (container["source"], container["target"]) == ("/var/lib/glm/tok", "/tokenizer")
    venv = {**plan()["runtime"], "kind": "venv", "path": "/opt/glm/engines/vllm-0.32.0"}
    with pytest.raises(bench.RunError, match="measures on bench-1: bare metal has no image"):
        bench.client(plan(runtime=venv), FOLDER, "", "", "bench-1", "/var/lib/glm/tok")


@pytest.mark.parametrize(
    ("listens", "own", "reached"),
    [
        ("10.0.0.5", "", "10.0.0.5"),
        ("0.0.0.0", "", "gpu-1.example"),
        ("::", "", "gpu-1.example"),
        ("127.0.0.1", "192.0.2.7", "192.0.2.7"),
    ],
)
def test_another_host_asks_where_it_reaches_the_endpoint(listens: str, own: str, reached: str) -> None:
    made = plan(listen=listening(listens, 8000))
    assert bench.endpoint_address(made, own, "bench-1", "gpu-1.example") == reached


@pytest.mark.parametrize("loopback", ["127.0.0.1", "::1"])
def test_an_endpoint_on_loopback_is_not_measured_from_elsewhere(loopback: str) -> None:
    made = plan(listen=listening(loopback, 8000))
    with pytest.raises(bench.RunError, match=f"that bench-1 can reach, found one bound to {loopback}. Next: deploy"):
        bench.endpoint_address(made, "", "bench-1", "gpu-1.example")


def test_a_plan_without_a_commit_cannot_be_measured() -> None:
    with pytest.raises(bench.RunError, match="Next: deploy first"):
        bench.client(plan(model={**plan()["model"], "revision": None}), FOLDER, "", "")


def test_the_client_s_image_is_the_catalogue_s_for_the_vendor_or_one_s_own() -> None:
    assert bench.client_plan(KNOWN, plan(), {}) == plan()
    image = bench.client_plan(KNOWN, plan("sglang"), {})["image"]
    assert (image["repository"], image["tag"]) == ("vllm/vllm-openai", "v0.32.0")
    amd = {**plan()["accelerator"], "vendor": "amd"}
    assert "rocm" in str(bench.client_plan(KNOWN, plan("sglang", accelerator=amd), {})["image"])
    own = bench.client_plan(KNOWN, plan(), {"repository": "acme/vllm", "tag": "v1"})["image"]
    assert (own["repository"], own["tag"], own["digest"]) == ("acme/vllm", "v1", None)
    with pytest.raises(bench.RunError, match=r"to have repository and tag, found \['tag'\]"):
        bench.client_plan(KNOWN, plan(), {"tag": "v1"})


# --- which workload ---


def test_one_s_own_workload_is_checked_like_the_catalogue_s() -> None:
    assert bench.workload(KNOWN, "mine", {"mine": OWN}).points == [Point(200, 20)]
    with pytest.raises(bench.RunError, match=r"benchmark_workloads: workloads\.mine: unknown key 'tokens'"):
        bench.workload(KNOWN, "mine", {"mine": {**OWN, "tokens": 3}})
    with pytest.raises(bench.RunError, match=r"one of glm51_agentic, .*, mine, found 'other'"):
        bench.workload(KNOWN, "other", {"mine": OWN})


def test_a_scaled_workload_is_smaller_in_every_way_and_says_so() -> None:
    small = bench.workload(KNOWN, "concurrency_sweep", {}, 0.02)
    assert (small.input_tokens, small.output_tokens) == (41, 11)
    assert small.points[0] == Point(1, 1) and small.points[-1] == Point(82, 21)
    assert len(set(small.points)) == len(small.points) and "compared with nothing" not in small.notes[0]
    assert "not comparable with any result" in small.notes[-1]
    with pytest.raises(bench.RunError, match="at most 1, found 2"):
        bench.workload(KNOWN, "concurrency_sweep", {}, 2)


def test_the_prefix_cache_is_on_unless_the_engine_is_told_otherwise() -> None:
    assert asking.prefix_caching(plan()) and asking.prefix_caching(plan("sglang"))
    assert not asking.prefix_caching(plan(command=[*plan()["command"], "--no-enable-prefix-caching"]))
    assert not asking.prefix_caching(plan(command=[*plan()["command"], "--disable-prefix-caching"]))
    assert not asking.prefix_caching(plan("sglang", command=[*plan("sglang")["command"], "--disable-radix-cache"]))


def test_the_measuring_engine_has_the_client_and_the_others_have_not() -> None:
    assert bench.has_client(plan()) and not bench.has_client(plan("sglang"))


def test_a_fingerprint_tells_other_measurements_from_the_same_one() -> None:
    workload = KNOWN.workloads["glm51_agentic"]
    same = bench.fingerprint(plan(), workload, 1, 32)
    assert same == bench.fingerprint(plan(env={"OTHER": "1"}), workload, 1, 32)
    others = [
        bench.fingerprint(plan(), workload, 2, 32),
        bench.fingerprint(plan(), KNOWN.workloads["glm5_coding"], 1, 32),
        bench.fingerprint(plan(model={**plan()["model"], "revision": REVISION[::-1]}), workload, 1, 32),
    ]
    assert len({same, *others}) == 4
