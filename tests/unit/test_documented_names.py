"""Names that documentation mentions exist: roles, playbooks, plugins, variables, make targets and files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "roles/*/README.md", "examples/**/*.md")
    for path in ROOT.glob(pattern)
    # These speak of what was, or of others' commands.
    if path.name not in ("CHANGELOG.md", "sources.md")
)
KINDS = ("action", "callback", "filter", "inventory", "lookup", "modules")
CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
# Not ours although they look so: a package's file names, and kinds of names with a place to fill in.
PREFIXES = {"glm_fleet", "glm_host_", "glm_launch_", "glm_terminate_"}


def known_plugins() -> set[str]:
    return {
        path.stem for kind in KINDS for path in (ROOT / "plugins" / kind).iterdir() if not path.stem.startswith("_")
    }


def known_roles() -> set[str]:
    return {path.name for path in (ROOT / "roles").iterdir()}


def known_names() -> set[str]:
    """What may stand behind ``glm.fleet.``."""
    groups = yaml.safe_load((ROOT / "meta/runtime.yml").read_text("utf-8"))["action_groups"]
    return known_plugins() | known_roles() | {path.stem for path in (ROOT / "playbooks").glob("*.yml")} | set(groups)


def known_make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


def used_variables() -> str:
    """The text of everything that may read a variable."""
    rooms = ("roles", "playbooks", "plugins", "templates", "catalog", "simulator", "inventories", "tools")
    files = [path for room in rooms for path in (ROOT / room).rglob("*") if path.suffix in (".yml", ".py", ".j2")]
    return "\n".join(path.read_text("utf-8") for path in files)


def code_of(page: Path) -> str:
    return "\n".join(CODE.findall(page.read_text("utf-8")))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_names_of_a_page_exist(page: Path) -> None:
    code = code_of(page)
    names = set(re.findall(r"\bglm\.fleet\.([a-z][a-z0-9_]*)\b(?!\.[a-z])", code))
    unknown = {f"glm.fleet.{name}" for name in names - known_names()}
    unknown |= {
        f"make {name}" for name in re.findall(r"\bmake ([a-z][a-z-]+)", code) if name not in known_make_targets()
    }
    unknown |= {
        name
        for name in re.findall(
            r"(?<![\w./-])((?:roles|playbooks|docs|catalog|simulator|scripts|tools|templates)/[\w./-]*\w)", code
        )
        # docs/failures.md names tests from their folder.
        if not (ROOT / name).exists() and not (ROOT / "tests" / name).exists()
    }
    playbooks = re.findall(r"ansible-playbook ([a-z0-9_]+)\.yml", code)
    unknown |= {f"{name}.yml" for name in playbooks if not (ROOT / f"{name}.yml").exists()}
    assert not unknown


def test_variables_that_pages_name_are_read_somewhere() -> None:
    read = used_variables()
    named = {name: page.name for page in PAGES for name in re.findall(r"\bglm_[a-z0-9_]+", code_of(page))}
    unknown = {
        name: page for name, page in named.items() if name not in PREFIXES and not re.search(rf"\b{name}\b", read)
    }
    assert not unknown


def test_the_page_of_rooms_names_every_role() -> None:
    text = (ROOT / "docs/architecture.md").read_text("utf-8")
    assert {role for role in known_roles() if f"`{role}`" not in text} == set()
