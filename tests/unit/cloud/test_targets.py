"""What the words of a run that ends instances mean: they narrow or are refused, and never mean more than they name."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud import targets

FLEETS = {"a-1": "a", "a-2": "a", "a-3": "a", "b-1": "b"}
HOSTS: dict[str, dict[str, Any]] = {
    **{
        name: {"glm_host_id": f"id-{name}", "glm_host_name": name, "glm_host_tags": {"glm-fleet": fleet}}
        for name, fleet in FLEETS.items()
    },
    "plain": {},
    "localhost": {},
}
GROUPS = {"glm_fleet": ["a-1", "a-2", "a-3"], "east": ["a-1", "b-1"], "all": [*FLEETS, "plain"]}


def terms_of(pattern: Any) -> list[str]:
    """As core takes a pattern apart."""
    if isinstance(pattern, list):
        return [term for part in pattern for term in terms_of(part)]
    return [term.strip() for term in str(pattern).replace(":", ",").split(",") if term.strip()]


def one(term: str) -> list[str]:
    return GROUPS.get(term) or [host for host in HOSTS if fnmatchcase(host, term)]


def matching(pattern: Any) -> list[str]:
    terms = terms_of(pattern)
    wanted = [term for term in terms if term[0] not in "!&"] or (["all"] if terms else [])
    hosts = [host for term in wanted for host in one(term)]
    for term in terms:
        if term.startswith("!"):
            hosts = [host for host in hosts if host not in one(term[1:])]
        if term.startswith("&"):
            hosts = [host for host in hosts if host in one(term[1:])]
    return list(dict.fromkeys(hosts))


def target(**words: Any) -> targets.Target:
    return targets.target(targets.Words("a", **words), terms_of, matching, lambda host: HOSTS[host])


@pytest.mark.parametrize(
    ("words", "only"),
    [
        ({}, None),
        ({"hosts": "a-2"}, ["id-a-2"]),
        ({"hosts": ["a-2", "a-1"]}, ["id-a-1", "id-a-2"]),
        ({"hosts": "a-*:!a-1"}, ["id-a-2", "id-a-3"]),
        ({"hosts": "glm_fleet:&east"}, ["id-a-1"]),
        ({"hosts": "glm_fleet:!b-1"}, ["id-a-1", "id-a-2", "id-a-3"]),
        ({"hosts": "a-*:!localhost"}, ["id-a-1", "id-a-2", "id-a-3"]),
        ({"hosts": "glm_fleet"}, ["id-a-1", "id-a-2", "id-a-3"]),
        ({"limit": "localhost,a-2"}, ["id-a-2"]),
        ({"limit": "all:!a-1"}, ["id-a-2", "id-a-3"]),
        ({"limit": "!a-1"}, ["id-a-2", "id-a-3"]),
        ({"limit": "localhost:east"}, ["id-a-1"]),
        ({"limit": "localhost,a-2", "hosts": "a-*"}, ["id-a-2"]),
        ({"only": ["a-2"]}, ["a-2"]),
        ({"only": "a-2, a-3"}, ["a-2", "a-3"]),
        ({"only": ("a-2",), "hosts": "glm_fleet"}, ["id-a-2"]),
        ({"only": ["id-a-2", "a-2"], "limit": "localhost,a-2"}, ["id-a-2"]),
    ],
)
def test_words_narrow(words: dict[str, Any], only: list[str] | None) -> None:
    assert target(**words).only == only
    assert target(**words, run="r").run == "r"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"hosts": ""}, "found an empty one"),
        ({"hosts": []}, "found an empty one"),
        ({"hosts": "a-7"}, "found none for 'a-7'"),
        ({"hosts": "a-1,a-7"}, "found none for 'a-7'"),
        ({"hosts": "A-1"}, "found none for 'A-1'"),
        ({"hosts": "id-a-1"}, "not ids"),
        ({"hosts": "glm_fleet:!a-01"}, "found none for '!a-01'"),
        ({"hosts": ["a-*", "!A-1"]}, "found none for '!A-1'"),
        ({"hosts": "a-1,a-2,&eats"}, "found none for '&eats'"),
        ({"hosts": "a-*,!"}, "found none for '!'"),
        ({"hosts": "!@left.retry"}, "a file, !@left.retry"),
        ({"limit": "all:!a-01"}, "each part of --limit, found none for '!a-01'"),
        ({"limit": "localhost,a-*,!a-1,&a-7"}, "found none for '&a-7'"),
        ({"limit": "all:!a-01", "hosts": "a-*"}, "found none for '!a-01'"),
        ({"limit": ""}, "each part of --limit, found an empty one"),
        ({"empty": ["glm_fleet_name"]}, "a value for glm_fleet_name, found an empty one"),
        ({"empty": ["glm_launch_role"], "only": ["a-1"]}, "a value for glm_launch_role, found an empty one"),
        ({"hosts": "b-1"}, "b-1, whose tag glm-fleet says b"),
        ({"hosts": "a-1:b-1"}, "b-1, whose tag glm-fleet says b"),
        ({"hosts": "all"}, "b-1, whose tag glm-fleet says b"),
        ({"hosts": "plain"}, "a host without glm_host_id"),
        ({"hosts": "a-1:!a-1"}, "at least one host in glm_hosts (a-1:!a-1), found none"),
        ({"hosts": "localhost"}, "at least one host"),
        ({"limit": "localhost"}, "at least one host in --limit (localhost)"),
        ({"limit": "localhost,a-7"}, "found none for 'a-7'"),
        ({"limit": "localhost,b-1"}, "at least one host"),
        ({"limit": "localhost,@left.retry"}, "a file, @left.retry"),
        ({"limit": "localhost,a-1", "hosts": "a-2"}, "glm_hosts (a-2) and --limit (localhost,a-1), found none"),
        ({"only": []}, "found an empty list"),
        ({"only": ""}, "found an empty entry"),
        ({"only": [""]}, "found an empty entry"),
        ({"only": ["a-1", " "]}, "found an empty entry"),
        ({"only": {}}, "found an empty list"),
        ({"only": ["a-1"], "hosts": "a-2"}, "mean, too, found a-1"),
        ({"only": ["a-*"], "hosts": "a-*"}, "mean, too, found a-*"),
        ({"run": ""}, "found an empty one"),
        ({"run": " "}, "found an empty one"),
    ],
)
def test_words_that_mean_nothing_are_refused(words: dict[str, Any], said: str) -> None:
    with pytest.raises(Unmet) as refused:
        target(**words)
    assert said in str(refused.value) and "Next: " in str(refused.value)


WORD = st.sampled_from(
    [*HOSTS, *GROUPS, "a-*", "*", "!a-1", "!a-01", "!", "&east", "&eats", "A-1", "id-a-1", "", "a-[12]", "@f"]
)
MAYBE = st.none() | st.lists(WORD, max_size=3) | st.lists(WORD, max_size=3).map(",".join)


@given(hosts=MAYBE, limit=st.none() | st.lists(WORD, max_size=3).map(",".join), only=MAYBE)
def test_a_word_that_is_given_never_means_all_nor_more_than_it_names(hosts: Any, limit: str | None, only: Any) -> None:
    try:
        found = target(hosts=hosts, limit=limit, only=only)
    except Unmet:
        return
    if hosts is None and limit is None and only is None:
        assert found.only is None
        return
    assert found.only
    for term in [*terms_of(hosts or []), *terms_of(limit or "")]:
        assert matching(term.lstrip("!&")), "a part that matches nothing takes nothing away"
    if hosts is not None:
        assert {entry.removeprefix("id-") for entry in found.only} <= set(matching(hosts))
    if limit is not None:
        assert {entry.removeprefix("id-") for entry in found.only} <= set(matching(limit))
    if only is not None:
        named = only if isinstance(only, list) else only.split(",")
        assert {entry.removeprefix("id-") for entry in found.only} <= {entry.removeprefix("id-") for entry in named}
    if hosts is not None or limit is not None:
        assert all(FLEETS[entry.removeprefix("id-")] == "a" for entry in found.only)


def test_an_inventory_of_another_fleet_is_refused() -> None:
    targets.require_fleet("a", [])
    targets.require_fleet("a", ["", "b"])
    targets.require_fleet("a", ["b", "a"])
    with pytest.raises(Unmet, match=r"shows b, c only \(its option fleet\)\. Next: .*glm_fleet_name=b"):
        targets.require_fleet("a", ["c", "b"])
