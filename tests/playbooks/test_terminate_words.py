"""terminate and scale end what their words name and what was shown, and nothing else, as their users run them."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import subprocess
import termios
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.cloud import locks
from tests.playbooks.fleet import ROOT, TAGS, Fleet

pytestmark = pytest.mark.one_core

ALL = ["glm-default-1", "glm-default-2", "theirs"]


@pytest.fixture
def two(fleet: Fleet) -> Fleet:
    """Two instances of the fleet, and one of another."""
    for number in (1, 2):
        fleet.cloud.seed(name=f"glm-default-{number}", tags=TAGS)
    fleet.cloud.seed(name="theirs", tags={"glm-fleet": "theirs"})
    return fleet


# Which words mean what: tests/unit/cloud/test_targets.py; here, that a run obeys them.
NARROWING: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "glm_hosts": ((), {"glm_hosts": "glm-default-[2-9]*"}),
    "--limit": (("--limit", "localhost,glm-default-2"), {}),
    "all of them": (
        ("--limit", "localhost:all:!glm-default-1:!theirs"),
        {"glm_hosts": ["glm-default-*"], "glm_terminate_only": ["glm-default-2"]},
    ),
}


@pytest.mark.parametrize("words", NARROWING)
def test_terminate_ends_what_the_words_of_the_collection_name(two: Fleet, words: str) -> None:
    arguments, variables = NARROWING[words]
    code, output = two.run("terminate.yml", *arguments, "-e", "glm_confirm=yes", **variables)
    assert code == 0 and two.alive() == ["glm-default-1", "theirs"], output


REFUSED: dict[str, tuple[tuple[str, ...], dict[str, Any], str]] = {
    "an empty list": (
        (),
        {"glm_terminate_only": []},
        "names or ids of instances in glm_terminate_only, found an empty",
    ),
    "a list that became empty on the way": (
        (),
        {"__launch_target": {"only": [], "run": None, "problem": "", "mismatch": ""}},
        "only: expected names or ids, found an empty list",
    ),
    "an empty limit": (("--limit", ""), {}, "each part of --limit, found an empty one"),
    "an exclusion with a mistake": ((), {"glm_hosts": "glm_fleet:!glm-default-01"}, "none for '!glm-default-01'"),
    "a name with a mistake": ((), {"glm_terminate_only": ["glm-default-1", "glm-default-7"]}, "found 'glm-default-7'"),
    "a run that is none": ((), {"glm_terminate_run": "20261121-7"}, "glm-run=20261121-7, found none"),
    "hosts with a mistake": ((), {"glm_hosts": "glm-default-1,glm-default-7"}, "none for 'glm-default-7'"),
    "hosts of both fleets": ((), {"glm_hosts": "glm-default-1:theirs"}, "theirs, whose tag glm-fleet says theirs"),
    "a limit without the controller": (("--limit", "glm-default-2"), {}, "expected localhost in --limit"),
}


@pytest.mark.parametrize("words", REFUSED)
def test_words_that_mean_nothing_end_nothing(two: Fleet, words: str) -> None:
    arguments, variables, said = REFUSED[words]
    code, output = two.run("terminate.yml", *arguments, "-e", "glm_confirm=yes", **variables)
    assert code != 0 and two.alive() == ALL, output
    assert said in output and "Next:" in output, output


WORDS = ("glm_hosts", "glm_terminate_only", "glm_terminate_run", "glm_fleet_name", "glm_launch_role")


def test_a_word_without_a_value_is_no_word_left_out(two: Fleet) -> None:
    """As a list whose entries are all comments, or a variable of the shell that is not set."""
    tasks = [
        {
            "ansible.builtin.assert": {
                "that": f"'{word}, found an empty' in lookup('glm.fleet.ending_target').problem"
            },
            "vars": {word: value},
        }
        for word in WORDS
        for value in (None, "")
    ]
    book = two.folder / "words.yml"
    book.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]), "utf-8")
    code, output = two.run(str(book))
    assert code == 0 and f"ok={len(tasks)}" in output, output


@pytest.mark.parametrize("count", [None, ""])
def test_scale_takes_no_number_for_none(two: Fleet, count: Any) -> None:
    code, output = two.run("scale.yml", glm_confirm=True, glm_launch_count=count)
    assert code != 0 and two.alive() == ALL and "expected a number of instances, found none" in output, output


def test_an_id_where_hosts_are_named_is_refused_and_where_instances_are_is_right(two: Fleet) -> None:
    ids = {item["name"]: item["id"] for item in two.cloud.state()["instances"]}
    code, output = two.run("terminate.yml", glm_confirm=True, glm_hosts=ids["glm-default-2"])
    assert code != 0 and two.alive() == ALL, output
    code, output = two.run("terminate.yml", glm_confirm=True, glm_terminate_only=[ids["glm-default-2"]])
    assert code == 0 and two.alive() == ["glm-default-1", "theirs"], output
    assert f"53.52 USD per hour) [{ids['glm-default-2']}, age unknown]" in output
    assert "still running, at 53.52 USD per hour: glm-default-1" in output
    code, output = two.run("terminate.yml", glm_confirm=True, glm_terminate_only=[ids["glm-default-2"]])
    assert code == 0 and "going or gone already" in output, "once more does no harm"


@pytest.mark.parametrize("book", ["terminate.yml", "scale.yml", "launch.yml"])
def test_an_inventory_of_another_fleet_is_refused(two: Fleet, book: str) -> None:
    two.inventory.write_text("plugin: glm.fleet.lambda_cloud\nfleet: production\n", "utf-8")
    code, output = two.run(
        book, glm_confirm=True, glm_launch=True, glm_launch_count=1, glm_launch_regions=["us-east-1"]
    )
    assert code != 0 and two.alive() == ALL, output
    assert "an inventory that shows the fleet 'default' (glm_fleet_name), found one that shows production" in output


@pytest.mark.parametrize("book", ["terminate.yml", "scale.yml"])
def test_an_inventory_of_the_same_fleet_is_right(two: Fleet, book: str) -> None:
    two.inventory.write_text("plugin: glm.fleet.lambda_cloud\nfleet: default\n", "utf-8")
    code, output = two.run(book, glm_confirm=True, glm_launch_count=0)
    assert code == 0 and two.alive() == ["theirs"], output


def test_what_is_protected_stays_and_is_named(two: Fleet) -> None:
    two.cloud.seed(name="glm-default-3", tags={**TAGS, "glm-protect": "until the demo"})
    two.cloud.seed(name="kept-1", tags={"glm-fleet": "kept", "glm-protect": "yes"})
    code, output = two.run("terminate.yml", glm_confirm=True, glm_fleet_name="kept")
    assert code == 0 and "kept because of the tag glm-protect: kept-1" in output, "a fleet of which all is protected"
    code, output = two.run("terminate.yml", glm_confirm=True, glm_terminate_only=["glm-default-3"])
    assert code != 0 and "found it on glm-default-3" in output and "glm_unprotect" in output, output
    code, output = two.run("scale.yml", glm_confirm=True, glm_launch_count=2)
    assert code == 0 and two.alive() == ["glm-default-1", "glm-default-3", "kept-1", "theirs"], output
    code, output = two.run("terminate.yml", glm_confirm=True)
    assert code == 0 and two.alive() == ["glm-default-3", "kept-1", "theirs"], output
    assert "kept because of the tag glm-protect: glm-default-3" in output
    code, output = two.run("terminate.yml", glm_confirm=True, glm_unprotect=["glm-default-3"])
    assert code == 0 and two.alive() == ["kept-1", "theirs"], output


def answered(fleet: Fleet, answer: str, meanwhile: Callable[[], Any] = str) -> tuple[int, str]:
    """A run at a terminal whose user types the answer, after something else has happened."""
    main, side = pty.openpty()
    run = subprocess.Popen(
        fleet.command("terminate.yml", fleet.variables()), cwd=ROOT, env=fleet.environment(),
        stdin=side, stdout=side, stderr=side, start_new_session=True,
        # The terminal that it is asked at.
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(side)
    output, answer_sent = b"", False
    while True:
        ready, _, _ = select.select([main], [], [], 120)
        try:
            chunk = os.read(main, 65536) if ready else b""
        except OSError:
            chunk = b""
        if not chunk:
            break
        output += chunk
        if not answer_sent and b"Type yes to terminate them" in output:
            meanwhile()
            # The prompt reads what is typed once it is there.
            time.sleep(1)
            os.write(main, answer.encode() + b"\r")
            answer_sent = True
    os.close(main)
    return run.wait(), " ".join(output.decode("utf-8", "replace").split())


def test_the_question_means_what_it_showed(two: Fleet) -> None:
    code, output = answered(two, "")
    assert code != 0 and two.alive() == ALL and "run again with -e glm_confirm=yes" in output, output
    assert "DEPRECATION" not in output, output
    code, output = answered(two, "yes", lambda: two.cloud.seed(count=2, name="joined-{n}", tags=TAGS))
    assert code != 0 and len(two.alive()) == 5, output
    assert re.search(r"the fleet changed since you were asked: joined: joined-\d \(\w+\), joined-\d", output), output
    code, output = answered(two, "yes")
    assert code == 0 and two.alive() == ["theirs"], output


def test_scale_ends_nothing_that_joined_while_it_waited(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run launches up to four while this one, which saw one and wants two, waits for its turn."""
    fleet.cloud.seed(name="glm-default-1", tags=TAGS)
    # Locks are kept in the home; other tests go without one.
    (fleet.folder / ".cache" / "glm-fleet").unlink()
    monkeypatch.setenv("HOME", str(fleet.folder))
    results: list[tuple[int, str]] = []
    run = threading.Thread(target=lambda: results.append(fleet.run("scale.yml", glm_launch_count=2)))
    with locks.only_run(fleet.cloud.base_url, "default", 1) as alone:
        assert alone
        asked = fleet.cloud.world.pacing.report()["counts"].get("listSSHKeys", 0)
        run.start()
        # A comparison that finds something missing asks for the keys at its end; the run itself waits then.
        while fleet.cloud.world.pacing.report()["counts"].get("listSSHKeys", 0) == asked:
            time.sleep(0.1)
        fleet.cloud.seed(count=3, name="other-{n}", tags=TAGS)
    run.join()
    code, output = results[0]
    assert code != 0 and len(fleet.alive()) == 4, output
    assert re.search(r"the fleet changed since you were asked: joined: other-\d \(\w+\), other-\d", output), output


def test_what_stays_is_named_with_its_price(fleet: Fleet) -> None:
    asked = {"glm_launch_file_systems": ["weights"], "glm_launch_make_file_systems": True}
    rules = [{"protocol": "tcp", "ports": [22], "source": "203.0.113.0/24", "description": "ssh"}]
    code, output = fleet.run("launch.yml", glm_launch=True, **asked, glm_launch_firewall_rules=rules)
    assert code == 0, output
    for stored in fleet.cloud.world.state.file_systems.values():
        stored.bytes_used = 756 * 10**9
    code, output = fleet.run("terminate.yml", "--check", glm_confirm=True)
    assert code == 0 and "h old]" in output and len(fleet.alive()) == 1, output
    code, output = fleet.run("terminate.yml", glm_confirm=True)
    assert code == 0 and fleet.alive() == [], output
    assert re.search(r"weights in us-\w+-1 \(704.1 GiB, about 140.82 USD per month\), which stays on purpose", output)
    assert "firewall rulesets, which cost nothing: glm-default in us-east-1, glm-default in us-west-1" in output, output
    code, output = fleet.run("terminate.yml", glm_confirm=True)
    assert code == 0, output
