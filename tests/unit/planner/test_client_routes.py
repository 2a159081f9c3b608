"""No change of the allowlist takes away what a client was seen to ask for: client_routes.yml, filled by trying each."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import routes
from tests.unit.serve.test_route_matrix import CATALOG, VERSIONS, conditions, passing

ROOT = Path(__file__).parents[3]
SEEN: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("client_routes.yml").read_text("utf-8"))


listed = functools.cache(conditions)


def purpose(method: str, path: str) -> str:
    """What the catalogue says that a request is for."""
    for one in CATALOG.purposes.values():
        for route, methods in one.routes.items():
            if method in methods and re.fullmatch(re.sub(r"\\\{[^}]*\\\}", ".+", re.escape(route)), path):
                return one.name
    raise AssertionError(f"catalog/routes.yml has no purpose for {method} {path}")


@pytest.mark.parametrize("client", SEEN)
def test_what_a_client_asked_for_passes_or_is_said_to_be_lacking(client: str) -> None:
    for line in SEEN[client]["asked"]:
        method, _, path = line.partition("?")[0].partition(" ")
        name = purpose(method, path)
        assert client in CATALOG.purposes[name].clients, f"{client} is not among the clients of {name}"
        for engine, version in VERSIONS:
            lacking = name in routes.door(CATALOG, engine, version)["lacking"]
            assert passing(listed(engine, version), method, path) is not lacking, (line, engine, version)


def test_what_a_client_does_without_does_not_pass() -> None:
    """Else it belongs to what it asked for."""
    lines = [line.partition(" ") for seen in SEEN.values() for line in seen.get("goes_on", ())]
    assert lines
    for engine, version in VERSIONS:
        assert not any(passing(listed(engine, version), method, path) for method, _, path in lines)


def test_the_page_of_clients_names_each_with_the_version_that_was_tried() -> None:
    page = (ROOT / "docs/clients.md").read_text("utf-8")
    for client, seen in SEEN.items():
        assert re.search(
            rf"^\| {client} \([^)]*\) \| {seen['version']} \||^\| {client} \| {seen['version']} \|", page, re.M
        ), client
    pinned = dict(re.findall(r"^(openai|anthropic)==(\S+)$", (ROOT / "requirements-dev.txt").read_text("utf-8"), re.M))
    assert pinned == {name: SEEN[name]["version"] for name in ("openai", "anthropic")}


def test_every_client_that_the_catalogue_names_can_be_set_up_by_the_page() -> None:
    page = (ROOT / "docs/clients.md").read_text("utf-8")
    named = {client for one in catalog.load().purposes.values() for client in one.clients}
    assert {client for client in named if client not in page} == {"editors that complete code"}
