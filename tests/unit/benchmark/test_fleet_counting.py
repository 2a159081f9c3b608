"""What the proof of a fleet counts: ends of streams, admitted replicas, gaps, and the hosts of turns."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.benchmark.fleet import counting
from tests.benchmark.fleet.counting import Asked, Look


def stream(*events: dict[str, Any]) -> str:
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"


def choice(reason: str | None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": "word"}, "finish_reason": reason}]}


USAGE: dict[str, Any] = {"choices": [], "usage": {"completion_tokens": 3}}


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        (stream(choice(None), choice("stop"), USAGE), "answered"),
        (stream(choice("length")), "answered"),
        (stream(choice("tool_calls")), "answered"),
        (stream(choice(None), choice("abort")), "lost: ended with abort"),
        (stream(choice(None)), "lost: ended with None"),
        (stream(choice(None), {"error": {"message": "away"}}), "lost: an error in the stream"),
        ("", "lost: ended with None"),
    ],
)
def test_a_stream_counts_when_it_ends_as_answers_do(text: str, outcome: str) -> None:
    assert counting.ended(text) == outcome


def test_what_was_lost_is_counted_by_how() -> None:
    outcomes = ["answered", "lost: HTTP 503", "answered", "lost: HTTP 503", "lost: ended with abort"]
    asked = [Asked(0.0, 1.0, outcome) for outcome in outcomes]
    assert counting.lost(asked) == {"lost: HTTP 503": 2, "lost: ended with abort": 1}
    assert counting.lost([]) == {}


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert [counting.percentile(values, share) for share in (0.5, 0.99, 1.0)] == [50.0, 99.0, 100.0]
    assert counting.percentile([7.0], 0.99) == 7.0
    with pytest.raises(ValueError, match="no values"):
        counting.percentile([], 0.5)


def look(at: float, *admitted: str, gateway: str = "g1") -> Look:
    return Look(at, gateway, frozenset(admitted))


def test_a_gateway_that_does_not_answer_admits_neither_all_nor_none() -> None:
    away = Look(2.0, "g1", None)
    assert counting.least_admitted([look(1, "a", "b", "c"), away, look(3, "a", "b")]) == 2
    assert counting.least_admitted([away]) is None
    assert counting.least_admitted([look(1)]) == 0


def test_the_time_that_a_replica_was_out_is_that_of_the_gateway_that_had_it_out_longest() -> None:
    looks = [
        look(0, "a", "b"), look(1, "a"), look(2, "a"), Look(3, "g1", None), look(4, "a"), look(5, "a", "b"),
        look(0.5, "a", "b", gateway="g2"), look(1.5, "a", gateway="g2"), look(2.5, "a", gateway="g2"),
    ]  # fmt: skip
    assert counting.seconds_out(looks, ["a", "b"]) == {"b": 3.0}
    # Also one look is too many.
    assert counting.seconds_out([look(0, "a", "b"), look(1, "b"), look(2, "a", "b")], ["a", "b"]) == {"a": 0.0}


def test_a_gateway_has_noticed_with_its_first_look_without_the_replica() -> None:
    looks = [
        look(9, "b"), look(10, "a", "b"), look(11.5, "b"), look(12, "b"),
        Look(10.5, "g2", None), look(11, "a", gateway="g2"),
    ]  # fmt: skip
    assert counting.first_without(looks, "a", since=9.5) == {"g1": 2.0}


@pytest.mark.parametrize(
    ("answers", "seconds"),
    [
        ([(0.0, True), (1.0, True), (2.0, True)], 0.0),
        ([(0.0, True), (1.0, False), (1.5, False), (2.0, True), (3.0, True)], 2.0),
        ([(0.0, True), (1.0, False), (5.0, False)], 5.0),
        ([], 0.0),
    ],
)
def test_a_gap_is_the_time_between_two_answers_with_failures_between_them(
    answers: list[tuple[float, bool]], seconds: float
) -> None:
    assert counting.longest_gap(answers) == seconds


def test_the_share_of_turns_at_their_host() -> None:
    homes = {"one": "a", "two": "b"}
    assert counting.at_home({"one": ["a", "a", "b"], "two": ["b"]}, homes) == 0.75
    with pytest.raises(ValueError, match="no turns"):
        counting.at_home({}, homes)


def test_turns_are_found_in_journals_by_their_bytes() -> None:
    bodies = {3000: ("one", 0), 3016: ("two", 0), 3032: ("one", 1)}
    lines = [(3232, "b"), (3200, "a"), (3216, "c")]
    assert counting.by_size(bodies, lines) == {("one", 0): "a", ("two", 0): "c", ("one", 1): "b"}
    for wrong in (lines[:2], [*lines, (9000, "a")], [(3232, "b"), (3200, "a"), (3217, "c")]):
        with pytest.raises(ValueError, match="expected 3 requests"):
            counting.by_size(bodies, wrong)


def test_the_size_of_a_body_is_that_of_its_json() -> None:
    assert counting.size_of({"user": "ü" * 4}) == len(b'{"user": ""}') + 4 * len(b"\\u00fc")
