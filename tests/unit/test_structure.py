"""Who may import whom, how long a file may be, and that every file says what it is for."""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PLUGINS = "ansible_collections.glm.fleet.plugins"
FOLDERS = ("plugins", "simulator", "tools", "scripts", "roles")
PROGRAMS = [ROOT / "conftest.py", ROOT / "setup.py"]
PRODUCT = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")) + PROGRAMS
MOST_LINES = 400
DOCUMENTATION = {"DOCUMENTATION", "EXAMPLES", "RETURN"}

# What each topic of plugin_utils may use of the others. A topic is a folder; a file beside the folders is one, too.
TOPICS: dict[str, set[str]] = {
    "catalog": set(),
    "intent": {"catalog"},
    "plan": {"catalog", "columns", "intent", "store"},
    "columns": set(),
    "report": set(),
    "closed_output": set(),
    "task_result": set(),
    "private": set(),
    "store": set(),
    "tls": {"private"},
    "host": {"catalog", "plan", "report"},
    "cloud": {"catalog", "columns", "plan"},
    "keys": {"columns", "private"},
    "serving": {"catalog", "columns", "keys", "plan", "private", "report"},
    "benchmark": {"catalog", "plan", "report", "serving"},
    "actions": {"plan", "store"},
}

# The same of module_utils.
BASICS = {"address", "files", "finding", "names", "outside", "unreachable", "versions", "whoami"}
SHIPPED: dict[str, set[str]] = {
    **{name: set() for name in BASICS},
    # What cannot be read is worded as everything that was expected is.
    "files": {"finding"},
    "arguments": set(),
    "door": BASICS | {"host"},
    "host": BASICS,
    "weights": BASICS,
    "cloud": BASICS,
    "serving": BASICS | {"arguments", "door", "host"},
    "benchmark": BASICS | {"host", "serving"},
}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def imported(path: Path) -> Iterator[str]:
    """Dotted names of what a file imports, wherever in it; ``from a import b`` is ``a.b``."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(name: str) -> str:
    """The first level of an imported name, for the collection's own the room below ``plugins``."""
    return name.removeprefix(f"{PLUGINS}.").split(".")[0] if name.startswith(PLUGINS) else name.split(".")[0]


def files_of(room: str) -> list[Path]:
    found = [path for path in PRODUCT if path.is_relative_to(ROOT / room)]
    assert found, room
    return found


def strangers(room: str, allowed: set[str]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}: {name}"
        for path in files_of(room)
        for name in imported(path)
        if room_of(name) not in allowed
    ]


STANDARD = {*sys.stdlib_module_names}


def test_what_ships_to_hosts_needs_nothing_but_python_there() -> None:
    """AnsiballZ brings ansible.module_utils along. Clouds are asked where requests can be asked for."""
    found = strangers("plugins/module_utils", STANDARD | {"module_utils"})
    brought = [line for line in found if ": ansible.module_utils." in line]
    asked = [line for line in found if line.startswith("plugins/module_utils/cloud/") and ": requests" in line]
    # These run in the engine's image, which has the hub's client and PyTorch.
    in_the_image = [
        "plugins/module_utils/weights/fetch.py: huggingface_hub",
        "plugins/module_utils/host/speed_program.py: torch",
        "plugins/module_utils/host/speed_program.py: torch.distributed",
    ]
    assert [line for line in found if line not in (*brought, *asked, *in_the_image)] == []


def test_modules_import_what_ships_with_them() -> None:
    assert strangers("plugins/modules", STANDARD | {"ansible", "module_utils"}) == []


def test_the_controllers_rooms_do_not_look_up() -> None:
    libraries = {"ansible", "yaml", "paramiko", "jinja2", "markupsafe", "matplotlib", "requests", "cryptography"}
    found = strangers("plugins/plugin_utils", STANDARD | libraries | {"plugin_utils", "module_utils"})
    # Only controllers with an object store have these.
    stores = [line for line in found if line.startswith("plugins/plugin_utils/store/") and ": boto" in line]
    assert [line for line in found if line not in stores] == []


@pytest.mark.parametrize("room", ["action", "inventory", "callback", "lookup", "filter"])
def test_plugins_import_no_plugins(room: str) -> None:
    libraries = {"ansible", "yaml", "paramiko"}
    assert strangers(f"plugins/{room}", STANDARD | libraries | {"plugin_utils", "module_utils"}) == []


def test_the_simulator_knows_nothing_of_the_product() -> None:
    assert [line for line in strangers("simulator", set()) if "ansible_collections" in line or ": tools" in line] == []


def test_the_product_knows_no_simulator_and_no_tests() -> None:
    users = [*files_of("plugins"), *files_of("roles"), *files_of("tools"), *files_of("simulator")]
    found = [(path.relative_to(ROOT).parts[0], room_of(name)) for path in users for name in imported(path)]
    assert {pair for pair in found if pair[1] in ("simulator", "tests")} <= {
        ("tools", "simulator"),
        ("simulator", "simulator"),
    }


@pytest.mark.parametrize(("room", "topics"), [("plugin_utils", TOPICS), ("module_utils", SHIPPED)])
def test_topics_use_only_those_below_them(room: str, topics: dict[str, set[str]]) -> None:
    base = ROOT / "plugins" / room
    prefix = f"{PLUGINS}.{room}."
    found = {}
    for path in files_of(f"plugins/{room}"):
        topic = path.relative_to(base).parts[0].removesuffix(".py")
        used = {name.removeprefix(prefix).split(".")[0] for name in imported(path) if name.startswith(prefix)}
        beyond = used - {topic} - topics.get(topic, set())
        if beyond or topic not in topics:
            found[str(path.relative_to(base))] = beyond
    assert found == {}


@pytest.mark.parametrize("topics", [TOPICS, SHIPPED], ids=["plugin_utils", "module_utils"])
def test_the_tables_of_topics_have_no_circle(topics: dict[str, set[str]]) -> None:
    left = dict(topics)
    while left:
        free = [topic for topic, uses in left.items() if not uses & set(left)]
        assert free, left
        for topic in free:
            del left[topic]


def lines_of_code(path: Path) -> int:
    """Lines with code on them: without comments, docstrings, and the documentation of plugins."""
    documentation: set[int] = set()
    for node in ast.walk(tree(path)):
        for part in getattr(node, "body", []) if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) else []:
            text = isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant)
            names = {name.id for name in getattr(part, "targets", []) if isinstance(name, ast.Name)}
            if text or names & DOCUMENTATION:
                documentation |= set(range(part.lineno, (part.end_lineno or part.lineno) + 1))
    silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(path.read_text("utf-8")).readline):
        if token.type not in silent:
            code |= set(range(token.start[0], token.end[0] + 1))
    return len(code - documentation)


def test_files_stay_short() -> None:
    sizes = {str(path.relative_to(ROOT)): lines_of_code(path) for path in PRODUCT}
    assert {name: size for name, size in sizes.items() if size > MOST_LINES} == {}


def test_files_are_written_whole() -> None:
    """A reader, or the run after a crash, must not find half a file; module_utils/files.py writes whole ones."""
    found = {
        path.stem
        for path in files_of("plugins")
        for call in ast.walk(tree(path))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "write_text"
        if getattr(call.func.value, "id", "") != "files"
    }
    # These write into a folder of their own, which nobody else reads and which goes when they end.
    assert found == {"engine_image_build", "docker_daemon"}


def test_every_file_says_what_it_is_for() -> None:
    """In the place where Python looks for it: above every import, ``from __future__`` included."""
    silent = [str(path.relative_to(ROOT)) for path in PRODUCT if not ast.get_docstring(tree(path))]
    # A module's words are its DOCUMENTATION.
    assert [name for name in silent if not name.startswith(("plugins/modules/", "plugins/doc_fragments/"))] == []


@pytest.mark.parametrize("path", sorted((ROOT / "plugins/modules").glob("*.py")), ids=lambda path: path.stem)
def test_every_module_says_how_it_behaves_in_the_common_words(path: Path) -> None:
    text = next(
        ast.literal_eval(node.value)
        for node in tree(path).body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "DOCUMENTATION"
    )
    said = yaml.safe_load(text)
    assert "glm.fleet.attributes" in said["extends_documentation_fragment"]
    assert {"check_mode", "diff_mode", "idempotent"} <= set(said["attributes"])
    has_action = (ROOT / "plugins/action" / path.name).exists()
    assert ("glm.fleet.attributes.action" in said["extends_documentation_fragment"]) == has_action


@pytest.mark.parametrize("tool", sorted(path.name for path in (ROOT / "tools").glob("*_page.py")))
def test_the_makers_of_pages_start_from_a_plain_clone(tool: str) -> None:
    """They are programs: what they import must be found without any environment. The pages are up to date, too."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / tool), "--check"], env={}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
