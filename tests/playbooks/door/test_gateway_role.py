"""What the role gateway gives a host: what is ordered there, and what renews it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.playbooks import role_variables

pytestmark = pytest.mark.one_core
ROOT = Path(__file__).parents[3]
ORDER = "/etc/glm/gateway/order.json"
GIVEN: dict[str, Any] = {
    "role_path": str(ROOT / "roles/gateway"), "gateway_fleet": [], "gateway_hosts": ["localhost"],
    "glm_private_address": "10.0.0.1", "glm_gateway_names": ["glm.example.com"], "gateway_state_dir": "/nowhere",
}  # fmt: skip
ACME = {
    "glm_tls": "acme", "glm_acme_directory": "https://ca.example.com/dir", "glm_acme_agree": True,
    "gateway_tls_ca": str(ROOT / "LICENSE"),
}  # fmt: skip
SHOWN = {
    "files": "{{ __gateway_small_files }}",
    "program": "{{ __gateway_order_program | map(attribute='path') }}",
    "orders": "{{ __gateway_orders }}",
}


def test_what_is_ordered_is_written_with_what_renews_it_and_withdrawn_where_it_is_not(tmp_path: Path) -> None:
    cases = {"acme": {**GIVEN, **ACME}, "fleet": {**GIVEN, "gateway_tls_ca": ""}}
    shown = role_variables.show(tmp_path, "gateway", cases, SHOWN)
    [written] = [one for one in shown["acme"]["files"] if one["path"] == ORDER]
    order = json.loads(written["content"])
    assert shown["acme"]["orders"] and written["wanted"] and order["names"] == ["glm.example.com"]
    assert order["authorities"] == "/etc/glm/gateway/authorities.pem" and order["unit"] == "glm-gateway.service"
    renewal = [f"/etc/systemd/system/glm-gateway-certificate.{kind}" for kind in ("service", "timer")]
    assert {*renewal, "/usr/local/lib/glm/door_order/__main__.py"} < set(shown["acme"]["program"])
    [absent] = [one for one in shown["fleet"]["files"] if one["path"] == ORDER]
    assert not shown["fleet"]["orders"] and not absent["wanted"]
