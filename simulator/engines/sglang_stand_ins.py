"""Empty stand-ins for CUDA-only packages that SGLang imports but never uses on a CPU.

Installed as ``sitecustomize.py`` of the SGLang tree, so that every process of the engine has them before its first
import. An installed package of the same name wins.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Iterator
from typing import Any

ABSENT = frozenset(
    (
        "IPython",
        "cutlass",
        "datasets",
        "decord",
        "deep_ep",
        "deep_gemm",
        "flash_attn",
        "flashinfer",
        "modelscope",
        "quack",
        "sgl_kernel",
        "tilelang",
        "timm",
        "torchaudio",
        "torchvision",
    )
)
# Attributes that engines probe for to learn what hardware they run on.
_OTHER_HARDWARE = ("npu", "hpu", "musa")


class _Anything:
    """Accepts any call, attribute, subscript, decorator use or arithmetic."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Any arguments will do."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and not kwargs and isinstance(args[0], (types.FunctionType, type)):
            return args[0]  # used as a decorator
        return _Anything()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        if name == "active":  # triton.runtime.driver.active on a machine without a GPU
            raise RuntimeError("0 active drivers")
        return _Anything()

    def __getitem__(self, key: Any) -> Any:
        return _Anything()

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __or__(self, other: Any) -> Any:
        return other

    __ror__ = __or__

    def __mro_entries__(self, bases: Any) -> tuple[type, ...]:
        return ()

    def __bool__(self) -> bool:
        return False

    def __int__(self) -> int:
        return 0

    __index__ = __int__

    def __float__(self) -> float:
        return 0.0

    def _same(self, *_other: Any) -> Any:
        return self

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __floordiv__ = _same

    def _never(self, _other: Any) -> bool:
        return False

    __lt__ = __le__ = __gt__ = __ge__ = _never

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_exc: Any) -> None:
        """Exceptions pass."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return importlib.import_module("pydantic_core.core_schema").any_schema()


class _Module(types.ModuleType):
    """A module that has every attribute."""

    def __getattr__(self, name: str) -> Any:
        if name == "__version__":
            return "9.9.9"
        if name.startswith("__") or name in _OTHER_HARDWARE:
            raise AttributeError(name)
        return _Anything()


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Found last, after everything that is installed."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name.split(".")[0] not in ABSENT:
            return None
        spec = importlib.machinery.ModuleSpec(name, self, is_package=True)
        spec.submodule_search_locations = []
        return spec

    def create_module(self, spec: Any) -> types.ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """There is nothing to run."""


sys.meta_path.append(_Finder())
