"""Ask an engine version for its start-time validation of command lines, on a declared GPU and without installing it.

Beyond argparse (``parser_loader``) engines check arguments against each other, the model and the GPU before they load
anything: SGLang in ``ServerArgs``, vLLM in the classes of ``vllm/config``. Their own code of the unpacked wheel runs
here; what it asks torch and the model's files for is answered from the case. As a program it reads a list of cases from
stdin (``argv``, ``architecture`` of the GPU, ``model``: values of its config.json) and prints, for each, where and why
the engine refused, or an empty text.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import io
import json
import subprocess
import sys
import traceback
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from simulator.engines import parser_loader

_MARK = "start-checks-result:"
_MAJOR = {"sm80": 8, "sm90": 9, "sm100": 10, "sm103": 10}
# Packages of SGLang that compute: no check needs them, and they work on torch while they are imported.
_COMPUTING = ("sglang.jit_kernel", "sglang.srt.layers.quantization", "sglang.srt.layers.attention")


def refusals(
    engine: str, version: str, source: Path, cases: Sequence[dict[str, Any]], python: Path
) -> list[dict[str, str]]:
    """For each case ``text`` (empty: nothing was refused) and ``where`` (file:line of the engine)."""
    command = [str(python), str(Path(__file__).resolve()), engine, version, str(source)]
    done = subprocess.run(command, input=json.dumps(cases), capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        if line.startswith(_MARK):
            found: list[dict[str, str]] = json.loads(line[len(_MARK) :])
            return found
    raise parser_loader.LoaderError(f"{engine} {version}: {done.stderr[-2000:]}")


def _sglang(case: dict[str, Any]) -> None:
    module: Any = importlib.import_module("sglang.srt.server_args")
    parser = argparse.ArgumentParser()
    module.ServerArgs.add_cli_args(parser)
    given = vars(parser.parse_args(case["argv"]))
    for short, long in (("tp", "tensor"), ("pp", "pipeline"), ("dp", "data"), ("ep", "expert")):
        if f"{long}_parallel_size" in given:
            given[f"{short}_size"] = given[f"{long}_parallel_size"]
    config = types.SimpleNamespace(quantization_config=None, **case["model"])
    answers: dict[str, Any] = {
        "hf_config": config, "hf_text_config": config, "context_len": 202752, "is_multimodal": False,
        "is_encoder_decoder": False, "is_piecewise_cuda_graph_disabled_model": False, "is_generation": True,
        "quantization": None, "is_hybrid_swa": False, "nvfp4_moe_meta": None, "dtype": "bfloat16",
    }  # fmt: skip
    model = types.SimpleNamespace(**answers)
    module.ServerArgs.get_model_config = lambda _self: model
    module.ServerArgs.use_mla_backend = lambda _self: "kv_lora_rank" in case["model"]
    _declare_gpu(case["architecture"], (module, *_loaded("sglang.srt.utils", "sglang.srt.configs.model_config")))
    names = {item.name for item in dataclasses.fields(module.ServerArgs)}
    made = module.ServerArgs(**{name: value for name, value in given.items() if name in names})
    made.check_server_args()


def _loaded(*prefixes: str) -> Iterator[Any]:
    yield from [module for name, module in list(sys.modules.items()) if name.startswith(prefixes)]


def _declare_gpu(architecture: str, modules: Sequence[Any]) -> None:
    """Let what asks for the GPU find this one; gfx names are AMD's."""
    nvidia, major = architecture.startswith("sm"), _MAJOR.get(architecture, 9)
    torch: Any = importlib.import_module("torch")
    cuda: Any = importlib.import_module("torch.cuda")
    torch.cuda = cuda
    cuda.get_device_capability = lambda *_args, **_kwargs: (major, 0)
    cuda.is_available = lambda: True
    cuda.device_count = lambda: 8
    answers: dict[str, Any] = {
        "get_device": "cuda", "get_device_memory_capacity": 183359, "get_device_sm": major * 10, "is_cuda": nvidia,
        "is_hip": not nvidia, "is_sm100_supported": major == 10, "is_blackwell_supported": major == 10,
        "is_sm90_supported": nvidia and major == 9, "is_flashinfer_available": True,
        **dict.fromkeys(("is_sm120_supported", "is_npu", "is_cpu", "is_xpu", "is_mps", "is_hpu", "is_musa"), False),
    }  # fmt: skip
    for module in modules:
        for name, answer in answers.items():
            if hasattr(module, name):
                setattr(module, name, lambda *_args, _answer=answer, **_kwargs: _answer)


def _vllm(case: dict[str, Any]) -> None:
    given = vars(_PARSER.parse(list(case["argv"])))  # with the checks of `vllm serve` itself
    for module, name, extra in (
        ("parallel", "ParallelConfig", {}),
        ("scheduler", "SchedulerConfig", {"is_encoder_decoder": False, "max_model_len": given["max_model_len"]}),
        ("observability", "ObservabilityConfig", {}),
    ):
        kind: Any = getattr(importlib.import_module(f"vllm.config.{module}"), name)
        names = {item.name for item in dataclasses.fields(kind) if item.init}
        values = {key: value for key, value in given.items() if key in names and value is not None}
        kind(**{**values, **extra})
    kernel: Any = importlib.import_module("vllm.config.kernel")
    backend = given.get("moe_backend") or "auto"
    parallel = types.SimpleNamespace(all2all_backend=given.get("all2all_backend") or "allgather_reducescatter")
    kernel.bind_passthrough_all2all_backend(backend, parallel)
    kernel.validate_flashinfer_moe_ep_model(backend, case["model"]["architectures"])
    speculation = given.get("speculative_config") or {}
    if speculation and not {"method", "model"} & set(speculation):
        importlib.import_module("vllm.config.speculative").SpeculativeConfig(**speculation)


_PARSER: Any = None


def _asked(check: Callable[[dict[str, Any]], None], case: dict[str, Any], root: str) -> dict[str, str]:
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            check(case)
    except SystemExit:
        return {"text": said.getvalue(), "where": ""}
    except Exception as error:  # what the engine ends with, whatever it is
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if root in frame.filename]
        last = frames[-1] if frames else None
        where = f"{last.filename.partition(root)[2].lstrip('/')}:{last.lineno}" if last else ""
        return {"text": f"{type(error).__name__}: {error}", "where": where}
    return {"text": "", "where": ""}


def main(words: Sequence[str]) -> int:
    """Run as a program; see the module's docstring."""
    global _PARSER
    engine, version, source = words
    parser_loader._BYSTANDERS = (*parser_loader._BYSTANDERS, *(_COMPUTING if engine == "sglang" else ()))
    parser_loader._prepare(engine, version, Path(source))
    with contextlib.redirect_stdout(sys.stderr):
        if engine == "vllm":
            _PARSER = parser_loader._Vllm()
        check = _vllm if engine == "vllm" else _sglang
        found = [_asked(check, case, source) for case in json.loads(sys.stdin.read())]
    print(_MARK + json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
