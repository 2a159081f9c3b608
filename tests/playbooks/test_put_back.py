"""What serve_and_verify.yml does with a host that cannot serve: with stand-ins of the roles, and the real releases."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.glm.fleet.plugins.module_utils import finding
from ansible_collections.glm.fleet.plugins.module_utils.serving import release
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import verdict
from tests.playbooks.test_preflight import ROOT
from tests.unit.serve.plans import plan

ECHO = "echo {{ inventory_hostname }}"
# Each writes what it does to a log. A plan is bad at one of them, on one host or on all.
ROLES: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "plan": (
        {"plan_tasks": "all"},
        [
            {
                "ansible.builtin.set_fact": {
                    "cacheable": True,
                    "glm_plans": [
                        "{{ base | combine({'served_model_name': wanted, "
                        "'node': base.node | combine({'count': nodes | default(1), 'rank': rank})}) }}"
                    ],
                },
                "when": "plan_tasks != 'none'",
            },
        ],
    ),
    "serve": (
        {"serve_restart": False},
        [
            {"ansible.builtin.debug": {"msg": "made"}, "register": "__serve_made"},
            {"ansible.builtin.shell": f"{ECHO} serve {{{{ what }}}} {{{{ serve_restart }}}} >> {{{{ log }}}}"},
            {"ansible.builtin.copy": {"content": "{{ what }}", "dest": "{{ unit }}"}},
            {
                "name": "Start it",
                "ansible.builtin.fail": {"msg": "{{ inventory_hostname }}, serve: {{ item }} cannot start"},
                "when": "bad.get(what) == 'serve' and inventory_hostname in bad_hosts and item == 'engine'",
                "loop": ["guard", "engine"],
            },
            {
                "name": "Write a key",
                "ansible.builtin.file": {"path": "/nowhere/hush-hush", "state": "touch"},
                "when": "bad.get(what) == 'key'",
                "no_log": "{{ true }}",
            },
        ],
    ),
    "door": ({}, [{"ansible.builtin.debug": {"msg": "a door"}}]),
    "verify": (
        {"__verify_replica": "{{ ansible_play_hosts_all if nodes | default(1) | int > 1 else [inventory_hostname] }}"},
        [
            {"ansible.builtin.shell": f"{ECHO} verify {{{{ what }}}} >> {{{{ log }}}}"},
            {
                "name": "Check it",
                "ansible.builtin.fail": {"msg": "{{ inventory_hostname }}, verify: expected sense, found {{ what }}"},
                "when": "bad.get(what) == 'verify' and inventory_hostname in bad_hosts",
            },
            {"ansible.builtin.stat": {"path": "{{ unit }}", "checksum_algorithm": "sha256"}, "register": "there"},
            {
                "ansible.builtin.set_fact": {
                    "__verify_seen": {
                        "replicas": [{"replica": 0, "started": "{{ {unit: there['stat']['checksum']} }}"}],
                    },
                    "__verify_result": {"results": [{"report": "{{ passed }}"}]},
                },
            },
        ],
    ),
    "gateway": (
        {},
        [
            {
                "name": "Listen",
                "ansible.builtin.fail": {"msg": "{{ inventory_hostname }}, gateway: port 8443 is taken"},
                "when": "bad.get('gateway', false)",
            },
        ],
    ),
}  # fmt: skip


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """The collection with stand-ins for the roles, for the door, and for the lease."""
    root = tmp_path / "collections/ansible_collections/glm/fleet"
    for part in ("catalog", "meta", "galaxy.yml"):
        (root / part).parent.mkdir(parents=True, exist_ok=True)
        (root / part).symlink_to(ROOT / part)
    _linked(
        root / "playbooks", ROOT / "playbooks", but={"free_hosts.yml": "- hosts: localhost\n  gather_facts: false\n"}
    )
    (root / "playbooks/tasks").unlink()
    hold = "- name: Hold\n  ansible.builtin.set_fact: {held: true}\n"
    _linked(root / "playbooks/tasks", ROOT / "playbooks/tasks", but={"hold.yml": hold})
    _linked(root / "plugins", ROOT / "plugins", but={})
    for kind in ("modules", "action"):
        (root / "plugins" / kind).unlink()
    # A host drains where the test has put a file of its name.
    said = (
        "from ansible.plugins.action import ActionBase\nfrom pathlib import Path\n"
        "class ActionModule(ActionBase):\n"
        "    def run(self, tmp=None, task_vars=None):\n"
        '        if self._task.args.get("state") == "serving":\n'
        f'            Path("{tmp_path}/log").open("a").write("admit\\n")\n'
        f'        out = Path("{tmp_path}", task_vars["inventory_hostname"] + ".out").exists()\n'
        '        return {"changed": False, "replicas": [{"state": "draining" if out else "serving"}]}\n'
    )
    freed = (
        "from ansible.plugins.action import ActionBase\nfrom pathlib import Path\n"
        "class ActionModule(ActionBase):\n"
        "    def run(self, tmp=None, task_vars=None):\n"
        f'        Path("{tmp_path}/log").open("a").write(f"free {{self._task.delegate_to}}\\n")\n'
        '        return {"changed": self._task.args["state"] == "released"}\n'
    )
    _linked(root / "plugins/modules", ROOT / "plugins/modules", but={})
    _linked(root / "plugins/action", ROOT / "plugins/action", but={"door_drain.py": said, "host_lease.py": freed})
    for role, (variables, tasks) in ROLES.items():
        # The guard of the real role serve is part of the programs that filters read.
        _written(root / "roles" / role / "tasks/main.yml", tasks)
        _written(
            root / "roles" / role / "defaults/main.yml",
            {**variables, "what": "{{ ansible_facts['glm_plans'][0]['served_model_name'] }}"},
        )
    _written(root / "roles/expiry/tasks/extend.yml", [])
    (root / "roles/serve/files").symlink_to(ROOT / "roles/serve/files")
    return root


def _passed(host: str) -> dict[str, Any]:
    check = finding.judged("verify", "endpoint", True, "sense", "sense")
    return dict(verdict.host_report(host, [check], {}, plan()))


def _linked(folder: Path, source: Path, but: dict[str, str | None]) -> None:
    folder.mkdir()
    for path in source.iterdir():
        if path.name not in but:
            (folder / path.name).symlink_to(path)
    for name, text in but.items():
        if text is not None:
            (folder / name).write_text(text, "utf-8")


def _written(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content), "utf-8")


class Fleet:
    """Hosts that are served on this machine, each with its releases."""

    def __init__(self, folder: Path, collection: Path, hosts: int) -> None:
        self.folder, self.collection = folder, collection
        self.hosts = [f"h{number}" for number in range(1, hosts + 1)]

    def served(
        self, wanted: str, playbook: str = "deploy", bad: Any = None, hosts: Any = None, **more: Any
    ) -> tuple[int, str, list[str]]:
        """Exit status, output and what was done, when the hosts are to serve ``wanted``."""
        log = self.folder / "log"
        log.write_text("", "utf-8")
        common = {
            "ansible_connection": "local",
            "ansible_become": False,
            "ansible_python_interpreter": sys.executable,
            "base": plan(),
            "wanted": wanted,
            "bad": bad or {},
            "bad_hosts": hosts or self.hosts,
            "log": str(log),
        }
        # Otherwise the first that is prepared.
        canary = {"glm_canary": self.hosts[0]}
        variables = {"glm_state_dir": str(self.folder / "state"), "glm_api_key_file": "key", **canary, **more}
        each = {
            host: {
                **common,
                "__release_folder": str(self.folder / host),
                "unit": str(self.folder / f"{host}.unit"),
                "rank": rank,
                "passed": _passed(host),
            }
            for rank, host in enumerate(self.hosts)
        }
        inventory = self.folder / "inventory.yml"
        inventory.write_text(yaml.safe_dump({"glm_fleet": {"hosts": each}}), "utf-8")
        book = self.folder / "book.yml"
        prepared = {
            "hosts": "glm_fleet",
            "gather_facts": False,
            "roles": ["glm.fleet.plan"],
            "tasks": [
                {"ansible.builtin.set_fact": {"glm_lease": {"run": "this one"}, "cacheable": True}},
                {"ansible.builtin.group_by": {"key": "glm_prepared"}},
            ],
        }
        steps = ["begin_report", prepared, "serve_and_verify", "report"] if playbook == "deploy" else [playbook]
        plays = [
            {"ansible.builtin.import_playbook": f"glm.fleet.{step}"} if isinstance(step, str) else step
            for step in steps
        ]
        book.write_text(yaml.safe_dump(plays), "utf-8")
        done = subprocess.run(
            ["ansible-playbook", str(book), "-i", str(inventory), "-e", json.dumps(variables)],
            env={
                **os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "COLUMNS": "400",
                "ANSIBLE_COLLECTIONS_PATH": str(self.folder / "collections"),
            },
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr, log.read_text("utf-8").splitlines()

    def good(self, host: str) -> int | None:
        return release.Store(self.folder / host).good()

    def reported(self) -> list[dict[str, Any]]:
        hosts: list[dict[str, Any]] = json.loads((self.folder / "state/reports/fleet.json").read_text("utf-8"))["hosts"]
        return hosts


# A run that ends with a batch frees all that it holds: the playbook that does so otherwise does not come.
FREED = ["free h1", "free h2"]


@pytest.fixture
def fleet(tmp_path: Path, collection: Path) -> Fleet:
    return Fleet(tmp_path, collection, hosts=2)


def test_a_canary_that_fails_is_put_back_and_the_others_are_not_touched(fleet: Fleet) -> None:
    code, output, _done = fleet.served("old")
    assert code == 0 and (fleet.good("h1"), fleet.good("h2")) == (1, 1), output
    code, output, done = fleet.served("new", bad={"new": "serve"}, glm_profile="latency")
    assert done == ["h1 serve new False", "h1 serve old False", "h1 verify old", "admit", *FREED] and code != 0, output
    last = output.partition("The run ended before its report.")[2]
    assert (
        "h1: serve : Start it: h1, serve: release 1 was put back and passed its gate; what was to replace it failed: "
        "h1, serve: engine cannot start" in last
    ), output
    assert [entry["ok"] for entry in fleet.reported()] == [False, False]
    assert (fleet.good("h1"), fleet.good("h2")) == (1, 1)
    # What was put back was not made of the values of the run that failed.
    [kept] = release.Store(fleet.folder / "h1").releases()
    assert "glm_profile" not in kept["intent"], kept


@pytest.mark.one_core
def test_a_host_that_answers_nonsense_is_put_back_in_a_batch_whose_others_go_on(fleet: Fleet) -> None:
    fleet.served("old", glm_serial="100%")
    code, output, done = fleet.served("new", bad={"new": "verify"}, hosts=["h2"], glm_serial="100%")
    assert code != 0 and "h2, verify: expected sense, found new" in output
    assert {"h1 serve new False", "h2 serve new False", "h2 serve old False", "h2 verify old"} <= set(done), output
    assert "h1 serve old False" not in done and done.count("admit") == 2
    assert (fleet.good("h1"), fleet.good("h2")) == (2, 1)
    first, second = fleet.reported()
    assert first["ok"] and not second["ok"]
    assert second["phase"] == "Check it" and "release 1 was put back" in second["reason"], second


@pytest.mark.one_core
def test_hosts_of_one_replica_go_back_together(fleet: Fleet) -> None:
    fleet.served("old", nodes=2)
    code, output, done = fleet.served("new", bad={"new": "verify"}, hosts=["h1"], nodes=2)
    assert {"h1 serve old False", "h2 serve old False", "h2 verify old"} <= set(done) and code != 0, output
    assert (fleet.good("h1"), fleet.good("h2")) == (1, 1)


@pytest.mark.one_core
def test_nothing_is_put_back_that_never_passed_or_serves_the_same_or_is_not_wanted(fleet: Fleet) -> None:
    code, output, done = fleet.served("first", bad={"first": "key"})
    assert done == ["h1 serve first False", *FREED] and code != 0
    last = output.partition("TASK [Fail with what failed]")[2]
    assert "what it said is censored" in last and "hush-hush" not in last, output
    fleet.served("old")
    for wanted, more in (("old", {}), ("new", {"glm_rollback_on_failure": False})):
        code, output, done = fleet.served(wanted, bad={wanted: "verify"}, **more)
        assert done == [f"h1 serve {wanted} False", f"h1 verify {wanted}", *FREED] and code != 0, output
        assert (
            f"h1, verify: expected sense, found {wanted}" in output and "put back" not in output.split("TASK [Fail")[1]
        )


@pytest.mark.one_core
def test_what_cannot_be_put_back_is_said_with_both_reasons(fleet: Fleet) -> None:
    fleet.served("old")
    code, output, done = fleet.served("new", bad={"new": "serve", "old": "verify"}, glm_canary="h2")
    assert done == ["h2 serve new False", "h2 serve old False", "h2 verify old", *FREED], output
    last = " ".join(output.partition("The run ended before its report.")[2].split())
    assert code != 0 and "h2, serve: engine cannot start Then release 1 could not be put back either" in last, output
    assert "in the task Check it: h2, verify: expected sense, found old" in last and fleet.good("h2") == 1


def test_a_roll_restarts_what_is_installed_one_host_at_a_time(fleet: Fleet) -> None:
    fleet.served("old", glm_serial="100%")
    code, output, done = fleet.served("another intent", playbook="roll")
    wanted = [f"{host} {what}" for host in fleet.hosts for what in ("serve old True", "verify old")]
    assert [line for line in done if line != "admit"] == wanted and code == 0, output
    (fleet.folder / "h1.unit").write_text("by hand", "utf-8")
    code, output, done = fleet.served("old", playbook="roll", glm_canary="")
    assert code != 0 and "h1, roll: expected the unit and the environment of a release" in output
    assert "h1" not in " ".join(done)


@pytest.mark.one_core
def test_a_host_that_an_interrupted_run_left_out_serves_before_another_is_taken_out(fleet: Fleet) -> None:
    fleet.served("old", glm_serial="100%")
    (fleet.folder / "h2.out").touch()
    code, output, done = fleet.served("old", playbook="roll", glm_canary="")
    assert code == 0, output
    assert [line for line in done if " serve " in line] == ["h2 serve old True", "h1 serve old True"]


@pytest.mark.one_core
def test_a_rollback_that_is_interrupted_ends_at_the_same_release_when_it_is_run_again(fleet: Fleet) -> None:
    for wanted in ("old", "new"):
        fleet.served(wanted, glm_serial="100%")
    code, output, done = fleet.served("new", playbook="rollback", bad={"old": "serve"}, hosts=["h2"])
    assert code != 0 and "h1: from release 2 to release 1" in output and (fleet.good("h1"), fleet.good("h2")) == (1, 2)
    # What was to be served failed: h2 has what it had. Then it dies in the middle.
    assert "h2 serve new False" in done, output
    fleet.served("new", playbook="rollback", bad={"old": "serve"}, hosts=["h2"], glm_rollback_on_failure=False)
    code, output, done = fleet.served("new", playbook="rollback")
    assert code == 0 and (fleet.good("h1"), fleet.good("h2")) == (1, 1), output
    assert not [line for line in done if "new" in line]
    code, output, _done = fleet.served("new", playbook="rollback", glm_release=9)
    assert code != 0 and "expected the plans of release 9" in output


def test_more_than_the_canary_changes_only_with_a_yes(tmp_path: Path, collection: Path) -> None:
    fleet = Fleet(tmp_path, collection, hosts=3)
    code, output, done = fleet.served("old", glm_serial=[1, 1, 1])
    # Nothing served before: nothing to ask.
    assert code == 0 and len(done) == 9, output
    code, output, done = fleet.served("new", glm_serial=[1, 1, 1], glm_model="GLM-4.7-Flash")
    assert done[:3] == ["h1 serve new False", "h1 verify new", "admit"] and code != 0, output
    # The next run, on whatever controller, finds no lease.
    assert sorted(done[3:]) == ["free h1", "free h2", "free h3"], output
    last = output.partition("The run ended before its report.")[2]
    # Which of the others is next is the one that was prepared first.
    assert re.search(r"h1 passed and serves it; h[23] and the hosts that follow are as they were", last), output
    assert [fleet.good(host) for host in fleet.hosts] == [2, 1, 1]
    # h1 has it by now: nothing of it restarts, and the run is asked of the next two.
    code, output, done = fleet.served("new", glm_serial=[1, 1, 1], glm_confirm=True)
    assert code == 0 and [fleet.good(host) for host in fleet.hosts] == [2, 2, 2], output


@pytest.mark.one_core
def test_a_gateway_that_cannot_be_brought_up_fails_the_run_after_its_report(fleet: Fleet) -> None:
    code, output, _done = fleet.served("old", bad={"gateway": True}, glm_serial="100%")
    assert (
        code != 0
        and "every host is verified, but gateways are not up to date: gateway of h1: Listen: h1, gateway" in output
    )
    assert [entry["ok"] for entry in fleet.reported()] == [True, True]
    kept = json.loads((fleet.folder / "state/reports/fleet.json").read_text("utf-8"))
    # What the file says and how the run ended is one thing.
    assert not kept["ok"] and [problem[:19] for problem in kept["problems"]] == [
        "gateway of h1: List",
        "gateway of h2: List",
    ]
    assert (fleet.good("h1"), fleet.good("h2")) == (1, 1)
    # A roll begins no gateway where there is none.
    code, output, _done = fleet.served("old", playbook="roll", bad={"gateway": True})
    assert code == 0, output
