"""Hosts that form one replica are served together or not at all."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.glm.fleet.plugins.filter.batches import NO_HOST, PREPARED, batches, whole_groups


@pytest.mark.parametrize(
    ("serial", "hosts", "nodes", "sizes"),
    [
        ([1, "25%"], 16, 1, [1, "25%"]),
        ("50%", 16, 1, ["50%"]),
        ([1, "25%"], 16, 2, [2, 4]),
        ([1, "25%"], 4, 2, [2, 2]),
        ("30%", 20, 4, [4]),
        (3, 16, 2, [2]),
        (5, 16, 2, [4]),
        ([0], 6, 2, [6]),
    ],
)
def test_batches_are_whole_groups(serial: Any, hosts: int, nodes: int, sizes: list[Any]) -> None:
    assert batches(serial, hosts, nodes) == sizes


def test_what_is_no_size_is_named() -> None:
    with pytest.raises(AnsibleFilterError, match="glm_serial has 'half'"):
        batches(["half"], 4, 2)


def test_a_group_that_lacks_a_host_is_left_out_whole() -> None:
    fleet = ["a", "b", "c", "d", "e", "f"]
    assert whole_groups(fleet, ["f", "a", "e", "d", "c"], 2) == ["c", "d", "e", "f"]


def test_hosts_that_serve_alone_need_no_list() -> None:
    assert whole_groups(["a", "b"], ["a"], 1) == PREPARED


def test_the_group_of_the_canary_comes_first_or_nothing_begins() -> None:
    fleet = ["a", "b", "c", "d"]
    assert whole_groups(fleet, fleet, 2, "d") == ["c", "d", "a", "b"]
    assert whole_groups(fleet, fleet, 1, "c") == ["c", *PREPARED]
    # A part of a deploy by its tag, which prepares nothing.
    assert whole_groups(fleet, [], 1, "c") == PREPARED
    for present, nodes in ((["a", "b", "c"], 2), (["a"], 1)):
        with pytest.raises(AnsibleFilterError, match="glm_canary: expected d to be a host that is ready to serve"):
            whole_groups(fleet, present, nodes, "d")


def test_hosts_that_are_out_come_before_those_that_serve() -> None:
    fleet = ["a", "b", "c", "d"]
    assert whole_groups(fleet, fleet, 1, "", ["d", "b"]) == ["b", "d", *PREPARED]
    assert whole_groups(fleet, fleet, 1, "c", ["b", "c"]) == ["c", "b", *PREPARED]
    assert whole_groups(fleet, fleet, 2, "", ["d"]) == ["c", "d", "a", "b"]
    # One that could not be prepared is nowhere.
    assert whole_groups(fleet, ["a", "b", "c"], 1, "", ["d"]) == PREPARED
    assert whole_groups(fleet, ["a", "b", "c"], 2, "", ["d"]) == ["a", "b"]


def test_nobody_is_never_everybody() -> None:
    assert whole_groups(["a", "b"], ["a"], 2) == NO_HOST
