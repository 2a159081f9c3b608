"""The starts that must fail: what is wrong with the command, the checkpoint or the machine in each of them.

A case says what is done, never what the log then says: that is read from the log afterwards, by a person.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

MIB = 1024 * 1024
Change = Callable[[Path], None]


@dataclass(frozen=True)
class Case:
    """One failed start. ``{model}``, ``{port}`` and ``{scratch}`` are filled in arguments and environment.

    ``change`` damages the checkpoint; ``kill`` is (a line to wait for, the process title that is then killed);
    ``memory`` is the limit of the control group in MiB; ``small`` is a folder that gets a file system of 64 KiB;
    ``taken``: another program listens on the port; ``chat``: the engine comes up and is asked something.
    """

    name: str
    arguments: tuple[str, ...] = ()
    environ: dict[str, str] = field(default_factory=dict)
    model: str = "{model}"
    without: tuple[str, ...] = ()
    change: Optional[Change] = None
    kill: Optional[tuple[str, str]] = None
    memory: int = 0
    small: str = ""
    taken: bool = False
    chat: bool = False


def configure(**values: Any) -> Change:
    """Set keys of config.json."""

    def change(model: Path) -> None:
        path = model / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **values}), encoding="utf-8")

    return change


def without_file(name: str) -> Change:
    return lambda model: (model / name).unlink()


def with_text(name: str, text: str) -> Change:
    def change(model: Path) -> None:
        (model / name).write_text(text, encoding="utf-8")

    return change


def truncated(model: Path) -> None:
    """The last shard ends in the middle, as after a download that broke off."""
    path = sorted(model.glob("*.safetensors"))[-1]
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def overwritten(model: Path) -> None:
    """The first shard begins with a page of text, as when a proxy answers for the hub."""
    path = sorted(model.glob("*.safetensors"))[0]
    path.write_bytes(b"<html><body>Service unavailable</body></html>" + path.read_bytes()[45:])


def rewritten(edit: Callable[[dict[str, Any]], dict[str, Any]]) -> Change:
    """Change the table of tensors (name: dtype, shape, data) of each shard that has what ``edit`` looks for."""

    def change(model: Path) -> None:
        for path in model.glob("*.safetensors"):
            raw = path.read_bytes()
            (size,) = struct.unpack("<Q", raw[:8])
            header = json.loads(raw[8 : 8 + size])
            meta = header.pop("__metadata__", None)
            tensors = {
                name: {**entry, "data": raw[8 + size + entry["data_offsets"][0] : 8 + size + entry["data_offsets"][1]]}
                for name, entry in header.items()
            }
            made: dict[str, Any] = {"__metadata__": meta} if meta else {}
            body = b""
            for name, entry in edit(tensors).items():
                data = entry["data"]
                made[name] = {
                    "dtype": entry["dtype"],
                    "shape": entry["shape"],
                    "data_offsets": [len(body), len(body) + len(data)],
                }
                body += data
            head = json.dumps(made).encode()
            path.write_bytes(struct.pack("<Q", len(head)) + head + body)

    return change


def without_tensor(ending: str) -> Change:
    return rewritten(lambda tensors: {name: entry for name, entry in tensors.items() if not name.endswith(ending)})


def cut_tensor(ending: str) -> Change:
    """Half the rows of a tensor, as in a checkpoint of another size."""

    def edit(tensors: dict[str, Any]) -> dict[str, Any]:
        for name, entry in tensors.items():
            if name.endswith(ending):
                rows = entry["shape"][0] // 2
                entry["data"] = entry["data"][: len(entry["data"]) // 2]
                entry["shape"] = [rows, *entry["shape"][1:]]
        return tensors

    return rewritten(edit)


def renamed_tensor(ending: str, new: str) -> Change:
    return rewritten(
        lambda tensors: {
            (name[: -len(ending)] + new if name.endswith(ending) else name): entry for name, entry in tensors.items()
        }
    )


BLOCK_FP8 = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
_TAIL = "model.layers.1.post_attention_layernorm.weight"
_SPECULATION = "--speculative-config.method={}"

# What both engines are started with in the same words.
BOTH = (
    Case("tensor-of-other-size", change=cut_tensor("self_attn.o_proj.weight")),
    Case("tensor-unknown", change=renamed_tensor(_TAIL, "model.layers.1.post_attention_lookup.weight")),
    Case("shard-truncated", change=truncated),
    Case("shard-overwritten", change=overwritten),
    Case("shard-missing", change=lambda model: [path.unlink() for path in model.glob("*.safetensors")] and None),
    Case("config-missing", change=without_file("config.json")),
    Case("config-broken", change=with_text("config.json", '{"architectures": ["Glm4Moe')),
    Case("tokenizer-missing", change=lambda model: [path.unlink() for path in model.glob("tokenizer*")] and None),
    Case("repository-offline", model="zai-org/GLM-5.1-FP8"),
    Case("architecture-unknown", change=configure(architectures=["Glm9ForCausalLM"])),
    Case("model-type-unknown", change=configure(model_type="glm9_moe", architectures=["Glm9ForCausalLM"])),
    Case("quantisation-mismatch", ("--quantization", "modelopt_fp4"), change=configure(quantization_config=BLOCK_FP8)),
    Case("quantisation-unknown", change=configure(quantization_config={"quant_method": "glmq"})),
    Case("quantisation-unsupported", change=configure(quantization_config=BLOCK_FP8)),
    Case("tool-parser-unknown", ("--tool-call-parser", "glm99")),
    Case("reasoning-parser-unknown", ("--reasoning-parser", "glm99")),
    Case("port-in-use", taken=True),
    Case("argument-unknown", ("--enable-moe-ep",)),
    Case("chat-template-missing", ("--chat-template", "/data/glm.jinja")),
    Case("kv-dtype-unknown", ("--kv-cache-dtype", "nvfp4")),
)
VLLM = (
    *BOTH,
    Case("context-too-long", ("--max-model-len", "8000000"), {"VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1"}),
    Case("context-beyond-model", ("--max-model-len", "8000000")),
    Case("tensor-missing", change=without_tensor(_TAIL)),
    Case("tool-parser-absent", without=("--tool-call-parser",)),
    Case("tensor-parallel-3", ("--tensor-parallel-size", "3"), {"VLLM_CPU_OMP_THREADS_BIND": "0|1|0"}),
    Case("killed-by-kernel", memory=900),
    Case("engine-killed", kill=("Starting to load model", "EngineCore")),
    Case(
        "worker-killed",
        ("--tensor-parallel-size", "2"),
        {"VLLM_CPU_OMP_THREADS_BIND": "0|1"},
        kill=("Loading safetensors|Loading weights took", "Worker_TP1|Worker"),
    ),
    # Started by spawn, so that the engines are slower than the API servers that wait for them, as with real weights.
    Case(
        "engine-clock",
        ("--data-parallel-size", "2"),
        {"VLLM_ENGINE_READY_TIMEOUT_S": "5", "VLLM_WORKER_MULTIPROC_METHOD": "spawn"},
    ),
    Case("cache-not-allocated", environ={"VLLM_CPU_KVCACHE_SPACE": "4000"}),
    Case("cache-empty", ("--gpu-memory-utilization", "0.02"), {"VLLM_CPU_KVCACHE_SPACE": ""}),
    Case(
        "shared-memory-small", ("--tensor-parallel-size", "2"), {"VLLM_CPU_OMP_THREADS_BIND": "0|1"}, small="/dev/shm"
    ),
    Case("disk-full", environ={"TMPDIR": "{scratch}", "VLLM_CACHE_ROOT": "{scratch}"}, small="{scratch}"),
    Case("backend-unsupported", ("--attention-backend", "FLASHMLA_SPARSE")),
    Case(
        "speculation-unknown", ("--speculative-config.method=oracle", "--speculative-config.num_speculative_tokens=3")
    ),
    Case("batched-tokens-small", ("--max-num-batched-tokens", "4", "--max-num-seqs", "8")),
)

SGLANG = (
    *BOTH,
    Case("context-beyond-model", ("--context-length", "8000000")),
    Case("pool-empty", ("--mem-fraction-static", "0.0001"), without=("--max-total-tokens",)),
    Case("tensor-parallel-3", ("--tp-size", "3"), {"SGLANG_CPU_OMP_THREADS_BIND": "0|1|0"}),
    Case("killed-by-kernel", memory=300),
    Case("scheduler-killed", kill=("Load weight begin", "sglang::scheduler")),
    Case(
        "rank-killed",
        ("--tp-size", "2"),
        {"SGLANG_CPU_OMP_THREADS_BIND": "0|1"},
        kill=("Load weight begin", "sglang::scheduler_TP1"),
    ),
    Case("watchdog", ("--watchdog-timeout", "0.001"), chat=True),
    Case("shared-memory-small", ("--tp-size", "2"), {"SGLANG_CPU_OMP_THREADS_BIND": "0|1"}, small="/dev/shm"),
    Case("disk-full", environ={"TMPDIR": "{scratch}", "HOME": "{scratch}"}, small="{scratch}"),
    Case("backend-unsupported", ("--attention-backend", "fa3")),
    Case("speculation-incomplete", ("--speculative-algorithm", "EAGLE", "--speculative-eagle-topk", "1")),
    Case("radix-cache-twice", ("--disable-radix-cache", "--enable-hierarchical-cache")),
    Case("expert-parallel-3", ("--ep-size", "3")),
    Case("distributed-time-out", ("--tp-size", "2", "--nnodes", "2", "--node-rank", "0", "--dist-init-addr",
         "127.0.0.1:29617", "--dist-timeout", "15")),
)  # fmt: skip
CASES = {"vllm": VLLM, "sglang": SGLANG}
