"""The proof of a fleet runs what was chosen, prints what was expected and found, and fails with a bound that fails."""

from __future__ import annotations

import argparse

import pytest

from tests.benchmark import roll_under_load
from tests.benchmark.fleet import load, measured
from tests.benchmark.fleet.counting import Asked
from tests.benchmark.fleet.measured import Check, Proof, Seen


def scenario(holds: bool) -> object:
    return lambda _proof: [Check("requests lost", "0", "3", holds)]


def test_scenarios_run_in_their_order_and_each_that_fails_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_proof: Proof | None) -> list[Check]:
        """Ends with an error."""
        raise OSError("no host")

    some = {"good": scenario(True), "broken": broken, "bad": scenario(False), "empty": lambda _proof: []}
    monkeypatch.setattr(roll_under_load, "SCENARIOS", some)
    monkeypatch.setattr(roll_under_load, "WITHOUT_HOSTS", set(some))
    assert roll_under_load.main(["--only", "bad,good,empty,broken"]) == 1
    said = capsys.readouterr().out
    assert said.index("== good") < said.index("== broken") < said.index("== bad")
    assert "FAILED requests lost: expected 0, found 3" in said and "no host" in said
    assert "1 of 4 scenarios hold; failed: broken, bad, empty" in said
    assert roll_under_load.main(["--only", "good"]) == 0
    with pytest.raises(argparse.ArgumentTypeError, match="unknown other; known: "):
        roll_under_load.scenarios("good,other")


@pytest.mark.parametrize(
    ("outcomes", "holds"),
    [
        (["answered"] * 3, [True, True]),
        (["answered", "lost: HTTP 503"], [False, True]),
        (["answered", "lost: ended with abort"], [False, False]),
        # Nothing was asked, so nothing is proven.
        ([], [False, True]),
    ],
)
def test_nothing_is_lost_when_everything_was_answered_and_something_was(outcomes: list[str], holds: list[bool]) -> None:
    seen = Seen(None, [Asked(0.0, 1.0, outcome) for outcome in outcomes], [], 1.0, 0.0)
    assert [check.holds for check in measured.nothing_lost(seen)] == holds


def test_a_value_that_was_not_measured_is_under_no_bound() -> None:
    assert not measured.at_least("replicas", 2, None).holds
    assert measured.at_least("replicas", 2, 2).holds and not measured.at_least("replicas", 2, 1).holds
    assert measured.at_most("seconds", 2, 2.0).holds and not measured.at_most("seconds", 2, 2.01).holds


def test_the_clients_of_a_host_send_streams_tool_calls_and_long_prompts() -> None:
    kinds = [load.kind_of(number) for number in range(20)]
    assert (kinds.count("chat"), kinds.count("tools"), kinds.count("long")) == (17, 2, 1)
    # A conversation begins with the same words in each of its turns, and the next with others.
    first, later, other = (load.request("chat", 3, turn, 10)["messages"] for turn in (0, 4, 5))
    assert later[0] == first[0] != other[0] and len(later) == 9
    assert load.request("tools", 3, 0, 10)["tools"] and "tools" not in load.request("long", 3, 0, 10)
