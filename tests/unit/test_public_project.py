"""What stands around the code agrees with it: workflows, hooks, execution environment, packaging."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]


def load(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))


def test_workflows_run_make_targets_that_exist() -> None:
    jobs = load(".github/workflows/ci.yml")["jobs"]
    used = set()
    for job in jobs.values():
        stages = job.get("strategy", {}).get("matrix", {}).get("stage", [])
        for step in job["steps"]:
            command = step.get("run", "")
            targets = [command.replace("${{ matrix.stage }}", stage) for stage in stages or [""]]
            used |= {word for target in targets for word in target.removeprefix("make").split()}
    assert {"lint", "unit", "playbooks", "engines", "integration", "molecule", "docs"} <= used
    assert used - make_targets() == set()


def test_contributors_are_named_make_targets_that_exist() -> None:
    named = set(re.findall(r"`make ([a-z-]+)", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")))
    assert named
    assert named - make_targets() == set()


def test_hooks_run_what_the_checkout_has() -> None:
    hooks = [hook for repo in load(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    scripts = [hook["entry"].split()[0] for hook in hooks if hook["entry"].startswith("scripts/")]
    tools = [Path(hook["entry"].split()[0]).name for hook in hooks if hook["entry"].startswith(".venv/")]
    pinned = (ROOT / "requirements-dev.txt").read_text(encoding="utf-8")
    assert scripts and all((ROOT / script).is_file() for script in scripts)
    assert tools and all(f"\n{tool}==" in pinned for tool in tools)


def test_execution_environments_get_the_ranges_of_the_wheel() -> None:
    wheel = set(re.findall(r'"([A-Za-z0-9]+>=[0-9.]+)"', (ROOT / "setup.py").read_text(encoding="utf-8")))
    lines = (ROOT / "meta/ee-requirements.txt").read_text(encoding="utf-8").splitlines()
    environment = {line for line in lines if line and not line.startswith("#")}
    # Packages that only build the wheel are in pyproject.toml; ansible-core has a line of its own in the definition.
    assert environment == {entry for entry in wheel if not entry.startswith("ansible")}
    assert load("meta/execution-environment.yml")["dependencies"]["python"] == "meta/ee-requirements.txt"


def test_the_definition_of_an_environment_installs_this_version() -> None:
    sources = load("examples/execution-environment.yml")["dependencies"]["galaxy"]["collections"]
    assert [entry["name"] for entry in sources] == [f"dist/glm-fleet-{load('galaxy.yml')['version']}.tar.gz"]


def test_galaxy_has_what_its_importer_requires() -> None:
    galaxy = load("galaxy.yml")
    assert all(galaxy.get(key) for key in ("repository", "documentation", "homepage", "issues", "tags", "description"))


def test_the_links_to_inventories_stay_out_of_the_collection() -> None:
    """galaxy.yml can only list them."""
    links = {
        path.name for path in ROOT.iterdir() if path.is_symlink() and path.resolve().parent == ROOT / "inventories"
    }
    assert links == {path.name for path in (ROOT / "inventories").iterdir()}
    assert links <= set(load("galaxy.yml")["build_ignore"])


def test_the_groups_of_actions_are_complete() -> None:
    """meta/runtime.yml can only list them."""
    groups = load("meta/runtime.yml")["action_groups"]
    modules = sorted(path.stem for path in (ROOT / "plugins/modules").glob("*.py") if path.stem != "__init__")
    assert groups.pop("all") == modules
    assert groups
    for cloud, members in groups.items():
        assert members == [name for name in modules if name.startswith(f"{cloud}_")]


def test_the_readme_names_every_model_of_the_catalogue() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    [sentence] = re.findall(r"any model of the catalogue: GLM-([^\n]+(?:\n[^\n]+)?), in the", readme)
    named = {f"GLM-{word}" for word in re.split(r",\s*|\s+and\s+", sentence)}
    assert named == set(load("catalog/models.yml")["models"])
