"""Keep the code that Python compiles anew in each process: of what is imported from a zip, or by a loader of its own.

Python keeps the code of files, but not of what is imported from a zip, as each module of Ansible is, nor of a
collection, which has a loader of its own. So a run of ansible-playbook compiles some hundred files, and each module
that it runs some sixty more, on the host. Here code is kept in a folder, by the content of its source.
"""

from __future__ import annotations

import builtins
import gc
import marshal
import os
import sys

# Not hashlib, which loads OpenSSL: this runs in every process.
from _blake2 import blake2b
from _imp import _fix_co_filename

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself is slow to load
    from typing import Any

_folder = ""
_compile: Any = builtins.compile


def compiled(
    source: Any, filename: Any, mode: str, flags: int = 0, dont_inherit: bool = False, optimize: int = -1, **more: Any
) -> Any:
    """What ``compile`` gives, from an earlier process if that had the same source. Only importers ask like this."""
    plain = mode == "exec" and dont_inherit and optimize == -1 and not (flags or more or sys.flags.optimize)
    if not plain or not isinstance(source, (bytes, str)):
        return _compile(source, filename, mode, flags, dont_inherit, optimize, **more)
    content = source if isinstance(source, bytes) else source.encode("utf-8", "surrogatepass")
    name = f"{type(source).__name__}-{blake2b(content, digest_size=16).hexdigest()}.{sys.implementation.cache_tag}"
    path = os.path.join(_folder, name)  # noqa: PTH118 - pathlib would be loaded for it
    try:
        with open(path, "rb") as file:
            code = marshal.loads(file.read())
    except (OSError, EOFError, ValueError, TypeError):
        code = _compile(source, filename, mode, flags, dont_inherit, optimize)
        _keep(path, code)
        return code
    _fix_co_filename(code, os.fspath(filename))
    return code


def _keep(path: str, code: Any) -> None:
    """Whole, or not at all: others read it meanwhile. A folder that cannot be written only costs time."""
    try:
        # Processes of several hosts have the same number.
        part = f"{path}.{os.getpid()}.{id(code)}"
        with open(part, "wb") as file:
            file.write(marshal.dumps(code))
        os.replace(part, path)  # noqa: PTH105
    except OSError:
        pass


def install(folder: str) -> None:
    """For this process. Programs of Ansible look for garbage seldom, which is a tenth of what they compute."""
    global _folder
    _folder = folder
    builtins.compile = compiled
    # A module on a host comes by standard input.
    if len(sys.orig_argv) == 1 or program().startswith(("ansible", "AnsiballZ")):
        gc.set_threshold(100_000)


def program() -> str:
    """The name of the program that Python runs; empty without one."""
    return os.path.basename(sys.orig_argv[1]) if len(sys.orig_argv) > 1 else ""  # noqa: PTH119
