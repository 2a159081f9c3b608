"""The catalogue loads, and a file of the wrong shape is refused by file, entry and key."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from ansible_collections.glm.fleet.plugins.plugin_utils import catalog, flags


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A catalogue that may be broken."""
    return Path(shutil.copytree(catalog.ROOT, tmp_path / "catalog"))


def edit(copy: Path, file: str, old: str, new: str) -> None:
    path = copy / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("models.yml", "vocab_size: 154880", "vocab_size: many",
         r"models\.yml: models\.GLM-5\.1\.config\.vocab_size: expected int, found str 'many'"),
        ("models.yml", "    license: MIT\n", "", r"models\.GLM-5\.1: missing key license"),
        ("models.yml", "    license: MIT", "    licence: MIT", r"unknown key 'licence'; did you mean license\?"),
        ("models.yml", "recommended: 0.32.0", "recommended: 0.99.0", r"engines\.vllm: unknown version '0\.99\.0'"),
        ("accelerators.yml", "memory_mib: 183359", "memory_mib: true", r"B200\.memory_mib: expected int, found bool"),
        ("accelerators.yml", "features: []", "features: none", r"A100\.features: expected a list, found str"),
        ("engines.yml", "default_version: 0.32.0", "default_version: 1.2.3", r"vllm: unknown version '1\.2\.3'"),
        ("engines.yml", "{cu130: v0.32.0,", "{cu999: v0.32.0,", r"versions\.0\.32\.0: unknown image variant 'cu999'"),
        ("recipes.yml", "accelerators: [B200, H200]", "accelerators: [B20]", r"\[0\]: unknown accelerator 'B20'"),
        ("recipes.yml", "profile: agentic", "profile: fast", r"recipes\[0\]: unknown profile 'fast'"),
        ("known_issues.yml", "    status: workaround", "    status: odd", r"status is 'odd'; expected workaround"),
        ("prices.yml", "prices:", "price:", r"expected the top-level keys \['prices'\], found \['price'\]"),
        ("prices.yml", "prices:", "prices: [", r"prices\.yml: is not YAML"),
    ],
)  # fmt: skip
def test_broken_files_are_refused(copy: Path, file: str, old: str, new: str, message: str) -> None:
    edit(copy, file, old, new)
    with pytest.raises(catalog.CatalogError, match=message):
        catalog.load(copy)


def test_missing_file_is_named(copy: Path) -> None:
    (copy / "prices.yml").unlink()
    with pytest.raises(catalog.CatalogError, match=r"catalog/prices\.yml: cannot be read"):
        catalog.load(copy)


def test_a_model_is_added_by_data_alone(copy: Path) -> None:
    data = yaml.safe_load((copy / "models.yml").read_text(encoding="utf-8"))
    data["models"]["GLM-5"] = {**data["models"]["GLM-5.1"], "needs": []}
    (copy / "models.yml").write_text(yaml.safe_dump(data), encoding="utf-8")
    assert catalog.load(copy).models["GLM-5"].config == catalog.load().models["GLM-5.1"].config


def test_every_version_has_a_flag_table() -> None:
    known = catalog.load()
    wanted = {f"{name}-{version}.json" for name, engine in known.engines.items() for version in engine.versions}
    assert {path.name for path in (catalog.ROOT / "flags").iterdir()} == wanted


def test_every_option_the_planner_knows_exists_in_every_version() -> None:
    for name, engine in catalog.load().engines.items():
        options = [value.split(".")[0] for value in vars(engine.options).values() if value]
        for version in engine.versions:
            table = flags.load(name, version)
            assert [option for option in options if option not in table.options] == [], version


def test_replaced_options_are_absent_where_the_hint_could_show() -> None:
    """A hint about an option that the default version has would never be read."""
    for name, engine in catalog.load().engines.items():
        newest = max(engine.versions, key=catalog.version_key)
        present = set(flags.load(name, newest).options) & set(engine.replaced_options)
        assert present <= {"--disable-log-requests"}, present


@pytest.mark.parametrize(
    ("lower", "higher"),
    [
        ("0.5.10", "0.5.10.post1"),
        ("0.5.10.post1", "0.5.11"),
        ("0.5.9", "0.5.10"),
        ("0.5.10rc0", "0.5.10"),
        ("570.195.03", "580.65.06"),
        ("570", "570.195.03"),
        ("v0.9.0", "0.32.0"),
    ],
)
def test_versions_are_ordered(lower: str, higher: str) -> None:
    assert catalog.version_key(lower) < catalog.version_key(higher)


def test_ranges_include_their_start_and_not_their_end() -> None:
    assert catalog.in_range("0.24.0", "0.24.0", "0.25.0")
    assert not catalog.in_range("0.25.0", "0.24.0", "0.25.0")
    assert catalog.in_range("0.25.0", None, None)
