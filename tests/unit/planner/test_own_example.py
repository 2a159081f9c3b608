"""The catalogue of examples/own_catalog: each kind of entry counts, and an upgrade of the package leaves it alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.records import Catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import make as planner
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import own
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Intent
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan

EXAMPLE = Path(__file__).parents[3] / "examples/own_catalog"
INTENT = Intent("Acme-Support-Flash", "RTX-PRO-6000-MAX-Q", 2, precision="bf16")


def upgraded(tmp_path: Path) -> Path:
    """A later release: it says other things of the same entries, and has a model, a recipe and a price more."""
    folder = Path(shutil.copytree(catalog.ROOT, tmp_path / "catalog"))

    def change(stem: str) -> dict:
        return yaml.safe_load((folder / f"{stem}.yml").read_text(encoding="utf-8"))

    def write(stem: str, content: dict) -> None:
        (folder / f"{stem}.yml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")

    models, prices, recipes = change("models"), change("prices"), change("recipes")
    models["models"]["GLM-7"] = {**models["models"]["GLM-4.7-Flash"]}
    models["models"]["GLM-5.1"]["precisions"]["int4"]["repository"] = "somebody/GLM-5.1-AWQ"
    prices["prices"][0]["usd_per_hour"] = 50.0
    recipes["recipes"] = recipes["recipes"][1:]
    for stem, content in (("models", models), ("prices", prices), ("recipes", recipes)):
        write(stem, content)
    versions = folder / "engines/vllm/versions.yml"
    versions.write_text(versions.read_text("utf-8").replace("cu130: v0.32.0,", "cu130: v0.32.0-new,"), "utf-8")
    return folder


def plans(known: Catalog) -> tuple[Plan, Plan, Plan]:
    """Of the team's model, of its weights of ours, and of a host whose price is the team's."""
    ours = Intent("GLM-5.1", "B200", 8)
    return (
        planner.make(INTENT, known),
        planner.make(Intent("GLM-5.1", "H200", 8, precision="int4"), known),
        planner.make(ours, known),
    )


@pytest.mark.parametrize("release", ["this", "next"])
def test_each_kind_of_entry_counts(tmp_path: Path, release: str) -> None:
    known = own.known([str(EXAMPLE)]) if release == "this" else catalog.load(upgraded(tmp_path), [str(EXAMPLE)])
    assert ("GLM-7" in known.models) == (release == "next")
    served, quantised, rented = plans(known)
    # Model, accelerator, recipe.
    assert served["model"]["repository"] == "acme/support-flash"
    assert served["served_model_name"] == "acme-support-flash"
    assert served["model"]["license"] == "Acme internal" and served["accelerator"]["memory_gib"] == 95.59
    assert served["recipe"]["basis"] == "own"
    command = " ".join(served["command"])
    assert "--max-model-len 65536" in command and "--max-num-seqs 48" in command
    # Known issue, with its workaround.
    assert "--disable-custom-all-reduce" in command and served["env"]["NCCL_P2P_DISABLE"] == "1"
    assert "acme-no-p2p" in [issue["id"] for issue in served["known_issues"]]
    # Price, image.
    assert [(price["provider"], price["usd_per_hour"]) for price in served["prices"]] == [("own racks", 2.4)]
    assert served["image"] is not None
    assert served["image"]["reference"] == "mirror.acme.example/vllm/vllm-openai:v0.32.0-acme3"
    # Of a shipped entry, the keys that the team has.
    assert quantised["model"]["repository"] == "acme/GLM-5.1-AWQ"
    assert ("lambda", 46.0) in [(price["provider"], price["usd_per_hour"]) for price in rented["prices"]]


def test_the_package_is_not_touched() -> None:
    before = catalog.load()
    plans(own.known([str(EXAMPLE)]))
    assert catalog.load() is before
    assert "Acme-Support-Flash" not in before.models and "RTX-PRO-6000-MAX-Q" not in before.accelerators
