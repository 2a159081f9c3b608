"""The files of the toy engine, which stands in for vLLM on hosts, in images and in packages of tests."""

from __future__ import annotations

from pathlib import Path

_TOY = Path(__file__).parent / "serve/toy_engine.py"
_FAKE = Path(__file__).parents[1] / "playbooks/verify/fake"
# The healthy part of the fake endpoint; its faults stay here.
_NEEDED = ("answers", "fault", "server", "state", "wire")


def toy_files() -> dict[str, str]:
    """Texts by the path that each has beside the toy engine: ``toy_engine.py`` and the package ``fake``."""
    package = {f"fake/{name}.py": _FAKE / f"{name}.py" for name in _NEEDED}
    return {path: source.read_text("utf-8") for path, source in {"toy_engine.py": _TOY, **package}.items()}
