"""What an engine says of itself, judged: whole logs of healthy starts, each remark that counts, and each floor."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.finding import Finding
from ansible_collections.glm.fleet.plugins.module_utils.host.commands import CommandResult
from ansible_collections.glm.fleet.plugins.module_utils.serving import own_words
from ansible_collections.glm.fleet.plugins.module_utils.serving.journal import read_start
from ansible_collections.glm.fleet.plugins.module_utils.serving.log import Line
from ansible_collections.glm.fleet.plugins.module_utils.serving.own_words import Promised, Said
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import make
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Intent
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import logs

KNOWN = catalog.load()
STARTS = Path(__file__).parent / "healthy_starts"
HEALTHY = sorted(f"{path.parent.name}/{path.name.split('.')[0]}" for path in STARTS.glob("*/*.log.gz"))
CHECKS = ["kv_pool", "mtp_acceptance", "engine_log"]
# As small as what the stand-in model gets on a CPU.
SMALL = {"vllm": {"kv-cache-memory-bytes": "128M", "max-model-len": 1024}, "sglang": {"max-total-tokens": 16384}}
BEGUN = {
    "vllm": "(APIServer pid=1) INFO 11-28 23:10:53 [api_utils.py:286] non-default args: {'port': 8000}",
    "sglang": "[2026-11-28 23:11:50] server_args=ServerArgs(model_path='/model', attention_backend='nsa', port=8000)",
}


def plan(engine: str = "vllm", **arguments: Any) -> Plan:
    given = {name.replace("_", "-"): value for name, value in arguments.items()}
    intent = Intent(model="GLM-5.1", accelerator="H200", accelerator_count=8, engine=engine, engine_args=given)
    return make.make(intent, KNOWN)


def promised(engine: str = "vllm", **arguments: Any) -> Promised:
    return Promised(**logs.own_words(plan(engine, **arguments)))


def judge(asked: Promised, said: Said) -> dict[str, Finding]:
    found = own_words.judge(asked, said).findings
    assert [finding["check"] for finding in found] == CHECKS
    assert {finding["phase"] for finding in found} == {"verify"}
    assert all(bool(finding["next"]) == (finding["outcome"] == "failed") for finding in found)
    return {finding["check"]: finding for finding in found}


def log(engine: str, *lines: str) -> dict[str, Finding]:
    said = Said([Line(line, True) for line in (BEGUN[engine], *lines)], None, None)
    return judge(promised(engine), said)


def kept(name: str, ending: str) -> str:
    return gzip.decompress((STARTS / f"{name}.{ending}.gz").read_bytes()).decode()


# Healthy engines.


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_start_has_no_finding(name: str) -> None:
    engine = name.split("/")[0]
    asked = promised(engine, **SMALL[engine], **({"speculative_config": None} if name == "vllm/plain" else {}))
    lines = [Line(line, True) for line in kept(name, "log").split("\n") if line]
    found = judge(asked, Said(lines, kept(name, "before"), kept(name, "after")))
    assert {check: finding["outcome"] for check, finding in found.items()} == {
        "kv_pool": "passed",
        "engine_log": "passed",
        "mtp_acceptance": "passed" if name == "vllm/mtp" else "not_proven",
    }
    assert "it chose" in found["engine_log"]["found"]
    # The log alone says the same of the pool as the metrics.
    assert judge(asked, Said(lines, None, None))["kv_pool"]["found"] == found["kv_pool"]["found"]


def test_there_are_healthy_starts_of_both_engines() -> None:
    assert HEALTHY == ["sglang/data-parallel", "sglang/plain", "vllm/mtp", "vllm/plain"]


def test_ranks_are_counted_together() -> None:
    found = judge(promised("sglang"), Said([], None, kept("sglang/data-parallel", "after")))
    assert found["kv_pool"]["found"] == "40,000 tokens" and found["kv_pool"]["outcome"] == "failed"
    # As vLLM 0.32.0 shows it with two ranks of 8,192 blocks each.
    info = 'vllm:cache_config_info{{block_size="128",engine="{}",num_gpu_blocks="16384"}} 1.0\n'
    found = judge(promised("vllm"), Said([], None, info.format(0) + info.format(1)))
    assert found["kv_pool"]["found"] == "2,097,152 tokens"
    text = "INFO 11-28 23:13:17 [kv_cache_utils.py:2327] GPU KV cache size: 1,048,576 tokens, Maximum concurrency"
    of_log = [f"(EngineCore_DP{n} pid=6{n}) {text}" for n in range(2)]
    assert log("vllm", *of_log, of_log[0])["kv_pool"]["found"] == "2,097,152 tokens"
    tensor = [f"[2026-11-28 23:13:54 DP0 TP{n}] max_total_num_tokens=20000, context_len=4096" for n in range(2)]
    assert log("sglang", *tensor)["kv_pool"]["found"] == "20,000 tokens", "GPUs of one rank share its cache"


# Remarks: lines as the sources build them, with the engine's header.

WARNING = "(Worker_TP3 pid=70) WARNING 11-28 23:12:36 [x.py:1] "
P2P = (
    " is disabled because your platform lacks GPU P2P capability or P2P test failed. To silence this warning, specify "
)
FAILED = {
    "vllm": (
        f"{WARNING}GlmMoeDsaForCausalLM has no vLLM implementation, falling back to Transformers impl",
        f"{WARNING}FlashInfer kernels are disabled: flashinfer-cubin is not installed and nvcc (CUDA_HOME",
        f"{WARNING}Disabling prefix caching for TRITON_MLA / FLASHINFER with batch invariance, as",
        f"{WARNING}Custom allreduce{P2P}disable_custom",
        f"{WARNING}--block-size 16 precluded higher-priority backend(s) FLASHMLA_SPARSE. Using TRITON_MLA instead",
        f"{WARNING}Using Nvfp4QuantizationEmulationTritonExperts MOE backend. This will dequantize weights on",
        f"{WARNING}The current platform does not support native MXFP4 computation. Using EmulationMxfp4Linear",
    ),
    "sglang": (
        "[2026-11-28 23:11:52 TP0] GlmMoeDsaForCausalLM has no SGLang implementation, falling back to Transformers",
        "Disabling Radix Cache for GlmMoeDsaForCausalLM as it is not yet supported.",
        f"[2026-11-28 23:11:52 TP5] CustomAllreduce{P2P}disable_custom",
        "[2026-11-28 23:11:52 TP5] Setup Custom allreduce failed with invalid argument. To silence this warning",
        "Cuda graph is disabled because deepep_mode=`normal`",
        "[2026-11-28 23:11:52] Grammar backend disabled because tokenizer is not supported by XGrammar: no vocab",
    ),
}
CASES = [(engine, line) for engine, lines in FAILED.items() for line in lines]


@pytest.mark.parametrize(("engine", "line"), CASES, ids=[line[-90:-30] for _, line in CASES])
def test_a_fallback_is_a_finding_with_its_remedy(engine: str, line: str) -> None:
    found = log(engine, "before", line, line, "after")["engine_log"]
    assert found["outcome"] == "failed" and found["next"]
    assert len(found["evidence"]) == 1 and found["evidence"][0] in line, "each process writes it, and one is shown"
    assert "\\1" not in found["found"] + found["next"]


def test_every_rule_that_fails_has_a_line_here() -> None:
    for engine in KNOWN.engines.values():
        rules = [rule for rule in engine.remark_rules(engine.default_version) if rule["kind"] == "failed"]
        heard = [own_words.remarks([Line(line, True)], rules) for line in FAILED[engine.name]]
        assert all(len(one) == 1 for one in heard)
        assert len({one[0].next_step + one[0].says for one in heard}) == len(rules), engine.name


def test_what_no_setting_changes_is_noted_and_fails_nothing() -> None:
    text = ("Using default MoE config. Performance might be sub-optimal! Config file not found at "
            "/usr/lib/vllm/configs/E=257,N=256,device_name=NVIDIA_H200.json")  # fmt: skip
    found = log("vllm", WARNING + text)["engine_log"]
    assert found["outcome"] == "passed" and not found["next"]
    assert "noted: no tuned kernel configuration" in found["found"] and "device_name=NVIDIA_H200" in found["found"]
    assert found["evidence"][0] == text and "benchmark.yml" in found["evidence"][1]


def test_of_many_remarks_some_are_shown() -> None:
    text = (
        f"{WARNING}Using default MoE config. Performance might be sub-optimal! Config file not found at /c/E={{}}.json"
    )
    found = log("vllm", *[text.format(n) for n in range(40)])["engine_log"]
    assert found["found"].endswith("and 34 more") and len(found["evidence"]) == 7


def test_the_chosen_kernels_are_reported() -> None:
    info = "(Worker_TP0 pid=7) INFO 11-28 23:12:36 [cuda.py:506] "
    found = log("vllm", f"{info}Using FLASHMLA_SPARSE attention backend out of potential backends: ['X'].",
                f"{info}Using DEEPGEMM Fp8 MoE backend out of potential backends: ['DEEPGEMM', 'TRITON'].",
                f"{info}Using AttentionBackendEnum.FLASHMLA_SPARSE backend.")["engine_log"]  # fmt: skip
    assert found["found"] == "it chose attention FLASHMLA_SPARSE, MoE DEEPGEMM (Fp8)"
    assert log("sglang")["engine_log"]["found"] == "it chose attention nsa"
    assert log("vllm")["engine_log"]["found"] == "nothing of the kind"


def test_rules_of_other_versions_do_not_hold() -> None:
    rules = KNOWN.engines["vllm"].remark_rules
    line = Line(FAILED["vllm"][1], True)
    assert own_words.remarks([line], rules("0.32.0")) and not own_words.remarks([line], rules("0.25.1"))


# The pool.


def pool(tokens: int, engine: str = "sglang", **arguments: Any) -> Finding:
    text = f'sglang:max_total_num_tokens{{dp_rank="0"}} {tokens}.0'
    return judge(promised(engine, **arguments), Said([], None, text))["kv_pool"]


def test_the_floor_of_the_pool() -> None:
    made = plan("sglang")
    floor = made["promises"]["token_pool"]
    assert floor == int(made["memory"]["token_pool"] * 0.7 * (1 - 1e-12)) or floor == int(
        made["memory"]["token_pool"] * 0.7
    )
    assert pool(floor)["outcome"] == "passed" and pool(floor - 1)["outcome"] == "failed"
    # Published: 1,741 tokens instead of 349,377.
    found = pool(1741)
    assert (
        found["found"] == "1,741 tokens"
        and f"{floor:,}" in found["expected"]
        and "mem-fraction-static" in found["next"]
    )


def test_a_tight_pool_may_be_smaller_by_what_is_only_estimated() -> None:
    made = plan("vllm", gpu_memory_utilization=0.84)
    gib, tokens = made["memory"]["kv_pool_gib_per_gpu"], made["memory"]["token_pool"]
    assert made["memory"]["kv_pool_gib_per_gpu"] * 0.3 > 4.4
    assert made["promises"]["token_pool"] == pytest.approx(0.7 * tokens, rel=1e-4)
    tight = plan("sglang", mem_fraction_static=0.72)
    gib, tokens = tight["memory"]["kv_pool_gib_per_gpu"], tight["memory"]["token_pool"]
    assert 4.4 < gib < 4.4 / 0.3
    assert tight["promises"]["token_pool"] == pytest.approx(tokens * (gib - 4.4) / gib, rel=1e-2)


@pytest.mark.parametrize(
    ("engine", "arguments", "floor"),
    [
        ("sglang", {"max_total_tokens": 16384}, 11468),
        ("vllm", {"kv_cache_memory_bytes": 128 * 2**20, "max_model_len": 1024}, 1509),
        ("vllm", {"kv_cache_memory_bytes": "128M", "max_model_len": 1024}, 1509),
        ("vllm", {"num_gpu_blocks_override": 512}, None),
    ],
)
def test_a_pool_of_a_size_that_was_set_is_no_fault(engine: str, arguments: dict[str, Any], floor: int | None) -> None:
    assert plan(engine, **arguments)["promises"]["token_pool"] == floor
    if floor is None:
        assert pool(1, engine, **arguments)["outcome"] == "not_proven"


def test_a_pool_that_nobody_says_is_not_proven() -> None:
    found = judge(promised(), Said([Line(BEGUN["vllm"], True)], "", "vllm:cache_config_info nonsense"))["kv_pool"]
    assert found["outcome"] == "not_proven" and "neither" in found["found"]
    endless = 'vllm:cache_config_info{block_size="1e308",num_gpu_blocks="1e308"} 1'
    for engine, text in (("vllm", endless), ("sglang", "sglang:max_total_num_tokens +Inf")):
        assert judge(promised(engine), Said([], None, text))["kv_pool"]["outcome"] == "not_proven"


# The drafts.


def counters(steps: int, accepted: int, tokens: int = 4000, drafts: bool = True) -> str:
    spec = "vllm:spec_decode_num_drafts_total{{}} {}\nvllm:spec_decode_num_accepted_tokens_total{{}} {}\n"
    return f"vllm:generation_tokens_total{{}} {tokens}\n" + (spec.format(steps, accepted) if drafts else "")


@pytest.mark.parametrize(
    ("before", "after", "outcome", "found"),
    [
        (counters(0, 0, 0), counters(100, 40), "passed", "1.40 tokens in a step (100 steps)"),
        (counters(0, 0, 0), counters(100, 39), "failed", "1.39 tokens in a step (100 steps)"),
        (counters(0, 0, 0), counters(100, 2), "failed", "1.02 tokens in a step (100 steps)"),
        # What was before the questions does not count, good or bad.
        (counters(10**6, 3 * 10**6, 10**6), counters(10**6 + 50, 3 * 10**6, 10**6 + 60), "failed", "1.00 tokens"),
        (counters(10**6, 0, 10**6), counters(10**6 + 50, 100, 10**6 + 60), "passed", "3.00 tokens"),
        (None, counters(50, 100), "passed", "3.00 tokens"),
        (counters(0, 0, 0), counters(49, 0), "not_proven", "only 49 steps"),
        (counters(0, 0, 0), counters(0, 0, 200), "failed", "wrote 200 tokens without one draft"),
        (counters(0, 0, 0), counters(0, 0, 199), "not_proven", "only 0 steps"),
        (counters(0, 0, 0, drafts=False), counters(0, 0, 4000, drafts=False), "failed", "without one draft"),
        (counters(500, 900), counters(80, 200), "not_proven", "started again"),
        (counters(0, 0), None, "not_proven", "could not be read"),
        (None, "", "not_proven", "only 0 steps"),
        (None, "vllm:spec_decode_num_drafts_total nan", "not_proven", "only 0 steps"),
    ],
)
def test_acceptance_of_vllm(before: str | None, after: str | None, outcome: str, found: str) -> None:
    finding = judge(promised(), Said([], before, after))["mtp_acceptance"]
    assert (finding["outcome"], found in finding["found"]) == (outcome, True), finding
    assert finding["outcome"] != "failed" or "speculative-config" in finding["next"]


@pytest.mark.parametrize(
    ("before", "after", "outcome"),
    [(0.0, 2.7, "passed"), (0.0, 1.4, "passed"), (0.0, 1.39, "failed"), (1.02, 1.05, "failed"), (2.9, 1.2, "passed"),
     (0.0, 0.0, "not_proven"), (0.0, 0.99, "not_proven")],
)  # fmt: skip
def test_acceptance_of_sglang(before: float, after: float, outcome: str) -> None:
    first, last = (f'sglang:spec_accept_length{{dp_rank="0"}} {value}' for value in (before, after))
    finding = judge(promised("sglang"), Said([], first, last))["mtp_acceptance"]
    assert finding["outcome"] == outcome
    assert finding["outcome"] != "failed" or "speculative-algorithm" in finding["next"]


def test_without_mtp_nothing_is_promised() -> None:
    made = plan("vllm", speculative_config=None)
    assert made["promises"]["draft_tokens"] == 0 and made["promises"]["acceptance_length"] is None
    found = judge(Promised(**logs.own_words(made)), Said([], counters(0, 0, 0), counters(0, 0, 9999)))
    assert found["mtp_acceptance"]["outcome"] == "not_proven"
    assert plan("vllm")["promises"]["draft_tokens"] == 3 == plan("sglang")["promises"]["draft_tokens"]


# What is read of the journal.


class Host:
    """A host with a unit and its journal: rows of (seconds, text), and whether its journalctl can read a time.

    Like journalctl 252, it gives nothing of the end of a time unless it is asked from there backwards.
    """

    def __init__(self, rows: Sequence[tuple[int, str]], dates: bool = True, **properties: str) -> None:
        self.rows, self.dates = rows, dates
        self.asked: list[int] = []
        self.properties = {"ActiveState": "active", "InvocationID": "a1", "ActiveEnterTimestamp": "T 600", **properties}

    def __call__(self, argv: Sequence[str]) -> CommandResult:
        words = tuple(argv)
        if words[0] == "systemctl":
            shown = "".join(f"{key}={value}\n" for key, value in self.properties.items())
            return CommandResult(words, 0 if self.properties["ActiveState"] else 1, shown, "no systemd")
        assert "_SYSTEMD_INVOCATION_ID=a1" in words and "--since" not in words
        count = int(words[words.index("--lines") + 1])
        self.asked.append(count)
        rows = self.rows[-count:]
        if "--until" in words:
            if not self.dates:
                return CommandResult(words, 1, "", "Failed to parse timestamp")
            assert words[words.index("--until") + 1] == "T 600"
            rows = [row for row in self.rows if row[0] <= 600][-count:] if "--reverse" in words else []
        fields = [json.dumps({"MESSAGE": text, "SYSLOG_IDENTIFIER": "docker"}) for _, text in rows]
        return CommandResult(words, 0, "\n".join(reversed(fields) if "--reverse" in words else fields), "")


def checked(host: Host, promises: Mapping[str, Any] | None = None, secret_files: Sequence[str] = ()) -> Finding:
    promised = promises or logs.own_words(plan())
    return own_words.check(host, "glm-serve-0.service", promised, None, None, secret_files).findings[2]


def test_the_beginning_is_read_of_a_unit_that_has_run_for_weeks() -> None:
    start = [(1, BEGUN["vllm"]), *((2, f"(EngineCore pid=5) loading {n}") for n in range(4000)), (3, FAILED["vllm"][3])]
    host = Host([*start, *((700 + n, "INFO: 200 OK") for n in range(100_000))])
    found = checked(host)
    assert found["outcome"] == "failed" and "P2P" in found["found"]
    assert host.asked == [3000, 16000, 3000], "and of what came since, the newest lines"


def test_lines_come_in_the_order_in_which_they_were_written() -> None:
    host = Host([*((n, f"{n}a\n{n}b") for n in (1, 2, 3)), (700, "since")])
    lines = [line.text for line in read_start(host, "a1", "T 600")]
    assert lines == ["1a", "1b", "2a", "2b", "3a", "3b"] * 2 + ["since"]


def test_what_was_said_since_counts() -> None:
    rows = [(1, BEGUN["vllm"]), *((700 + n, "INFO: 200 OK") for n in range(5000)), (9000, FAILED["vllm"][2])]
    assert checked(Host(rows))["outcome"] == "failed"


def test_a_beginning_that_is_no_longer_kept_is_not_proven() -> None:
    rows = [(700 + n, "INFO: 200 OK") for n in range(10)]
    found = checked(Host(rows))
    assert found["outcome"] == "not_proven" and "no longer the beginning" in found["found"]
    assert checked(Host([*rows, (800, FAILED["vllm"][2])]))["outcome"] == "failed", "what is there counts"


def test_a_journal_that_cannot_be_read_is_not_proven() -> None:
    assert checked(Host([]))["outcome"] == "not_proven"
    found = checked(Host([(1, BEGUN["vllm"])], ActiveState=""))
    assert found["outcome"] == "not_proven" and "systemctl show" in found["found"]
    found = checked(Host([(1, BEGUN["vllm"])], InvocationID=""))
    assert found["outcome"] == "not_proven" and "not been started" in found["found"]


def test_a_journalctl_that_does_not_know_the_time_zone_reads_all() -> None:
    host = Host([(1, BEGUN["vllm"]), *((2, "x") for _ in range(5000)), (700, FAILED["vllm"][3])], dates=False)
    assert checked(host)["outcome"] == "failed" and host.asked == [3000, 3000, 16000]


def test_a_unit_that_does_not_serve_any_more_is_read_to_its_end() -> None:
    host = Host([(1, BEGUN["vllm"]), (900, FAILED["vllm"][3])], ActiveState="failed")
    assert checked(host)["outcome"] == "failed" and host.asked == [3000]


# Hostile text.


def test_what_a_request_quotes_is_no_remark() -> None:
    quoted = "Disabling prefix caching for you"
    lines = [
        f"(APIServer pid=1) INFO 11-28 23:11:16 [logger.py:39] Received request chatcmpl-1: prompt: '{quoted}', params",
        f"[2026-11-28 23:11:55] Receive: obj=GenerateReqInput(text='{quoted}')",
        f"Traceback (most recent call last):\n  {quoted}",
        f'INFO:     127.0.0.1:1 - "GET /{quoted} HTTP/1.1" 404 Not Found',
        f"  {quoted}",
    ]
    assert log("vllm", *lines)["engine_log"]["outcome"] == "passed"
    assert log("vllm", f"{WARNING}{quoted}")["engine_log"]["outcome"] == "failed"


def test_secrets_and_terminal_sequences_are_not_shown(tmp_path: Path) -> None:
    secret = tmp_path / "engine.env"
    secret.write_text('VLLM_API_KEY="sk-very-secret-0"\n', encoding="utf-8")
    text = f"{WARNING}Disabling prefix caching for \x1b[31msk-very-secret-0\x1b[0m\x07 {'x' * 20000}"
    found = checked(Host([(1, BEGUN["vllm"]), (2, text)]), secret_files=[str(secret)])
    shown = json.dumps(found)
    assert found["outcome"] == "failed" and "very-secret" not in shown and "\\u001b" not in shown and len(shown) < 2000
