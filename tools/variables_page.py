#!/usr/bin/env python3
"""Write what repeats the table of public variables, catalog/variables.yml, in the form that others read.

    python tools/variables_page.py            # write
    python tools/variables_page.py --check    # exit 1 when a committed file differs

docs/variables.md, and the defaults and argument_specs of the role plan. That declares what concerns hosts only: Ansible
evaluates on each host what a role declares, and what a launch reads may be known on the controller alone.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Optional

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / ".collections")]

from ansible_collections.glm.fleet.plugins.plugin_utils.intent import table
from ansible_collections.glm.fleet.plugins.plugin_utils.intent.table import Variable
from tools import made_files

PAGE = ROOT / "docs" / "variables.md"
DEFAULTS = ROOT / "roles" / "plan" / "defaults" / "main.yml"
SPECS = ROOT / "roles" / "plan" / "meta" / "argument_specs.yml"
MARK = "# Made from catalog/variables.yml by `make variables`; do not edit {}."
WIDTH = 120
# As .yamllint has it.
_LONGEST = 160

SECTIONS = {
    "fleet": ("Which hosts, and where state is kept", ""),
    "model": ("What is served", ""),
    "engine": ("How it is served", ""),
    "endpoint": ("Where clients reach it", ""),
    "deploy": ("How a deploy and a benchmark go", ""),
    "keys": ("Keys of clients", "[keys.md](keys.md) shows them at work."),
    "launch": ("Launch", "[launch.md](launch.md) shows them at work."),
    "terminate": ("Terminate", ""),
    "outside": ("How hosts reach what is outside", "[outside.md](outside.md) shows them at work."),
    "host": (
        "What the inventory knows of a host",
        "Every inventory of a cloud sets all of these, whatever its `hostvars_prefix`; what the cloud does not say is "
        "null. Hosts of an inventory of your own may have them, too.",
    ),
}
INTRODUCTION = f"""<!-- {MARK.format("this page")[2:]} -->
# Variables

All public variables of the collection. Set them in `group_vars` beside the inventory, or with `-e`; those marked *extra
variable* only with `-e`, since Ansible reads them before any host is known. Those marked *whole fleet* are read on the
controller: set them with `-e` or in `group_vars/all`; in other groups and for hosts they are refused. An
empty value means that a variable is not set. Roles have further variables of their own, which
`ansible-doc -t role glm.fleet.<role>` lists.

A variable that begins with `glm_` and is not here is refused by every playbook before anything is planned, launched or
terminated, with the nearest name that exists.
"""


def literal(value: Any) -> str:
    """A default as YAML on one line."""
    if isinstance(value, str) and (not value or "{{" in value or ": " in value):
        return json.dumps(value)
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("...\n").strip()


def prose(variable: Variable) -> str:
    """What it means, with a default that is computed, and an example, in words."""
    parts = [variable.text]
    if variable.computed:
        parts.append(f"By default {variable.computed}.")
    if variable.default is None:
        parts.append("By default it is not set.")
    if variable.example:
        parts.append(f"Example: {variable.example}")
    return " ".join(parts)


def wrapped(text: str, prefix: str) -> str:
    """``text`` in lines that begin with ``prefix``."""
    return textwrap.fill(
        text, WIDTH, initial_indent=prefix, subsequent_indent=prefix, break_long_words=False, break_on_hyphens=False
    )


def page(known: table.Table) -> str:
    """docs/variables.md."""
    parts = [INTRODUCTION]
    for section, (title, note) in SECTIONS.items():
        parts.append(f"\n## {title}\n" + (f"\n{note}\n" if note else ""))
        parts.append("\n| variable | type | default | meaning |\n|---|---|---|---|\n")
        parts.extend(_row(variable) for variable in known.values() if variable.section == section)
    return "".join(parts)


def _row(variable: Variable) -> str:
    kind = f"{variable.type} of {variable.elements}" if variable.elements else variable.type
    default = variable.computed or ("" if variable.default in (None, "") else f"`{literal(variable.default)}`")
    notes = [variable.text]
    if variable.example:
        notes.append(f"Example: `{variable.example}`.")
    if variable.header:
        notes.append("*Extra variable.*")
    if variable.controller:
        notes.append("*Whole fleet.*")
    if variable.replaced_by:
        notes.append(f"**Old name** of `{variable.replaced_by}`, refused from {variable.removed_in} on.")
    if variable.since != "0.1.0":
        notes.append(f"Since {variable.since}.")
    return f"| `{variable.name}` | {kind} | {default} | {' '.join(notes)} |\n".replace(" |  |", " | |")


def defaults(known: table.Table) -> str:
    """roles/plan/defaults/main.yml: the role's own variable, and each public one that has a default."""
    parts = [
        "---\n" + MARK.format("this file") + "\n\n"
        "# What to do: all, or none, which only declares the variables, for plays that need them and no plan.\n"
        "plan_tasks: all\n\n"
        "# The intent variables of hosts live here with the collection's prefix, which is why each has a noqa.\n"
    ]
    for variable in _declared(known):
        if variable.default is not None:
            parts.append(f"\n{wrapped(prose(variable), '# ')}\n{_assigned(variable)}\n")
    return "".join(parts)


def _assigned(variable: Variable) -> str:
    """A variable and its default, folded where one line would be too long."""
    noqa = "  # noqa: var-naming[no-role-prefix]"
    line = f"{variable.name}: {literal(variable.default)}{noqa}"
    return line if len(line) <= _LONGEST else f"{variable.name}: >-{noqa}\n{wrapped(variable.default, '  ')}"


def options(known: table.Table) -> str:
    """The options of these variables in roles/plan/meta/argument_specs.yml."""
    return "".join(f"      {variable.name}:\n" + "".join(_option(variable)) for variable in _declared(known))


def _option(variable: Variable) -> Iterator[str]:
    yield f"        description:\n          - >-\n{wrapped(prose(variable), ' ' * 12)}\n"
    yield f"        type: {variable.type}\n"
    if variable.elements:
        yield f"        elements: {variable.elements}\n"
    if variable.choices:
        yield f"        choices: {literal(variable.choices)}\n"
    if variable.default is not None and not variable.computed:
        yield f"        default: {literal(variable.default)}\n"
    if variable.secret:
        yield "        no_log: true\n"


def _declared(known: table.Table) -> list[Variable]:
    elsewhere = ("keys", "launch", "terminate", "host")
    return [item for item in known.values() if item.section not in elsewhere and not item.replaced_by]


def files(known: table.Table) -> dict[Path, str]:
    """The contents of every file that is made from the table."""
    begin, end = f"      {MARK.format('to the end of main')}\n", "  launch:\n"
    spec = SPECS.read_text(encoding="utf-8")
    made = re.sub(rf"{re.escape(begin)}.*?(?={end})", lambda _match: begin + options(known), spec, flags=re.DOTALL)
    return {PAGE: page(known), DEFAULTS: defaults(known), SPECS: made}


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Write the files, or with ``--check`` say which differ."""
    return made_files.main(__doc__, lambda: files(table.load()), "make variables", arguments)


if __name__ == "__main__":
    sys.exit(main())
