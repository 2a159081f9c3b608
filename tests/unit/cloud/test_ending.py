"""Ending by id: these ids and no others are asked for, until the account shows them gone."""

from __future__ import annotations

from typing import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.glm.fleet.plugins.module_utils.cloud import api, ending

TROUBLE: dict[str, Callable[[], api.CloudError]] = {
    "lost": lambda: api.TransportError("lost"),
    "half": lambda: api.BadAnswer("half"),
    "503": lambda: api.ApiError("POST", 503, "provider/internal-unavailable", "busy"),
    "500": lambda: api.ApiError("POST", 500, "global/internal-error", "oops"),
    "429": lambda: api.RateLimited("POST", 429, "global/too-many-requests", "slow down"),
    "409": lambda: api.ApiError("POST", 409, "global/conflict", "busy"),
}
IDS = ("a", "b", "c", "d")


class Cloud:
    """An account whose requests meet the given trouble in turn; one id that is not there makes it refuse all."""

    def __init__(self, there: dict[str, bool], ends: list[str], looks: list[bool], after: bool) -> None:
        self.there = dict(there)
        self.ends = list(ends)
        self.looks = list(looks)
        self.after = after
        self.asked: list[list[str]] = []
        self.now = 0.0

    def end_request(self, ids: list[str]) -> list[str]:
        self.asked.append(ids)
        trouble = self.ends.pop(0) if self.ends else ""
        if trouble and not self.after:
            raise TROUBLE[trouble]()
        if any(identifier not in self.there for identifier in ids):
            raise api.ApiError("POST", 404, "global/object-does-not-exist", "which?")
        if any(not self.there[identifier] for identifier in ids):
            raise api.ApiError("POST", 400, "global/unknown", "An unknown error occurred.")
        self.there.update(dict.fromkeys(ids, False))
        if trouble:
            raise TROUBLE[trouble]()
        return ids

    def look(self) -> dict[str, bool]:
        if self.looks and self.looks.pop(0):
            raise api.TransportError("no list")
        return dict(self.there)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def end(self, ids: list[str], seconds: float = 900, until_gone: bool = True) -> ending.Outcome:
        attempt = ending.Ending(self, ids, seconds, 5, lambda *_: None, self.sleep, lambda: self.now)
        return attempt.run(until_gone)


@settings(max_examples=300, derandomize=True)
@given(
    there=st.dictionaries(st.sampled_from(IDS), st.booleans()),
    chosen=st.lists(st.sampled_from(IDS), min_size=1, unique=True),
    ends=st.lists(st.sampled_from(sorted(TROUBLE)), max_size=8),
    looks=st.lists(st.booleans(), max_size=6),
    after=st.booleans(),
)
def test_all_of_the_given_end_and_nothing_else_whatever_the_trouble(
    there: dict[str, bool], chosen: list[str], ends: list[str], looks: list[bool], after: bool
) -> None:
    cloud = Cloud(there, ends, looks, after)
    outcome = cloud.end(chosen)
    assert {identifier for ids in cloud.asked for identifier in ids} <= set(chosen)
    assert [identifier for identifier in chosen if cloud.there.get(identifier)] == []
    assert sorted(outcome.gone) == sorted(chosen) and not outcome.left and not outcome.accepted
    untouched = set(there) - set(chosen)
    assert {identifier: cloud.there[identifier] for identifier in untouched} == {key: there[key] for key in untouched}


def test_one_that_is_not_there_does_not_save_the_others() -> None:
    cloud = Cloud({"a": True, "b": True}, [], [], False)
    assert sorted(cloud.end(["a", "gone", "b"]).gone) == ["a", "b", "gone"]
    assert cloud.there == {"a": False, "b": False}


def test_what_no_list_shows_is_gone_only_when_the_api_says_so() -> None:
    late = Cloud({}, ["lost"] * 4, [], False)
    late.end_request = lambda ids: (_ for _ in ()).throw(api.TransportError("lost"))  # type: ignore[method-assign]
    outcome = late.end(["a"], seconds=60)
    assert outcome.gone == [] and "lost" in outcome.left["a"]
    assert Cloud({}, [], [], False).end(["a"]).gone == ["a"]
    assert Cloud({}, ["lost"] * 3, [], False).end(["a"]).gone == ["a"], "no answer three times, then one"


@pytest.mark.parametrize(
    "answer", [api.AuthError("POST", 401, "global/invalid-api-key", "?"), api.FinalAnswer("moved")]
)
def test_a_refused_key_ends_the_attempt_at_once_and_names_what_is_left(answer: api.CloudError) -> None:
    cloud = Cloud({"a": True, "b": True}, [], [], False)

    def refuse(ids: list[str]) -> list[str]:
        cloud.asked.append(ids)
        raise answer

    cloud.end_request = refuse  # type: ignore[method-assign]
    outcome = cloud.end(["a", "b"])
    assert cloud.asked == [["a", "b"]] and set(outcome.left) == {"a", "b"} and cloud.now == 0


def test_one_that_is_refused_for_good_is_named_and_the_others_end() -> None:
    cloud = Cloud({"a": True, "b": True}, [], [], False)
    end = cloud.end_request

    def refuse(ids: list[str]) -> list[str]:
        if "b" in ids:
            raise api.ApiError("POST", 400, "global/invalid-parameters", "not b")
        return end(ids)

    cloud.end_request = refuse  # type: ignore[method-assign]
    outcome = cloud.end(["a", "b"])
    assert outcome.gone == ["a"] and "not b" in outcome.left["b"] and cloud.now < 60


def test_patience_ends_and_a_time_that_the_api_asks_for_is_kept() -> None:
    cloud = Cloud({"a": True}, ["503"] * 99, [], False)
    assert set(cloud.end(["a"], seconds=100).left) == {"a"} and 100 <= cloud.now < 131
    error = api.RateLimited("POST", 429, "", "")
    error.retry_after = 17.0
    cloud = Cloud({"a": True}, [], [], False)
    end, waits = cloud.end_request, [error]

    def limited(ids: list[str]) -> list[str]:
        if waits:
            raise waits.pop()
        return end(ids)

    cloud.end_request = limited  # type: ignore[method-assign]
    assert cloud.end(["a"]).gone == ["a"] and cloud.now == 17


def test_an_end_that_was_accepted_is_asked_for_again_when_nothing_comes_of_it() -> None:
    cloud = Cloud({"a": True}, [], [], False)
    cloud.end_request = lambda ids: cloud.asked.append(ids) or ids  # type: ignore[func-returns-value, method-assign]
    outcome = cloud.end(["a"], seconds=100)
    assert len(cloud.asked) == 4 and "still shows it" in outcome.left["a"]
    assert Cloud({"a": True}, [], [True] * 9, False).end(["a"], until_gone=False).accepted == ["a"]


def test_an_answer_that_names_not_all_ends_only_what_it_names() -> None:
    cloud = Cloud({"a": True, "b": True}, [], [], False)
    end = cloud.end_request

    def one_at_a_time(ids: list[str]) -> list[str]:
        return end(ids[:1])

    cloud.end_request = one_at_a_time  # type: ignore[method-assign]
    assert cloud.end(["a", "b"]).gone == ["a", "b"] and cloud.there == {"a": False, "b": False}
    cloud.end_request = lambda _ids: []  # type: ignore[method-assign]
    cloud.there["a"] = True
    outcome = cloud.end(["a"], seconds=60, until_gone=False)
    assert outcome.accepted == [] and "does not name it" in outcome.left["a"]


def test_a_list_without_a_row_proves_nothing_while_no_end_was_accepted() -> None:
    cloud = Cloud({"a": True}, ["503"] * 3, [], False)
    cloud.look = dict  # type: ignore[method-assign, assignment]
    assert cloud.end(["a"]).gone == ["a"] and cloud.there == {"a": False}, "asked for until it was accepted"
    cloud = Cloud({"a": True}, ["503"] * 99, [], False)
    cloud.look = dict  # type: ignore[method-assign, assignment]
    assert set(cloud.end(["a"], seconds=60).left) == {"a"}
