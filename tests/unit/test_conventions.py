"""The house rules that a linter does not know: roles, templates, docs and files agree with each other."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ROLES = sorted(p for p in (ROOT / "roles").iterdir() if p.is_dir())
TASK_FILES = sorted([*ROOT.glob("roles/*/tasks/**/*.yml"), *ROOT.glob("roles/*/handlers/*.yml")])
PLAY_FILES = sorted((ROOT / "playbooks").rglob("*.yml"))
TEMPLATES = sorted([*ROOT.glob("templates/**/*"), *ROOT.glob("roles/*/templates/**/*")])


def load(path: Path) -> object:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    return [ROOT / name for name in listed.decode().split("\0") if name and not (ROOT / name).is_symlink()]


@pytest.mark.parametrize("role", ROLES, ids=lambda p: p.name)
def test_defaults_and_argument_specs_agree(role: Path) -> None:
    """A literal default is the same in both. A computed one is said in words: documentation cannot show a template."""
    options = load(role / "meta/argument_specs.yml")["argument_specs"]["main"].get("options", {})
    defaults = load(role / "defaults/main.yml") or {}
    assert set(defaults) - set(options) == set(), "defaults that argument_specs does not describe"
    assert {name for name in options if not options[name].get("required")} - set(defaults) == set(), "without a default"
    assert all(option.get("description") for option in options.values())
    computed = {name for name, value in defaults.items() if "{{" in str(value)}
    assert {name for name in computed if "default" in options[name]} == set(), "templates in the documentation"
    silent = {name for name in computed if "by default " not in str(options[name]["description"]).lower()}
    assert silent == set(), "computed defaults that no description has in words"
    literal = {name: value for name, value in defaults.items() if name not in computed}
    assert {name: options[name].get("default", "missing") for name in literal} == literal


@pytest.mark.parametrize("role", ROLES, ids=lambda p: p.name)
def test_each_default_has_prose_above_it(role: Path) -> None:
    lines = (role / "defaults/main.yml").read_text(encoding="utf-8").splitlines()
    bare = [line for above, line in zip(lines, lines[1:]) if re.match(r"[a-z_]+:", line) and not above.startswith("#")]
    assert bare == []


@pytest.mark.parametrize("role", ROLES, ids=lambda p: p.name)
def test_role_variables_carry_the_role_name(role: Path) -> None:
    prefixes = (f"{role.name}_", "glm_") if role.name == "plan" else (f"{role.name}_",)
    assert [name for name in load(role / "defaults/main.yml") or {} if not name.startswith(prefixes)] == []


@pytest.mark.parametrize("role", ROLES, ids=lambda p: p.name)
def test_no_task_registers_over_a_variable_of_the_role(role: Path) -> None:
    """What is registered wins over vars/main.yml from then on, and only in runs that come past that task."""
    files = [path for path in (role / "vars/main.yml", role / "defaults/main.yml") if path.exists()]
    variables = {name for path in files for name in load(path) or {}}
    tasks = "".join(path.read_text("utf-8") for path in (role / "tasks").rglob("*.yml"))
    assert variables & set(re.findall(r"^\s*register: (\w+)", tasks, re.MULTILINE)) == set()


@pytest.mark.parametrize("role", ROLES, ids=lambda p: p.name)
def test_role_has_a_readme_and_main_is_includes_only(role: Path) -> None:
    assert (role / "README.md").is_file()
    modules = {key for task in load(role / "tasks/main.yml") for key in task}
    assert modules <= {
        "name", "ansible.builtin.include_tasks", "ansible.builtin.import_tasks", "when", "tags", "vars",
    }  # fmt: skip


def flat_tasks(tasks: list[dict]) -> list[dict]:
    found = []
    for task in tasks or []:
        found.append(task)
        for key in ("block", "rescue", "always", "tasks", "pre_tasks", "post_tasks", "handlers"):
            found.extend(flat_tasks(task.get(key) or []))
    return found


def test_tasks_that_are_always_included_are_always_run() -> None:
    """Tags of an include are not those of its tasks: with --tags nvidia they would be skipped silently."""
    plays = [play for path in PLAY_FILES for play in load(path) if "hosts" in play]
    includes = [task for play in plays for part in ("pre_tasks", "tasks") for task in flat_tasks(play.get(part, []))]
    always = [
        ROOT / "playbooks" / task["ansible.builtin.include_tasks"]
        for task in includes
        if "always" in task.get("tags", []) and "ansible.builtin.include_tasks" in task
    ]
    assert always
    assert [task["name"] for path in always for task in load(path) if task.get("tags") != ["always"]] == []


def test_tasks_run_with_every_tag_of_their_include() -> None:
    """The same in roles: what an include does not apply, too, leaves its tasks out silently."""
    includes = [task for path in TASK_FILES for task in flat_tasks(load(path)) if "tags" in task]
    assert includes
    passed_on = {
        task["name"]: task["ansible.builtin.include_tasks"].get("apply", {}).get("tags", [])
        for task in includes
        if "ansible.builtin.include_tasks" in task
    }
    assert {task["name"] for task in includes if passed_on.get(task["name"], task["tags"]) != task["tags"]} == set()


@pytest.mark.parametrize("path", [*TASK_FILES, *PLAY_FILES], ids=lambda p: str(p.relative_to(ROOT)))
def test_tasks_keep_the_rules(path: Path) -> None:
    for task in flat_tasks(load(path)):
        assert "ignore_errors" not in task, task.get("name")
        assert "ansible.builtin.shell" not in task, task.get("name")
        assert "is changed" not in str(task.get("when", "")), f"{task.get('name')}: use a handler"
        register = task.get("register")
        assert register is None or register.startswith("__"), f"{task['name']}: register {register}"


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda p: str(p.relative_to(ROOT)))
def test_templates_end_in_j2_and_say_who_manages_them(path: Path) -> None:
    assert path.suffix == ".j2"
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert "ansible_managed" in first and "comment" in first


def test_injected_facts_are_not_used() -> None:
    # ansible_facts['x'] only: ansible-core 2.24 stops injecting ansible_x.
    injected = re.compile(r"\bansible_(distribution|hostname|os_family|architecture|kernel|default_ipv4|memtotal_mb)\b")
    files = [*TASK_FILES, *PLAY_FILES, *TEMPLATES]
    assert [str(p.relative_to(ROOT)) for p in files if injected.search(p.read_text(encoding="utf-8"))] == []


def test_no_committed_file_names_a_path_of_the_machine_it_was_made_on() -> None:
    # Root's home is legitimate inside a container (/root/.cache); a checkout's own path is not.
    own = str(ROOT) + "/"
    offenders = []
    for path in tracked_files():
        text = path.read_text(encoding="utf-8", errors="ignore")
        if own in text:
            offenders.append(str(path.relative_to(ROOT)))
    assert offenders == []


def test_every_failure_of_a_host_names_tests_that_exist() -> None:
    text = (ROOT / "docs/failures.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (F\d+) \|.*\| ([^|]*) \|$", text, re.MULTILINE)
    assert [name for name, _tests in rows] == [f"F{number}" for number in range(1, 52)]
    for name, tests in rows:
        named = re.findall(r"`([^`:]+)::(\w+)`", tests)
        assert named, name
        for file, function in named:
            source = (ROOT / "tests" / file).read_text(encoding="utf-8")
            assert f"def {function}(" in source, f"{name}: {file}::{function}"


def test_sources_of_packages_have_their_own_keys() -> None:
    """A key for all sources outlives its repository, and breaks apt everywhere when it is rotated."""
    sources = 0
    for path in TASK_FILES:
        for task in flat_tasks(load(path)):
            assert not {"ansible.builtin.apt_key", "ansible.builtin.apt_repository"} & set(task), path
            module = task.get("ansible.builtin.deb822_repository")
            if module:
                sources += 1
                assert module.get("signed_by"), path
    assert sources


def test_reboots_are_permitted_and_wait_for_every_board() -> None:
    """A reboot needs its permission and a check of the modules of all kernels. A task that reboots says how every
    GPU of the PCI bus is counted, of either vendor where it may be either."""
    reboots, callers = 0, 0
    for path in TASK_FILES:
        before: list[str] = []
        for task in flat_tasks(load(path)):
            module = task.get("ansible.builtin.reboot")
            if module:
                reboots += 1
                up = " ".join(module["test_command"].split())
                counted = [
                    re.search(rf"{boards}.*\| wc -l\) -[eg][qe] \{{\{{ __\w+_{vendor}_boards \}}\}}", up)
                    for vendor, boards in (("nvidia", "nvidia-smi -L"), ("amd", "/sys/bus/pci/drivers/amdgpu/"))
                ]
                assert up == "{{ driver_up }}" or all(counted), path
                assert any(re.search(r"assert.*_unbuilt \| length == 0", text) for text in before), path
                assert "reboot_timeout" in str(module["reboot_timeout"])
                assert any("_reboot_allowed" in text for text in before), f"{path}: without permission"
            role = task.get("ansible.builtin.include_role") or {}
            if (role.get("name"), role.get("tasks_from")) == ("glm.fleet.driver", "load"):
                callers += 1
                given = task["vars"]
                assert "-eq {{ ansible_facts['gpu_facts']['pci']['gpus'] | length }}" in given["driver_up"], path
                assert "_reboot_allowed" in given["driver_reboot_allowed"], path
            before.append(str(task))
    assert reboots == 2 and callers == 2


def test_one_place_puts_the_words_of_an_error_together() -> None:
    """``expected …, found …. Next: …`` is worded by module_utils/finding.py, whoever says it."""
    wording = ROOT / "plugins/module_utils/finding.py"
    sources = [path for path in (ROOT / "plugins").rglob("*.py") if path != wording]
    assert len(sources) > 100 and "Next: " in wording.read_text(encoding="utf-8")
    assert [str(path) for path in sources if "Next: " in path.read_text(encoding="utf-8")] == []
