"""A mistyped variable stops every playbook before anything is planned, launched or terminated."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.playbooks.fleet import ROOT, Fleet

B200 = {"glm_accelerator": "B200", "glm_accelerator_count": 8, "ansible_connection": "local"}


def run(folder: Path, playbook: str, *arguments: str, **settings: str) -> tuple[int, str]:
    """Exit status and output (white space folded) with the inventory in ``folder``."""
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "COLUMNS": "400"}
    done = subprocess.run(
        ["ansible-playbook", playbook, "-i", str(folder / "hosts.yml"), *arguments], cwd=ROOT,
        env={**environment, "HOME": str(folder), **settings}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    return done.returncode, " ".join((done.stdout + done.stderr).split())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    hosts = {"h0": B200, "h1": B200}
    inventory = {"all": {"children": {"glm_fleet": {"hosts": hosts}, "lambda": {"hosts": {"h0": {}}}}}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(inventory), "utf-8")
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "host_vars").mkdir()
    return tmp_path


def write(folder: Path, file: str, **variables: Any) -> None:
    (folder / file).write_text(json.dumps(variables), "utf-8")


def test_all_mistyped_names_of_a_plan_are_refused_together_wherever_they_are_set(folder: Path) -> None:
    write(folder, "group_vars/all.yml", glm_hub_tokn="s3cret", glm_api_key="{{ nobody_knows_this }}")
    write(folder, "group_vars/glm_fleet.yml", glm_serial=2)
    write(folder, "host_vars/h1.yml", glm_port="eight", glm_bnd="public")
    code, output = run(folder, "plan.yml", "-e", "glm_precison=nvfp4", "-e", "glm_modle=GLM-4.7")
    assert code != 0 and "glm.fleet.serving_plan" not in output and "Make | Plan" not in output, output
    for words in (
        "controller, preflight: expected only variables of the collection",
        "glm_precison (an extra variable; did you mean glm_precision?)",
        "glm_modle (an extra variable; did you mean glm_model?)",
        "glm_hub_tokn (group all; did you mean glm_hub_token?)", "glm_bnd (host h1; did you mean glm_bind?)",
        "expected a value of type int for glm_port, found 'eight' (host h1)",
        "expected glm_serial as an extra variable", "found it in group glm_fleet",
    ):  # fmt: skip
        assert words in output, output
    assert "s3cret" not in output


def test_the_variables_of_groups_of_a_fleet_to_be_and_of_localhost_are_judged_by_who_sees_them(folder: Path) -> None:
    (folder / "hosts.yml").write_text("all: {children: {production: {children: {glm_fleet: {}}}}}", "utf-8")
    write(folder, "group_vars/production.yml", glm_max_hourly_uds=60)
    write(folder, "group_vars/glm_fleet.yml", glm_allowed_countries=["US"])
    write(folder, "host_vars/localhost.yml", glm_hosts="web", glm_max_hourly_usd=60)
    code, output = run(folder, "launch.yml")
    assert code != 0, output
    for words in (
        "glm_max_hourly_uds (group production; did you mean glm_max_hourly_usd?)",
        "expected glm_allowed_countries as an extra variable or of the group all", "found it in group glm_fleet",
        "expected glm_hosts as an extra variable, since", "found it in host localhost",
    ):  # fmt: skip
        assert words in output, output
    assert "expected glm_max_hourly_usd" not in output, output


def test_variables_that_exist_and_facts_pass_and_no_template_is_evaluated(folder: Path) -> None:
    write(folder, "group_vars/all.yml", glm_api_key="{{ nobody_knows_this }}", glm_launch_count="{{ nor_this }}")
    write(folder, "group_vars/elsewhere.yml", glm_of_another_collection=1)
    code, output = run(folder, "playbooks/preflight.yml")
    assert code == 0, output
    write(folder, "group_vars/all.yml")
    code, output = run(folder, "plan.yml", "-e", "glm_precision=nvfp4", ANSIBLE_INJECT_FACT_VARS="true")
    assert code == 0 and "nvfp4" in output, output


ALONE = """
- hosts: glm_fleet
  gather_facts: false
  roles:
    - role: glm.fleet.plan
"""


def test_the_role_plan_used_alone_refuses_them_too(folder: Path) -> None:
    (folder / "alone.yml").write_text(ALONE, "utf-8")
    write(folder, "host_vars/h1.yml", glm_modle="GLM-4.7")
    code, output = run(folder, str(folder / "alone.yml"))
    assert code != 0 and "h1, plan: expected only variables of the collection" in output, output
    assert "glm_modle (did you mean glm_model?)" in output and "h0, plan" not in output
    # The finding says the same as the message, each part in its place.
    assert "next: correct or remove them (docs/variables.md lists all)" in output, output


SETTINGS = """
- hosts: localhost
  gather_facts: false
  vars:
    glm_fleet_name: blue
    glm_engine: ""
  tasks:
    - ansible.builtin.debug:
        msg: >-
          {{ lookup('glm.fleet.setting', 'glm_hosts') }} {{ lookup('glm.fleet.setting', 'glm_state_dir') }}
          {{ lookup('glm.fleet.setting', 'glm_api_key_file', glm_state_dir='/srv/x') }}
          {{ lookup('glm.fleet.setting', 'glm_launch_count') | type_debug }}
          {{ lookup('glm.fleet.setting', 'glm_terminate_on_failure') }}
          engine '{{ lookup('glm.fleet.setting', 'glm_engine') }}'
    - ansible.builtin.debug:
        msg: "{{ lookup('glm.fleet.setting', 'glm_modle') }}"
"""


def test_a_setting_is_the_variable_or_the_default_of_the_table(folder: Path) -> None:
    (folder / "settings.yml").write_text(SETTINGS, "utf-8")
    code, output = run(folder, str(folder / "settings.yml"))
    assert "glm_fleet ~/.local/state/glm-fleet/blue /srv/x/api_key int False engine ''" in output, output
    assert code != 0 and "expected the name of one variable" in output and "glm_modle" in output


@pytest.mark.parametrize(
    ("playbook", "variables", "meant"),
    [
        ("launch.yml", {"glm_launch": True, "glm_max_hourly_uds": 1}, "glm_max_hourly_usd"),
        ("deploy.yml", {"glm_launch": True, "glm_terminate_on_failur": True}, "glm_terminate_on_failure"),
        ("scale.yml", {"glm_launch_count": "two"}, "a value of type int for glm_launch_count"),
        ("terminate.yml", {"glm_confirm": True, "glm_terminate_onli": ["h0"]}, "glm_terminate_only"),
    ],
)
def test_nothing_is_asked_of_the_cloud(
    fleet: Fleet, folder: Path, playbook: str, variables: dict[str, Any], meant: str
) -> None:
    fleet.inventory = folder / "hosts.yml"
    before = fleet.cloud.state()["pacing"]["counts"]
    code, output = fleet.run(playbook, **variables)
    assert code != 0 and meant in output and "controller, preflight: expected" in output, output
    assert fleet.cloud.state()["pacing"]["counts"] == before


VAULT = "from-a-vault-9f86d081884c7d659a2f"
KEYS = """
- hosts: localhost
  gather_facts: false
  vars_files: [{root}/roles/door/defaults/main.yml, {root}/roles/verify/defaults/main.yml,
               {root}/roles/benchmark/defaults/main.yml{plan}]
  tasks:
    - ansible.builtin.debug:
        msg: "{{{{ [door_api_key_file, verify_api_key_file, benchmark_api_key_file] | unique | join(' ') }}}} end"
    - ansible.builtin.debug:
        msg: "{{{{ [door_api_key, verify_api_key, benchmark_api_key] | unique | join(' ') }}}} key"
"""


@pytest.mark.parametrize("plan", ["", ", {root}/roles/plan/defaults/main.yml"])
def test_three_roles_agree_on_the_key_with_the_defaults_of_the_role_plan_and_without(folder: Path, plan: str) -> None:
    (folder / "keys.yml").write_text(KEYS.format(root=ROOT, plan=plan.format(root=ROOT)), "utf-8")
    where = {
        f"{folder}/blue/api_key": {"glm_state_dir": f"{folder}/blue"},
        f"{folder}/own": {"glm_api_key_file": f"{folder}/own", "glm_state_dir": f"{folder}/blue"},
        f"{folder}/mine/api_key": {f"{role}_state_dir": f"{folder}/mine" for role in ("door", "verify", "benchmark")},
    }
    for expected, given in where.items():
        code, output = run(folder, str(folder / "keys.yml"), "-e", json.dumps(given))
        assert code == 0 and f"{expected} end" in output, output
        assert f"{Path(expected).read_text('utf-8').strip()} key" in output
    code, output = run(folder, str(folder / "keys.yml"), "-e", json.dumps({**given, "glm_api_key": VAULT}))
    assert code == 0 and f"{VAULT} key" in output, output
