"""Nothing knows a cloud by name but the rooms of that cloud and the place where it is registered."""

from __future__ import annotations

import ast
import fnmatch
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.providers import REGISTERED, launching

ROOT = Path(__file__).parents[3]
# What ships and acts. The rest (docs, catalog, inventories, simulator, tests, examples) may name clouds.
PRODUCT = ("plugins", "roles", "playbooks", "templates")
# A cloud's own rooms, which need no list, and where it is registered.
ROOMS = (
    *(
        room.format(cloud.name)
        for cloud in REGISTERED
        for room in (
            "plugins/inventory/{}_cloud.py",
            "plugins/module_utils/cloud/{}_cloud/*.py",
            "plugins/plugin_utils/cloud/{}_cloud/*.py",
            "plugins/modules/{}_*.py",
            "plugins/doc_fragments/{}_auth.py",
        )
    ),
    *(f"roles/launch/tasks/{cloud.name}/*.yml" for cloud in launching()),
    "plugins/plugin_utils/cloud/providers.py",
)
# What is nothing but documentation.
PAGES = ("*.md", "plugins/filter/*.yml", "plugins/doc_fragments/*.py", "roles/*/meta/argument_specs.yml")
DOCUMENTATION = {"DOCUMENTATION", "EXAMPLES", "RETURN"}
WORDS = re.compile(
    "|".join(
        rf"(?<![a-z]){name}_|\b{name.upper()}\b|\b{name.title()}\b|^{name}$"
        for name in (provider.name for provider in REGISTERED)
    )
)


def product() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z", *PRODUCT], cwd=ROOT, capture_output=True, check=True, text=True)
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def texts_of_python(source: str) -> Iterator[str]:
    """Names and constants of the code, without docstrings and documentation."""
    tree = ast.parse(source)
    documentation = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            documentation.add(body[0].value)
        if isinstance(node, ast.Assign) and {getattr(target, "id", "") for target in node.targets} & DOCUMENTATION:
            documentation.add(node.value)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in documentation:
            yield node.value
        for field in ("id", "attr", "arg", "name", "module"):
            if isinstance(getattr(node, field, None), str):
                yield getattr(node, field)


def texts_of_yaml(source: str) -> Iterator[str]:
    """Keys and values, without comments."""
    for token in yaml.scan(source):
        if isinstance(token, yaml.ScalarToken):
            yield token.value


def words_in(name: str, source: str) -> list[str]:
    texts = {".py": texts_of_python, ".yml": texts_of_yaml}.get(Path(name).suffix, str.splitlines)
    return [match.group() for text in texts(source) for match in WORDS.finditer(text)]


def within(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def test_no_cloud_is_named_outside_its_own_rooms() -> None:
    files = [name for name in product() if not within(name, (*ROOMS, *PAGES))]
    assert len(files) > 200, "hardly anything was looked at"
    found = {name: words_in(name, (ROOT / name).read_text("utf-8")) for name in files}
    assert {name: words for name, words in found.items() if words} == {}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_that_names_no_cloud_is_none(room: str) -> None:
    files = [name for name in product() if within(name, (room,))]
    assert any(words_in(name, (ROOT / name).read_text("utf-8")) for name in files)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("a.py", "names = ('glm_private_address', 'lambda_private_ip')"),
        ("a.py", "from plugins.cloud.gmi_cloud import hosts"),
        ("a.py", "def f(lambda_id): return lambda_id"),
        ("a.py", "raise ValueError('expected an inventory of Lambda Cloud')"),
        ("a.py", "provider = 'gmi'"),
        ("a.yml", 'x: "{{ lambda_accelerator | default(gmi_accelerator) }}"'),
        ("a.yml", "- glm.fleet.lambda_instance:\n    state: present"),
        ("a.yml", "msg: instances of GMI Cloud"),
        ("a.j2", "# {{ ansible_managed | comment }}\nExecStart=/bin/x {{ lambda_id }}"),
    ],
)
def test_a_name_is_noticed(name: str, source: str) -> None:
    assert words_in(name, source)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("a.py", '"""Lambda names no country."""\nkey = lambda item: item.name  # as in lambda_id\n'),
        ("a.py", 'EXAMPLES = "glm.fleet.lambda_instance"'),
        ("a.yml", "# Example: lambda_region_us_east_1\nx: 1"),
    ],
)
def test_code_that_names_none_and_documentation_are_passed(name: str, source: str) -> None:
    assert words_in(name, source) == []
