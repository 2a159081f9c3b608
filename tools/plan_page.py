#!/usr/bin/env python3
"""Make docs/plan.md, the fields of a serving plan, from the types in plugins/plugin_utils/plan/schema.py. ::

python tools/plan_page.py             # write the page
python tools/plan_page.py --check     # exit 1 when the committed one differs
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / ".collections")]

from ansible_collections.glm.fleet.plugins.plugin_utils.plan import schema
from tools import json_schemas, made_files

PAGE = ROOT / "docs" / "plan.md"
HEAD = """\
# The serving plan, field by field
Made by `tools/plan_page.py` from `plugins/plugin_utils/plan/schema.py`; do not edit it here. This is schema {version}.

{description}

`ansible-playbook plan.yml` prints the plans of a fleet and keeps them as `reports/plan.json` in `glm_state_dir`. In
roles and templates they are `ansible_facts['glm_plans']`.
For programs: [schemas/plan.schema.json](schemas/plan.schema.json).
"""


def page(schema: Mapping[str, Any], version: int) -> str:
    """The page of a JSON Schema: a table for the plan, then one for each part of it, in the order of the fields."""
    parts = schema["$defs"]
    name = schema["$ref"].rpartition("/")[2]
    head = HEAD.format(version=version, description=parts[name]["description"])
    blocks = [head + "\n" + _table(parts[name], parts)]
    for part in _order(name, parts)[1:]:
        blocks.append(f"## {part}\n{parts[part]['description']}\n\n{_table(parts[part], parts)}")
    return "\n".join(blocks)


def _order(name: str, parts: Mapping[str, Any]) -> list[str]:
    found = [name]
    for inner in (part for field in parts[name]["properties"].values() for part in _references(field)):
        found += [one for one in _order(inner, parts) if one not in found]
    return found


def _references(field: Mapping[str, Any]) -> Iterator[str]:
    if "$ref" in field:
        yield field["$ref"].rpartition("/")[2]
    nested = [*field.get("anyOf", []), *(field[key] for key in ("items", "additionalProperties") if field.get(key))]
    for one in nested:
        yield from _references(one)


def _table(part: Mapping[str, Any], parts: Mapping[str, Any]) -> str:
    lines = ["| field | type | unit | meaning |", "|---|---|---|---|"]
    for name, field in part["properties"].items():
        meaning = field.get("description") or " ".join(parts[one]["description"] for one in _references(field))
        optional = "" if name in part["required"] else "Optional. "
        lines.append(f"| `{name}` | {_type(field)} | {field.get('$comment', '')} | {optional}{meaning} |")
    return "\n".join(lines) + "\n"


def _type(field: Mapping[str, Any]) -> str:
    if "$ref" in field:
        part = field["$ref"].rpartition("/")[2]
        return f"[{part}](#{part.lower()})"
    if "anyOf" in field:
        return " or ".join(_type(one) for one in field["anyOf"])
    if "const" in field or "enum" in field:
        return " or ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}"
    if field.get("type") == "object":
        return f"mapping to {_type(field['additionalProperties'])}"
    return str(field.get("type", "anything"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, or compare it. Returns the exit status."""

    def made() -> dict[Path, str]:
        return {PAGE: page(json_schemas.json_schema(schema.Plan, "plan"), schema.SCHEMA)}

    return made_files.main(__doc__, made, "python tools/plan_page.py", arguments)


if __name__ == "__main__":
    sys.exit(main())
