"""A team's folders laid over the catalogue: what they add, what wins, and what is refused by file, entry and key."""

from __future__ import annotations

import dataclasses
import re
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.build import CatalogError
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.records import Catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import make as planner
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import own, recipes, request
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import text as plan_text
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Intent
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan

CELL: dict[str, Any] = {
    "models": ["GLM-5.2"], "precisions": ["fp8"], "engine": "sglang", "profiles": ["agentic"],
    "accelerators": ["B200"], "count": 8, "sources": [{"who": "our own tries"}],
}  # fmt: skip
INTENT = Intent("GLM-5.2", "B200", 8, engine="sglang")


def written(folder: Path, **files: Any) -> Path:
    """A folder with these files; ``versions`` is that of vllm."""
    for stem, content in files.items():
        path = folder / ("engines/vllm/versions.yml" if stem == "versions" else f"{stem}.yml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return folder


def recipe(**changes: Any) -> dict[str, Any]:
    return {**CELL, **changes}


def known(*folders: Path) -> Catalog:
    return own.known([str(folder) for folder in folders])


def plan(intent: Intent, *folders: Path) -> Plan:
    return planner.make(intent, known(*folders))


def refused(folder: Path) -> str:
    with pytest.raises(CatalogError) as error:
        known(folder)
    return str(error.value)


def test_a_recipe_of_a_team_wins_over_the_shipped_one_of_its_cell(tmp_path: Path) -> None:
    folder = written(tmp_path, recipes={"recipes": [recipe(args={"mem-fraction-static": 0.83})]})
    before, after = plan(INTENT), plan(INTENT, folder)
    assert "0.83" not in before["command"] and "0.83" in after["command"]
    assert after["recipe"]["basis"] == "own"
    assert {f"{folder}/recipes.yml: recipes[0]", "our own tries"} <= set(after["sources"])
    assert after["recipe"]["origins"]["--mem-fraction-static"] == "own" and after["recipe"]["adapted"] == []
    changed = plan(dataclasses.replace(INTENT, engine_args={"mem-fraction-static": 0.8}), folder)
    assert changed["recipe"]["adapted"] == [{"argument": "--mem-fraction-static", "reason": "glm_engine_args"}]
    assert "of your own catalogue, for exactly this cell, but for --mem-fraction-static (glm_engine_args)" in " ".join(
        "\n".join(plan_text.report({"h1": changed})).split()
    )


def test_the_recipe_that_covers_less_wins_whatever_the_order(tmp_path: Path) -> None:
    broad = recipe(models=["GLM-5.2", "GLM-5.3"], args={"mem-fraction-static": 0.81})
    narrow = recipe(args={"mem-fraction-static": 0.82})
    newer = recipe(args={"mem-fraction-static": 0.84}, since="0.5.21")
    for index, order in enumerate(([broad, narrow, newer], [newer, narrow, broad])):
        folder = written(tmp_path / str(index), recipes={"recipes": order})
        assert "0.82" in plan(INTENT, folder)["command"]
        assert "0.81" in plan(dataclasses.replace(INTENT, model="GLM-5.3"), folder)["command"]
        bare = dataclasses.replace(INTENT, engine_version="0.5.23", runtime="venv")
        assert "0.84" in plan(bare, folder)["command"]


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"models": ["GLM-5.2", "GLM-5.3"], "profiles": ["agentic"], "since": "0.5.14"},
        {"profiles": ["agentic", "chat"], "below": "0.5.20"},
    ],
)
def test_two_recipes_for_one_cell_are_refused(tmp_path: Path, other: dict[str, Any]) -> None:
    folder = written(tmp_path, recipes={"recipes": [recipe(since=None), recipe(**other)]})
    text = refused(folder)
    assert text.startswith(f"{folder}/recipes.yml: recipes[1]: ") and "recipes.yml: recipes[0]" in text


def test_recipes_of_one_cell_for_other_versions_are_two_cells(tmp_path: Path) -> None:
    pair = [recipe(below="0.5.14"), recipe(since="0.5.14")]
    assert len(known(written(tmp_path, recipes={"recipes": pair})).recipes) == len(catalog.load().recipes) + 2


def test_no_two_shipped_recipes_are_for_one_cell(tmp_path: Path) -> None:
    """The rule for a team's recipes holds for ours."""
    text = (catalog.ROOT / "recipes.yml").read_text(encoding="utf-8")
    shipped = yaml.safe_load(text)["recipes"]
    known(written(tmp_path, recipes=yaml.safe_dump({"recipes": shipped})))


def test_the_last_folder_wins(tmp_path: Path) -> None:
    first = written(tmp_path / "a", recipes={"recipes": [recipe(args={"mem-fraction-static": 0.81})]})
    second = written(tmp_path / "b", recipes={"recipes": [recipe(args={"mem-fraction-static": 0.82})]})
    assert "0.82" in plan(INTENT, first, second)["command"]
    assert "0.81" in plan(INTENT, second, first)["command"]


def test_an_entry_is_merged_key_by_key(tmp_path: Path) -> None:
    folder = written(
        tmp_path,
        models={"models": {"GLM-5.1": {"precisions": {"int4": {"repository": "acme/GLM-5.1-AWQ"}}}}},
        accelerators={"accelerators": {"H100": {"min_driver": "560"}}},
        versions={"image": "mirror.acme.example/vllm", "versions": {"0.32.0": {"images": {"cu130": "v0.32.0-acme"}}}},
        known_issues={"known_issues": [{"id": catalog.load().known_issues[0].id, "text": "Read our page."}]},
    )
    before, after = catalog.load(), known(folder)
    model = after.models["GLM-5.1"]
    assert model.precisions["int4"].repository == "acme/GLM-5.1-AWQ"
    assert model.precisions["fp8"] == before.models["GLM-5.1"].precisions["fp8"]
    assert after.accelerators["H100-80GB"].min_driver == "560"
    assert after.accelerators["H100"].memory_mib == before.accelerators["H100"].memory_mib
    image = plan(Intent("GLM-5.1", "B200", 8), folder)["image"]
    assert image is not None and image["reference"] == "mirror.acme.example/vllm:v0.32.0-acme"
    [changed] = [issue for issue in after.known_issues if issue not in before.known_issues]
    assert dataclasses.replace(changed, text=before.known_issues[0].text) == before.known_issues[0]
    assert len(after.known_issues) == len(before.known_issues)


def test_a_price_takes_the_place_of_the_one_for_the_same_host(tmp_path: Path) -> None:
    price = {"provider": "lambda", "accelerator": "B200", "count": 8, "usd_per_hour": 40.0, "source": "our contract"}
    other = {**price, "provider": "own racks", "usd_per_hour": 20.0}
    folder = written(tmp_path, prices={"prices": [price, other]})
    shown = plan(Intent("GLM-5.1", "B200", 8), folder)["prices"]
    assert [(one["provider"], one["usd_per_hour"]) for one in shown] == [("lambda", 40.0), ("own racks", 20.0)]


MODEL = "models.GLM-5.1"
PRICE = {"provider": "us", "accelerator": "B200", "count": 8, "usd_per_hour": 1.0, "source": "us"}
ISSUE = {"id": "ours", "status": "workaround", "text": "Ours.", "link": "https://acme.example/1"}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"recipes": {"recipes": [recipe(args={"mem-fraction-statc": 0.8})]}},
         r"recipes\.yml: recipes\[0\]\.args\.mem-fraction-statc: .*did you mean --mem-fraction-static"),
        ({"recipes": {"recipes": [recipe(args={"mem-fraction-static": "much"})]}},
         r"recipes\[0\]\.args\.mem-fraction-static: .*must be a number"),
        ({"recipes": {"recipes": [recipe(args={"tool-call-parser": "glm48"})]}},
         r"recipes\[0\]\.args\.tool-call-parser: .*did you mean glm4"),
        ({"recipes": {"recipes": [recipe(engine="vllm", args={"tool-call-parser": "glm48"})]}},
         r"recipes\[0\]\.args\.tool-call-parser: vllm 0.32.0 has no parser 'glm48'; did you mean glm4"),
        ({"recipes": {"recipes": [recipe(args={"port": 9000})]}}, r"args\.port: the plan sets --port; use glm_port"),
        ({"recipes": {"recipes": [recipe(args={"tp-size": "$tensors"})]}}, r"args\.tp-size: unknown value \$tensors"),
        ({"recipes": {"recipes": [recipe(env={"HF_HOME": {"value": "/x"}})]}}, r"env\.HF_HOME: .*the plan's own"),
        ({"recipes": {"recipes": [recipe(since="9.9")]}}, r"recipes\[0\]: covers no cell: no known version of sglang"),
        ({"recipes": {"recipes": [recipe(models=[])]}}, r"recipes\[0\]: covers no cell: models is empty"),
        ({"recipes": {"recipes": [recipe(model="GLM-5.2")]}},
         r"recipes\[0\]: unknown key 'model'; did you mean models"),
        ({"recipes": {"recipes": [recipe(accelerators=["B20"])]}},
         r"recipes\[0\]: unknown accelerator 'B20'; did you mean B200"),
        ({"recipes": {"recipes": [recipe(accelerators=["H100-80GB"])]}}, r"unknown accelerator 'H100-80GB'"),
        ({"recipes": {"layers": [{"engine": "vllm", "args": {"max-num-seq": 2}}]}},
         r"recipes\.yml: layers\[0\]\.args\.max-num-seq: .*did you mean"),
        ({"recipes": {"layers": [{"engine": "vllm", "precisions": ["fp9"]}]}}, r"layers\[0\]: unknown precision 'fp9'"),
        ({"recipes": {"recipe": []}}, r"recipes\.yml: unknown key 'recipe'; did you mean recipes"),
        ({"recipes": "recipes: []\nrecipes: []\n"}, r"recipes\.yml: is not YAML: .*recipes stands there twice"),
        ({"models": {"models": {"GLM-5.1": {"licence": "MIT"}}}}, rf"models\.yml: {MODEL}: unknown key 'licence'"),
        ({"models": {"models": {"GLM-9": {"license": "MIT"}}}}, r"models\.yml: models\.GLM-9: missing key "),
        ({"models": {"models": {"GLM-5.1": {"name": "GLM-9"}}}}, rf"{MODEL}\.name: expected GLM-5\.1"),
        ({"models": {"models": {"GLM-5.1": {"parsers": {"tool": "glm48"}}}}}, rf"{MODEL}\.parsers\.tool: .*no parser"),
        ({"models": {"models": {"GLM-5.1": {"engines": {"vllm": {"recommended": "0.34.0"}}}}}},
         rf"{MODEL}\.engines\.vllm: unknown version '0\.34\.0'"),
        ({"accelerators": {"accelerators": {"H100": {"vendor": "Nvidia"}}}},
         r"accelerators\.yml: accelerators\.H100: unknown vendor 'Nvidia'; did you mean nvidia"),
        ({"accelerators": {"accelerators": {"H100": {"features": ["fp88"]}}}}, r"H100: unknown feature 'fp88'"),
        ({"accelerators": {"accelerators": {"H200": {"aliases": ["H100"]}}}}, r"H200\.aliases: H100 is taken"),
        ({"prices": {"prices": [PRICE, PRICE]}}, r"prices\.yml: prices\[1\]: .*'us'.* is there already"),
        ({"prices": {"prices": [{**PRICE, "usd_per_hour": "1.0"}]}}, r"prices\[0\]\.usd_per_hour: expected float"),
        ({"prices": {"prices": PRICE}}, r"prices\.yml: prices: expected a list, found dict"),
        ({"known_issues": {"known_issues": [{**ISSUE, "arguments": {"mas-num-seqs": 1}}]}},
         r"known_issues\.yml: ours\.arguments\.mas-num-seqs: .*no option"),
        ({"known_issues": {"known_issues": [{**ISSUE, "apply": {"args": {"kv-cache-dtyp": "fp8"}}}]}},
         r"ours\.apply\.args\.kv-cache-dtyp: "),
        ({"known_issues": {"known_issues": [ISSUE, ISSUE]}}, r"known_issues\[1\]: ours is there already"),
        ({"versions": {"versions": {"0.34.0": {"images": {}, "transformers": {"at_least": "5.0"}}}}},
         r"engines/vllm/versions\.yml: versions\.0\.34\.0: unknown version"),
        ({"versions": {"versions": {"0.32.0": {"images": {"cu999": "x"}}}}}, r"unknown image variant 'cu999'"),
        ({"versions": {"default_version": "0.31.0"}}, r"versions\.yml: unknown key 'default_version'"),
        ({"model": {"models": {}}}, r"model\.yml: no such file of a catalogue; did you mean models\.yml"),
        ({"questions": {}}, r"questions\.yml: no such file of a catalogue"),
        ({"workloads": {"workloads": {"w": {"text": "t", "interface": "chat", "input_tokens": 0, "output_tokens": 1,
          "points": [{"prompts": 1}], "source": {"who": "us"}}}}}, r"workloads\.yml: workloads\.w: expected lengths"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_by_file_entry_and_key(tmp_path: Path, files: dict[str, Any], message: str) -> None:
    folder = written(tmp_path, **files)
    text = refused(folder)
    assert re.search(message, text, re.S), text
    assert text.startswith(str(folder)), text


def test_a_folder_must_be_there_and_be_a_catalogue(tmp_path: Path) -> None:
    assert refused(tmp_path / "gone").startswith(f"glm_catalog: {tmp_path / 'gone'} cannot be read")
    (tmp_path / "notes.txt").write_text("no catalogue", encoding="utf-8")
    assert "has no file of a catalogue" in refused(tmp_path)
    (tmp_path / "models.yaml").write_text("models: {}", encoding="utf-8")
    assert "models.yaml: no such file of a catalogue; did you mean models.yml" in refused(tmp_path)


def test_a_folder_that_is_to_be_filled_changes_nothing(tmp_path: Path) -> None:
    empty = written(tmp_path / "b", recipes="", prices="prices:\n")
    (tmp_path / "a").mkdir()
    assert known(tmp_path / "a", empty) == catalog.load()


def test_arguments_name_the_folders(tmp_path: Path) -> None:
    folder = written(tmp_path, recipes={"recipes": [recipe(args={"mem-fraction-static": 0.83})]})
    given = {"model": "GLM-5.2", "accelerator": "B200", "accelerator_count": 8, "bind": "loopback", "port": 8000}
    [made] = request.plans_of({**given, "engine": "sglang", "catalog": [str(folder)]})
    assert "0.83" in made["command"]


def test_values_are_filled_with_what_is_checked() -> None:
    cell = recipes.Cell(
        catalog.load().models["GLM-5.2"], "fp8", catalog.load().accelerators["B200"], 8, 1, "vllm", "0.32.0", "chat"
    )
    assert tuple(recipes._fills(cell, recipes.Layout(8), 1)) == recipes.FILLS


def test_a_folder_is_read_in_a_few_milliseconds(tmp_path: Path) -> None:
    """A worker reads it for each host; the shipped catalogue was read before."""
    folder = written(tmp_path, recipes={"recipes": [recipe(args={"mem-fraction-static": 0.83})]})
    plan(INTENT, folder)
    began = time.process_time()
    catalog._laid.cache_clear()
    own._checked.cache_clear()
    plan(INTENT, folder)
    assert time.process_time() - began < 0.05
