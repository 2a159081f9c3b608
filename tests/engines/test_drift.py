"""What the tool for new engine versions says about versions whose changes are known."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.records import Catalog, Layer
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import flags
from tools import new_engine, version_tables

CATALOG = catalog.load()


def changes(engine: str, old: str, new: str, known: Catalog = CATALOG) -> list[new_engine.Change]:
    return new_engine.compare(known, engine, flags.load(engine, old), flags.load(engine, new))


def test_a_removal_that_recipes_are_safe_from_is_told() -> None:
    found = changes("sglang", "0.5.19", "0.5.20")
    texts = [change.text for change in found]
    assert "--nsa-decode-backend is gone; recipes say --dsa-decode-backend, so nothing of ours uses it" in texts
    assert not [change.text for change in found if change.breaks]


def test_a_flag_that_people_copy_and_we_do_not_use_is_told() -> None:
    texts = [change.text for change in changes("vllm", "0.16.0", "0.17.1")]
    assert any("--disable-log-requests is gone" in text for text in texts)
    back = [change.text for change in changes("vllm", "0.32.0", "0.33.0")]
    assert any("--disable-log-requests, which our advice says does not exist, exists again" in text for text in back)


def test_a_recipe_that_leans_on_what_is_gone_breaks() -> None:
    layer = Layer(engine="sglang", args={"nsa-prefill-backend": "tilelang"})
    engine = dataclasses.replace(CATALOG.engines["sglang"], renames={})
    known = dataclasses.replace(CATALOG, layers=[*CATALOG.layers, layer], engines={**CATALOG.engines, "sglang": engine})
    broken = [change.text for change in changes("sglang", "0.5.19", "0.5.20", known) if change.breaks]
    assert any(text.startswith("--nsa-prefill-backend is gone (recipes.yml layers)") for text in broken)


def test_a_loader_that_a_rule_of_disks_leans_on_breaks_when_it_is_gone() -> None:
    old = flags.load("sglang", "0.5.23")
    gone = {key: option for key, option in old.options.items() if "prefetch-num-threads" not in key}
    found = new_engine.compare(CATALOG, "sglang", old, dataclasses.replace(old, options=gone))
    broken = [change.text for change in found if change.breaks]
    assert any(text.startswith("--weight-loader-prefetch-num-threads is gone (engine.yml loading)") for text in broken)


def test_deprecation_narrowing_and_lost_parsers_are_told() -> None:
    old = flags.load("vllm", "0.32.0")
    parser = old.options["--tool-call-parser"]
    options = {**old.options, "--tool-call-parser": dataclasses.replace(parser, nargs="+", deprecated=True)}
    new = dataclasses.replace(old, options=options, tool_parsers=("glm45",))
    found = new_engine.compare(CATALOG, "vllm", old, new)
    broken = {change.text for change in found if change.breaks}
    assert "tool parser glm47 is gone" in broken
    assert any("--tool-call-parser takes '+' values, was 1" in text for text in broken)
    assert any("--tool-call-parser is deprecated now" in change.text for change in found)


def test_routes_that_come_and_go_are_told() -> None:
    found = new_engine.compare_routes(CATALOG, "vllm", "0.16.0", "0.17.1")
    assert "token_counting is served now" in [change.text for change in found]
    assert not [change for change in found if change.breaks]
    back = new_engine.compare_routes(CATALOG, "vllm", "0.17.1", "0.16.0")
    gone = "token_counting is no longer served (/v1/messages/count_tokens)"
    assert [change.text for change in back if change.breaks] == [gone]
    newer = [change.text for change in new_engine.compare_routes(CATALOG, "vllm", "0.21.0", "0.22.0")]
    assert "route POST /v2/rerank asks for the clients' key, was nothing" in newer
    newest = [change.text for change in new_engine.compare_routes(CATALOG, "sglang", "0.5.22", "0.5.23")]
    assert any("is new; the engine asks for" in text for text in newest)


@pytest.mark.parametrize(
    ("engine", "version", "metadata", "line"),
    [
        (
            "vllm", "0.34.0", "Requires-Dist: transformers>=5.16.1\n",
            "  0.34.0: {transformers: {at_least: 5.16.1}, images: {cu130: v0.34.0, cu129: v0.34.0-cu129}}",
        ),
        (
            "vllm", "0.18.2", "Requires-Dist: transformers<5,>=4.56.0\n",
            '  0.18.2: {transformers: {at_least: 4.56.0, below: "5"}, '
            "images: {cu129: v0.18.2, cu130: v0.18.2-cu130}}",
        ),
        (
            "sglang", "0.5.24", "Requires-Dist: transformers==5.20.0\n",
            "  0.5.24: {transformers: {at_least: 5.20.0}}",
        ),
    ],
)  # fmt: skip
def test_the_catalogue_line_is_ready_to_paste(engine: str, version: str, metadata: str, line: str) -> None:
    assert new_engine.entry_line(CATALOG.engines[engine], version, metadata) == line


def test_the_whole_tool_on_a_version_that_the_catalogue_does_not_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """0.33.0 as if it were new: its table is written again, its line printed, its parser tried."""
    folder = tmp_path / "catalog"
    shutil.copytree(CATALOG.root, folder)
    engine = CATALOG.engines["vllm"]
    older = {name: entry for name, entry in engine.versions.items() if name != "0.33.0"}
    known = dataclasses.replace(
        CATALOG, root=folder, engines={**CATALOG.engines, "vllm": dataclasses.replace(engine, versions=older)}
    )
    monkeypatch.setattr(new_engine.catalog, "load", lambda: known)
    monkeypatch.setattr(new_engine, "ROOT", tmp_path)
    monkeypatch.setattr(version_tables, "ENGINES", folder / "engines")
    status = new_engine.main(["vllm:0.33.0"])
    said = capsys.readouterr().out
    assert status == 0, said
    assert '0.33.0: {transformers: {at_least: 5.16.1, below: "5.21.0"}, images: {cu130: v0.33.0, cu129: ' in said
    assert "vllm 0.32.0 -> 0.33.0, for what we use:" in said
    accepted, _of, tried = said.split(" command lines of the supported matrix are read")[0].split()[-3:]
    assert accepted == tried and int(tried) > 1000
    for table in ("engines/vllm/flags/0.33.0.json", "engines/vllm/routes/0.33.0.json"):
        assert (folder / table).read_text(encoding="utf-8") == (CATALOG.root / table).read_text(encoding="utf-8")
