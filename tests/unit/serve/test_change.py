"""What a deploy would change of what passed last."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.serving.release import Release
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import change
from tests.unit.serve.plans import plan


def passed(intent: dict[str, Any] | None = None) -> Release:
    return {
        "schema": 1, "number": 7, "content_sha256": "0", "made_at": "2026-11-28T08:00:00Z",
        "passed_at": "2026-11-29T08:00:00Z", "by": "ann@desk", "collection": "0.2.0", "intent": intent or {},
        "observed": [], "verdict": {"passed": 9, "made": 9}, "driver": None,
    }  # fmt: skip


def compared(now: Any, then: Any, intent: Any = None, before: Any = None) -> change.Change:
    return change.of_host(passed(before), [then], [now], intent or {})


def with_words(**options: str) -> Any:
    made = plan()
    made["command"] = [*made["command"], *(word for pair in options.items() for word in (f"--{pair[0]}", pair[1]))]
    return made


def test_the_same_plan_and_intent_change_nothing() -> None:
    same = compared(plan(), plan(), {"glm_model": "GLM-5.1"}, {"glm_model": "GLM-5.1"})
    assert (same["release"], same["intent"], same["served"], same["restarts"]) == (7, [], [], [])
    assert change.lines({"a": same}) == []


def test_a_host_on_which_nothing_passed_changes_nothing() -> None:
    first = change.of_host(None, [], [plan()], {"glm_model": "GLM-5.1"})
    assert first["release"] is None and not first["restarts"] and change.lines({"a": first}) == []


def test_a_changed_option_is_named_with_both_values_and_restarts() -> None:
    found = compared(with_words(**{"some-limit": "22"}), with_words(**{"some-limit": "64", "gone": "1"}))
    assert found["served"] == ["--gone: 1 -> none", "--some-limit: 64 -> 22"] and found["restarts"] == [0]


def test_a_forgotten_variable_is_named() -> None:
    found = compared(plan(), plan(), {}, {"glm_max_model_len": 65536})
    assert found["intent"] == ["glm_max_model_len: 65536 -> its default"] and found["restarts"] == []
    assert "would restart" in change.lines({"a": found})[-1] and change.lines({"a": found})[-1].startswith("  0 repl")


@pytest.mark.parametrize(
    ("path", "value", "restarts"),
    [
        (("env", "VLLM_SOMETHING"), "1", True),
        (("timeouts", "drain_seconds"), 7, True),
        (("accelerator", "indices"), [0, 1], True),
        (("door", "lacking"), ["responses"], False),
        (("tls",), {"origin": "fleet", "names": ["other.example"], "acme": None}, False),
        (("prices",), [], None),
        (("notes",), ["a remark"], None),
        (("memory", "arithmetic"), "other words", False),
    ],
)
def test_only_what_the_unit_is_made_of_restarts(path: tuple[str, ...], value: Any, restarts: bool | None) -> None:
    other = copy.deepcopy(plan())
    place = other
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    found = compared(other, plan())
    if path[0] == "timeouts":
        # An engine that drains by itself needs no more time of the unit for it.
        restarts = not other["stop"]["drains"]
    assert found["restarts"] == ([0] if restarts else []), found
    assert bool(found["served"]) is (restarts is not None and path[0] != "memory"), found


def test_a_replica_that_ends_and_one_that_begins() -> None:
    one, two = plan(), {**plan(), "replica": 1}
    fewer = change.of_host(passed(), [one, two], [one], {})
    assert fewer["served"] == ["replica 1: served -> none"] and fewer["restarts"] == [1]
    more = change.of_host(passed(), [one], [one, two], {})
    assert more["served"] == ["replica 1: none -> served"] and more["restarts"] == []


def test_plans_of_another_form_and_what_cannot_be_read_restart_as_far_as_anybody_knows() -> None:
    found = compared(plan(), {**plan(), "schema": 3})
    assert found["restarts"] == [0] and "that of glm.fleet 0.2.0 ->" in found["served"][0]
    unread = change.unread([plan()])
    assert unread["restarts"] == [0] and change.lines({"a": unread})[1] == "  a:"


def test_files_that_are_no_longer_as_they_passed_restart_their_replica() -> None:
    release = passed()
    release["observed"] = [
        {"replica": number, "engine": None, "version": None, "image": None, "digests": [], "weights": None,
         "package": None, "files": {f"/etc/glm/serve-{number}.env": "a", "/opt/venv/.glm.json": "b"}}
        for number in (0, 1)
    ]  # fmt: skip
    plans = [plan(), {**plan(), "replica": 1}]
    found = change.of_host(release, plans, plans, {}, ["/etc/glm/serve-1.env", "/etc/other"])
    assert found["served"] == ["/etc/glm/serve-1.env: as it passed -> another"] and found["restarts"] == [1]
    found = change.of_host(release, plans, plans, {}, ["/opt/venv/.glm.json"])
    assert found["restarts"] == [0, 1]


def test_a_secret_in_an_intent_is_not_shown() -> None:
    found = compared(plan(), plan(), {"glm_engine_args": {"api-key": "sk-0123456789abcdef"}}, {})
    assert "0123456789" not in str(found["intent"]) and len(found["intent"]) == 1


def test_no_key_is_shown() -> None:
    found = compared(with_words(**{"api-key": "sk-0123456789abcdef"}), with_words(**{"api-key": "sk-fedcba9876543210"}))
    assert "sk-" not in str(found) and found["restarts"] == [0]


def test_hosts_with_the_same_change_are_one_paragraph() -> None:
    differs = compared(with_words(limit="2"), with_words(limit="1"))
    other = compared(with_words(limit="3"), with_words(limit="1"), {"glm_x": 1}, {"glm_x": 2})
    hosts: dict[str, change.Change] = {f"h{number}": differs for number in range(6)}
    lines = change.lines({**hosts, "new": change.of_host(None, [], [plan()], {}), "other": other})
    assert lines == [
        "This run changes what passed last on 7 of 8 hosts:",
        "  h0, h1, h2, h3 and 2 more:",
        "    --limit: 1 -> 2",
        "  other, which has release 7 of 2026-11-29T08:00:00Z by ann@desk:",
        "    glm_x: 2 -> 1",
        "    --limit: 1 -> 3",
        "  7 replicas on 7 hosts would restart.",
    ]
