"""The JSON Schemas that editors use for catalog/ accept what the loader accepts, and refuse what it refuses."""

from __future__ import annotations

import datetime
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILES = sorted([*ROOT.glob("catalog/*.yml"), *ROOT.glob("catalog/engines/*/*.yml")])


def as_json(value: Any) -> Any:
    """What an editor sees: keys are texts, dates too."""
    if isinstance(value, dict):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_json(item) for item in value]
    return value.isoformat() if isinstance(value, datetime.date) else value


def schema_of(path: Path) -> dict[str, Any]:
    named = re.search(r"^# yaml-language-server: \$schema=(\S+)$", path.read_text(encoding="utf-8"), re.M)
    assert named, f"{path} does not name its schema"
    return json.loads((path.parent / named[1]).read_text(encoding="utf-8"))


def validator(path: Path) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(schema_of(path))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_of_the_catalogue_is_what_its_schema_says(path: Path) -> None:
    content = as_json(yaml.safe_load(path.read_text(encoding="utf-8")))
    assert [error.message for error in validator(path).iter_errors(content)] == []


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("models.yml", lambda data: next(iter(data["models"].values())).update(licence="MIT")),
        ("models.yml", lambda data: next(iter(data["models"].values())).pop("context_length")),
        ("models.yml", lambda data: data.update(model={})),
        ("accelerators.yml", lambda data: next(iter(data["accelerators"].values())).update(memory_mib="183359")),
        ("prices.yml", lambda data: data["prices"][0].update(usd_per_hour="53")),
        ("platforms.yml", lambda data: data["platforms"][0].update(fabric="nvlink")),
        ("engines/vllm/engine.yml", lambda data: data["options"].update(max_len="--max-model-len")),
        ("engines/vllm/versions.yml", lambda data: next(iter(data["versions"].values())).update(image={})),
    ],
)
def test_what_the_loader_refuses_is_marked_in_an_editor(file: str, change: Any) -> None:
    path = ROOT / "catalog" / file
    content = as_json(yaml.safe_load(path.read_text(encoding="utf-8")))
    change(content)
    assert list(validator(path).iter_errors(content))
