"""What glm_tls and glm_tls_names come to in a plan, and which endpoints are refused."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import flags, request, tls
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import PlanError
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan

GIVEN = {"model": "GLM-5.1", "accelerator": "B200", "accelerator_count": 8, "port": 8000}
PRIVATE = {"bind": "private", "private_address": "10.0.0.5"}
PUBLIC = {"bind": "public", "public_address": "192.0.2.7"}


def plan(**more: Any) -> Plan:
    return request.plans_of({**GIVEN, "bind": "loopback", **more})[0]


@pytest.mark.parametrize(
    ("asked", "origin", "names"),
    [
        (PRIVATE, "fleet", ["10.0.0.5"]),
        ({**PRIVATE, "tls_names": ["glm.example.com"]}, "fleet", ["glm.example.com", "10.0.0.5"]),
        ({**PRIVATE, "tls": "own", "tls_names": ["10.0.0.5"]}, "own", ["10.0.0.5"]),
        (PUBLIC, "fleet", ["192.0.2.7"]),
        ({**PUBLIC, "tls": "own", "tls_names": ["glm.example.com"]}, "own", ["glm.example.com", "192.0.2.7"]),
        ({"bind": "public", "tls_names": ["glm.example.com"]}, "fleet", ["glm.example.com"]),
        ({"tls": "fleet"}, "fleet", ["127.0.0.1"]),
    ],
)
def test_an_endpoint_is_encrypted_for_the_names_that_clients_use(
    asked: dict[str, Any], origin: str, names: list[str]
) -> None:
    made = plan(**asked)
    assert made["tls"] == {"origin": origin, "names": names} and made["listen"]["scheme"] == "https"


@pytest.mark.parametrize("asked", [{}, {**PRIVATE, "tls": "none"}, {"tls_names": ["glm.example.com"]}])
def test_it_is_plain_on_loopback_and_where_that_is_asked_for(asked: dict[str, Any]) -> None:
    made = plan(**asked)
    assert made["tls"] is None and made["listen"]["scheme"] == "http"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({**PUBLIC, "tls": "none"}, ["unencrypted", "glm_tls to fleet or own"]),
        ({"bind": "public"}, ["no name or address", "glm_tls_names"]),
    ],
)
def test_what_cannot_be_encrypted_is_refused(asked: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(PlanError) as refused:
        plan(**asked)
    assert all(word in str(refused.value) for word in words)


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_no_version_takes_an_option_that_would_encrypt_the_engine_itself(engine: str) -> None:
    known = catalog.load().engines[engine]
    assert tls.asked("::1", None, "auto", []) == ("none", [])
    for version in known.versions:
        table = flags.load(engine, version, catalog.load().root / "engines")
        encrypting = [name for name in table.options if name.startswith("--ssl")]
        assert set(encrypting) <= set(known.managed_options), version
    with pytest.raises(PlanError, match=r"--ssl-keyfile.*glm_tls"):
        plan(engine=engine, engine_args={"ssl-keyfile": "/x", "ssl-certfile": "/y"})
