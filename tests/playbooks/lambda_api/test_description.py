"""Each request of the collection keeps the description of the API, and the description is used up by them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import requests

from ansible_collections.glm.fleet.plugins.modules import lambda_firewall_ruleset, lambda_instance
from simulator.lambda_cloud.config import Config
from simulator.lambda_cloud.server import Handle, running
from tests.playbooks.lambda_api.api_description import REQUESTS
from tests.playbooks.modules.test_lambda_instance import Ended, Module
from tests.playbooks.modules.test_lambda_instance_events import PUBLIC_KEY, api_of

KIND = "gpu_8x_b200_sxm6"
Sent = list[tuple[str, str, Any]]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    """What goes over the wire: method, path below the version, body."""
    seen: Sent = []
    send = requests.Session.send

    def record(session: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        assert request.method and request.url and request.headers["Authorization"].startswith("Bearer ")
        path = request.url.partition("/api/v1")[2]
        seen.append((request.method, path, json.loads(request.body) if request.body else None))
        return send(session, request, **options)

    monkeypatch.setattr(requests.Session, "send", record)
    return seen


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Handle]:
    monkeypatch.setenv("HOME", str(tmp_path))
    with running(Config(port=0)) as (_url, handle):
        handle.control("PUT", "/capacity", {KIND: {"us-east-1": None}})
        yield handle


def described(method: str, path: str) -> str:
    """The entry of the description for a request."""
    return next((entry for entry in REQUESTS if re.fullmatch(entry, f"{method} {path}")), "")


def bring(kind: Any, params: dict[str, Any], api: Any) -> None:
    """What the module of this kind does for these options."""
    with pytest.raises(Ended) as ended:
        getattr(kind(Module(params, False), api), params["state"])()
    assert not ended.value.result["failed"], ended.value.result["msg"]


def use_everything(cloud: Handle) -> None:
    """Everything that the modules and the inventory can ask for, each in its richest form."""
    api = api_of(cloud)
    api.list_instance_types(), api.list_images(), api.list_regions()
    api.add_ssh_key("deploy", PUBLIC_KEY)
    made = api.add_ssh_key("made")
    api.list_ssh_keys()
    api.delete_ssh_key(made["id"])
    weights = api.create_file_system("weights", "us-east-1")
    wanted = [
        {"protocol": "tcp", "ports": [22], "source": "203.0.113.0/24", "description": "ssh"},
        {"protocol": "icmp", "ports": None, "source": "203.0.113.7", "description": "ping"},
    ]
    for rules in (wanted, wanted[:1]):
        defaults = {name: spec.get("default") for name, spec in lambda_firewall_ruleset.ARGUMENTS.items()}
        bring(
            lambda_firewall_ruleset.Ruleset, {**defaults, "name": "office", "region": "us-east-1", "rules": rules}, api
        )
    (ruleset,) = api.list_firewall_rulesets()
    api.change_firewall_ruleset("global", api.get_global_firewall_ruleset()["rules"])
    options = {
        "count": 2, "region": ["us-east-1"], "instance_type": [KIND], "ssh_key_names": ["deploy"], "role": "serve",
        "run": "20261121T072721-7", "file_system_names": ["weights"], "firewall_rulesets": ["office"],
        "user_data": "#cloud-config\n", "tags": {"team": "x"}, "wait_interval": 0.01, "launch_interval": 0,
    }  # fmt: skip
    for state in ("present", "restarted", "absent"):
        params = {name: spec.get("default") for name, spec in lambda_instance.ARGUMENTS.items()}
        # Instances boot with each look at them.
        for _look in range(5):
            api.list_instances()
        bring(lambda_instance.Fleet, {**params, **options, "state": state}, api)
    for name in [item["id"] for item in cloud.state()["instances"]]:
        cloud.adjust(name, status="terminated")
    api.delete_firewall_ruleset(ruleset["id"])
    cloud.settings(release_reads=0)
    api.delete_file_system(weights["id"])


def test_every_request_is_one_of_the_description_with_a_body_that_keeps_it(cloud: Handle, sent: Sent) -> None:
    use_everything(cloud)
    used = set()
    for method, path, content in sent:
        entry = described(method, path)
        assert entry, f"{method} {path} is not in the description"
        schema = REQUESTS[entry]
        used.add(entry)
        if schema is None:
            assert content is None, f"{method} {path} has no body"
        else:
            jsonschema.validate(content, schema)
    assert used == set(REQUESTS), "the description has what nothing asks for"


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/instance-operations/launch", {"region_name": "x", "instance_type_name": "y", "ssh_key_names": []}),
        (
            "/instance-operations/launch",
            {"region_name": "x", "instance_type_name": "y", "ssh_key_names": ["k"], "quantity": 2},
        ),
        ("/instance-operations/terminate", {"instance_ids": ["not an id"]}),
        ("/filesystems", {"name": "1st", "region": "x"}),
    ],
)
def test_the_description_refuses_what_the_api_would(path: str, content: Any) -> None:
    schema = REQUESTS[f"POST {path}"]
    assert schema is not None
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, schema)
