"""Save runs of Ansible what each would do anew in tests. Python imports this at its start from a folder on PYTHONPATH.

Python keeps the code of files, but not of what is imported from a zip, as each module of Ansible is, nor of a
collection, which has a loader of its own. So a run of ansible-playbook compiles some hundred files, and each module
that it runs some sixty more. Here code is kept in the folder GLM_COMPILED, by the content of its source. Programs of
Ansible keep more there (``assembled.py``), and look for garbage seldom, which is a tenth of what they compute. Users
run without.
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
from typing import Any

_folder = os.environ.get("GLM_COMPILED")
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
    path = os.path.join(str(_folder), name)  # noqa: PTH118 - pathlib would be loaded for it
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
        with open(f"{path}.{os.getpid()}", "wb") as file:
            file.write(marshal.dumps(code))
        os.replace(f"{path}.{os.getpid()}", path)  # noqa: PTH105
    except OSError:
        pass


if _folder:
    builtins.compile = compiled
    _program = os.path.basename(sys.orig_argv[1]) if len(sys.orig_argv) > 1 else ""  # noqa: PTH119
    if _program.startswith(("ansible", "AnsiballZ")):
        gc.set_threshold(100_000)
    if _program.startswith("ansible"):
        import assembled

        assembled.install(_folder)
