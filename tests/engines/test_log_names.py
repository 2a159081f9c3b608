"""A wrong name is worse than none: what the engines raise gets a name only from the rule that was written for it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.serving import causes
from ansible_collections.glm.fleet.plugins.module_utils.serving.log import Line
from simulator.engines import wheels

SOURCES = [("vllm", "0.32.0", "vllm"), ("sglang", "0.5.10", "sglang/srt")]
# Messages of the engines that a rule about libraries and drivers names, and rightly so.
RIGHTLY = {
    "CUDA out of memory occurred when warming up": "GPU memory ran out",
    "NCCL error: 7": "NCCL could not connect",
}


def text_of(node: ast.expr | None) -> str:
    """A message as the engine would write it, with 7 for everything that it fills in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(value) if isinstance(value, ast.Constant) else "7" for value in node.values)
    if isinstance(node, ast.BinOp):
        return text_of(node.left) + text_of(node.right)
    return ""


def messages(folder: Path) -> Iterator[tuple[str, str]]:
    """Place and text of what a program raises, asserts or logs as an error."""
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8-sig"))):
            found = ""
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                found = text_of(node.exc.args[0])
            elif isinstance(node, ast.Assert):
                found = text_of(node.msg)
            elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("error", "exception", "critical"):
                found = text_of(node.args[0]) if node.args else ""
            if found:
                yield f"{path.name}:{node.lineno}", found


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # escapes in the engines' own texts
@pytest.mark.parametrize(("engine", "version", "package"), SOURCES)
def test_no_rule_about_libraries_names_a_message_of_the_engine(engine: str, version: str, package: str) -> None:
    rules, read, wrong = causes.Rules(), 0, []
    for place, text in messages(wheels.fetch_source(engine, version) / package):
        read += 1
        lines = [
            Line(f"ValueError: {row}" if number == 0 else row, True) for number, row in enumerate(text.splitlines())
        ]
        found = causes.cause_of({"ExecMainStatus": "1"}, [line for line in lines if line.text.strip()], rules, list)
        expected = next((cause for part, cause in RIGHTLY.items() if part in text), "unknown")
        if not found.cause.startswith(expected):
            wrong.append((place, text[:120], found.cause))
    print(f"\n{engine} {version}: {read} messages")
    assert wrong == [] and read > 2000
