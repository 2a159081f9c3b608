"""``glm-fleet init [DIR]``: a working folder to start from, made of what the installed collection has.

ansible.cfg and the inventories are those of the collection's own checkout. ``group_vars/all.yml`` lists every public
variable as a comment, with its default and what it is for (``catalog/variables.yml``).
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

README = """# A fleet of GLM endpoints

Made by `glm-fleet init`. What can be set stands in `group_vars/all.yml`, as comments.

    ansible-playbook glm.fleet.plan -e glm_accelerator=B200 -e glm_accelerator_count=8   # nothing is touched
    export LAMBDA_API_KEY=...                           # or the key of GMI Cloud, and -i gmi.yml
    ansible-playbook glm.fleet.plan -i lambda.yml       # what would be served on the instances you have
    ansible-playbook glm.fleet.deploy -i lambda.yml

A deploy writes `glm.lock.yml` here, image digests and model revisions, and `glm.starts.json`, what starts reported of
the GPUs' memory. Keep both in version control.
"""
VARIABLES_HEAD = """---
# What can be set for all hosts. Each line shows the default or an example: remove the "# " before it to set it.
# Values for one run: -e NAME=VALUE. A variable that does not exist is refused.
"""


class InitError(Exception):
    """The folder cannot be made; the text says why and what to do."""


def collection() -> Path:
    """The collection that was installed with this command."""
    folder = Path(__file__).resolve().parents[1] / "ansible_collections/glm/fleet"
    if not (folder / "galaxy.yml").is_file():
        raise InitError(f"expected the collection in {folder}, found none. Next: pip install glm-fleet, again.")
    return folder


def contents(source: Path) -> dict[str, str]:
    """The files of a working folder, text by path, made from the collection in ``source``."""
    variables = yaml.safe_load((source / "catalog/variables.yml").read_text("utf-8"))["variables"]
    made = {
        "ansible.cfg": _configuration((source / "ansible.cfg").read_text("utf-8")),
        "README.md": README,
        "group_vars/all.yml": VARIABLES_HEAD + "".join(_sections(variables)),
    }
    # Side by side with group_vars, which ansible looks for beside the inventory.
    files = sorted((source / "inventories").glob("*/*.yml"))
    return made | {file.name: file.read_text("utf-8") for file in files if file.stem == file.parent.name}


def write(folder: Path, files: Mapping[str, str]) -> None:
    """Write the files below ``folder``; raises InitError, with nothing written, when one of them is there already."""
    there = [name for name in files if (folder / name).exists() or (folder / name).is_symlink()]
    if there:
        raise InitError(f"{folder} has {', '.join(there)} already. Next: name an empty folder, or move these away.")
    try:
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
    except OSError as error:
        raise InitError(f"{error.filename}: {error.strerror}. Next: name a folder that you can write in.") from None


def _configuration(text: str) -> str:
    """The checkout's ansible.cfg without the place of its collections: an installed one is found by itself."""
    lines = text.splitlines(keepends=True)
    at = next(number for number, line in enumerate(lines) if line.startswith("collections_path"))
    return "".join([*lines[: at - 1], *lines[at + 1 :]])


def _sections(variables: Mapping[str, Mapping[str, Any]]) -> list[str]:
    made: list[str] = []
    section = ""
    for name, entry in variables.items():
        # What an inventory says of each host is nothing for all of them.
        if entry.get("replaced_by") or entry["section"] == "host":
            continue
        if entry["section"] != section:
            section = entry["section"]
            made.append(f"\n# === {section} ===\n")
        made.append(_variable(name, entry))
    return made


def _variable(name: str, entry: Mapping[str, Any]) -> str:
    text = " ".join(str(entry["text"]).split())
    if entry.get("choices"):
        text += f" One of {', '.join(map(str, entry['choices']))}."
    if entry.get("computed"):
        text += f" Default: {' '.join(str(entry['computed']).split())}."
    if entry.get("secret"):
        text += " Secret: keep it in a vault."
    comment = textwrap.fill(text, 116, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
    if entry.get("header"):
        return (
            f"\n{comment}\n# Not here, it is needed before any host is known: -e {name}={entry.get('example', '...')}\n"
        )
    computed = entry.get("computed") or entry.get("default") in (None, "", [], {})
    # An example is written as YAML already.
    value = str(entry.get("example", "")) if computed else _as_yaml(entry["default"])
    return f"\n{comment}\n# {name}:{' ' if value else ''}{value}\n"


def _as_yaml(value: Any) -> str:
    """One line of YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0, or 1 with the reason on stderr."""
    parser = argparse.ArgumentParser(
        prog="glm-fleet",
        description="From an API key to a verified GLM endpoint.",
        epilog="Example: glm-fleet init my-fleet && cd my-fleet && ansible-playbook glm.fleet.plan -i lambda.yml",
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    init = verbs.add_parser("init", help="make a working folder: ansible.cfg, inventories, group_vars")
    init.add_argument("folder", nargs="?", type=Path, default=Path(), metavar="DIR", help="default: this folder")
    folder = parser.parse_args(argv).folder
    try:
        files = contents(collection())
        write(folder, files)
    except InitError as error:
        print(f"glm-fleet init: {error}", file=sys.stderr)
        return 1
    print(f"Made {', '.join(files)} in {folder.resolve()}. Next: read README.md there.")
    return 0
