"""An inventory that names its own variables otherwise (``hostvars_prefix``) changes nothing that works."""

from __future__ import annotations

import sys

import pytest

from tests.playbooks.fleet import ROOT, TAGS, Fleet

HERE = {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": sys.executable}


@pytest.fixture
def prefixed(fleet: Fleet) -> Fleet:
    fleet.inventory.write_text("plugin: glm.fleet.lambda_cloud\nhostvars_prefix: cloud_\n", "utf-8")
    return fleet


def test_hosts_are_planned_by_what_the_inventory_knows_of_them(prefixed: Fleet) -> None:
    prefixed.cloud.seed(name="glm-default-0", tags=TAGS)
    code, output = prefixed.run("plan.yml")
    assert code == 0 and "8x B200" in output, output


def test_hosts_of_another_fleet_are_refused(prefixed: Fleet) -> None:
    prefixed.cloud.seed(name="theirs", tags={"glm-fleet": "blue"})
    code, output = prefixed.run("playbooks/require_fleet.yml")
    assert code != 0 and "whose tag glm-fleet says blue" in output, output


@pytest.mark.one_core
def test_no_instance_of_the_fleet_is_called_an_orphan(prefixed: Fleet) -> None:
    prefixed.cloud.seed(name="glm-default-0", tags=TAGS)
    code, output = prefixed.run("launch.yml", glm_launch=True)
    assert code == 0 and "fleet default: 1 instance(s)" in output, output
    assert "ORPHANS" not in output, output


@pytest.mark.one_core
def test_new_instances_are_accepted_and_replaced(prefixed: Fleet) -> None:
    book = prefixed.folder / "replace.yml"
    book.write_text(
        f"- import_playbook: {ROOT}/playbooks/launch.yml\n- import_playbook: {ROOT}/playbooks/accept_new.yml\n", "utf-8"
    )
    code, output = prefixed.run(str(book), glm_launch=True, glm_launch_replacements=1, **HERE)
    assert code == 0 and "gpu: expected 8 GPUs, found 0" in output, output
    assert prefixed.cloud.state()["pacing"]["counts"]["launchInstance"] == 2
    assert len(list((prefixed.folder / "state" / "evidence").glob("*.json"))) == 1


# What serves is kept when another host fails.
SERVED = """
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.set_fact:
        __deploy_give_back: {{fleet: default, log: {log}}}
- import_playbook: {root}/playbooks/launch.yml
- hosts: glm_fleet
  gather_facts: false
  tasks:
    - endpoint_check:
      when: inventory_hostname == 'glm-default-1'
    - ansible.builtin.fail:
      when: inventory_hostname != 'glm-default-1'
"""
VERIFIED = "from ansible.module_utils.basic import AnsibleModule\nAnsibleModule({}).exit_json(results=[])\n"


@pytest.mark.one_core
def test_an_instance_that_serves_is_not_given_back(prefixed: Fleet) -> None:
    book = prefixed.folder / "served.yml"
    book.write_text(SERVED.format(root=ROOT, log=prefixed.folder / "log"), "utf-8")
    module = prefixed.folder / "library" / "endpoint_check.py"
    module.parent.mkdir()
    module.write_text(VERIFIED, "utf-8")
    code, output = prefixed.run(str(book), glm_launch=True, glm_launch_count=2, **HERE)
    assert code != 0 and "terminating what was launched and never served: glm-default-2" in output, output
    assert prefixed.alive() == ["glm-default-1"]
