"""gmi_info against the simulator over HTTP: products with their price as given, and the end of a container's logs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.glm.fleet.plugins.modules import gmi_info
from simulator.gmi_cloud.server import ENVELOPES, Answer, Handle, running
from simulator.gmi_cloud.world import container_product
from tests.playbooks.gmi_api.test_gmi_container import BUSY, GONE, KEY, LOST, Run, fault

SLOW = Answer(429, {"message": "slow down"}, {"Retry-After": "0"})
HTML = Answer(200, None, {"Content-Type": "text/html"}, raw=b"<html>log in</html>")
TEXT = {"Content-Type": "text/plain"}


@pytest.fixture
def cloud() -> Iterator[Handle]:
    with running() as handle:
        handle.world.add_key(KEY)
        yield handle


@pytest.fixture
def run(cloud: Handle, run_module: Run) -> Run:
    def call(**options: Any) -> dict[str, Any]:
        account = {"api_key": KEY, "base_url": cloud.base_url, "request_interval": 0, "retries": 0}
        return run_module(gmi_info.main, **{**account, **options})

    return call


@pytest.fixture
def logged(cloud: Handle) -> str:
    """The id of a container that has logs."""
    identifier: str = cloud.world.add_container("glm-web-1")["id"]
    cloud.world.logs[identifier] = "one\ntwo\nthree\n"
    return identifier


@pytest.mark.parametrize("envelope", ENVELOPES)
def test_products_come_with_their_ids_and_a_price_that_is_no_money(cloud: Handle, run: Run, envelope: str) -> None:
    cloud.settings.envelope = envelope
    spec = {"basic": [{"name": "vCPU", "value": "208"}], "extra": [{"name": "\x1b[1mNVMe", "value": 7}]}
    node = {**container_product("b200", 8, 3200), "name": "baremetal.b200.x8", "spec": spec}
    cloud.world.products["baremetals"] = [node, {"name": "baremetal.gb200.x4", "idc": "sim-thailand-1"}]
    found = run(products=["containers", "baremetals", "elastic-ips"])
    assert not found["changed"] and found["unserved"] == [] and found["logs"] == {}
    assert [product["name"] for product in found["products"]] == [
        "container.h200.x1", "container.h200.x8", "baremetal.b200.x8", "baremetal.gb200.x4", "eip.bgp",
    ]  # fmt: skip
    metal, plain = found["products"][2:4]
    assert metal["price"] == 3200 and metal["spec"] == {"vCPU": "208", "NVMe": 7}
    assert {product["price_unit"] for product in found["products"]} == {"unknown"}
    assert plain == {
        "kind": "baremetals", "name": "baremetal.gb200.x4", "idc": "sim-thailand-1", "type": None, "gpu_model": None,
        "product_line": None, "valid": None, "spec": {}, "price": None, "price_unit": "unknown",
    }  # fmt: skip
    here = run(products=["baremetals", "containers"], idc="us-denver-1")["products"]
    assert [product["name"] for product in here] == ["baremetal.b200.x8", "container.h200.x1", "container.h200.x8"]
    asked = [target.partition("/v1/")[2] for _method, target, _headers in cloud.settings.requests]
    assert asked[-2:] == ["baremetals/products", "containers/products?idc=us-denver-1"]


def test_a_kind_that_the_account_lacks_is_named_and_none_at_all_is_an_error(cloud: Handle, run: Run) -> None:
    cloud.world.enabled.discard("baremetals")
    found = run(products=["containers", "baremetals"])
    assert found["unserved"] == ["baremetals"] and len(found["products"]) == 2
    assert "baremetals is not enabled" in str(found["warnings"])
    none = run(products=["baremetals"])
    assert none["failed"] and "HTTP 404" in none["msg"], "a wrong address answers so, too"


@pytest.mark.parametrize(
    "answer", [BUSY, SLOW, LOST, HTML, Answer(200, {"ok": 1}), Answer(200, [{"idc": "us-denver-1"}])]
)
def test_a_list_of_products_that_does_not_come_is_an_error(cloud: Handle, run: Run, answer: Answer) -> None:
    fault(cloud, "GET", "products", answer)
    assert run(products=["containers"])["failed"]
    fault(cloud, "GET", "products", SLOW)
    assert len(run(products=["containers"], retries=1)["products"]) == 2


def test_the_end_of_the_logs_comes_in_whole_lines(cloud: Handle, run: Run, logged: str) -> None:
    whole = run(container_id=logged)["logs"]
    text = "one\ntwo\nthree\n"
    assert whole == {"container_id": logged, "name": "glm-web-1", "text": text, "left_out_bytes": 0}
    last = run(container_id=logged, log_bytes=8)["logs"]
    assert (last["text"], last["left_out_bytes"]) == ("three\n", 8)
    cloud.world.logs[logged] = "".join(f"line {number}\n" for number in range(300_000))
    long = run(container_id=logged)["logs"]
    assert long["text"].startswith("line ") and long["text"].endswith("line 299999\n") and len(long["text"]) <= 65536
    assert long["left_out_bytes"] + len(long["text"]) == len(cloud.world.logs[logged])
    cloud.world.logs[logged] = "x" * 100
    assert run(container_id=logged, log_bytes=7)["logs"]["text"] == "x" * 7, "a line without an end has a last part"
    cloud.world.logs[logged] = ""
    assert run(container_id=logged)["logs"]["text"] == ""


def test_what_a_container_writes_reaches_no_terminal_and_shows_no_secret(cloud: Handle, run: Run, logged: str) -> None:
    cloud.world.logs[logged] = (
        "\x1b[31mred\x1b[0m \x07bell\x1b]0;title\x07\n"
        "env: hf_container_secret; args {'api': ['argument_secret']} Bearer eyJabcdef, port 8000\n"
    )
    cloud.world.containers[0]["envs"].append({"name": "PORT", "value": "8000"})
    found = run(container_id=logged)
    lines = found["logs"]["text"].splitlines()
    assert lines == ["red \\x07bell", "env: ********; args {'api': ['********']} Bearer ********, port 8000"]
    assert "secret" not in json.dumps(found)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(410, {"message": "expired"}), "HTTP 410 (no code): its logs are gone: expired"),
        (Answer(422, {"error": "no"}), "HTTP 422 (no code): it is of a kind without logs: no"),
        (Answer(501, {"error": "no"}), "HTTP 501 (no code): it is of a kind without logs: no"),
        (GONE, "HTTP 404"),
        (BUSY, "HTTP 503"),
        (SLOW, "HTTP 429"),
        (LOST, "no answer"),
        (HTML, "expected logs as text/plain, found text/html"),
        (Answer(200, {"logs": []}), "expected logs as text/plain, found application/json"),
        (Answer(200, None, TEXT, raw=b"half of the logs", cut=True), "broke before the whole answer"),
    ],
)
def test_logs_that_do_not_come_are_an_error_and_not_empty(
    cloud: Handle, run: Run, logged: str, answer: Answer, words: str
) -> None:
    fault(cloud, "GET", "logs$", answer, times=9)
    failed = run(container_id=logged, log_bytes=3, retries=1)
    assert failed["failed"] and f"container {logged}, read: " in failed["msg"] and words in failed["msg"]
    asked = [target for _method, target, _headers in cloud.settings.requests if target.endswith("/logs")]
    assert len(asked) == (2 if answer.cut or answer.status in (429, 503, 0) else 1), "what is final is not asked again"
    cloud.settings.script.clear()
    assert run(container_id=logged)["logs"]["text"] == "one\ntwo\nthree\n"


def test_logs_are_those_of_the_id_that_was_given(cloud: Handle, run: Run, logged: str) -> None:
    unknown = run(container_id="c-9")
    assert unknown["failed"] and "c-9 not found" in unknown["msg"]
    other = cloud.world.add_container("other")
    fault(cloud, "GET", f"{logged}$", Answer(200, other))
    assert "expected the container of this id" in run(container_id=logged)["msg"]
    assert not [target for _method, target, _headers in cloud.settings.requests if target.endswith("/logs")]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "one of the following is required: products, container_id"),
        ({"container_id": "c", "log_bytes": 0}, "log_bytes: expected 1 to 1048576, found 0"),
        ({"products": ["gpus"]}, "value of products must be one or more of"),
    ],
)
def test_bad_options_are_refused(cloud: Handle, run: Run, options: dict[str, Any], words: str) -> None:
    refused = run(**options)
    assert refused["failed"] and words in refused["msg"] and cloud.settings.requests == []


def test_the_examples_are_valid() -> None:
    validator = ArgumentSpecValidator({**gmi_info.AUTH_ARGUMENTS, **gmi_info.ARGUMENTS})
    for task in yaml.safe_load(gmi_info.EXAMPLES):
        assert validator.validate(task["glm.fleet.gmi_info"]).error_messages == []
    assert set(yaml.safe_load(gmi_info.DOCUMENTATION)["options"]) == set(gmi_info.ARGUMENTS)
