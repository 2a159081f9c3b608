"""Keep what each run of Ansible makes anew from the same sources; ``sitecustomize`` loads this in its programs.

The program that carries a module to a host is put together from some seventy files, each of which is parsed for what
it imports: up to half a second for each module of each run. The table of Ansible's own plugins is 376 KB of YAML: a
fifth of a second for each run.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
import zipfile
from collections.abc import Callable
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, Optional


class Kept:
    """Values by the content of what they are made from, in a folder that many processes use at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, *made_from: object) -> Any:
        """None: not kept, or not whole."""
        try:
            return pickle.loads(self._file(made_from).read_bytes())
        except Exception:  # whatever a damaged file makes of pickle
            return None

    def write(self, value: Any, *made_from: object) -> None:
        """Whole, or not at all. A folder that cannot be written only costs time."""
        file = self._file(made_from)
        part = file.with_name(f"{file.name}.{os.getpid()}")
        try:
            part.write_bytes(pickle.dumps(value))
            part.replace(file)
        except OSError:
            pass

    def _file(self, made_from: tuple[object, ...]) -> Path:
        name = hashlib.blake2b(repr(made_from).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        return self._folder / f"{name}.{sys.implementation.cache_tag}.pickle"


class Recorder:
    """Stands in for the archive that a module is put into, and notes what is written."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.compression = archive.compression
        self._archive = archive
        self.entries: list[tuple[str, bytes]] = []
        # Path, size and time of each file that was put in.
        self.files: list[tuple[str, int, int]] = []
        self.whole = True

    def writestr(self, info: zipfile.ZipInfo, content: Any) -> None:
        from ansible._internal._datatag._tags import Origin

        self._archive.writestr(info, content)
        plain = content.encode("utf-8") if isinstance(content, str) else bytes(content)
        self.entries.append((info.filename, plain))
        origin = Origin.get_tag(content)
        if origin is not None and origin.path:
            self.files.append((origin.path, *_state(origin.path)))
        elif content and info.filename not in ("ansible/__init__.py", "ansible/module_utils/__init__.py"):
            self.whole = False


def _state(path: str) -> tuple[int, int]:
    """Size and time of a file; a folder may lack the ``__init__.py`` that is put in for it."""
    try:
        found = os.stat(path)  # noqa: PTH116 - of seventy files for each module
    except FileNotFoundError:
        return -1, -1
    return found.st_size, found.st_mtime_ns


def with_modules_kept(common: ModuleType, kept: Kept) -> None:
    """Let ``ansible.executor.module_common`` find what a module imports once for all runs."""
    find = common.recursive_finder

    def found(name: str, fqn: str, source: Any, archive: zipfile.ZipFile, moment: Any, extensions: Any) -> Any:
        if extensions.extension_names:
            return find(name, fqn, source, archive, moment, extensions)
        collection = sys.modules.get(".".join(fqn.split(".")[:3]))
        made_from = (
            common.__file__, fqn, bytes(source), list(getattr(collection, "__path__", [])),
            common.module_utils_loader._get_paths(subdirs=False),
        )  # fmt: skip
        before = kept.read(*made_from)
        if before and all(_state(path) == (size, changed) for path, size, changed in before["files"]):
            for path, content in before["entries"]:
                archive.writestr(common._make_zinfo(path, moment, zf=archive), content)
            return before["metadata"]
        recorder = Recorder(archive)
        metadata = find(name, fqn, source, recorder, moment, extensions)
        if recorder.whole:
            value = {"entries": recorder.entries, "files": recorder.files, "metadata": metadata}
            kept.write(value, *made_from)
        return metadata

    common.recursive_finder = found


def with_tables_kept(yaml: ModuleType, kept: Kept) -> None:
    """Let PyYAML read a table of plain strings, as Ansible's own of its plugins is, once for all runs."""
    load = yaml.load

    def loaded(stream: Any, Loader: Any) -> Any:
        if Loader is not getattr(yaml, "CBaseLoader", None) or not isinstance(stream, (str, bytes)):
            return load(stream, Loader)
        value = kept.read(stream)
        if value is None:
            value = load(stream, Loader)
            kept.write(value, stream)
        return value

    yaml.load = loaded


class AfterImport:
    """Changes modules once they are imported."""

    def __init__(self, changes: dict[str, Callable[[ModuleType], None]]) -> None:
        self._changes = changes

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Optional[ModuleSpec]:
        change = self._changes.pop(name, None)
        spec = PathFinder.find_spec(name, path, target) if change else None
        if change and spec and spec.loader:
            execute = spec.loader.exec_module

            def executed(module: ModuleType) -> None:
                execute(module)
                change(module)

            spec.loader.exec_module = executed
        return spec


def install(folder: str) -> None:
    """For this process, which will be a program of Ansible."""
    kept = Kept(Path(folder))
    sys.meta_path.insert(
        0,
        AfterImport(
            {
                "yaml": lambda module: with_tables_kept(module, kept),
                "ansible.executor.module_common": lambda module: with_modules_kept(module, kept),
            }
        ),
    )
