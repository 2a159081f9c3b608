"""The compatibility matrix of AMD's driver: its shape is checked, and versions of every form find their row."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import platforms
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import rocm as rocm_matrix
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.build import CatalogError


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(catalog.ROOT, tmp_path / "catalog"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("    newest: 6.4.4\n", "", r"rocm\.yml: drivers\[2\]: missing key newest"),
        ("    module: 6.12.12", "    modul: 6.12.12", r"drivers\[2\]: unknown key 'modul'; did you mean module\?"),
        ('release: "6.4"', "release: 6.4", r"drivers\[2\]\.release: expected str, found float 6\.4"),
        ("[MI300X, MI325X]\n", "[MI300X, MI399X]\n", r"drivers\.6\.3: unknown GPU MI399X"),
        ("newest: 6.4.4", "newest: 7.4.4", r"drivers\.6\.4: newest is 7\.4\.4, which is of another series"),
        ('release: "6.3"\n    newest: 6.3.4', 'release: "6.5"\n    newest: 6.5.4', r"each series once, the oldest"),
        ("  debian-12: jammy\n", "", r"drivers\.30\.20: debian-12 has no suite"),
        ("suites:", "suite:", r"expected the top-level keys \['drivers', 'suites'\]"),
    ],
)
def test_a_table_of_the_wrong_shape_is_refused(copied: Path, old: str, new: str, message: str) -> None:
    path = copied / "rocm.yml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(CatalogError, match=message):
        rocm_matrix.load(copied)


def test_every_board_of_amd_has_a_driver_that_can_be_installed_for_the_images() -> None:
    matrix = rocm_matrix.load()
    boards = [row.name for row in platforms.load() if row.vendor == "amd"]
    releases = {variant.version for variant in catalog.load().variants.values() if variant.runtime == "rocm"} - {None}
    assert boards and releases
    for board in boards:
        for rocm in sorted(map(str, releases)):
            rows = [row for row in matrix.drivers if rocm in row.rocm and board in row.gpus and row.distributions]
            assert rows, f"{board} with ROCm {rocm}"
            assert rocm_matrix.unlisted(board, rows[0].newest, rocm, "ubuntu-24.04", "6.8.0-60-generic") == []


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("1:6.16.13.30300400-2341068.24.04", ("6.16.13", "30.30.4")),
        ("1:6.16.13.30300000-2278356.24.04", ("6.16.13", "30.30.0")),
        ("1:6.12.12.60403-2194681.22.04", ("6.12.12", "6.4.3")),
        ("1:6.10.5.60300-2084815.22.04", ("6.10.5", "6.3.0")),
        ("6.1.2-1", ("", "")),
        ("", ("", "")),
    ],
)
def test_a_package_tells_module_and_release(version: str, expected: tuple[str, str]) -> None:
    assert rocm_matrix.packaged(version) == expected


def test_a_release_with_a_last_zero_is_published_without() -> None:
    assert [rocm_matrix.folder(text) for text in ("7.2.0", "7.2", "7.2.4", "30.30.0", "6.4.2.1", "7.10.0")] == [
        "7.2", "7.2", "7.2.4", "30.30", "6.4.2.1", "7.10",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("module", "rocm", "gpu", "expected"),
    [
        ("6.16.13", "7.2", "MI355X", None),
        # A driver newer than the table is newer than what a ROCm needs.
        ("6.19.14", "7.2", "MI300X", None),
        ("7.1.3", "7.2", "MI355X", None),
        ("6.12.12", "7.2", "MI355X", ("30.10", "6.4 (amdgpu 6.12.12)")),
        ("6.8.5", "7.2", "MI300X", ("6.4", "amdgpu 6.8.5")),
        # Nothing is known of the modules of 6.2 and 6.3.
        ("6.8.5", "7.0", "MI300X", None),
        ("6.8.5", None, "MI300X", None),
        ("6.8.5", "99.0", "MI300X", None),
        (None, "7.2", "MI300X", None),
        ("6.16.13", "7.2", "MI999X", None),
    ],
)
def test_a_driver_that_is_too_old_for_a_rocm(module: str | None, rocm: str | None, gpu: str, expected: Any) -> None:
    assert rocm_matrix.too_old({"module_version": module}, rocm, gpu) == expected
