"""The table of public variables is the one that modules, roles, playbooks and pages follow."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.glm.fleet.plugins.modules import serving_plan as documented
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.hosts import HOST_PREFIX, Host
from ansible_collections.glm.fleet.plugins.plugin_utils.intent import table
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import request
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Intent
from tools import variables_page

ROOT = Path(__file__).parents[3]
TABLE = table.load()
# Groups and facts that the collection makes.
OTHERS = {
    "glm_fleet",
    "glm_gateway",
    "glm_prepared",
    "glm_out",
    "glm_launched",
    "glm_turned",
    "glm_confirmed",
    "glm_plans",
    "glm_lease",
}
# Words of models, anchors and modules of Python, and the prefix of a section, that begin alike.
WORDS = {"glm_moe_dsa", "glm_ocr_mtp", "glm_md", "glm_host_", "glm_cdi", "glm_restarts"}
# Metrics of the front door.
WORDS |= {f"glm_door_{what}_total" for what in ("requests", "prompt_tokens", "completion_tokens", "uncounted_requests")}
WORDS |= {f"glm_door_estimated_{what}_tokens_total" for what in ("prompt", "completion")}
WORDS |= {f"glm_{front}_certificate_left_seconds" for front in ("door", "gateway")}


def test_what_is_made_from_the_table_is_current(capsys: pytest.CaptureFixture[str]) -> None:
    assert variables_page.main(["--check"]) == 0, capsys.readouterr().err


def test_each_variable_is_described_and_its_default_is_of_its_type() -> None:
    for variable in TABLE.values():
        assert variable.name.startswith("glm_") and variable.text.endswith("."), variable.name
        assert (variable.elements is not None) == (variable.type == "list"), variable.name
        assert bool(variable.computed) == ("{{" in str(variable.default)), variable.name
        assert not variable.choices or variable.default in variable.choices, variable.name
        assert bool(variable.replaced_by) == bool(variable.removed_in), variable.name
        assert variable.replaced_by is None or variable.replaced_by in TABLE, variable.name


def test_documentation_of_the_plan_says_what_the_table_says() -> None:
    options = yaml.safe_load(documented.DOCUMENTATION)["options"]
    keys = ("type", "default", "elements", "required")
    shown = {name: {key: option[key] for key in keys if key in option} for name, option in options.items()}
    assert shown == request.ARGUMENTS


def test_the_plan_has_a_field_for_each_of_its_variables() -> None:
    fields = {field.name for field in dataclasses.fields(Intent)}
    # The address comes of two; the lock file and the team's catalogue are read before.
    elsewhere = {"bind": "listen_address", "private_address": "listen_address", "port": "listen_port"}
    named = {elsewhere.get(option, option) for option in table.options(TABLE)} - {"lock_file", "catalog"}
    assert named - fields == set()


def test_host_variables_are_those_that_every_inventory_sets() -> None:
    listed = [name for name, variable in TABLE.items() if variable.section == "host"]
    assert listed == [f"{HOST_PREFIX}{key}" for key in Host.__annotations__]


def places() -> list[Path]:
    folders = ("roles", "playbooks", "plugins", "inventories", "templates", "tools", "simulator", "docs")
    found = [
        path
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".yml", ".md", ".j2")
    ]
    return [*found, ROOT / "README.md", *ROOT.glob("*.yml")]


def test_every_variable_that_anything_names_is_in_the_table_and_every_one_of_the_table_is_read() -> None:
    named: dict[str, set[str]] = {}
    for path in places():
        for name in re.findall(r"(?<![\w-])glm_\w+", path.read_text("utf-8")):
            named.setdefault(name, set()).add(str(path.relative_to(ROOT)))
    strange = {name: sorted(where) for name, where in named.items() if name not in {*TABLE, *OTHERS, *WORDS}}
    assert strange == {}
    made = {"docs/variables.md", "roles/plan/defaults/main.yml", "roles/plan/meta/argument_specs.yml"}
    unread = [name for name, item in TABLE.items() if item.section != "host" and not named.get(name, set()) - made]
    assert unread == []


def header(play: dict[str, Any]) -> str:
    return str({key: play.get(key) for key in ("hosts", "serial", "max_fail_percentage")})


def test_what_play_headers_read_is_marked_so() -> None:
    plays = [play for path in (ROOT / "playbooks").glob("*.yml") for play in yaml.safe_load(path.read_text("utf-8"))]
    read = {name for play in plays for name in re.findall(r"glm\.fleet\.setting', '(glm_\w+)'", header(play))}
    assert read == {name for name, variable in TABLE.items() if variable.header}


@pytest.mark.parametrize(
    "verb",
    ["accept", "benchmark", "deploy", "keys", "launch", "plan", "roll", "rollback", "scale", "terminate", "verify"],
)
def test_every_verb_checks_the_variables_first(verb: str) -> None:
    first = yaml.safe_load((ROOT / "playbooks" / f"{verb}.yml").read_text("utf-8"))[0]
    assert first["ansible.builtin.import_playbook"] == "preflight.yml"
