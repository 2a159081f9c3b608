"""The plan's published shape is what the planner makes, and what roles, templates and modules read of it is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as cat
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import make as planner
from tools import json_schemas, plan_page

ROOT = Path(__file__).resolve().parents[3]
CATALOG = cat.load()
SCHEMA: dict[str, Any] = json_schemas.json_schema(planner.Plan, "plan")
CELLS = {
    "one host": {},
    "the other engine": {"engine": "sglang", "accelerator": "H200"},
    "replicas": {"model": "GLM-5", "precision": "nvfp4", "replicas": 2},
    "several hosts": {"accelerator": "H100", "nodes": 2, "head_address": "10.0.0.1", "node_rank": 1},
    "bare metal": {"runtime": "venv"},
    "bare metal, key in a file": {"runtime": "venv", "engine": "sglang"},
    "AMD": {"accelerator": "MI355X", "precision": "fp8"},
    "an image that has to be built": {"model": "GLM-5", "engine_version": "0.16.0"},
    "throughput": {"profile": "throughput"},
    "a model without thinking modes": {"model": "GLM-4.6"},
}
LOCK: Any = {
    "images": {},
    "models": {"zai-org/GLM-5.1-FP8@main": {"commit": "0" * 40}},
    "builds": {},
}


def plans(changes: dict[str, Any], lock: Any = None) -> list[planner.Plan]:
    wanted = {"model": "GLM-5.1", "accelerator": "B200", "accelerator_count": 8, **changes}
    return planner.make_all(planner.Intent(**wanted), CATALOG, lock)


@pytest.mark.parametrize("changes", CELLS.values(), ids=CELLS)
@pytest.mark.parametrize("lock", [None, LOCK], ids=["nothing locked", "locked"])
def test_plans_have_the_published_shape(changes: dict[str, Any], lock: Any) -> None:
    for plan in plans(changes, lock):
        Draft202012Validator(SCHEMA).validate(plan)


def test_a_key_that_the_schema_does_not_have_is_refused() -> None:
    [plan] = plans({})
    for broken in ({**plan, "extra": 1}, {key: value for key, value in plan.items() if key != "listen"}):
        assert not Draft202012Validator(SCHEMA).is_valid(broken)


def test_the_page_is_made_from_the_types() -> None:
    assert plan_page.main(["--check"]) == 0
    assert json_schemas.main(["--check"]) == 0


@pytest.mark.parametrize("asked", ["--help", "--chek", "docs/plan.md"])
def test_the_page_is_not_written_by_an_argument_that_is_no_order(
    asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_page, "PAGE", tmp_path / "plan.md")
    with pytest.raises(SystemExit):
        plan_page.main([asked])
    assert not plan_page.PAGE.exists()


def test_every_reader_takes_a_plan_by_its_type() -> None:
    """Else a key that is renamed would be looked for under its old name there, and mypy would not know."""
    loose = []
    for path in (ROOT / "plugins").rglob("*.py"):
        # What runs on hosts cannot import the controller's types.
        if path.relative_to(ROOT).parts[1] in ("module_utils", "modules"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.arg) and node.arg in ("plan", "plans") and node.annotation:
                typed = "Plan" in ast.unparse(node.annotation)
                loose += [] if typed else [f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}"]
    assert not loose


# --- what Jinja and modules read, which no type checker sees --------------------------------------------------------

# A plan is called plan, or something_plan; a list of them something_plans, of which an element is read.
_PLAN = r"\b(?:\w+_)?plan\b"
_ONE_OF_PLANS = r"\b\w*plans\b'?\]?(?:\[0\]| *\| *first\b\)?)"
_STEP = r"""\[['"]\w+['"]\]|\.[a-z_]+\b(?!\()"""
_READ = re.compile(rf"(?:{_PLAN}|{_ONE_OF_PLANS})(?P<path>(?:{_STEP})+)")
_KEY = re.compile(r"\w+")
_MAPPED = re.compile(r"\w*plans\b'?\]?\)?(?: *\| *default\(\[\]\))? *\| *\w+\(attribute=['\"]([\w.]+)['\"]")
_OF_A_HOST = re.compile(r"\bglm_plans\.0\.(?P<path>[\w.]+)")
# Variables and files that are called so and are no serving plan.
_NOT_PLANS = re.compile(r"__plan_launch|__launch_plan|glm\.fleet\.\w+_plan|\bplan\.(?:yml|json|md)|_plan\.(?:yml|json)")


def untyped_files() -> list[Path]:
    found = [path for folder in ("roles", "playbooks", "templates") for path in (ROOT / folder).rglob("*")]
    on_hosts = [*(ROOT / "plugins" / "modules").glob("*.py"), ROOT / "plugins" / "module_utils" / "host" / "probe.py"]
    return [path for path in found if path.suffix in (".yml", ".j2")] + on_hosts


def known_paths(name: str = "Plan") -> dict[str, Any]:
    """What may follow each key of a type: None for anything."""
    return {key: following(field) for key, field in SCHEMA["$defs"][name]["properties"].items()}


def following(field: dict[str, Any]) -> dict[str, Any] | None:
    options = [field, *field.get("anyOf", [])]
    parts = [option["$ref"].rpartition("/")[2] for option in options if "$ref" in option]
    return {key: rest for part in parts for key, rest in known_paths(part).items()} if parts else None


def unknown(path: list[str]) -> bool:
    known: dict[str, Any] | None = known_paths()
    for key in path:
        if known is None:
            return False
        if key not in known:
            return True
        known = known[key]
    return False


def paths_read(text: str) -> list[list[str]]:
    text = _NOT_PLANS.sub("", text)
    paths = [_KEY.findall(match.group("path")) for match in _READ.finditer(text)]
    paths += [_KEY.findall(match.group("path")) for match in _OF_A_HOST.finditer(text)]
    return paths + [match.group(1).split(".") for match in _MAPPED.finditer(text)]


def test_what_roles_templates_and_modules_read_of_a_plan_is_in_the_schema() -> None:
    read = {path: paths_read(path.read_text(encoding="utf-8")) for path in untyped_files()}
    wrong = [f"{path.relative_to(ROOT)}: {keys}" for path, found in read.items() for keys in found if unknown(keys)]
    assert not wrong
    # The search finds what it should: every way of writing that is in use.
    seen = {".".join(keys) for found in read.values() for keys in found}
    assert {"runtime.kind", "paths.hf_home", "listen.address", "image.build.base", "node.rank", "node.count"} <= seen


@pytest.mark.parametrize(
    "text",
    [
        "{{ plan['listen']['prot'] }}",
        "{{ plan.listen.prot }}",
        "{{ serve_plans[0]['listen']['prot'] }}",
        "{{ ansible_facts['glm_plans'][0]['listen']['prot'] }}",
        "{{ __verify_plan['listen']['prot'] }}",
        "{{ serve_plans | map(attribute='listen.prot') }}",
        "{{ hosts | map('extract', hostvars, 'ansible_facts') | map(attribute='glm_plans.0.listen.prot') }}",
        "{{ ansible_facts['glm_plans'] | default([]) | map(attribute='listen.prot', default='') }}",
        "{{ engine_image_plans | unique(attribute='listen.prot') }}",
    ],
)
def test_a_renamed_key_is_found_however_it_is_written(text: str) -> None:
    [path] = paths_read(text)
    assert unknown(path)
