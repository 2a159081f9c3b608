"""Builds the engine trees: the real engines for a CPU, as folders of Python packages that containers mount read-only.

A tree is what ``pip install`` leaves in a site-packages folder, less what serving on a CPU does not need, precompiled,
for Python 3.11 (the Python of the image, Debian 12). It lies in ``<cache>/engines/<name>-cpu-<version>`` and is built
once; the folder appears in one rename, so an interrupted build leaves nothing that looks finished. Beside it,
``<cache>/engines/src/<engine>-<version>`` holds the Python source of each engine version whose command line a
rehearsal parses.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from simulator.engines import parser_loader, wheels
from simulator.support import RehearsalError, locked, run, run_logged, step

HERE = Path(__file__).resolve().parent

TORCH = "2.13.0"
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
_STAMP = ".complete"
# A fifth of all Python files: other models, and tests.
_NEVER_IMPORTED = r"/(tests?|transformers/models/(?!auto/|glm|deepseek)[^/]+)/"


@dataclass(frozen=True)
class Correction:
    """A change to one file of an engine, needed where its CPU path is wrong or slower than the rehearsal can bear."""

    path: str
    old: str
    new: str
    why: str


@dataclass(frozen=True)
class Engine:
    """An engine that serves on a CPU. ``corrections`` name every difference from the published package."""

    family: str
    version: str
    unneeded: tuple[str, ...]
    corrections: tuple[Correction, ...]

    @property
    def name(self) -> str:
        """The tree's folder, and the requirements file without its suffix."""
        return f"{self.family}-cpu-{self.version}"

    @property
    def requirements(self) -> Path:
        return HERE / "requirements" / f"{self.name}.txt"


_FORK = "start by fork, as on a GPU: the engine's process is there at once instead of importing everything again"
_UNTOUCHED = (
    "torch writes zeros over the whole KV cache at the start, and a host of a rehearsal has no memory for one as large "
    "as a plan's; numpy takes it from the kernel, page by page as it is used"
)
_TOKENS_AGAIN = (
    "each part of a long prompt computes all the parts before it again: 40,000 tokens take minutes instead of seconds"
)

VLLM = Engine(
    family="vllm",
    version="0.32.0",
    unneeded=("torch/include", "torch/test", "torch/share", "share", "bin", "include"),
    corrections=(
        Correction(
            "vllm/utils/cpu_triton_utils.py",
            """    torch.ops._C.expand_kernel_impl(
        _ensure_int64(output),
        _ensure_int64(input_val),
        _ensure_int64(cu_num_tokens),
        replace_from,
        replace_to,
    )
""",
            """    counts = torch.diff(cu_num_tokens, prepend=cu_num_tokens.new_zeros(1))
    values = input_val.masked_fill(input_val == replace_from, replace_to)
    output.copy_(values.repeat_interleave(counts))
""",
            "the CPU replacement writes temperature, top_p and top_k into a copy that is thrown away, so drafts are "
            "judged with uninitialised memory and wrong tokens come out at temperature > 0",
        ),
        Correction(
            "vllm/v1/sample/ops/topk_topp_sampler.py",
            "    no_top_k_mask = k == logits.shape[1]\n",
            "    if logits.shape[0] == 0:\n        return logits\n    no_top_k_mask = k == logits.shape[1]\n",
            "top_k together with drafts kills the engine on the first step, which has no drafts yet",
        ),
        Correction(
            "vllm/platforms/cpu.py",
            'os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"',
            'os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")',
            _FORK,
        ),
        Correction(
            "vllm/v1/worker/utils.py",
            "    buf = torch.zeros(buf_size, dtype=torch.int8, device=device)\n",
            "    import numpy\n\n    buf = torch.from_numpy(numpy.zeros(buf_size, dtype=numpy.int8))\n",
            _UNTOUCHED,
        ),
    ),
)
SGLANG = Engine(
    family="sglang",
    version="0.5.10",
    unneeded=(
        "torch/include",
        "torch/test",
        "torch/share",
        "triton/backends/nvidia/bin",
        "triton/backends/nvidia/include",
        "triton/backends/nvidia/lib/cupti",
        "triton/instrumentation",
        "triton/_C/libproton.so",
        "share",
        "bin",
        "include",
    ),
    corrections=(
        Correction(
            "sglang/srt/entrypoints/engine.py",
            'mp.set_start_method("spawn", force=True)',
            'mp.set_start_method("fork", force=True)',
            _FORK,
        ),
        Correction(
            "sglang/srt/mem_cache/memory_pool.py",
            """                self.k_buffer = [
                    torch.zeros(
                        (self.size + self.page_size, self.head_num, self.head_dim),
                        dtype=self.store_dtype,
                        device=self.device,
                    )
                    for _ in range(self.layer_num)
                ]
                self.v_buffer = [
                    torch.zeros(
                        (self.size + self.page_size, self.head_num, self.v_head_dim),
                        dtype=self.store_dtype,
                        device=self.device,
                    )
                    for _ in range(self.layer_num)
                ]
""",
            """                import numpy

                def zeros(width):
                    shape = (self.size + self.page_size, self.head_num, width * self.store_dtype.itemsize)
                    return torch.from_numpy(numpy.zeros(shape, dtype=numpy.uint8)).view(self.store_dtype)

                self.k_buffer = [zeros(self.head_dim) for _ in range(self.layer_num)]
                self.v_buffer = [zeros(self.v_head_dim) for _ in range(self.layer_num)]
""",
            _UNTOUCHED,
        ),
        Correction(
            "sglang/srt/layers/attention/torch_native_backend.py",
            """            per_req_query_redudant = torch.empty(
                (per_req_query.shape[0], seq_len_kv, per_req_query.shape[2]),
                dtype=per_req_query.dtype,
                device=per_req_query.device,
            )

            per_req_query_redudant[:, prefill_seq_len_q:, :] = per_req_query
""",
            """            mask = None
            if causal and prefill_seq_len_q > 0:
                mask = torch.ones((extend_seq_len_q, seq_len_kv), dtype=torch.bool).tril(int(prefill_seq_len_q))
""",
            _TOKENS_AGAIN,
        ),
        Correction(
            "sglang/srt/layers/attention/torch_native_backend.py",
            """                    per_req_query_redudant.unsqueeze(0),
                    per_req_key.unsqueeze(0),
                    per_req_value.unsqueeze(0),
                    enable_gqa=enable_gqa,
                    scale=scaling,
                    is_causal=causal,
                )
                .squeeze(0)
                .movedim(query.dim() - 2, 0)
            )
            output[start_q:end_q, :, :] = per_req_out_redudant[prefill_seq_len_q:, :, :]
""",
            """                    per_req_query.unsqueeze(0),
                    per_req_key.unsqueeze(0),
                    per_req_value.unsqueeze(0),
                    attn_mask=mask,
                    enable_gqa=enable_gqa,
                    scale=scaling,
                    is_causal=causal and mask is None,
                )
                .squeeze(0)
                .movedim(query.dim() - 2, 0)
            )
            output[start_q:end_q, :, :] = per_req_out_redudant
""",
            _TOKENS_AGAIN,
        ),
        Correction(
            "sglang/srt/constrained/xgrammar_backend.py",
            '            raise RuntimeError(f"Unsupported device: {logits.device.type}")\n',
            "            from xgrammar import apply_token_bitmask_inplace\n\n"
            "            apply_token_bitmask_inplace(logits, vocab_mask)\n",
            "tool_choice required or a named tool is a grammar, which SGLang has no CPU path for, and ends the engine",
        ),
    ),
)
ENGINES = {engine.family: engine for engine in (VLLM, SGLANG)}


def build_tree(cache: Path, family: str) -> Path:
    """Return the engine tree of a family (``vllm``, ``sglang``), building it if this checkout's inputs are new.

    Args:
        cache: the cache folder (``${GLM_CACHE_DIR:-~/.cache/glm-fleet}``).

    Raises:
        RehearsalError: no Python 3.11, or a package cannot be installed; names the log.
    """
    engine = ENGINES[family]
    tree = cache / "engines" / engine.name
    wanted = _inputs(engine)
    if _stamp(tree) == wanted:
        return tree
    with locked(cache / "engines" / f".{engine.name}.lock"):
        if _stamp(tree) == wanted:  # another process built it while this one waited
            return tree
        with _scratch(cache / "engines" / f".build-{engine.name}") as scratch:
            site = _install(engine, scratch, cache / "engines" / "log")
            with step(f"engine tree {engine.name}: correct, trim, precompile"):
                _finish(engine, scratch, site)
            (site / _STAMP).write_text(wanted, encoding="utf-8")
            if tree.exists():
                tree.rename(scratch / "replaced")
            site.rename(tree)
    return tree


def fetch_sources(cache: Path, versions: list[tuple[str, str]]) -> None:
    """Make the Python source of each (family, version) available for parsing command lines.

    Raises:
        RehearsalError: PyPI has no such version.
    """
    for family, version in versions:
        if (cache / "engines" / "src" / f"{family}-{version}").is_dir():
            continue
        with step(f"source of {family} {version}"):
            try:
                wheels.fetch_source(family, version, cache / "engines")
            except parser_loader.LoaderError as error:
                raise RehearsalError(f"{error}. Is {version} a released version of {family}?") from error


def find_python() -> str | None:
    """A Python 3.11 that can make virtual environments: from $PYTHON311, PATH, this process, or pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    candidates = [os.environ.get("PYTHON311"), shutil.which("python3.11"), sys.executable]
    candidates += [str(path / "bin" / "python3.11") for path in sorted(pyenv.glob("3.11.*"), reverse=True)]
    for candidate in candidates:
        if candidate and _is_python311(candidate):
            return candidate
    return None


def _is_python311(command: str) -> bool:
    check = "import ensurepip, sys, venv; sys.exit(sys.version_info[:2] != (3, 11))"
    try:
        return subprocess.run([command, "-c", check], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def make_venv(target: Path) -> Path:
    """Make a Python 3.11 virtual environment with pip; returns its interpreter. Raises RehearsalError."""
    found = find_python()
    if found:
        run([found, "-m", "venv", str(target)])
        return target / "bin" / "python"
    tools = target.with_name(target.name + "-uv")
    try:
        run([sys.executable, "-m", "venv", str(tools)])
        run([str(tools / "bin" / "python"), "-m", "pip", "install", "--quiet", "uv"])
        run([str(tools / "bin" / "uv"), "venv", "--quiet", "--seed", "--python", "3.11", str(target)])
    except RehearsalError as error:
        raise RehearsalError(
            "no Python 3.11 with venv was found (looked at $PYTHON311, PATH and pyenv), and uv could not fetch one. "
            f"Install Python 3.11 or set PYTHON311 to its interpreter. uv said: {error}"
        ) from error
    return target / "bin" / "python"


def _install(engine: Engine, scratch: Path, logs: Path) -> Path:
    """Install everything into a new environment; returns its site-packages folder."""
    python = make_venv(scratch / "venv")
    pip = [str(python), "-m", "pip", "install", "--no-compile", "--disable-pip-version-check", "--progress-bar=off"]
    log = logs / f"{engine.name}.log"
    with step(f"engine tree {engine.name}: torch {TORCH} for CPUs"):
        _install_torch([*pip, "--no-deps"], log.with_suffix(".torch.log"))
    with step(f"engine tree {engine.name}: the engine and its packages"):
        packages = ["--no-deps", "--requirement", str(engine.requirements)]
        if not _with_uv([*packages, "--python", str(python)], log):
            run_logged([*pip, *packages], log)
    return Path(run([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip())


def _with_uv(arguments: list[str], log: Path) -> bool:
    """Whether uv is here and installed it, in a fifth of pip's processor time. It does not read pip's configuration."""
    uv = wheels.find_uv()
    with contextlib.suppress(RehearsalError):
        if uv:
            run_logged([uv, "pip", "install", "--no-cache", *arguments], log)
            return True
    return False


def _install_torch(pip: list[str], log: Path) -> None:
    """The CPU build where pip's own indexes or PyTorch's have it; the ordinary build (3 GB of CUDA) otherwise."""
    attempts = (
        [f"torch=={TORCH}+cpu"],
        [f"torch=={TORCH}+cpu", "--extra-index-url", TORCH_INDEX, "--retries", "1", "--timeout", "20"],
    )
    for attempt in attempts:
        with contextlib.suppress(RehearsalError):
            run_logged([*pip, *attempt], log)
            return
    # Only the ordinary build depends on the CUDA packages.
    run_logged([*[word for word in pip if word != "--no-deps"], f"torch=={TORCH}"], log)


def _finish(engine: Engine, scratch: Path, site: Path) -> None:
    for correction in engine.corrections:
        apply_correction(site, correction)
    for name in ("pip", *engine.unneeded):
        _remove(site / name)
    for folder in (*site.glob("*/tests"), *site.glob("pip-*.dist-info")):
        _remove(folder)
    python = scratch / "venv" / "bin" / "python"
    # The mount is read-only and its file times may differ, so the compiled files must not ask for either.
    compile_all = ["-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash"]
    compile_all += ["-x", _NEVER_IMPORTED, str(site)]
    # Packages ship templates and files for other Python versions, which do not compile: that is no error.
    subprocess.run([str(python), *compile_all], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    if engine.family == "vllm":
        _declare_vllm(engine, site)
        _learn_model_classes(python, site)
    else:
        shutil.copyfile(HERE / "sglang_stand_ins.py", site / "sitecustomize.py")


def apply_correction(site: Path, correction: Correction) -> None:
    """Replace the one occurrence of ``old``. Raises RehearsalError when the file is not as expected."""
    path = site / correction.path
    text = path.read_text(encoding="utf-8")
    if text.count(correction.old) != 1:
        raise RehearsalError(
            f"{correction.path}: expected the text to correct once, found it {text.count(correction.old)} times; "
            "the engine version changed, look at simulator/engines/trees.py"
        )
    path.write_text(text.replace(correction.old, correction.new), encoding="utf-8")


def _declare_vllm(engine: Engine, site: Path) -> None:
    """vLLM looks for a distribution called vllm, and takes ``cpu`` in its version for the platform."""
    folder = site / f"vllm-{engine.version}+cpu.dist-info"
    folder.mkdir(exist_ok=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {engine.version}+cpu\n", "utf-8")


def _learn_model_classes(python: Path, site: Path) -> None:
    """Store what vLLM finds out about the two model classes by importing them in a process of their own."""
    code = (
        "from vllm.model_executor.models.registry import ModelRegistry\n"
        "for name in ('Glm4MoeForCausalLM', 'Glm4MoeMTPModel'):\n"
        "    ModelRegistry._try_inspect_model_cls(name)\n"
    )
    run(
        [str(python), "-c", code],
        environ={"PYTHONPATH": str(site), "VLLM_CACHE_ROOT": str(site / "rehearsal-cache"), "VLLM_NO_USAGE_STATS": "1"},
    )
    if len(list((site / "rehearsal-cache" / "modelinfos").glob("*.json"))) != 2:
        raise RehearsalError(f"vLLM stored no model information in {site / 'rehearsal-cache'}")


def _inputs(engine: Engine) -> str:
    """What the tree is made of; a change of it means the tree must be built again."""
    stand_ins = (HERE / "sglang_stand_ins.py").read_text("utf-8") if engine.family == "sglang" else ""
    parts = [engine.requirements.read_text("utf-8"), TORCH, stand_ins, repr(engine)]
    return json.dumps({"inputs": hashlib.sha256("\0".join(parts).encode()).hexdigest()}) + "\n"


def _stamp(tree: Path) -> str | None:
    try:
        return (tree / _STAMP).read_text("utf-8")
    except OSError:
        return None


@contextlib.contextmanager
def _scratch(path: Path) -> Iterator[Path]:
    """An empty folder on the cache's own file system, removed afterwards; leftovers of a killed build go first."""
    _remove(path)
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        _remove(path)


def _remove(path: Path) -> None:
    remove: Callable[[Path], object] = shutil.rmtree if path.is_dir() and not path.is_symlink() else Path.unlink
    with contextlib.suppress(FileNotFoundError):
        remove(path)
