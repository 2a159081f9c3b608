"""Which authorities verify, benchmark and the printed request trust, by where an endpoint's certificate is from."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.playbooks import role_variables

CASES = {
    "default": ({}, "/srv/blue/tls/ca.pem"),
    "fleet": ({"glm_tls": "fleet"}, "/srv/blue/tls/ca.pem"),
    "own": ({"glm_tls": "own"}, ""),
    "acme": ({"glm_tls": "acme"}, ""),
    "internal": ({"glm_tls": "acme", "glm_tls_ca": "/etc/pki/ca.crt"}, "/etc/pki/ca.crt"),
}


@pytest.mark.parametrize("role", ["verify", "benchmark"])
def test_clients_trust_the_fleets_authority_that_of_the_user_or_their_machines(role: str, tmp_path: Path) -> None:
    given = {name: {f"{role}_state_dir": "/srv/blue", **case} for name, (case, _trusted) in CASES.items()}
    shown = role_variables.show(tmp_path, role, given, f"{{{{ {role}_tls_ca }}}}")
    assert shown == {name: trusted for name, (_case, trusted) in CASES.items()}
