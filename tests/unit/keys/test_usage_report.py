"""The table of keys and the CSV of a month: sums over hosts, and nothing that did not answer is a zero."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from ansible_collections.glm.fleet.plugins.plugin_utils.keys import records, report
from ansible_collections.glm.fleet.plugins.plugin_utils.keys.records import Key

NOW = datetime(2026, 11, 29, 12, tzinfo=timezone.utc)


def key(name: str, days: float = 1, **more: Any) -> Key:
    return Key(name, records.digest(f"{name}{days}"), NOW - timedelta(days=days), **more)


def used(requests: int = 1, first: str = "2026-11-01T00:00:00Z", last: str = "2026-11-28T00:00:00Z") -> dict[str, Any]:
    return {"requests": requests, "refused": 0, "uncounted": 1, "prompt_tokens": 10 * requests,
            "completion_tokens": 2, "estimated_prompt_tokens": 4, "estimated_completion_tokens": 1,
            "first_use": first, "last_use": last}  # fmt: skip


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_a_key_is_shown_with_what_all_hosts_say_of_it() -> None:
    first, second = used(3), used(4, last="2026-11-29T01:00:00Z")
    before = {"team-b": used(5, last="2026-10-03T00:00:00Z")}
    hosts = {"h0": {"2026-11": {"team-a": first}}, "h1": {"2026-11": {"team-a": second}, "2026-10": before}}
    limited = key("team-a", 3, limits={"parallel": 8, "requests_per_minute": 60})
    keys = (limited, key("team-b", expires=NOW + timedelta(1)))
    lines = report.table(keys, hosts, NOW)
    assert cells(lines[1]) == ["team-a", "valid", "3 d", "never", "2026-11-29T01:00:00Z", "7", "0", "70", "4", "2",
                               "10", "8 at a time, 60 requests/min"]  # fmt: skip
    assert cells(lines[2])[:6] == ["team-b", "valid", "24 h", "2026-11-30T12:00:00Z", "2026-10-03T00:00:00Z", "0"]
    assert len(lines) == 4 and "did not answer" not in "".join(lines)


def test_a_key_that_no_host_saw_was_never_used_only_when_every_host_answered() -> None:
    assert cells(report.table((key("team-a"),), {"h0": {}, "h1": {}}, NOW)[1])[3:6] == ["never", "never", "0"]
    lines = report.table((key("team-a"),), {"h0": {}, "h1": None}, NOW)
    assert cells(lines[1])[4:7] == ["not seen", "0+", "0+"] and "did not answer: h1" in lines[-1]


def test_keys_that_ended_for_good_are_not_shown_and_expired_ones_are() -> None:
    keys = (key("gone", revoked=NOW), key("old", expires=NOW, replaced=NOW), key("over", expires=NOW),
            key("both", 9, replaced=NOW, expires=NOW + timedelta(1)), key("both"))  # fmt: skip
    shown = [cells(line)[:2] for line in report.table(keys, {}, NOW)[1:4]]
    assert shown == [["over", "expired"], ["both", "replaced"], ["both", "valid"]]


def test_a_key_older_than_it_should_be_is_marked_and_named() -> None:
    keys = (key("young", 99), key("aged", 101), key("aged-too", 200, replaced=NOW, expires=NOW + timedelta(1)))
    lines = report.table(keys, {}, NOW, 100)
    assert "101 d old" in lines[2] and "old" not in lines[1] and "200 d old" not in lines[3]
    assert lines[-1] == "Older than 100 days, rotate (glm_keys_action=rotate): aged."


HEADER = (
    "host,key,requests,refused,uncounted,prompt_tokens,completion_tokens,estimated_prompt_tokens,"
    "estimated_completion_tokens,first_use,last_use\n"
)


def test_the_csv_of_a_month_keeps_hosts_that_are_gone_or_silent() -> None:
    first = report.month_csv("", "2026-11", {"h0": {"2026-11": {"b": used(1), "a": used(2)}}, "h1": {}})
    assert first == HEADER + (
        "h0,a,2,0,1,20,2,4,1,2026-11-01T00:00:00Z,2026-11-28T00:00:00Z\n"
        "h0,b,1,0,1,10,2,4,1,2026-11-01T00:00:00Z,2026-11-28T00:00:00Z\n"
    )
    again = report.month_csv(first, "2026-11", {"h0": None, "h1": {"2026-11": {"a": used(9)}}})
    assert again.startswith(first) and again.count("\n") == 4
    assert report.month_csv(again, "2026-11", {"h0": None, "h1": {"2026-11": {"a": used(9)}}}) == again


def test_a_new_host_of_an_old_name_has_a_row_of_its_own() -> None:
    first = report.month_csv("", "2026-11", {"h0": {"2026-11": {"a": used(9)}}})
    second = report.month_csv(first, "2026-11", {"h0": {"2026-11": {"a": used(2, first="2026-11-20T00:00:00Z")}}})
    assert [line.split(",")[2] for line in second.splitlines()[1:]] == ["9", "2"]
    third = report.month_csv(second, "2026-11", {"h0": {"2026-11": {"a": used(3, first="2026-11-20T00:00:00Z")}}})
    assert [line.split(",")[2] for line in third.splitlines()[1:]] == ["9", "3"]


def test_what_was_recorded_never_falls() -> None:
    first = report.month_csv("", "2026-11", {"h0": {"2026-11": {"a": used(10)}}})
    # As from totals that were restored from a backup.
    less = {"h0": {"2026-11": {"a": used(9, last="2026-11-27T00:00:00Z")}}}
    assert report.month_csv(first, "2026-11", less) == first
    more = report.month_csv(first, "2026-11", {"h0": {"2026-11": {"a": used(11)}}})
    assert more.splitlines()[1].startswith("h0,a,11,0,1,110,")
    # A file of an earlier release has fewer columns.
    old = "host,key,requests,refused,uncounted,prompt_tokens,completion_tokens,first_use,last_use\n"
    old += "h0,a,12,0,1,120,2,2026-11-01T00:00:00Z,2026-11-28T00:00:00Z\n"
    again = report.month_csv(old, "2026-11", {"h0": {"2026-11": {"a": used(11)}}})
    assert again == HEADER + "h0,a,12,0,1,120,2,4,1,2026-11-01T00:00:00Z,2026-11-28T00:00:00Z\n"


def test_months_are_those_that_any_host_saw() -> None:
    assert report.months({"h0": {"2026-11": {}}, "h1": {"2026-10": {}}, "h2": None}) == ["2026-10", "2026-11"]
