"""Ask a named engine version whether it accepts a command line, without installing the engine.

The engine's own ``argparse`` code is loaded from the unpacked source of its wheel. Every third-party module that the
parser does not need (torch, triton, transformers, ...) is replaced by a stand-in that accepts anything, so the answer
(unknown flag, ambiguous abbreviation, value out of range) is the engine's, in under two seconds and 60 MB.

The file stands alone: it imports nothing else of this repository, so it can be copied into an image that has Python
3.11 and ``PACKAGES``. Use it as a module (`parse`, `parser_names`, `describe`) or as a program::

    python parser_loader.py --engine vllm --version 0.32.0 --source DIR -- zai-org/GLM-5.1-FP8 --tensor-parallel-size 8

The program prints what the engine prints and leaves with the engine's exit status (0 accepted, 2 refused).
"""

from __future__ import annotations

import abc
import argparse
import contextlib
import dataclasses
import fcntl
import importlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import types
import venv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

PACKAGES = ("pydantic", "regex", "pyyaml", "packaging", "msgspec", "typing_extensions")
"""What the parsers really need; everything else third-party is a stand-in."""

# Import names of PACKAGES and of what those need themselves.
_REAL = frozenset(
    {"pydantic", "pydantic_core", "annotated_types", "typing_inspection", "regex", "yaml", "_yaml", "packaging"}
    | {"msgspec", "typing_extensions"}
)
_PREFIXES = {
    "vllm": (("vllm", "serve"),),
    "sglang": (("sglang", "serve"), ("-m", "sglang.launch_server")),
}
# Engine modules that work on torch or transformers while they are imported; no option depends on them.
_BYSTANDERS = ("vllm.ir", "sglang.srt.utils.hf_transformers_patches")
_STAND_IN_VERSION = "9.9.9"
# torch.<name> exists only in builds for other accelerators, and engines probe for it.
_OTHER_HARDWARE = ("npu", "hpu", "musa", "mlu")
_RESULT_MARK = "parser_loader-result:"


@dataclasses.dataclass(frozen=True)
class ParseResult:
    """What the engine's parser said: exit status, its last message, and the parsed options (printable values only)."""

    ok: bool
    exit_code: int
    message: str
    namespace: dict[str, Any]


class LoaderError(RuntimeError):
    """The parser itself could not be loaded: source or packages missing, or an engine version of a new shape."""


# --- public calls: each runs the parser in a process of its own, because the stand-ins replace real modules --------


def parse(engine: str, version: str, source: Path, argv: Sequence[str], python: Path | None = None) -> ParseResult:
    """Parse ``argv`` (what follows ``vllm serve`` or ``sglang serve``) with the parser in ``source``."""
    answer = _child("parse", engine, version, source, argv, python)
    return ParseResult(**answer)


def parse_many(
    engine: str, version: str, source: Path, lines: Sequence[Sequence[str]], python: Path | None = None
) -> list[ParseResult]:
    """Parse many command lines with one load of the parser, which is most of the time of a single one."""
    answers = _child("batch", engine, version, source, (), python, json.dumps([list(line) for line in lines]))
    return [ParseResult(**answer) for answer in answers]


def parser_names(engine: str, version: str, source: Path, python: Path | None = None) -> dict[str, list[str]]:
    """Names that ``--tool-call-parser`` and ``--reasoning-parser`` may take (keys ``tool`` and ``reasoning``).

    vLLM checks them when the server starts, not in argparse; they are read from its registries.
    """
    answer = _child("names", engine, version, source, (), python)
    return {key: list(value) for key, value in answer.items()}


def describe(engine: str, version: str, source: Path, python: Path | None = None) -> list[dict[str, Any]]:
    """Every option: ``names``, ``dest``, ``default``, ``nargs``, ``choices``, ``type``, ``deprecated``.

    A default that JSON has no form for is its text.
    """
    answer: list[dict[str, Any]] = _child("describe", engine, version, source, (), python)
    return answer


def cache_dir() -> Path:
    """Directory of the unpacked engine sources: ``$GLM_CACHE_DIR/engines`` or ``~/.cache/glm-fleet/engines``."""
    base = os.environ.get("GLM_CACHE_DIR") or "~/.cache/glm-fleet"
    return Path(base).expanduser() / "engines"


def ensure_python(cache: Path | None = None) -> Path:
    """Return an interpreter that has PACKAGES, making a virtual environment for it when there is none."""
    root = (cache or cache_dir()) / "parser-venv"
    python = root / "bin" / "python"
    stamp = root / "packages.txt"
    wanted = "\n".join(PACKAGES) + "\n"
    root.parent.mkdir(parents=True, exist_ok=True)
    with (root.parent / "parser-venv.lock").open("w") as lock:  # tests may ask from several processes
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.is_file() or stamp.read_text() != wanted:
            venv.create(root, with_pip=True)
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
            stamp.write_text(wanted)
    return python


def server_arguments(engine: str, argv: Sequence[str]) -> list[str]:
    """Strip the program before the server's own arguments (``python3 -m sglang.launch_server``, ``vllm serve``)."""
    words = list(argv)
    # A program may be named by its path: /opt/glm/engines/vllm-0.32.0/bin/vllm.
    plain = [word.rsplit("/", 1)[-1] if position < 2 else word for position, word in enumerate(words)]
    for prefix in _PREFIXES[engine]:
        for start in (0, 1):
            if tuple(plain[start : start + len(prefix)]) == prefix:
                return words[start + len(prefix) :]
    return words


def _child(
    what: str, engine: str, version: str, source: Path, argv: Sequence[str], python: Path | None, sent: str = ""
) -> Any:
    if not (source / engine).is_dir():
        raise LoaderError(f"{source} holds no unpacked {engine} source (expected a folder {engine}/ in it)")
    command = [str(python or sys.executable), str(Path(__file__).resolve()), "--engine", engine]
    command += ["--version", version, "--source", str(source), "--what", what, "--", *argv]
    # Compiled files beside the source halve the time of the next load, whoever runs it.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, input=sent, capture_output=True, text=True, check=False, env=environment)
    for line in done.stdout.splitlines():
        if line.startswith(_RESULT_MARK):
            return json.loads(line[len(_RESULT_MARK) :])
    raise LoaderError(f"{engine} {version}: the parser could not be loaded from {source}: {last_line(done.stderr)}")


def last_line(text: str) -> str:
    """The last line of an output that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


# --- stand-ins ---------------------------------------------------------------------------------------------------


class _Empty:
    """What a stand-in and its class are as a collection and as a number: empty, and zero."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Registries of absent libraries swallow what is registered."""

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __int__(self) -> int:
        return 0

    __index__ = __int__

    def __float__(self) -> float:
        return 0.0


class _AnythingMeta(_Empty, abc.ABCMeta):
    """Classes taken from a stand-in module may be subscripted, joined with ``|`` and asked for any attribute."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        if name == "active":  # triton.runtime.driver.active: what triton says on a machine without a GPU
            raise RuntimeError("0 active drivers")
        return _Anything

    def register(cls, *args: Any, **kwargs: Any) -> Any:
        """Hide ABCMeta's own ``register``: absent libraries have registries of that name."""
        return _Anything(*args[:1])

    def __getitem__(cls, item: Any) -> Any:
        return cls

    def __or__(cls, other: Any) -> Any:
        return Any

    __ror__ = __or__

    def __bool__(cls) -> bool:
        return True


class _Anything(_Empty, metaclass=_AnythingMeta):
    """A value that can be called, subclassed, subscripted, used as decorator, context manager or number."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        if cls is _Anything and len(args) == 1 and not kwargs and isinstance(args[0], (types.FunctionType, type)):
            return args[0]  # used as a decorator
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __init_subclass__(cls, **kwargs: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and not kwargs and isinstance(args[0], (types.FunctionType, type)):
            return args[0]
        return _Anything()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return _Anything()

    def __getitem__(self, item: Any) -> Any:
        return _Anything()

    def __bool__(self) -> bool:
        return False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Anything)

    def __hash__(self) -> int:
        return 0

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_exc: Any) -> None:
        pass

    def __or__(self, other: Any) -> Any:
        return Any

    __ror__ = __or__

    def _same(self, *_other: Any) -> Any:
        return self

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __floordiv__ = _same

    def _never(self, _other: Any) -> bool:
        return False

    __lt__ = __le__ = __gt__ = __ge__ = _never

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> Any:
        return importlib.import_module("pydantic_core.core_schema").any_schema()


class _StandInModule(types.ModuleType):
    """A module with every attribute."""

    def __getattr__(self, name: str) -> Any:
        if name == "__version__":
            return _STAND_IN_VERSION
        if name == "dumps":  # dill, cloudpickle: the caller wants bytes
            return lambda *_args, **_kwargs: b""
        if (name.startswith("__") and name.endswith("__")) or name in _OTHER_HARDWARE:
            raise AttributeError(name)
        return _Anything


class _StandInFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Serves a stand-in for every module that is neither the engine, nor the standard library, nor in ``_REAL``."""

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._real = _REAL | {engine} | set(sys.stdlib_module_names)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Claim the module unless it is one of the real ones."""
        if name.split(".")[0] in self._real and not self._is_left_out(name, path):
            return None
        spec = importlib.machinery.ModuleSpec(name, self, is_package=True)
        spec.submodule_search_locations = []
        return spec

    def _is_left_out(self, name: str, path: Any) -> bool:
        """True for bystanders and for extension modules (``vllm._C``), which are not part of the source tree."""
        if f"{name}.".startswith(tuple(f"{module}." for module in _BYSTANDERS)):
            return True
        last = name.rsplit(".", 1)[-1]
        if not name.startswith(f"{self._engine}.") or not last.startswith("_"):
            return False
        return not any((Path(folder) / found).exists() for folder in path or () for found in (last, f"{last}.py"))

    def create_module(self, spec: Any) -> types.ModuleType:
        """Make the stand-in."""
        return _StandInModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing to run."""


class _PlatformFinder(importlib.abc.MetaPathFinder):
    """Puts the declared platform into ``vllm.platforms`` as soon as that module has run."""

    def __init__(self, current: Any) -> None:
        self._current = current

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Wrap the loader of that one module."""
        if name != "vllm.platforms":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return None
        run, current = spec.loader.exec_module, self._current

        def exec_module(module: types.ModuleType) -> None:
            run(module)
            module.__dict__["current_platform"] = current

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


# --- inside the child ----------------------------------------------------------------------------------------------


def _load_first(names: Sequence[str]) -> types.ModuleType:
    """Import the first of several module paths that exists: engines move their files between versions."""
    for name in names:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not name.startswith(error.name):
                raise
    raise LoaderError(f"none of these modules exists: {', '.join(names)}")


class _Vllm:
    """vLLM: a root parser with the ``serve`` command, as ``vllm.entrypoints.cli.main`` builds it."""

    def __init__(self) -> None:
        tools = _load_first(("vllm.utils.argparse_utils", "vllm.utils"))
        self._cli = _load_first(
            (
                "vllm.entrypoints.common.cli_args",  # 0.33.0
                "vllm.entrypoints.launchers.cli_args",
                "vllm.entrypoints.openai.cli_args",
            )
        )
        self.root: argparse.ArgumentParser = tools.FlexibleArgumentParser(prog="vllm")
        commands = self.root.add_subparsers(required=False, dest="subparser")
        self.serve = self._cli.make_arg_parser(commands.add_parser("serve", prog="vllm serve"))

    def parse(self, argv: list[str]) -> argparse.Namespace:
        # vLLM's parser looks at sys.argv too (`--config` merging and the check for a model).
        sys.argv = ["vllm", "serve", *argv]
        found = self.root.parse_args(sys.argv[1:])
        self._cli.validate_parsed_serve_args(found)
        return found

    def parser(self) -> argparse.ArgumentParser:
        built: argparse.ArgumentParser = self.serve
        return built

    def names(self) -> dict[str, list[str]]:
        tools = _load_first(("vllm.tool_parsers", "vllm.entrypoints.openai.tool_parsers")).ToolParserManager
        reasoning = _load_first(("vllm.reasoning",)).ReasoningParserManager
        return {"tool": _registered(tools), "reasoning": _registered(reasoning)}


def _registered(manager: Any) -> list[str]:
    """Names in a vLLM parser registry (older versions have no ``list_registered``)."""
    if hasattr(manager, "list_registered"):
        return sorted(manager.list_registered())
    known = set(getattr(manager, "tool_parsers", {})) | set(getattr(manager, "reasoning_parsers", {}))
    return sorted(known | set(getattr(manager, "lazy_parsers", {})))


class _Sglang:
    """SGLang: ``prepare_server_args`` up to the point where it would look at the hardware."""

    def __init__(self) -> None:
        self._module = importlib.import_module("sglang.srt.server_args")
        # from_cli_args resolves defaults by asking the GPU; the namespace is what this file is asked for.
        self._module.ServerArgs.from_cli_args = classmethod(lambda _cls, namespace: namespace)

    def parse(self, argv: list[str]) -> argparse.Namespace:
        found: argparse.Namespace = self._module.prepare_server_args(argv)
        return found

    def parser(self) -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser(prog="sglang serve")
        self._module.ServerArgs.add_cli_args(parser)
        return parser

    def names(self) -> dict[str, list[str]]:
        choices = {name: action.choices for action in self.parser()._actions for name in action.option_strings}
        wanted = {"tool": "--tool-call-parser", "reasoning": "--reasoning-parser"}
        return {key: sorted(choices[flag] or ()) for key, flag in wanted.items()}


def _describe(parser: argparse.ArgumentParser) -> list[dict[str, Any]]:
    rows = []
    # Not action.option_strings: from 0.33.0 vLLM registers the --no- forms of its switches with the parser only.
    spellings: dict[argparse.Action, list[str]] = {}
    for name, action in parser._option_string_actions.items():
        spellings.setdefault(action, []).append(name)
    for action in parser._actions:
        if not action.option_strings or isinstance(action, argparse._HelpAction):
            continue
        text = " ".join(str(action.help or "").split())
        takes_value = action.nargs != 0
        rows.append(
            {
                # Its own first: the first one names the option.
                "names": list(dict.fromkeys([*action.option_strings, *spellings.get(action, ())])),
                "dest": action.dest,
                "default": _printed(action.default),
                "nargs": (action.nargs if action.nargs is not None else 1) if takes_value else 0,
                # Sorted: some engines keep choices in a set, whose order changes from run to run.
                "choices": None if action.choices is None else sorted(str(choice) for choice in action.choices),
                "type": getattr(action.type, "__name__", None) if action.type else None,
                "deprecated": bool(re.search(r"\bdeprecated\b", text, re.IGNORECASE)) or _marked(action),
            }
        )
    return rows


def _marked(action: argparse.Action) -> bool:
    return bool(getattr(action, "deprecated", False)) or "Deprecated" in type(action).__name__


def _printable(namespace: argparse.Namespace) -> dict[str, Any]:
    return {key: _printed(value) for key, value in vars(namespace).items()}


def _printed(value: Any) -> Any:
    """The value as JSON has it, or its text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: _printed(getattr(value, item.name, None)) for item in dataclasses.fields(value)}
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return str(value)
    return value


def _try(loaded: _Vllm | _Sglang, argv: list[str]) -> ParseResult:
    err = io.StringIO()
    try:
        with contextlib.redirect_stderr(err):
            namespace = loaded.parse(argv)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
        return ParseResult(code == 0, code, last_line(err.getvalue()), {})
    except Exception as error:  # the engine's checks after argparse, which raise types of their own
        return ParseResult(False, 1, f"{type(error).__name__}: {error}", {})
    return ParseResult(True, 0, "", _printable(namespace))


def _prepare(engine: str, version: str, source: Path) -> None:
    needed = ("pydantic", "regex", "yaml", "packaging", "msgspec", "typing_extensions")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise LoaderError(f"missing Python packages: {', '.join(missing)}; install {' '.join(PACKAGES)}")
    # Nothing of the machine may leak into the answer: no config folder, no usage report, no log decoration.
    os.environ.update(VLLM_NO_USAGE_STATS="1", DO_NOT_TRACK="1", VLLM_CONFIGURE_LOGGING="0")
    sys.path.insert(0, str(source))
    sys.meta_path.insert(0, _StandInFinder(engine))
    known = importlib.metadata.version

    def version_of(distribution_name: str) -> str:
        return known(distribution_name) if distribution_name in PACKAGES else _STAND_IN_VERSION

    importlib.metadata.version = version_of
    if engine == "vllm":
        _declare_vllm_platform()


def _declare_vllm_platform() -> None:
    """Let vLLM find eight B200: it looks for devices, and some option defaults depend on them."""
    # Importing vLLM already asks for the current platform, so it must exist before it has its class.
    current = type("_NotYet", (_Anything,), {})()
    sys.meta_path.insert(0, _PlatformFinder(current))
    interface = importlib.import_module("vllm.platforms.interface")
    answers: dict[str, Any] = {
        "get_device_capability": interface.DeviceCapability(major=10, minor=0),
        "get_device_name": "NVIDIA B200",
        "get_device_total_memory": 183_359 * 1024 * 1024,
        "device_count": 8,
        "is_fully_connected": True,
    }
    methods = {
        name: classmethod(lambda _cls, *_args, _answer=answer, **_kwargs: _answer) for name, answer in answers.items()
    }
    cuda = importlib.import_module("vllm.platforms.cuda")
    current.__class__ = type("DeclaredPlatform", (cuda.CudaPlatformBase,), methods)


def main(words: Sequence[str] | None = None) -> int:
    """Run as a program; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Parse a serving command line with the engine's own parser.")
    parser.add_argument("--engine", choices=sorted(_PREFIXES), required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--source", type=Path, required=True, help="unpacked wheel of that version")
    parser.add_argument("--what", choices=("parse", "batch", "names", "describe"), help=argparse.SUPPRESS)
    parser.add_argument("argv", nargs=argparse.REMAINDER, help="-- followed by the server's arguments")
    asked = parser.parse_args(words)
    argv = asked.argv[1:] if asked.argv[:1] == ["--"] else asked.argv
    _prepare(asked.engine, asked.version, asked.source)
    with contextlib.redirect_stdout(sys.stderr):
        loaded: _Vllm | _Sglang = _Vllm() if asked.engine == "vllm" else _Sglang()
        answer: Any
        if asked.what == "names":
            answer = loaded.names()
        elif asked.what == "describe":
            answer = _describe(loaded.parser())
        elif asked.what == "batch":
            lines = json.loads(sys.stdin.read())
            answer = [dataclasses.asdict(_try(loaded, server_arguments(asked.engine, line))) for line in lines]
        else:
            answer = dataclasses.asdict(_try(loaded, server_arguments(asked.engine, argv)))
    if asked.what is not None:
        print(_RESULT_MARK + json.dumps(answer))
        return 0
    name = f"{asked.engine} {asked.version}"
    if not answer["ok"]:
        print(f"{name} refuses this command line: {answer['message']}", file=sys.stderr)
        return int(answer["exit_code"])
    print(f"{name} accepts this command line")
    return 0


if __name__ == "__main__":
    sys.exit(main())
