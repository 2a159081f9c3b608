"""What the role serve asks gateways about: the replicas of its host, as gateways call them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible_collections.glm.fleet.plugins.plugin_utils.serving import gateway
from tests.playbooks import role_variables


def due(*planned: int, retired: tuple[int, ...] = ()) -> dict[str, Any]:
    replicas = [{"unit": f"glm-serve-{number}.service", "action": "restart"} for number in planned]
    return {"__serve_due": {"replicas": replicas, "retired": [f"glm-serve-{number}.service" for number in retired]}}


def test_all_of_the_host_have_the_names_that_gateways_know_also_those_that_leave(tmp_path: Path) -> None:
    cases = {"two": due(0, 12), "fewer": due(0, retired=(1,))}
    shown = role_variables.show(tmp_path, "serve", cases, "{{ __serve_gateway_names }}")
    names = {number: gateway.replica_name("localhost", number) for number in (0, 1, 12)}
    assert shown == {"two": [names[0], names[12]], "fewer": [names[0], names[1]]}
