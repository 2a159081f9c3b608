"""What is made of what somebody elsewhere got who tried a host's sockets."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.finding import counts_against
from ansible_collections.glm.fleet.plugins.module_utils.serving.exposure import Answers, Place
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import outside

RIGHT: Answers = {"no_key": 401, "wrong_key": 401, "right_key": 200, "unlisted": 404, "problem": ""}
MEANT = [{"address": "10.0.0.5", "port": 8000}, {"address": "127.0.0.1", "port": 9800, "door": False}]


def place(address: str, port: int, process: str, unit: str = "") -> Place:
    return {"address": address, "port": port, "process": process, "unit": unit}


SSH = place("10.0.0.5", 22, "process 1 (sshd)")
PUBLIC_SSH = place("192.0.2.7", 22, "process 1 (sshd)")
DOOR = place("10.0.0.5", 8000, "process 2 (haproxy)", "glm-door.service")
EXPORTER = place("10.0.0.5", 9100, "process 3 (node_exporter)")
STORE = place("192.0.2.7", 34835, "process 4 (vllm)", "glm-serve-0.service")


def judged(*tried: tuple[Place, str], meant: list[dict[str, Any]] | None = None, **answers: Answers) -> dict[str, Any]:
    host = outside.Host([one for one, _outcome in tried], {22}, MEANT if meant is None else meant)
    seen = outside.Tried("the controller", [outcome for _place, outcome in tried], answers, 0.4)
    return dict(outside.judged("closed", host, seen))


def test_a_host_that_lets_in_only_what_it_should_passes_and_says_what_was_tried() -> None:
    found = judged(
        (SSH, "open"), (PUBLIC_SSH, "silent"), (DOOR, "open"), (EXPORTER, "open"), (STORE, "silent"), door=RIGHT
    )
    assert found["outcome"] == "passed" and found["seconds"] == 0.4
    assert found["found"] == (
        "3 sockets tried on 10.0.0.5 beside ssh; doors: door; not reached: 192.0.2.7; "
        "open and not ours: 10.0.0.5:9100 (process 3 (node_exporter))"
    )


def test_a_socket_of_an_engine_that_is_open_fails_with_its_name_whatever_a_control_says() -> None:
    for control in ("open", "silent"):
        found = judged((PUBLIC_SSH, control), (STORE, "open"))
        assert found["outcome"] == "failed"
        assert found["found"] == "192.0.2.7:34835 (glm-serve-0.service) is open" and "glm_bind" in found["next"]


@pytest.mark.parametrize(
    ("meant", "expected"),
    [
        (MEANT, "passed"),
        ([{"address": "127.0.0.1", "port": 8000}], "failed"),
        ([{"address": "10.0.0.6", "port": 8000}], "failed"),
        ([{"address": "10.0.0.5", "port": 8001}], "failed"),
        ([{"address": "0.0.0.0", "port": "8000"}], "passed"),
        ([], "failed"),
    ],
)
def test_the_door_may_be_open_where_the_plan_says(meant: list[dict[str, Any]], expected: str) -> None:
    assert judged((SSH, "open"), (DOOR, "open"), meant=meant)["outcome"] == expected


def test_an_open_socket_of_nobody_knows_whom_proves_nothing() -> None:
    hidden: Place = {**EXPORTER, "process": "a process that cannot be seen from here", "unit": None}
    found = judged((SSH, "open"), (DOOR, "open"), (hidden, "open"), door=RIGHT)
    assert found["outcome"] == "not_proven" and "10.0.0.5:9100 (a process that cannot be seen" in found["found"]
    assert judged((SSH, "open"), (hidden, "refused"))["outcome"] == "passed"


@pytest.mark.parametrize("outcome", ["refused", "silent", "EHOSTUNREACH No route to host", "ENETUNREACH"])
def test_without_a_control_nothing_is_proven(outcome: str) -> None:
    found = judged((SSH, outcome), (DOOR, outcome), (STORE, "refused"))
    assert found["outcome"] == "not_proven" and "does not reach 10.0.0.5, 192.0.2.7 at all" in found["found"]
    assert not counts_against(found)  # type: ignore[arg-type]  # a finding, as a dict
    assert judged()["outcome"] == "not_proven"


def test_a_forwarded_ssh_port_never_proves_anything_and_the_finding_says_so() -> None:
    """The host listens on 22; the controller comes by port 2222 of another machine, whose own ssh server has 22."""
    tried = [(PUBLIC_SSH, "open"), (DOOR, "refused"), (STORE, "refused")]
    forwarded = outside.Host([one for one, _outcome in tried], {2222}, MEANT)
    seen = outside.Tried("the controller", [outcome for _place, outcome in tried], {}, 0.4)
    found = outside.judged("closed", forwarded, seen)
    assert found["outcome"] == "not_proven"
    assert "cannot be proven from here: ssh comes by port 2222" in found["next"] and "closed_neighbour" in found["next"]
    # A neighbour comes by the port that the host listens on.
    answer = {"host": "gpu-2", "outcomes": seen.outcomes, "answers": {}}
    assert outside.of_neighbour(forwarded, answer)["outcome"] == "passed"


def test_a_firewall_before_ssh_is_another_matter_than_a_forwarded_port() -> None:
    found = judged((SSH, "silent"), (DOOR, "silent"))
    assert found["outcome"] == "not_proven" and found["next"].startswith("let the controller reach the host's ssh port")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"no_key": 200}, "door answers 200 without a key, not 401"),
        ({"wrong_key": 200}, "door answers 200 with a wrong key, not 401"),
        ({"unlisted": 200}, "door answers 200 for /invocations, not 404"),
        ({"unlisted": 401}, "door answers 401 for /invocations, not 404"),
        ({"right_key": 503}, "door answers 503 with the right key, not 200"),
    ],
)
def test_an_open_door_must_answer_rightly(change: dict[str, Any], words: str) -> None:
    answers: Any = {**RIGHT, **change}
    found = judged((SSH, "open"), (DOOR, "open"), door=answers)
    assert found["outcome"] == "failed" and found["found"] == words


def test_a_door_whose_engine_is_busy_is_not_wrong_and_the_finding_says_so() -> None:
    late: Any = {**RIGHT, "right_key": 0, "problem": "no answer within 5 s"}
    found = judged((SSH, "open"), (DOOR, "open"), door=late)
    assert found["outcome"] == "passed" and "door: no answer within 5 s" in found["found"]


def test_a_neighbour_that_did_not_try_proves_nothing() -> None:
    host = outside.Host([SSH, STORE], {22}, MEANT)
    none = outside.of_neighbour(host, {"host": "", "problem": "the play has no other host that could try"})
    away = outside.of_neighbour(host, {"host": "gpu-2", "problem": ""})
    tried = outside.of_neighbour(
        host, {"host": "gpu-2", "outcomes": ["open", "refused"], "answers": {}, "seconds": 0.1}
    )
    assert [one["outcome"] for one in (none, away, tried)] == ["not_proven", "not_proven", "passed"]
    assert none["found"] == "the play has no other host that could try"
    assert away["found"] == "the neighbour gpu-2 did not try: it did not answer"
    assert "open to the neighbour gpu-2 but the front door" in tried["expected"]
