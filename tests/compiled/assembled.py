"""Keep what each run of Ansible makes anew from the same sources; ``sitecustomize`` loads this in its programs.

The program that carries a module to a host is put together from some seventy files, each of which is parsed for what
it imports: up to half a second for each module of each run. The table of Ansible's own plugins is 376 KB of YAML: a
fifth of a second for each run, and the YAML of roles and of what plugins document takes a twentieth of it. Templates
become Python code again in the worker of each task, which is a quarter of its time.
"""

from __future__ import annotations

import hashlib
import marshal
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
        """Whole, or not at all. A folder that cannot be written, and what cannot be kept, only costs time."""
        file = self._file(made_from)
        part = file.with_name(f"{file.name}.{os.getpid()}")
        try:
            part.write_bytes(pickle.dumps(value))
            part.replace(file)
        except (OSError, pickle.PicklingError, AttributeError, TypeError):
            part.unlink(missing_ok=True)

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


def with_yaml_kept(yaml: ModuleType, kept: Kept) -> None:
    """Let PyYAML read a text once for all runs: Ansible's table of its plugins, roles, what plugins document."""
    load = yaml.load

    def loaded(stream: Any, Loader: Any) -> Any:
        made_from: tuple[object, ...] = ()
        if Loader is getattr(yaml, "CBaseLoader", None) and isinstance(stream, (str, bytes)):
            made_from = (stream,)
        elif getattr(Loader, "__name__", "") == "AnsibleLoader" and isinstance(stream, str):
            made_from = _of_ansible(stream)
        value = kept.read(*made_from) if made_from else None
        if value is None:
            value = load(stream, Loader)
            if made_from:
                kept.write(value, *made_from)
        return value

    yaml.load = loaded


def _of_ansible(stream: str) -> tuple[object, ...]:
    """What decides the value of a text that Ansible reads: where it is from, and whether templates in it are trusted.

    Empty for what is not worth a file, and for what was decrypted.
    """
    from ansible._internal._datatag._tags import Origin, TrustedAsTemplate
    from ansible.module_utils._internal._datatag import AnsibleTagHelper
    from ansible.release import __version__

    tags = AnsibleTagHelper.tags(stream)
    if len(stream) < 300 or any(type(tag) not in (Origin, TrustedAsTemplate) for tag in tags):
        return ()
    return ("yaml", __version__, str(stream), sorted(map(repr, tags)))


# What of an environment decides the code of a template, beside the template itself.
_SYNTAX = (
    "block_start_string", "block_end_string", "variable_start_string", "variable_end_string", "comment_start_string",
    "comment_end_string", "line_statement_prefix", "line_comment_prefix", "trim_blocks", "lstrip_blocks",
    "newline_sequence", "keep_trailing_newline", "optimized", "autoescape",
)  # fmt: skip


def with_templates_kept(bits: ModuleType, kept: Kept) -> None:
    """Let ``ansible._internal._templating._jinja_bits`` make the code of a template once for all runs."""
    from ansible.release import __version__

    environment = bits.AnsibleEnvironment
    make = environment.compile

    def compiled(self: Any, source: Any, name: Any = None, filename: Any = None, *rest: Any, **more: Any) -> Any:
        if not isinstance(source, str) or name or filename or rest or more or self._debuggable_template_source:
            return make(self, source, name, filename, *rest, **more)
        context = bits._TemplateCompileContext.current(optional=True)
        made_from = (
            "template", __version__, bits.jinja2.__version__, type(self).__qualname__, str(source),
            context and context.escape_backslashes, bits._TemplateConfig.allow_embedded_templates,
            sorted(self.extensions), [getattr(self, key) for key in _SYNTAX],
        )  # fmt: skip
        code = kept.read(*made_from)
        if code is None:
            made = make(self, source)
            kept.write(marshal.dumps(made), *made_from)
            return made
        return marshal.loads(code)

    environment.compile = compiled


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
                "yaml": lambda module: with_yaml_kept(module, kept),
                "ansible.executor.module_common": lambda module: with_modules_kept(module, kept),
                "ansible._internal._templating._jinja_bits": lambda module: with_templates_kept(module, kept),
            }
        ),
    )
