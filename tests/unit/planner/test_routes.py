"""What passes the front door: the routes of clients met with what an engine version serves."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.build import CatalogError
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.records import Catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import make as planner
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import routes, text
from tools import routes_page

CATALOG = catalog.load()


def intent(engine: str, version: str) -> planner.Intent:
    return planner.Intent("GLM-5.1", "B200", 8, engine=engine, engine_version=version, runtime="venv")


def said(plan: Any) -> str:
    """What the plan prints, as one line."""
    return " ".join(" ".join(text.report({"a": plan})).split())


def with_table(tmp_path: Path, rows: list[dict[str, Any]]) -> Catalog:
    """The catalogue with another table of vLLM 0.32.0."""
    path = tmp_path / "engines/vllm/routes/0.32.0.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"routes": rows}), encoding="utf-8")
    return dataclasses.replace(CATALOG, root=tmp_path)


def test_the_plan_has_what_the_version_serves_of_what_clients_use() -> None:
    made = planner.make(intent("sglang", "0.5.10"), CATALOG)["door"]
    assert made["lacking"] == []
    assert {"path": "/v1/models/{model:path}", "methods": ["GET"], "purpose": "model"} in made["routes"]
    made = planner.make(intent("vllm", "0.32.0"), CATALOG)["door"]
    paths = [route["path"] for route in made["routes"]]
    assert "/v1/models" in paths and "/v1/models/{model:path}" not in paths
    assert (made["lacking"], made["shortfalls"]) == (["model"], [])


def test_what_a_version_lacks_is_said_by_the_plan(tmp_path: Path) -> None:
    shutil.copytree(CATALOG.root, tmp_path / "catalog")
    table = tmp_path / "catalog/engines/vllm/routes/0.32.0.json"
    lines = [line for line in table.read_text("utf-8").splitlines(keepends=True) if "/v1/messages/count_t" not in line]
    table.write_text("".join(lines), encoding="utf-8")
    plan = planner.make(intent("vllm", "0.32.0"), dataclasses.replace(CATALOG, root=tmp_path / "catalog"))
    assert plan["door"]["lacking"] == ["token_counting", "model"]
    assert "GET /v1/models; vllm 0.32.0 has no Anthropic token counting, no look-up of one model" in said(plan)
    usual = said(planner.make(intent("vllm", "0.32.0"), CATALOG))
    assert "GET /v1/models; vllm 0.32.0 has no look-up of one model" in usual and "token counting" not in usual
    assert routes.door(CATALOG, "vllm", "0.16.0")["lacking"] == ["token_counting", "model"]


def test_what_a_version_lacks_of_a_purpose_that_it_serves_is_said_by_the_plan() -> None:
    early = planner.make(intent("sglang", "0.5.10"), CATALOG)
    assert (
        "sglang 0.5.10 has no function tools (HTTP 500) in OpenAI responses, "
        "no streaming in pieces in OpenAI responses, "
        "no thinking apart from the answer in OpenAI responses, no JSON schema in OpenAI responses, "
        "no thinking blocks in Anthropic messages, no JSON schema in Anthropic messages, "
        "no system messages between others (HTTP 400) in Anthropic messages" in said(early)
    )
    assert routes.door(CATALOG, "sglang", "0.5.17")["shortfalls"] == ["JSON schema in OpenAI responses"]
    assert "has no" not in said(planner.make(intent("sglang", "0.5.18"), CATALOG))


def test_of_a_purpose_that_a_version_lacks_nothing_more_is_said(tmp_path: Path) -> None:
    row = {"path": "/v1/models", "methods": ["GET"], "guard": "key", "source": "a.py:3"}
    shutil.copytree(CATALOG.root / "engines/sglang", tmp_path / "engines/sglang")
    (tmp_path / "engines/sglang/routes/0.5.10.json").write_text(json.dumps({"routes": [row]}), encoding="utf-8")
    made = routes.door(dataclasses.replace(CATALOG, root=tmp_path), "sglang", "0.5.10")
    assert "responses" in made["lacking"] and made["shortfalls"] == []


def test_a_version_without_a_table_is_refused(tmp_path: Path) -> None:
    shutil.copytree(CATALOG.root, tmp_path / "catalog")
    (tmp_path / "catalog/engines/vllm/routes/0.32.0.json").unlink()
    known = dataclasses.replace(CATALOG, root=tmp_path / "catalog")
    with pytest.raises(CatalogError, match=r"tools/route_tables\.py vllm:0\.32\.0"):
        planner.make(intent("vllm", "0.32.0"), known)


def test_a_table_of_another_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="KeyError: 'guard'"):
        routes.door(with_table(tmp_path, [{"path": "/v1/models", "methods": ["GET"]}]), "vllm", "0.32.0")


@pytest.mark.parametrize("guard", ["admin", "admin_only"])
def test_what_an_engine_keeps_for_administrators_never_passes(tmp_path: Path, guard: str) -> None:
    row = {"path": "/v1/completions", "methods": ["POST"], "guard": guard, "source": "a.py:3"}
    with pytest.raises(CatalogError, match=r"/v1/completions is for administrators in vllm 0\.32\.0 \(a\.py:3\)"):
        routes.door(with_table(tmp_path, [row]), "vllm", "0.32.0")


def test_only_methods_that_both_name_pass(tmp_path: Path) -> None:
    row = {"path": "/v1/models", "methods": ["DELETE", "GET"], "guard": "key", "source": "a.py:3"}
    other = {"path": "/v1/completions", "methods": ["GET"], "guard": "key", "source": "a.py:4"}
    made = routes.door(with_table(tmp_path, [row, other]), "vllm", "0.32.0")
    assert made["routes"] == [{"path": "/v1/models", "methods": ["GET"], "purpose": "models"}]
    assert made["lacking"] == ["chat", "completions", "responses", "messages", "token_counting", "model"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data["purposes"]["chat"]["routes"].clear(), "purposes.chat: expected at least one route"),
        (lambda data: data["purposes"]["chat"]["routes"].update({"v1": ["GET"]}), "expected a path of plain segments"),
        (
            lambda data: data["purposes"]["chat"]["routes"].update({"/a b": ["GET"]}),
            "expected a path of plain segments",
        ),
        (lambda data: data["purposes"]["chat"]["routes"].update({"/a": []}), "/a: expected methods, each once"),
        (lambda data: data["purposes"]["chat"]["routes"].update({"/a": ["GET", "GET"]}), "methods, each once"),
        (lambda data: data["purposes"]["chat"]["routes"].update({"/a": ["PAUSE"]}), "expected one of GET, POST"),
        (lambda data: data["purposes"]["chat"]["routes"].update({"/v1/models": ["GET"]}), "is already in chat"),
        (lambda data: data["purposes"]["chat"]["routes"].update({"/a/{b:int}": ["GET"]}), "a path of plain segments"),
        (lambda data: data["shortfalls"][0].update(purpose="chats"), r"shortfalls\[0\]: unknown purpose 'chats'"),
        (lambda data: data["shortfalls"][0].update(engine="tgi"), r"shortfalls\[0\]: unknown engine 'tgi'"),
        (lambda data: data["purposes"]["chat"]["routes"].update({"/invocations": ["POST"]}), "already in withheld"),
    ],
)
def test_a_wrong_allowlist_is_refused_by_name(tmp_path: Path, change: Any, message: str) -> None:
    shutil.copytree(CATALOG.root, tmp_path / "catalog")
    path = tmp_path / "catalog/routes.yml"
    data = copy.deepcopy(yaml.safe_load(path.read_text(encoding="utf-8")))
    change(data)
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    with pytest.raises(CatalogError, match=message):
        catalog.load(tmp_path / "catalog")


def test_what_is_withheld_is_served_by_some_version() -> None:
    """A reason for what no engine has would be a reason for nothing."""
    served = {
        routes.shape(route.path)
        for name, engine in CATALOG.engines.items()
        for version in engine.versions
        for route in routes.load(name, version)
    }
    assert {routes.shape(path) for path in CATALOG.withheld} <= served


def test_the_page_of_what_passes_is_made_from_the_catalogue() -> None:
    assert routes_page.main(["--check"]) == 0


def test_a_version_that_has_no_admin_key_says_so(tmp_path: Path) -> None:
    """Every version that the catalogue knows has one, so the option is taken out of a table."""
    shutil.copytree(CATALOG.root, tmp_path / "catalog")
    table = tmp_path / "catalog/engines/sglang/flags/0.5.10.json"
    lines = [line for line in table.read_text("utf-8").splitlines(keepends=True) if "--admin-api-key" not in line]
    table.write_text("".join(lines), encoding="utf-8")
    made = planner.make(intent("sglang", "0.5.10"), dataclasses.replace(CATALOG, root=tmp_path / "catalog"))
    assert made["secret"]["kind"] == "config" and made["secret"]["admin_option"] is None
    assert "sglang 0.5.10 has no --admin-api-key" in made["notes"][-1]
    usual = planner.make(intent("sglang", "0.5.10"), CATALOG)
    assert usual["secret"]["kind"] == "config" and usual["secret"]["admin_option"] == "admin-api-key"
    assert not [note for note in usual["notes"] if "admin" in note]
