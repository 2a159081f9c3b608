"""Versions of releases and packages in order."""

from __future__ import annotations

import pytest

from ansible_collections.glm.fleet.plugins.module_utils import versions


@pytest.mark.parametrize(
    ("lower", "higher"),
    [
        ("0.5.10", "0.5.10.post1"),
        ("0.5.10.post1", "0.5.10.post2"),
        ("0.5.10.post1", "0.5.11"),
        ("0.5.9", "0.5.10"),
        ("0.5.10rc0", "0.5.10rc1"),
        ("0.5.10rc0", "0.5.10"),
        ("0.5.10.dev3", "0.5.10"),
        ("570.195.03", "580.65.06"),
        ("570", "570.195.03"),
        ("v0.9.0", "0.32.0"),
    ],
)
def test_releases_are_ordered(lower: str, higher: str) -> None:
    assert versions.order(lower) < versions.order(higher)


def test_releases_that_differ_in_zeros_or_a_v_are_equal() -> None:
    assert versions.order("v0.32") == versions.order("0.32.0")


def test_ranges_include_their_start_and_not_their_end() -> None:
    assert versions.in_range("0.24.0", "0.24.0", "0.25.0")
    assert not versions.in_range("0.25.0", "0.24.0", "0.25.0")
    assert not versions.in_range("0.24.0rc1", "0.24.0", None)
    assert versions.in_range("0.25.0", None, None)


@pytest.mark.parametrize(
    ("version", "numbers"),
    [
        ("580.105.08", (580, 105, 8)),
        ("580", (580,)),
        ("5.2.0.dev0", (5, 2, 0)),
        ("5.2.0rc1", (5, 2, 0)),
        ("unknown", ()),
        ("", ()),
    ],
)
def test_numbers_of_what_a_host_says(version: str, numbers: tuple[int, ...]) -> None:
    assert versions.numbers(version) == numbers


@pytest.mark.parametrize(
    ("version", "minimum", "older"),
    [
        ("5.10.0", "5.2.0", False),
        ("5.2.0.dev0", "5.2.0", False),
        ("580.65.06", "580.82.07", True),
        ("580.82.07", "580", False),
        ("unknown", "5.2.0", True),
        ("", "5.2.0", True),
    ],
)
def test_a_suffix_is_not_an_older_version_and_silence_is(version: str, minimum: str, older: bool) -> None:
    assert versions.older(version, minimum) is older


@pytest.mark.parametrize(
    ("version", "wanted", "same"),
    [
        ("580.82.07", "580", True),
        ("580", "580", True),
        ("580.82.07", "58", False),
        ("28.5.10", "28.5.1", False),
        ("28.2.2", "28", True),
    ],
)
def test_a_point_release_is_of_its_branch(version: str, wanted: str, same: bool) -> None:
    assert versions.is_release(version, wanted) is same


def test_a_series_is_the_first_two_numbers() -> None:
    assert [versions.series(text) for text in ("7.2.4", "7.2", "30.30.1")] == ["7.2", "7.2", "30.30"]


@pytest.mark.parametrize(
    ("packaged", "upstream", "released"),
    [
        ("1:580.105.08-1ubuntu1", "580.105.08", "580.105.08"),
        ("5:28.5.1-1~debian.13~trixie", "28.5.1", "28.5.1"),
        ("28.5.10-1", "28.5.10", "28.5.10"),
        ("26.1.5+dfsg1-9+b9", "26.1.5+dfsg1", "26.1.5"),
        ("28.2.2-0ubuntu1~24.04.1", "28.2.2", "28.2.2"),
        # The release candidate of a toolkit is not its release; of a Docker it is taken for it.
        ("1.18.0~rc.1-1", "1.18.0~rc.1", "1.18.0"),
        ("7", "7", "7"),
    ],
)
def test_parts_of_debian_versions(packaged: str, upstream: str, released: str) -> None:
    assert (versions.upstream(packaged), versions.released(packaged)) == (upstream, released)
