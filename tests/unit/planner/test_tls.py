"""What glm_tls and glm_tls_names come to in a plan, and which endpoints are refused."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils import address
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.intent import table
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import flags, request, tls
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import PlanError
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import door, verdict

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
    assert made["tls"] == {"origin": origin, "names": names, "acme": None} and made["listen"]["scheme"] == "https"


@pytest.mark.parametrize("asked", [{}, {**PRIVATE, "tls": "none"}, {"tls_names": ["glm.example.com"]}])
def test_it_is_plain_on_loopback_and_where_that_is_asked_for(asked: dict[str, Any]) -> None:
    made = plan(**asked)
    assert made["tls"] is None and made["listen"]["scheme"] == "http"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({**PUBLIC, "tls": "none"}, ["unencrypted", "glm_tls to fleet, own or acme"]),
        ({"bind": "public"}, ["no name or address", "glm_tls_names"]),
    ],
)
def test_what_cannot_be_encrypted_is_refused(asked: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(PlanError) as refused:
        plan(**asked)
    assert all(word in str(refused.value) for word in words)


LETS_ENCRYPT = table.load()["glm_acme_directory"].default


@pytest.mark.parametrize(
    ("asked", "listens", "names", "url"),
    [
        ({"bind": "public", "public_address": "2001:db8::5"}, "::", ["2001:db8::5"], "https://[2001:db8::5]:8000/v1"),
        ({**PRIVATE, "private_address": "fd00::5"}, "fd00::5", ["fd00::5"], "https://[fd00::5]:8000/v1"),
        (PUBLIC, "0.0.0.0", ["192.0.2.7"], "https://192.0.2.7:8000/v1"),
    ],
)
def test_an_ipv6_address_is_listened_on_certified_and_bracketed(
    asked: dict[str, Any], listens: str, names: list[str], url: str
) -> None:
    made = plan(**asked)
    assert made["tls"] is not None and (made["listen"]["address"], made["tls"]["names"]) == (listens, names)
    assert tls.url(made) == url
    host = door.door([made])
    assert host["replicas"][0]["listen"] == f"{address.bracketed(listens)}:8000"
    report = {"endpoint": {"url": tls.url(made), "model": "glm", "authorities": "/ca.pem"}}
    assert f"{url}/chat/completions" in verdict.curl_lines(report, "/key")[0]  # type: ignore[arg-type]


ACME = {"tls": "acme", "tls_names": ["glm.example.com"], "acme_agree": True, "acme_directory": LETS_ENCRYPT}
OWN_CA = {"acme_directory": "https://ca.example.com/acme/acme/directory"}


@pytest.mark.parametrize(
    ("asked", "leads_to"),
    [({**PUBLIC, **ACME}, "192.0.2.7"), ({**PRIVATE, **ACME, **OWN_CA}, "10.0.0.5"), ({"bind": "public", **ACME}, "")],
)
def test_a_certificate_is_ordered_for_names_and_the_plan_says_what_that_needs(
    asked: dict[str, Any], leads_to: str
) -> None:
    made = plan(acme_email="ops@example.com", **asked)
    encrypted = made["tls"]
    assert encrypted is not None and (encrypted["origin"], encrypted["names"]) == ("acme", ["glm.example.com"])
    assert encrypted["acme"] == {"directory": asked["acme_directory"], "email": "ops@example.com", "address": leads_to}
    assert tls.url(made) == "https://glm.example.com:8000/v1"
    note = next(note for note in made["notes"] if note.startswith("glm_tls is acme"))
    assert "port 80 of glm.example.com" in note and "firewall" in note


def test_ordered_names_are_in_small_letters_as_authorities_issue_them() -> None:
    made = plan(**PUBLIC, **{**ACME, "tls_names": ["GLM.Example.com", "b.example.com", "glm.example.com"]})
    assert made["tls"] and made["tls"]["names"] == ["glm.example.com", "b.example.com"]
    assert tls.url(made) == "https://glm.example.com:8000/v1"


def test_the_authority_is_answered_at_a_port_that_no_process_but_root_can_take() -> None:
    acme = door.door([plan(**PUBLIC, **ACME)])["acme"]
    assert acme["answers"] == acme["order"]["answers"] == f"127.0.0.1:{tls.ANSWER_PORT}"
    assert tls.ANSWER_PORT < 1024, "who answers there can have a certificate for the name"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({**PUBLIC, **ACME, "tls_names": []}, ["no name", "glm_tls_names"]),
        ({**PUBLIC, **ACME, "tls_names": ["192.0.2.7"]}, ["'192.0.2.7' is an address", "glm_tls_names"]),
        ({**PUBLIC, **ACME, "tls_names": ["2001:db8::5"]}, ["'2001:db8::5' is an address"]),
        ({**PUBLIC, **ACME, "tls_names": ["glm.example.com", "*.example.com"]}, ["'*.example.com' is not the whole"]),
        ({**PUBLIC, **ACME, "tls_names": ["glm"]}, ["'glm' is not the whole DNS name"]),
        ({**PUBLIC, **ACME, "tls_names": ["bücher.example"]}, ["is not the whole DNS name"]),
        ({**ACME}, ["loopback", "glm_bind to public"]),
        ({**PRIVATE, **ACME}, ["Let's Encrypt cannot ask", "10.0.0.5", "glm_acme_directory"]),
        ({**PUBLIC, **ACME, "acme_directory": "http://ca.example.com/"}, ["no https URL", "glm_acme_directory"]),
        ({**PUBLIC, **ACME, "port": 80}, ["port 80", "glm_port"]),
        ({**PUBLIC, **ACME, "engine_port": 80}, ["port 80", "glm_engine_port"]),
        ({**PUBLIC, **ACME, "engine_port": tls.ANSWER_PORT}, ["answers at port 981", "another glm_engine_port"]),
        (
            {**PUBLIC, **ACME, "engine_port": tls.ANSWER_PORT - 1, "replicas": 2, "accelerator_count": 16},
            ["answers at port 981", "another glm_engine_port"],
        ),
        ({**PUBLIC, **ACME, "port": tls.ANSWER_PORT}, ["answers at port 981", "another glm_port"]),
        ({**PUBLIC, **ACME, "acme_agree": False}, ["terms of service", "glm_acme_agree to true"]),
    ],
)
def test_a_certificate_that_no_authority_could_issue_is_refused_with_the_next_step(
    asked: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(PlanError) as refused:
        plan(**asked)
    assert all(word in str(refused.value) for word in ["glm_tls is acme", *words]), str(refused.value)


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_no_version_takes_an_option_that_would_encrypt_the_engine_itself(engine: str) -> None:
    known = catalog.load().engines[engine]
    assert tls.asked("::1", None, "auto", []) == ("none", [])
    for version in known.versions:
        options = flags.load(engine, version, catalog.load().root / "engines")
        encrypting = [name for name in options.options if name.startswith("--ssl")]
        assert set(encrypting) <= set(known.meanings.owned), version
    with pytest.raises(PlanError, match=r"--ssl-keyfile.*glm_tls"):
        plan(engine=engine, engine_args={"ssl-keyfile": "/x", "ssl-certfile": "/y"})
