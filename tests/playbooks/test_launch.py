"""launch, scale, terminate and a deploy that fails, as their users run them, against the API simulator."""

from __future__ import annotations

import email
import io
import json
import re
import sys
import time
from collections.abc import Callable
from typing import Any

import paramiko
import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.actions import host_keys
from tests.playbooks.fleet import KIND, ROOT, TAGS, Fleet
from tests.playbooks.modules.test_host_key import SshServer, ed25519


def test_launch_attaches_opens_and_counts_as_asked_and_nothing_more(fleet: Fleet) -> None:
    rules = [{"protocol": "tcp", "ports": [22], "source": "203.0.113.0/24", "description": "ssh"}]
    asked = {
        "glm_launch": True, "glm_launch_count": 2, "glm_launch_file_systems": ["weights"],
        "glm_launch_make_file_systems": True, "glm_launch_firewall_rules": rules, "glm_max_hourly_usd": 110,
    }  # fmt: skip
    code, output = fleet.run("launch.yml", "--check", **asked)
    assert code == 0 and fleet.alive() == [], output
    assert "2 more would be launched, for at most 107.04 USD per hour" in output
    code, output = fleet.run("launch.yml", **asked)
    assert code == 0, output
    assert "fleet default: 2 instance(s) at 107.04 USD per hour, 0." in output
    assert "ORPHANS" not in output
    launched = list(fleet.cloud.world.state.instances.values())
    assert {item.image_family for item in launched} == {"gpu-base-24-04"}
    assert [item.file_systems[0]["name"] for item in launched] == ["weights", "weights"]
    rulesets = fleet.cloud.world.state.rulesets
    assert {tuple(item.firewall_rulesets) for item in launched} <= {(key,) for key in rulesets}
    assert {ruleset.region for ruleset in rulesets.values()} == {"us-east-1", "us-west-1"}
    assert all(len(ruleset.rules) == 1 for ruleset in rulesets.values())
    code, output = fleet.run("launch.yml", **asked)
    assert code == 0 and "changed=0" in output, output
    code, output = fleet.run("launch.yml", **{**asked, "glm_launch_count": 3})
    assert code != 0 and "could make it 160.56" in output and len(fleet.alive()) == 2


def test_every_launch_has_a_host_key_of_its_own_beside_the_users_data(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = fleet.cloud.world.backend
    launch, specs = backend.launch, []
    monkeypatch.setattr(backend, "launch", lambda spec: (specs.append(spec), launch(spec))[1])
    asked = {"glm_launch": True, "glm_launch_count": 2, "glm_launch_user_data": "#!/bin/sh\ntouch /x\n"}
    folder = fleet.folder / "state" / "host_keys"
    code, output = fleet.run("launch.yml", "--check", **asked)
    assert code == 0 and not folder.exists(), output
    code, output = fleet.run("launch.yml", "-vvv", **asked)
    assert code == 0, output
    kept = {path.name: path.read_text("utf-8").strip() for path in folder.iterdir()}
    assert kept.keys() == {f"{spec.id}.pub" for spec in specs} and len(set(kept.values())) == 2
    for spec in specs:
        key, own = [part.get_payload() for part in email.message_from_string(spec.user_data).get_payload()]
        assert own == "#!/bin/sh\ntouch /x\n"
        keys = json.loads(key.partition("\n")[2])["ssh_keys"]
        assert keys["ed25519_public"] == kept[f"{spec.id}.pub"]
        assert not any(line in output for line in keys["ed25519_private"].splitlines())
    code, output = fleet.run("launch.yml", **asked)
    assert code == 0 and "changed=0" in output and len(specs) == 2, output
    code, output = fleet.run("terminate.yml", glm_confirm=True, glm_terminate_only=["glm-default-1"])
    assert code == 0, output
    assert [path.name for path in folder.iterdir()] == [f"{spec.id}.pub" for spec in specs if spec.name[-1] == "2"]
    code, output = fleet.run("launch.yml", **asked, glm_launch_host_keys=False)
    assert code == 0 and specs[2].user_data == asked["glm_launch_user_data"], output
    assert len(list(folder.iterdir())) == 1


def test_a_launched_host_is_pinned_with_the_key_of_its_user_data_only(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = fleet.cloud.world.backend
    launch, specs = backend.launch, []
    monkeypatch.setattr(backend, "launch", lambda spec: (specs.append(spec), launch(spec))[1])
    code, output = fleet.run("launch.yml", glm_launch=True)
    assert code == 0, output
    private = json.loads(specs[0].user_data.partition("\n")[2])["ssh_keys"]["ed25519_private"]
    own = paramiko.Ed25519Key.from_private_key(io.StringIO(private))
    book = fleet.folder / "pin.yml"
    task = {"name": "Pin", "glm.fleet.host_key": {"timeout": 3}}
    book.write_text(json.dumps([{"hosts": "glm_fleet", "gather_facts": False, "tasks": [task]}]), "utf-8")
    known = fleet.folder / ".local/state/glm-fleet/known_hosts"
    between = SshServer(ed25519(fleet.folder, "between"))
    code, output = fleet.run(str(book), ansible_host="127.0.0.1", ansible_port=between.port)
    assert code != 0 and not known.exists(), output
    assert (
        f"expected the host key that {specs[0].id} was launched with, {fingerprint(own)} (ssh-ed25519), found "
        in output
    )
    assert f"found {fingerprint(between.key)} (ssh-ed25519). Nothing was pinned" in output
    between.close()
    host = SshServer(own)
    code, output = fleet.run(str(book), ansible_host="127.0.0.1", ansible_port=host.port)
    assert code == 0 and known.read_text("utf-8").startswith(f"{specs[0].id} ssh-ed25519 "), output
    host.close()


def fingerprint(key: paramiko.PKey) -> str:
    return host_keys.HostKey(key.get_name(), key.asbytes()).fingerprint


@pytest.mark.one_core
def test_a_launch_that_takes_long_says_how_far_it_is(fleet: Fleet) -> None:
    code, output = fleet.run("launch.yml", glm_launch=True, glm_launch_count=2, glm_launch_interval=12)
    assert code == 0, output
    assert re.search(r"localhost: launch: [^:]+, 1\d s so far", output), output
    # Whichever line it is: that state lasts for longer than lines are apart.
    far = rf"localhost: launch: 1 of 2 launched, launching glm-default-2 \({KIND} in us-\w+-1\), [1-9]\d s so far"
    assert re.search(far, output), output


def changes(fleet: Fleet) -> list[str]:
    """The operations that a run sent and that were no mere questions; the fixture made the ssh key."""
    counts = fleet.cloud.state()["pacing"]["counts"]
    return sorted(name for name in counts if not name.startswith(("list", "get")) and name != "addSSHKey")


def test_what_does_not_fit_is_refused_before_anything_is_made(fleet: Fleet) -> None:
    asked = {
        "glm_launch": True, "glm_launch_instance_types": ["gpu_8x_h100_sxm5", "cpu_4x_general", "npu_1x_new"],
        "glm_launch_file_systems": ["weights"], "glm_launch_make_file_systems": True,
        "glm_launch_firewall_rules": [{"protocol": "tcp", "ports": [22], "source": "203.0.113.0/24"}],
    }  # fmt: skip
    code, output = fleet.run("deploy.yml", **asked)
    assert code != 0 and changes(fleet) == [] == fleet.alive(), output
    for words in (
        "controller, plan: expected an instance type that the model fits on, found none; nothing was launched",
        "gpu_8x_h100_sxm5: GLM-5.1 fp8 on 8x H100", "99.6 GiB", "71.7 GiB",
        "cpu_4x_general: it has no accelerators", "npu_1x_new: the account is not offered this type",
    ):  # fmt: skip
        assert words in output, output
    code, output = fleet.run("deploy.yml", **{**asked, "glm_launch_instance_types": [KIND]}, glm_max_hourly_usd=50)
    assert code != 0 and "expected at most 50.00 USD per hour" in output and changes(fleet) == [], output
    code, output = fleet.run("deploy.yml", "--check", glm_launch=True, glm_model="GLM-9")
    assert code != 0 and "GLM-9" in output and "Next:" in output and changes(fleet) == [], output


def test_types_that_do_not_fit_are_left_out_with_the_reason(fleet: Fleet) -> None:
    fleet.cloud.control("PUT", "/capacity", {kind: {"us-east-1": None} for kind in (KIND, "gpu_8x_h100_sxm5")})
    types = ["gpu_8x_h100_sxm5", KIND]
    code, output = fleet.run("launch.yml", glm_launch=True, glm_launch_instance_types=types)
    assert code == 0, output
    assert "Not launched, because the model does not fit there: gpu_8x_h100_sxm5: GLM-5.1" in output
    assert [item.instance_type for item in fleet.cloud.world.state.instances.values()] == [KIND]
    # What is there is counted, whatever would fit.
    code, output = fleet.run("launch.yml", glm_launch=True, glm_launch_instance_types=["gpu_8x_h100_sxm5"])
    assert code == 0 and "changed=0" in output, output
    asked = {"glm_launch": True, "glm_launch_count": 2, "glm_launch_instance_types": ["gpu_8x_h100_sxm5"]}
    code, output = fleet.run("launch.yml", **asked)
    assert code != 0 and len(fleet.alive()) == 1, output
    code, output = fleet.run("launch.yml", **asked, glm_launch_unplanned=True)
    assert code == 0 and len(fleet.alive()) == 2, output


@pytest.mark.one_core
def test_types_are_planned_with_the_variables_their_hosts_will_have(fleet: Fleet) -> None:
    fleet.cloud.control("PUT", "/capacity", {"gpu_8x_h100_sxm5": {"us-east-1": None}})
    group = fleet.folder / "group_vars" / "glm_fleet.yml"
    group.parent.mkdir()
    asked = {"glm_launch": True, "glm_launch_instance_types": ["gpu_8x_h100_sxm5"]}
    group.write_text("glm_model: '{{ team_model }}'\nteam_model: GLM-4.5-Air\nglm_bind: private\n", "utf-8")
    code, output = fleet.run("launch.yml", **asked)
    assert code == 0 and fleet.alive() == ["glm-default-1"], output
    group.write_text("glm_nodes: 2\n", "utf-8")
    code, output = fleet.run("launch.yml", **asked, glm_launch_count=3)
    assert code != 0 and "set glm_launch_count to a multiple of 2" in output and len(fleet.alive()) == 1, output


def replacing(fleet: Fleet, **asked: Any) -> tuple[int, str]:
    """A run of what deploy does with new hosts. They are this machine, which has no GPUs; the plan wants eight B200."""
    book = fleet.folder / "replace.yml"
    book.write_text(
        f"""
- import_playbook: {ROOT}/playbooks/launch.yml
- import_playbook: {ROOT}/playbooks/replace_unsound.yml
- hosts: glm_fleet
  gather_facts: false
  tasks:
    - ansible.builtin.debug:
        msg: "{{{{ inventory_hostname }}}} goes on"
""",
        "utf-8",
    )
    here = {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": sys.executable}
    return fleet.run(str(book), glm_launch=True, **asked, **here)


def test_a_new_host_that_fails_acceptance_is_replaced_and_the_verdict_kept(fleet: Fleet) -> None:
    fleet.cloud.seed(name="glm-default-7", tags=TAGS)
    code, output = replacing(fleet, glm_launch_count=3, glm_launch_replacements=1)
    assert code == 0, output
    # Two fail, one may be replaced, and its replacement fails, too; what was there before is not looked at.
    assert fleet.alive() == ["glm-default-2", "glm-default-3", "glm-default-7"]
    assert "glm-default-2 goes on" in output and "glm-default-3 goes on" in output and "glm-default-7 goes on" in output
    kept = list((fleet.folder / "state" / "evidence").glob("*.json"))
    assert [path.name.rpartition("-")[0] for path in kept] == ["glm-default-1"]
    entry = json.loads(kept[0].read_text("utf-8"))
    assert entry["reason"].startswith("glm-default-1, ") and "Next:" in entry["reason"]
    failed = {check["check"] for check in entry["found"]["checks"] if check["outcome"] == "failed"}
    assert failed & {"driver", "gpu"} and not failed & {"docker", "cdi", "container"}
    assert entry["found"]["ok"] is False and entry["found"]["host"] == "glm-default-1"


@pytest.mark.one_core
def test_replacements_of_replacements_end_at_the_number_allowed(fleet: Fleet) -> None:
    code, output = replacing(fleet, glm_launch_count=1, glm_launch_replacements=2)
    # The third instance gets the name of the first, and is looked at all the same.
    assert code == 0 and fleet.alive() == ["glm-default-1"], output
    assert len(list((fleet.folder / "state" / "evidence").glob("*.json"))) == 2
    assert output.count("gpu: expected 8 GPUs, found 0") >= 3
    code, output = replacing(fleet, glm_launch_count=1, glm_launch_replacements=2)
    assert code == 0 and "changed=0" in output, "only what a run launches itself is replaced"
    assert fleet.cloud.state()["pacing"]["counts"]["launchInstance"] == 3


def test_launch_says_what_it_needs_and_does_nothing_unasked(fleet: Fleet) -> None:
    code, output = fleet.run("launch.yml", glm_launch_regions=[], glm_launch_count=2)
    assert code == 0 and "nothing is launched: glm_launch_count is 2, but glm_launch is not true" in output, output
    code, output = fleet.run("launch.yml", glm_launch=True, glm_launch_regions=[])
    assert code != 0 and "expected glm_launch_regions" in output
    code, output = fleet.run(
        "launch.yml", glm_launch=True, glm_launch_regions=["asia-south-1", "us-east-1"], glm_allowed_countries=["US"]
    )
    assert code != 0 and "found asia-south-1 (country unknown). Next: leave these out" in output
    assert fleet.alive() == []


def test_scale_goes_up_freely_and_down_only_with_a_word(fleet: Fleet) -> None:
    code, output = fleet.run("scale.yml")
    assert code != 0 and "-e glm_launch_count=<number>" in output
    code, output = fleet.run("scale.yml", glm_launch_count=3)
    assert code == 0 and len(fleet.alive()) == 3, output
    code, output = fleet.run("scale.yml", glm_launch_count=1, glm_launch_regions=[])
    assert code != 0 and len(fleet.alive()) == 3
    assert "this would terminate glm-default-2, glm-default-3, beyond the desired number of 1" in output
    code, output = fleet.run("scale.yml", glm_launch_count=1, glm_confirm=True)
    assert code == 0 and fleet.alive() == ["glm-default-1"], output
    assert "fleet default: 1 instance(s) at 53.52 USD per hour" in output


@pytest.mark.one_core
def test_orphans_surplus_and_other_fleets_are_told(fleet: Fleet) -> None:
    fleet.cloud.seed(count=2, name="glm-default-{n}", tags=TAGS)
    fleet.cloud.seed(name="far", tags=TAGS, region="us-west-1")
    fleet.cloud.seed(name="theirs", tags={"glm-fleet": "theirs"})
    fleet.inventory.write_text("plugin: glm.fleet.lambda_cloud\nregions: [us-east-1]\n", "utf-8")
    code, output = fleet.run("launch.yml", glm_launch=True, glm_launch_count=2)
    assert code == 0, output
    assert "beyond the desired number: glm-default-1 (-e glm_launch_count, or scale)" in output
    assert "ORPHANS, tagged as this fleet but not in its inventory: far" in output
    assert "other fleets of the account: theirs: 1" in output


@pytest.mark.one_core
@pytest.mark.parametrize("status", ["hibernating", "contactable"])
def test_values_that_nobody_knows_yet_stop_no_playbook(fleet: Fleet, status: str) -> None:
    strange = {
        "status": status, "region": {"name": "moon-1"}, "instance_type": {"name": "npu_1x_new", "specs": "?"},
        "actions": ["?"], "file_system_names": None, "tags": [{"key": "glm-fleet", "value": "default"}, 7],
    }  # fmt: skip
    fleet.cloud.seed(name="strange", tags=TAGS, overrides=strange)
    fleet.cloud.seed(name="nameless", overrides={"name": None, "tags": None, "region": None, "status": None})
    fleet.inventory.write_text("plugin: glm.fleet.lambda_cloud\nstatuses: []\n", "utf-8")
    code, output = fleet.run("launch.yml", glm_launch=True, glm_launch_count=2)
    assert code == 0 and "2 instance(s) at 53.52 USD per hour" in output, output
    code, output = fleet.run("scale.yml", "--check", glm_launch_count=1)
    assert code == 0, output
    code, output = fleet.run("deploy.yml", glm_hosts="strange")
    assert code != 0 and "strange, plan: expected the host's accelerators, found none" in output, output
    code, output = fleet.run("terminate.yml", "-e", "glm_confirm=yes")
    assert code == 0 and "strange (npu_1x_new in moon-1, price unknown)" in output, output


def test_terminate_lists_prices_and_needs_a_word(fleet: Fleet) -> None:
    fleet.cloud.seed(count=2, name="glm-default-{n}", tags=TAGS)
    fleet.cloud.seed(name="strange", tags=TAGS, overrides={"instance_type": {"name": "npu_1x_new"}})
    fleet.cloud.seed(name="theirs", tags={"glm-fleet": "theirs"})
    code, output = fleet.run("terminate.yml")
    assert code != 0 and len(fleet.alive()) == 4
    for words in (
        "would terminate 3 instance(s): glm-default-0 (gpu_8x_b200_sxm6 in us-east-1, 53.52 USD per hour)",
        "strange (npu_1x_new in us-east-1, price unknown)",
        "together 107.04 USD per hour",
        "run again with -e glm_confirm=yes",
    ):
        assert words in output, output
    code, output = fleet.run("terminate.yml", "--check")
    assert code == 0 and len(fleet.alive()) == 4, output
    code, output = fleet.run("terminate.yml", "-e", "glm_confirm=yes", glm_terminate_only=["strange"])
    assert code == 0 and fleet.alive() == ["glm-default-0", "glm-default-1", "theirs"], output
    code, output = fleet.run("terminate.yml", "-e", "glm_confirm=yes")
    assert code == 0 and fleet.alive() == ["theirs"], output


def test_a_deploy_that_fails_gives_back_what_it_launched_if_it_shall(fleet: Fleet) -> None:
    fleet.cloud.seed(name="glm-default-7", tags=TAGS)
    failing = {"glm_launch": True, "glm_launch_count": 2, "glm_hosts": "somebody_else"}
    code, output = fleet.run("deploy.yml", **failing)
    assert code != 0 and fleet.alive() == ["glm-default-1", "glm-default-7"], output
    assert "terminating what was launched" not in output
    code, output = fleet.run("deploy.yml", **{**failing, "glm_launch_count": 3}, glm_terminate_on_failure=True)
    assert code != 0 and "terminating what was launched and never served: glm-default-2" in output, output
    assert fleet.alive() == ["glm-default-1", "glm-default-7"], "what was there before stays"


@pytest.mark.one_core
def test_a_plan_refused_for_the_launched_host_alone_gives_it_back(fleet: Fleet) -> None:
    variables = fleet.folder / "host_vars" / "glm-default-1.yml"
    variables.parent.mkdir()
    variables.write_text("glm_replicas: 3\n", "utf-8")
    code, output = fleet.run("deploy.yml", glm_launch=True, glm_terminate_on_failure=True)
    assert code != 0 and "8 GPUs cannot be shared evenly by 3 replicas" in output, output
    assert "terminating what was launched" in output and fleet.alive() == [], output


@pytest.mark.one_core
def test_a_launch_that_fails_halfway_gives_back_its_half(fleet: Fleet) -> None:
    fleet.cloud.fault("error", code="global/quota-exceeded", path="launch$", after=1)
    code, output = fleet.run("deploy.yml", glm_launch=True, glm_launch_count=2, glm_terminate_on_failure=True)
    assert code != 0 and "global/quota-exceeded" in output
    assert "terminating what was launched" in output and fleet.alive() == []


FAILING = """
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.set_fact:
        __deploy_give_back: {{fleet: default, log: {log}, follow: 8}}
- import_playbook: {root}/playbooks/launch.yml
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.fail:
"""


@pytest.mark.one_core
def test_what_cannot_be_given_back_is_named_and_tried_on(fleet: Fleet) -> None:
    fleet.cloud.fault("error", code="global/account-inactive", path="terminate$", times=999)
    book = fleet.folder / "failing.yml"
    book.write_text(FAILING.format(root=ROOT, log=fleet.folder / "log"), "utf-8")
    code, output = fleet.run(str(book), glm_launch=True)
    assert code != 0 and "glm-default-1 is still there: " in output and "global/account-inactive" in output, output
    assert "this run leaves glm-default-1 (" in output and "at 53.52 USD per hour, at most 0." in output
    assert "a second process terminates them, for up to 24 hours" in output
    assert fleet.alive() == ["glm-default-1"]
    fleet.cloud.control("DELETE", "/faults")
    wait_for(lambda: fleet.alive() == [])
    wait_for(lambda: "done" in (fleet.folder / "log").read_text("utf-8"))


def wait_for(condition: Callable[[], bool], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_giving_back_needs_its_callback(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANSIBLE_CALLBACKS_ENABLED", "glm.fleet.fleet_summary")
    code, output = fleet.run("deploy.yml", glm_launch=True, glm_terminate_on_failure=True)
    assert code != 0 and "add it to callbacks_enabled in ansible.cfg" in output
    assert fleet.alive() == []
