"""keys.yml on two running doors under load, with a third host that is away: hand out, rotate, revoke, list."""

from __future__ import annotations

import grp
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.playbooks.door import proxy, scripted
from tests.playbooks.door.load import Load
from tests.playbooks.door.proxy import Door

pytestmark = pytest.mark.one_core
ROOT = Path(__file__).parents[3]
USAGE = '{"choices":[],"usage":{"prompt_tokens":70,"completion_tokens":30}}'
# The journal of the test: the lines of a log, each with its number as the place.
JOURNAL = """
after=$(printf '%s\\n' "$@" | sed -n 's/^--after-cursor=//p')
next=$((${{after:-0}} + 1))
grep ' key=' {log} | tail -n +$next | nl -v $next -s ' ' | while read -r number line; do
  printf '{{"__CURSOR": "%s", "__REALTIME_TIMESTAMP": "%s000000", "MESSAGE": "%s"}}\\n' "$number" "$(date +%s)" "$line"
done
"""


def here_of(playbooks: Path) -> list[dict[str, Any]]:
    """The plays of keys.yml, whose modules find each host's files where the test has them."""
    plays: list[dict[str, Any]] = yaml.safe_load((playbooks / "keys.yml").read_text("utf-8"))
    for play in plays:
        if (imported := play.get("ansible.builtin.import_playbook")) is not None:
            play["ansible.builtin.import_playbook"] = str(playbooks / imported)
        else:
            play["module_defaults"] = {
                "glm.fleet.door_keys": {name: f"{{{{ door['{name}'] }}}}" for name in ("folder", "group", "master")},
                "glm.fleet.door_usage": {"folder": "{{ usage }}"},
            }
        for task in play.get("tasks", []):
            if "ansible.builtin.import_tasks" in task:
                task["ansible.builtin.import_tasks"] = str(playbooks / task["ansible.builtin.import_tasks"])
    return plays


class Fleet:
    """An inventory of two hosts on this machine, and the playbook."""

    def __init__(self, folder: Path, doors: list[Door]) -> None:
        self.folder, self.doors, self.state = folder, doors, folder / "state"
        group = grp.getgrgid(os.getgid()).gr_name
        self.hosts: dict[str, Any] = {
            f"h{number}": {**self.here(number), "door": {"folder": str(door.folder / "door"), "group": group,
                           "master": str(door.folder / "master.sock")}, "usage": str(folder / f"usage-{number}")}
            for number, door in enumerate(doors)
        }  # fmt: skip
        self.group: dict[str, Any] = {}
        self.playbook = folder / "keys.yml"
        self.playbook.write_text(yaml.safe_dump(here_of(ROOT / "playbooks")), "utf-8")

    def here(self, number: int) -> dict[str, Any]:
        """How a host on this machine is reached."""
        return {
            "ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": sys.executable,
            "__lease_path": str(self.folder / f"lease-{number}.json"),
        }  # fmt: skip

    def run(self, *arguments: str, **variables: Any) -> tuple[int, str]:
        """Exit status and output, white space folded."""
        inventory = {"all": {"children": {"glm_fleet": {"hosts": self.hosts, "vars": self.group}}}}
        (self.folder / "hosts.yml").write_text(json.dumps(inventory), "utf-8")
        given = {**({} if self.group else {"glm_state_dir": str(self.state)}), **variables}
        command = ["ansible-playbook", str(self.playbook), "-i", str(self.folder / "hosts.yml"), "-v", *arguments]
        command += ["-e", json.dumps(given)]
        environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
        done = subprocess.run(
            command, cwd=ROOT, env={**environment, "COLUMNS": "400"}, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        output = done.stdout + done.stderr
        assert not [key for key in self.plain_keys() if key in output], "a key was printed"
        return done.returncode, " ".join(output.split())

    def plain_keys(self) -> list[str]:
        paths = [self.state / "api_key", *(self.state / "keys").glob("*")]
        return [path.read_text("utf-8").strip() for path in paths if path.exists()]

    def key(self, name: str) -> str:
        path = self.state / "keys" / name
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        return path.read_text("utf-8").strip()

    def statuses(self, key: str) -> list[int]:
        return [scripted.ask(door.port, key, pieces=[USAGE]).status for door in self.doors]


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    folders = [tmp_path / f"door-{number}" for number in range(2)]
    for folder in folders:
        folder.mkdir()
    with (
        scripted.engine() as engine,
        proxy.running(folders[0], engine.port) as first,
        proxy.running(folders[1], engine.port) as second,
    ):
        yield Fleet(tmp_path, [first, second])


def test_a_key_from_its_making_to_its_end_while_others_work(fleet: Fleet, fake_command: Callable[..., Path]) -> None:
    fake_command("journalctl", JOURNAL.format(log=fleet.folder / "door-0" / "log"))
    code, output = fleet.run(glm_keys_action="push")
    assert code == 0 and "2 of 2 hosts have the keys, seen in 2 process(es) of 2 door(s)" in output, output
    own = (fleet.state / "api_key").read_text("utf-8").strip()
    with Load(fleet.doors[0].port, own, pause=0.005) as load:
        limits = {"parallel": 3, "requests_per_minute": 1000}
        code, output = fleet.run(glm_keys_action="add", glm_key_name="team-a", glm_key_limits=limits, glm_key_days=30)
        assert code == 0 and f"The key is in {fleet.state}/keys/team-a on the controller" in output, output
        first = fleet.key("team-a")
        assert fleet.statuses(first) == [200, 200]
        assert (fleet.doors[1].folder / "door" / "parallel.map").read_text("utf-8") == "team-a 3\n"

        code, output = fleet.run(glm_keys_action="add", glm_key_name="team-a")
        assert code != 0 and "there is a key of the name team-a already" in output and "rotate replaces it" in output

        code, output = fleet.run(glm_keys_action="rotate", glm_key_name="team-a", glm_key_overlap_hours=2)
        second = fleet.key("team-a")
        assert code == 0 and second != first
        assert fleet.statuses(first) == fleet.statuses(second) == [200, 200]
        assert (fleet.doors[1].folder / "door" / "parallel.map").read_text("utf-8") == "team-a 3\n"

        # A host that is away keeps the key: the run says so and fails, and the others refuse it.
        away = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
        fleet.hosts["away"] = away
        code, output = fleet.run(glm_keys_action="revoke", glm_key_name="team-a")
        assert code != 0 and "1 of 3 hosts did not take the keys" in output and "revoked ones still do: away" in output
        assert fleet.statuses(first) == fleet.statuses(second) == [401, 401]
        assert not (fleet.state / "keys" / "team-a").exists()
        # The same once more, when it is there again, ends well.
        del fleet.hosts["away"]
        assert fleet.run(glm_keys_action="revoke", glm_key_name="team-a")[0] == 0

        code, output = fleet.run(glm_keys_action="rotate", glm_key_name="fleet", glm_key_overlap_hours=1)
        newer = (fleet.state / "api_key").read_text("utf-8").strip()
        assert code == 0 and newer != own and fleet.statuses(own) == fleet.statuses(newer) == [200, 200]

        fleet.hosts["away"] = away
        code, output = fleet.run()
        assert code == 0 and "NAME STATE AGE EXPIRES LAST USE" in output, output
        assert "did not answer: away" in output and re.search(r"fleet valid 0 h never 20\S+Z \d+\+ 0\+", output)
    assert len(load.statuses) > 100 and set(load.statuses) == {200}
    (month,) = (fleet.state / "usage").glob("*.csv")
    rows = [line.split(",") for line in month.read_text("utf-8").splitlines()[1:]]
    # Both hosts of the test read the same lines: three requests of the team's to the first door before it was revoked.
    assert [row[:7] for row in rows if row[1] == "team-a"] == [
        [host, "team-a", "3", "0", "0", "210", "90"] for host in ("h0", "h1")
    ]


def test_the_program_of_the_timer_counts_as_the_module_does(tmp_path: Path, fake_command: Callable[..., Path]) -> None:
    """Run as the unit runs it: alone, with the interpreter's own library and nothing else."""
    line = (
        "10.0.0.9 key=team-a method=POST route=/v1/messages to=engine-0 status=200 limit=- generates=1 prompt=11 "
        "completion=7 first=0/0/0/5 all=9 bytes=10/20 end=--"
    )
    (tmp_path / "log").write_text(f"{line}\n{line}\n", "utf-8")
    fake_command("journalctl", JOURNAL.format(log=tmp_path / "log"))
    program = shutil.copy(ROOT / "plugins/module_utils/door/usage.py", tmp_path / "door_usage.py")
    for _ in range(2):
        subprocess.run([sys.executable, "-I", program, tmp_path / "usage"], check=True)
    (month,) = (tmp_path / "usage").glob("*.csv")
    assert month.read_text("utf-8").splitlines()[1].startswith("team-a,2,0,0,22,14,")
    fake_command("journalctl", "echo no journal >&2; exit 1")
    done = subprocess.run(
        [sys.executable, "-I", program, tmp_path / "usage"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and "journalctl ended with 1: no journal" in done.stderr


def test_a_host_whose_door_is_down_is_named_and_has_the_files(tmp_path: Path) -> None:
    down = Door([], 0, tmp_path / "down", subprocess.Popen(["true"]))
    (down.folder / "door").mkdir(parents=True)
    code, output = Fleet(tmp_path, [down]).run(glm_keys_action="add", glm_key_name="team-a")
    assert code == 0 and "the door does not run, and reads the keys when it starts, on h0" in output, output
    assert "team-a" in (down.folder / "door" / "keys.map").read_text("utf-8")


def test_a_host_that_only_computes_has_no_door_and_fails_nothing(tmp_path: Path) -> None:
    worker = Door([], 0, tmp_path / "worker", subprocess.Popen(["true"]))
    code, output = Fleet(tmp_path, [worker]).run(glm_keys_action="push")
    assert code == 0 and "no front door, where no key opens anything, on h0" in output, output


def test_a_copied_store_brings_no_revoked_key_back_and_two_stores_are_named(fleet: Fleet) -> None:
    assert fleet.run(glm_keys_action="add", glm_key_name="team-a")[0] == 0
    assert fleet.run(glm_keys_action="add", glm_key_name="team-b")[0] == 0
    key, kept = fleet.key("team-a"), fleet.key("team-b")
    copy = shutil.copytree(fleet.state, fleet.folder / "copy")
    assert fleet.run(glm_keys_action="revoke", glm_key_name="team-a")[0] == 0
    assert fleet.statuses(key) == [401, 401]
    other = {"glm_state_dir": str(copy)}
    # The other controller has not changed anything: its keys are older.
    code, output = fleet.run(glm_keys_action="push", **other)
    assert code != 0 and "found older ones, of generation 2, which " in output and "2 of 2 hosts did not" in output
    # It has: both stores have a third generation.
    code, output = fleet.run(glm_keys_action="revoke", glm_key_name="team-b", **other)
    assert code != 0 and "found another store: generation 3, which " in output and "glm_keys_overrule=true" in output
    assert fleet.statuses(key) == [401, 401] and fleet.statuses(kept) == [200, 200]
    # Without a store at all there would be the fleet's own key only.
    code, output = fleet.run(glm_keys_action="push", glm_state_dir=str(fleet.folder / "none"))
    assert code != 0 and "found no key store on this controller" in output and fleet.statuses(kept) == [200, 200]
    code, output = fleet.run(glm_keys_action="push", glm_keys_overrule=True, **other)
    assert code == 0 and "2 of 2 hosts have the keys" in output, output
    assert fleet.statuses(key) == [200, 200] and fleet.statuses(kept) == [401, 401]


def test_the_hosts_variables_say_where_the_store_is(fleet: Fleet) -> None:
    fleet.group = {"glm_state_dir": str(fleet.state), "glm_api_key": "{{ lookup('env', 'HOME') | hash('sha256') }}"}
    code, output = fleet.run(glm_keys_action="add", glm_key_name="team-a")
    assert code == 0 and f"The key is in {fleet.state}/keys/team-a on the controller" in output, output
    assert fleet.statuses(fleet.key("team-a")) == [200, 200]
    assert fleet.statuses(hashlib.sha256(os.environ["HOME"].encode()).hexdigest()) == [200, 200]
    assert not (fleet.state / "api_key").exists()
    fleet.hosts["h1"]["glm_state_dir"] = str(fleet.folder / "another")
    code, output = fleet.run(glm_keys_action="revoke", glm_key_name="team-a")
    assert code != 0 and f"for all hosts, found {fleet.state}, {fleet.folder}/another and" in output, output
    assert fleet.statuses(fleet.key("team-a")) == [200, 200]


def test_hosts_that_a_limit_leaves_out_are_named_and_without_the_controller_nothing_changes(tmp_path: Path) -> None:
    doors = [Door([], 0, tmp_path / f"down-{number}", subprocess.Popen(["true"])) for number in range(2)]
    for door in doors:
        (door.folder / "door").mkdir(parents=True)
    fleet = Fleet(tmp_path, doors)
    code, output = fleet.run("--limit", "h0", glm_keys_action="add", glm_key_name="team-a")
    assert code != 0 and "expected --limit to leave the controller in the run, found h0" in output, output
    assert not (fleet.state / "keys.json").exists()
    code, output = fleet.run("--limit", "h0,localhost", glm_keys_action="add", glm_key_name="team-a")
    assert code != 0 and "1 of 2 hosts did not take the keys" in output and "revoked ones still do: h1" in output
    assert "team-a" in (doors[0].folder / "door" / "keys.map").read_text("utf-8")


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"glm_keys_action": "revoke", "glm_key_name": "team-x"}, "a key of the name team-x, found 1 other name"),
        ({"glm_keys_action": "revoke", "glm_key_name": "fleet"}, "the key that the fleet itself uses"),
        ({"glm_keys_action": "delete", "glm_key_name": "team-x"}, "glm_keys_action"),
        ({"glm_keys_action": "add"}, "set glm_key_name"),
        ({"glm_keys_action": "add", "glm_key_name": "x", "glm_key_limits": {"rpm": 1}}, "limits to be of"),
        (
            {"glm_keys_action": "rotate", "glm_key_name": "fleet", "glm_api_key": "9f86d081884c7d659a2feaa0c55ad015"},
            "the fleet's own key is in glm_api_key, which this run cannot change",
        ),
        ({"glm_keys_action": "push", "glm_api_key": "too-short"}, "the key in glm_api_key has at most"),
    ],
)  # fmt: skip
def test_what_is_refused_changes_nothing(tmp_path: Path, variables: dict[str, Any], words: str) -> None:
    fleet = Fleet(tmp_path, [])
    fleet.hosts = {"h0": fleet.here(0)}
    code, output = fleet.run(**variables)
    assert code != 0 and words in output, output
    assert not (fleet.state / "keys.json").exists() and not (fleet.state / "keys").exists()


def test_a_store_that_others_can_read_stops_the_run(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, [])
    fleet.hosts = {"h0": fleet.here(0)}
    fleet.state.mkdir()
    (fleet.state / "keys.json").write_text('{"keys": []}', "utf-8")
    (fleet.state / "keys.json").chmod(0o644)
    code, output = fleet.run(glm_keys_action="add", glm_key_name="team-a")
    assert code != 0 and "to be its owner's only, found mode 0644" in output and "chmod 600" in output, output
