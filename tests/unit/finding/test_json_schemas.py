"""The published JSON Schemas are what the code's own types say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NotRequired, Optional, TypedDict

import pytest
from jsonschema import Draft202012Validator, ValidationError

from tools import json_schemas


class Named(TypedDict):
    name: str
    """What it is called,
    by its owner."""


class Tree(Named, total=False):
    """A node."""

    kind: Literal["leaf", "branch"]
    children: list[Tree]
    weight: float | None
    """In kilograms."""
    tags: Mapping[str, Sequence[int]]
    pair: tuple[str, int]
    rest: Any


class Versioned(TypedDict):
    schema: Literal[2]
    tree: Optional[Tree]
    note: NotRequired[str]


SCHEMA = json_schemas.json_schema(Versioned, "a test")


def test_types_become_a_schema_with_their_texts() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    versioned, tree = SCHEMA["$defs"]["Versioned"], SCHEMA["$defs"]["Tree"]
    assert SCHEMA["$ref"] == "#/$defs/Versioned" and SCHEMA["title"] == "a test"
    assert versioned["required"] == ["schema", "tree"]
    assert versioned["properties"]["schema"] == {"const": 2}
    assert tree["description"] == "A node." and tree["required"] == ["name"]
    assert tree["properties"]["name"] == {"type": "string", "description": "What it is called, by its owner."}
    assert tree["properties"]["weight"]["description"] == "In kilograms."
    assert tree["properties"]["kind"] == {"enum": ["leaf", "branch"]}


@pytest.mark.parametrize(
    "value",
    [
        {"schema": 2, "tree": None},
        {"schema": 2, "tree": {"name": "a", "children": [{"name": "b", "weight": 1.5}], "pair": ["x", 1]}},
        {"schema": 2, "tree": {"name": "a", "tags": {"x": [1, 2]}, "rest": {"any": [None]}}, "note": "n"},
    ],
)
def test_a_value_of_the_type_is_accepted(value: Any) -> None:
    Draft202012Validator(SCHEMA).validate(value)


@pytest.mark.parametrize(
    "value",
    [
        {"schema": 1, "tree": None},
        {"schema": 2},
        {"schema": 2, "tree": None, "more": 1},
        {"schema": 2, "tree": {"name": "a", "kind": "root"}},
        {"schema": 2, "tree": {"name": "a", "children": [{}]}},
        {"schema": 2, "tree": {"name": "a", "weight": "heavy"}},
        {"schema": 2, "tree": {"name": "a", "pair": ["x", 1, 2]}},
    ],
)
def test_another_value_is_refused(value: Any) -> None:
    with pytest.raises(ValidationError):
        Draft202012Validator(SCHEMA).validate(value)


def test_a_type_without_a_counterpart_is_refused() -> None:
    with pytest.raises(json_schemas.Unsupported):
        json_schemas.json_schema(set[str], "a test")


def test_the_committed_schemas_are_what_the_types_say() -> None:
    assert json_schemas.main(["--check"]) == 0
