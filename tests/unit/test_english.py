"""The words that we do not use: everything a user reads is in the plain words of a site reliability engineer."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
Texts = Iterator[tuple[str, str]]

# Not this, but that. Whole words, in any case; names with underscores (fleet_give_back) are one word and not meant.
WORDS = {
    r"shall": "must, is to, required; or leave it out",
    r"dear(er|est)": "more expensive, most expensive",
    r"no good|unsound|bad (host|node|instance)s?": "unhealthy, failed",
    r"(is|are|be|was|were|a|every|each) sound|sound (from|host|node|instance|GPU)s?": "healthy",
    r"boards?": "GPU, GPUs; baseboard where eight of them are meant",
    r"(give|gives|gave|given|giving) (it |them |him )?back": "terminate, return",
    r"in vain": "unused, that never served",
    r"tell|tells|told|telling": "report, say, print, show; not reported",
    r"mend|mends|mended|mending": "fix, repair",
    r"wish|wishes|wished|wanted number|number wanted": "desired, desired number",
    r"word of confirmation|without a word|in silence": "confirmation; without confirmation; silently",
    r"hence|thereof|whosoever|hinder|hinders|hindered|nobody would|papered over": "plain words",
    r"sees? to it|takes? part|(play|plays|played) no part": "plain words",
    r"look whose": "what is read",
}  # fmt: skip
PATTERN = re.compile(rf"(?<![\w-])(?:{'|'.join(WORDS)})(?![\w-])", re.IGNORECASE)

# A task's name is a line of a log: what the task does, of which thing.
IDLE = re.compile(r"^(Ask|Say|Tell|Announce)\b|^(Report|Announce|Note|Do|Check|Fix) it$")

# Words of others, and what must hold such words to find them.
EXCEPTIONS: dict[str, str] = {}


def hits(texts: Texts) -> list[str]:
    """``where: word in its surroundings`` for each word that we do not use."""
    found = []
    for where, text in texts:
        flat = " ".join(text.split())
        for match in PATTERN.finditer(flat):
            found.append(f"{where}: {flat[max(0, match.start() - 50) : match.end() + 30]}")
    return found


def files(*patterns: str) -> list[Path]:
    found = sorted({path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()})
    return [path for path in found if str(path.relative_to(ROOT)) not in EXCEPTIONS]


def whole(*patterns: str) -> Callable[[], Texts]:
    """Files whose every word is prose or data of ours, comments included."""

    def texts() -> Texts:
        for path in files(*patterns):
            yield str(path.relative_to(ROOT)), path.read_text("utf-8")

    return texts


def pages(*patterns: str) -> Callable[[], Texts]:
    """Markdown without inline code, which has names of tests and quoted messages."""

    def texts() -> Texts:
        for path in files(*patterns):
            yield str(path.relative_to(ROOT)), re.sub(r"`[^`\n]+`", "`…`", path.read_text("utf-8"))

    return texts


def strings(*patterns: str) -> Callable[[], Texts]:
    """What Python programs say: docstrings and string constants with a blank in them, parts of f-strings too."""

    def texts() -> Texts:
        for path in files(*patterns):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.search(r"\s", node.value):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", node.value

    return texts


def flat(tasks: object) -> Iterator[dict[str, Any]]:
    """Plays and tasks, those in blocks too."""
    for task in tasks if isinstance(tasks, list) else []:
        yield task
        for part in ("block", "rescue", "always", "tasks", "pre_tasks", "post_tasks", "handlers"):
            yield from flat(task.get(part))


def names(*patterns: str) -> Iterator[tuple[str, str]]:
    """The names of plays and tasks, each with its file."""
    for path in files(*patterns):
        for task in flat(yaml.safe_load(path.read_text("utf-8"))):
            if "name" in task:
                yield str(path.relative_to(ROOT)), task["name"]


def talk(*patterns: str) -> Callable[[], Texts]:
    """What task files of tests say: names and comments. The rest quotes messages, and has names of programs."""

    def texts() -> Texts:
        yield from names(*patterns)
        for path in files(*patterns):
            for line in path.read_text("utf-8").splitlines():
                if re.match(r"\s*#", line):
                    yield str(path.relative_to(ROOT)), line

    return texts


def docstrings(*patterns: str) -> Callable[[], Texts]:
    """What a reader of Python learns of each file, class and function."""

    def texts() -> Texts:
        for path in files(*patterns):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                    name = getattr(node, "name", "")
                    yield f"{path.relative_to(ROOT)}:{name}", ast.get_docstring(node) or ""

    return texts


AREAS: dict[str, Callable[[], Texts]] = {
    "pages": pages("*.md", "docs/*.md", "docs/docsite/*.md", "roles/*/README.md", "examples/**/*.md", "tests/*.md"),
    "changelog": whole("changelogs/changelog.yaml", "changelogs/fragments/*.yml"),
    "catalogue": whole("catalog/*.yml", "catalog/engines/*/*.yml"),
    "examples": whole("examples/**/*.yml", "inventories/**/*.yml", "ansible.cfg"),
    "roles": whole("roles/*/*/*.yml", "roles/*/*/*/*.yml"),
    "playbooks": whole("playbooks/**/*.yml", "*.yml"),
    "templates": whole("templates/*.j2", "roles/*/templates/*.j2"),
    "plugins": strings("plugins/**/*.py", "roles/*/files/*.py", "glm_fleet/*.py"),
    "filters": whole("plugins/filter/*.yml"),
    "schemas": whole("docs/schemas/*.json", "docs/schemas/catalog/*.json"),
    "simulator": strings("simulator/**/*.py"),
    "tools": strings("tools/*.py", "scripts/*.py"),
    "scripts": whole("Makefile", "scripts/*.sh", ".github/**/*.yml", ".pre-commit-config.yaml"),
    "molecule": talk("molecule/*/*.yml"),
    "tests": docstrings("tests/**/*.py"),
}
TASKS = {
    "roles": ("roles/*/tasks/**/*.yml", "roles/*/handlers/*.yml"),
    "playbooks": ("playbooks/**/*.yml",),
    "molecule": ("molecule/*/*.yml",),
}
# Areas that still have such words. Nothing is to stay here.
PENDING: set[str] = set()


@pytest.mark.parametrize("area", sorted(set(AREAS) - PENDING))
def test_words_we_do_not_use(area: str) -> None:
    assert hits(AREAS[area]()) == []


@pytest.mark.parametrize("area", sorted(set(TASKS) - PENDING))
def test_names_of_tasks_say_what_is_done(area: str) -> None:
    found = [f"{where}: {name}" for where, name in names(*TASKS[area]) if IDLE.search(name)]
    assert found == []


@pytest.mark.parametrize("area", AREAS)
def test_every_area_has_texts(area: str) -> None:
    assert any(len(text) > 20 for _where, text in AREAS[area]())
