"""Whose the folders of a host are that the role serve makes."""

from __future__ import annotations

from pathlib import Path

from tests.playbooks import role_variables
from tests.unit.serve.plans import plan, replicas, venv


def test_caches_belong_to_the_engine_alone_and_nothing_else_does(tmp_path: Path) -> None:
    """Their parents are root's: who owns those could put another folder in a cache's place."""
    cases = {"container": {"serve_plans": replicas(2)}, "venv": {"serve_plans": [venv()]}}
    shown = role_variables.show(tmp_path, "serve", cases, "{{ __serve_folders | unique }}")
    roots = [[path, "root", "0755"] for path in ("/etc/glm", "/usr/local/lib/glm", "/var/lib/glm/cache")]
    cache = plan()["paths"]["cache"]
    assert shown == {"container": [*roots, [cache, "root", "0700"]], "venv": [*roots, [cache, "glm", "0700"]]}
