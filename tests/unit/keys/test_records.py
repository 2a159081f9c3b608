"""Which keys there are after add, rotate and revoke, which of them are valid when, and what is refused."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.finding import QuotingError, Refusal, Unmet
from ansible_collections.glm.fleet.plugins.plugin_utils.keys import records
from ansible_collections.glm.fleet.plugins.plugin_utils.keys.records import Key

NOON = datetime(2026, 11, 29, 12, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)


def key(name: str = "team-a", secret: str = "one", at: datetime = NOON, **more: object) -> Key:
    return Key(name, records.digest(secret), at, **more)  # type: ignore[arg-type]


def names(keys: records.Keys, at: datetime) -> list[tuple[str, str]]:
    secrets = {records.digest(word): word for word in ("one", "two", "three", "own", "newer")}
    return [(found["name"], secrets[found["sha256"]]) for found in records.for_doors(keys, at)]


def test_a_rotated_key_is_valid_beside_the_new_one_until_the_overlap_ends() -> None:
    keys = records.rotate((key(),), key(secret="two", at=NOON + HOUR), 24 * HOUR)
    assert names(keys, NOON + 24 * HOUR) == [("team-a", "one"), ("team-a", "two")]
    assert names(keys, NOON + 25 * HOUR) == [("team-a", "two")]
    assert [one.state(NOON + 2 * HOUR) for one in keys] == ["replaced", "valid"]


def test_rotation_without_overlap_ends_the_old_key_at_once() -> None:
    keys = records.rotate((key(),), key(secret="two", at=NOON + HOUR), timedelta())
    assert names(keys, NOON + HOUR) == [("team-a", "two")]


def test_rotation_does_not_lengthen_the_life_of_a_key() -> None:
    keys = records.rotate((key(expires=NOON + 2 * HOUR),), key(secret="two", at=NOON + HOUR), 24 * HOUR)
    assert names(keys, NOON + 2 * HOUR) == [("team-a", "two")]


def test_revoking_a_name_ends_all_its_keys_overlapping_ones_too() -> None:
    keys = records.rotate((key(), key("team-b", "three")), key(secret="two", at=NOON + HOUR), 24 * HOUR)
    revoked = records.revoke(keys, "team-a", NOON + 2 * HOUR)
    assert names(revoked, NOON + 2 * HOUR) == [("team-b", "three")]
    # Once more, after a push that did not reach every host.
    assert records.revoke(revoked, "team-a", NOON + 3 * HOUR) == revoked


def test_a_name_can_be_used_again_after_its_key_ended() -> None:
    revoked = records.revoke((key(),), "team-a", NOON + HOUR)
    assert names(records.add(revoked, key(secret="two", at=NOON + 2 * HOUR)), NOON + 2 * HOUR) == [("team-a", "two")]
    expired = (key(expires=NOON + HOUR),)
    keys = records.add(expired, key(secret="two", at=NOON + 2 * HOUR))
    assert names(keys, NOON + 2 * HOUR) == [("team-a", "two")]
    assert records.parse(records.dump(keys)) == (keys, None)


def test_an_expired_key_is_not_valid_and_expires_is_for_the_hosts_clock() -> None:
    ending = key(expires=NOON + HOUR)
    assert [found["expires"] for found in records.for_doors((ending,), NOON)] == [int((NOON + HOUR).timestamp())]
    assert records.for_doors((ending,), NOON + HOUR) == []
    assert [found["expires"] for found in records.for_doors((key(),), NOON)] == [0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda keys: records.add(keys, key(secret="two")), ["a key of the name team-a already", "rotate"]),
        (lambda keys: records.add(keys, key("team-b")), ["used before, under the name team-a"]),
        (lambda keys: records.add(keys, key("fleet", "two")), ["the fleet itself uses"]),
        (lambda keys: records.revoke(keys, "team-x", NOON), ["a key of the name team-x", "1 other name(s): team-a"]),
        (lambda keys: records.revoke(keys, "fleet", NOON), ["glm_key_overlap_hours=0"]),
        (lambda keys: records.rotate(keys, key("team-x", "two"), HOUR), ["expected a key of the name team-x"]),
    ],
)  # fmt: skip
def test_what_is_refused(change: object, words: list[str]) -> None:
    assert callable(change)
    with pytest.raises((Refusal, Unmet)) as refused:
        change((key(),))
    assert [word for word in words if word not in str(refused.value)] == []


@pytest.mark.parametrize("name", ["", "Team", "../x", "-a", "a b", "a/b", "a" * 64, "team\n", ".."])
def test_names_that_are_no_names(name: str) -> None:
    with pytest.raises(Unmet, match="set glm_key_name"):
        records.checked_name(name)


@pytest.mark.parametrize("limits", [{"rpm": 1}, *({"parallel": bad} for bad in (0, -1, True, "1.5"))])
def test_limits_that_are_no_limits(limits: dict[str, object]) -> None:
    with pytest.raises(Unmet, match="glm_key_limits"):
        records.checked_limits(limits)


def test_limits_from_a_command_line_are_numbers_and_null_is_none() -> None:
    assert records.checked_limits({"parallel": "8", "requests_per_minute": None}) == {"parallel": 8}


def test_the_store_gives_what_it_was_given() -> None:
    keys = (key(limits={"parallel": 8}), key("team-b", "two", expires=NOON, revoked=NOON, replaced=NOON))
    assert records.parse(records.dump(keys)) == (keys, None)
    assert "one" not in records.dump(keys)


ENTRY = {"name": "team-a", "sha256": "a" * 64, "created": "2026-11-29T12:00:00Z"}


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        ("{", "expected JSON"),
        ("[]", "the list 'keys'"),
        ({"keys": [1]}, "entry 1 to be a key"),
        ({"keys": [{**ENTRY, "name": "../x"}]}, "entry 1 to be a key"),
        ({"keys": [ENTRY, {**ENTRY, "sha256": "k"}]}, r"sha256 of team-a \(entry 2\)"),
        ({"keys": [{**ENTRY, "created": None}]}, "created of team-a"),
        ({"keys": [{**ENTRY, "expires": "tomorrow"}]}, "expires of team-a"),
        ({"keys": [{**ENTRY, "limits": [1]}]}, "limits of team-a"),
        ({"keys": [{**ENTRY, "limits": {"rpm": 1}}]}, "limits to be of"),
        ({"keys": [ENTRY, {**ENTRY, "sha256": "b" * 64}]}, "one key of the name team-a"),
        ({"keys": [ENTRY, {**ENTRY, "name": "team-b"}]}, "both team-a and team-b"),
    ],
)
def test_a_broken_store_is_named_not_guessed(stored: object, words: str) -> None:
    with pytest.raises(QuotingError, match=words):
        records.parse(stored if isinstance(stored, str) else json.dumps(stored))


def test_the_fleets_own_key_is_the_first_and_is_not_stored() -> None:
    keys = records.with_fleet((key(),), "own", NOON)
    assert names(keys, NOON) == [("fleet", "own"), ("team-a", "one")]
    assert records.parse(records.dump(keys)) == ((key(),), None)


def test_the_fleets_key_rotates_as_others_do() -> None:
    keys = records.rotate(records.with_fleet((), "own", NOON), key("fleet", "newer", NOON + HOUR), 2 * HOUR)
    again = records.with_fleet(records.parse(records.dump(keys))[0], "newer", NOON + HOUR)
    assert names(again, NOON + 2 * HOUR) == [("fleet", "newer"), ("fleet", "own")]
    assert names(again, NOON + 3 * HOUR) == [("fleet", "newer")]


def test_a_rotation_that_ended_before_the_key_was_there_keeps_the_old_one() -> None:
    keys = records.rotate(records.with_fleet((), "own", NOON), key("fleet", "newer", NOON + HOUR), timedelta())
    assert names(records.with_fleet(keys, "own", NOON), NOON + 2 * HOUR) == [("fleet", "own")]


def test_the_fleets_key_is_no_others() -> None:
    with pytest.raises(Unmet, match="the key of team-a"):
        records.with_fleet((key(),), "one", NOON)
