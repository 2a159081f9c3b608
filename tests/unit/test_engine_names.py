"""No engine is known by its name outside the catalogue: a new engine is a folder of ``catalog/engines``.

Documentation, examples and comments may name engines. What else does is listed here, so that the list cannot grow
without somebody reading this.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ENGINES = sorted(path.name for path in (ROOT / "catalog/engines").iterdir() if path.is_dir())
NAMES = re.compile("|".join(ENGINES), re.IGNORECASE)
DOCUMENTATION = {"DOCUMENTATION", "EXAMPLES", "RETURN"}
# Of files in roles and playbooks: keys whose values are read by people only.
FOR_PEOPLE = {"description", "short_description"}
# File: lines of code that name an engine.
ALLOWED: dict[str, list[str]] = {}


def _documentation(tree: ast.Module) -> set[int]:
    """Lines of docstrings and of the documentation blocks of modules."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        block = isinstance(node, ast.Assign) and {getattr(name, "id", "") for name in node.targets} & DOCUMENTATION
        if text or block:
            lines.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return lines


def in_python(text: str) -> Iterator[str]:
    """Lines of code in which a name or a text names an engine."""
    skipped, lines = _documentation(ast.parse(text)), text.splitlines()
    found = {
        token.start[0]
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type != tokenize.COMMENT and token.start[0] not in skipped and NAMES.search(token.string)
    }
    yield from (lines[number - 1].strip() for number in sorted(found))


def in_data(data: Any) -> Iterator[str]:
    """Keys and values of YAML that name an engine; comments are not among them."""
    if isinstance(data, dict):
        for key, value in data.items():
            if key not in FOR_PEOPLE:
                yield from in_data(key)
                yield from in_data(value)
    elif isinstance(data, list):
        for item in data:
            yield from in_data(item)
    elif NAMES.search(str(data)):
        yield str(data)


def in_template(text: str) -> Iterator[str]:
    """Lines of a template that name an engine and are no comment."""
    bare = re.sub(r"\{#.*?#\}", "", text, flags=re.DOTALL)
    yield from (line for line in bare.splitlines() if NAMES.search(line) and not line.startswith("#"))


def product() -> Iterator[tuple[Path, Iterator[str]]]:
    """Every file of the product with what names an engine in it. Documentation files are left out."""
    for path in sorted(path for folder in ("plugins", "roles") for path in (ROOT / folder).rglob("*.py")):
        yield path, in_python(path.read_text(encoding="utf-8"))
    for path in sorted(path for folder in ("roles", "playbooks") for path in (ROOT / folder).rglob("*.yml")):
        yield path, in_data(yaml.safe_load(path.read_text(encoding="utf-8")))
    templates = [*(ROOT / "templates").rglob("*.j2"), *(ROOT / "roles").rglob("*.j2")]
    for path in sorted(templates):
        yield path, in_template(path.read_text(encoding="utf-8"))


def test_no_engine_is_known_by_its_name() -> None:
    assert len(ENGINES) >= 2
    found = {str(path.relative_to(ROOT)): list(lines) for path, lines in product()}
    assert len(found) > 150
    assert {path: lines for path, lines in found.items() if lines} == ALLOWED


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ('"""About vllm."""\nx = 1  # vllm\n', []),
        ('EXAMPLES = """\n- vllm\n"""\n', []),
        ('if name == "vllm":\n    pass\n', ['if name == "vllm":']),
        ("def of_sglang(): ...\n", ["def of_sglang(): ..."]),
        ('x = f"{a} vLLM"\n', ['x = f"{a} vLLM"']),
        ('x = [\n    "VLLM_KEY",\n]\n', ['"VLLM_KEY",']),
    ],
)
def test_names_in_code_are_seen_and_those_in_documentation_are_not(text: str, lines: list[str]) -> None:
    assert list(in_python(text)) == lines


def test_names_in_data_and_templates_are_seen() -> None:
    data = {
        "options": {"engine": {"choices": ["", "vllm"], "description": ["vllm or sglang"]}},
        "when": "x != 'sglang'",
    }
    assert list(in_data(data)) == ["vllm", "x != 'sglang'"]
    assert list(in_template("# vllm\n{# sglang #}\nDocumentation=https://docs.vllm.ai\n")) == [
        "Documentation=https://docs.vllm.ai"
    ]
