"""The real HAProxy with the allowlist of each engine version, asked for every route that any engine serves."""

from __future__ import annotations

import functools
import http.client
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import routes
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Door
from tests.patience import PATIENCE_SECONDS
from tests.playbooks.door import proxy
from tests.playbooks.door.test_door import echo
from tests.unit.serve.plans import plan

pytestmark = pytest.mark.one_core
CATALOG = catalog.load()
VERSIONS = [(name, version) for name, engine in CATALOG.engines.items() for version in engine.versions]
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS")
KEYS = {"none": {}, "wrong": {"x-api-key": "wrong"}, "client": {"x-api-key": proxy.CLIENT_KEY},
        "admin": {"Authorization": "Bearer admin-key-of-the-engine"}}  # fmt: skip


def allowlists() -> Iterator[tuple[str, Door]]:
    """The different ones, each with a version that has it."""
    seen = set()
    for name, version in VERSIONS:
        made = routes.door(CATALOG, name, version)
        if str(made["routes"]) not in seen:
            seen.add(str(made["routes"]))
            yield f"{name} {version}", made


@pytest.mark.parametrize(
    ("version", "allowed"), list(allowlists()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_real_door_answers_as_the_allowlist_says(
    version: str, allowed: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy, "plan", functools.partial(plan, door=allowed))
    known = {route.path for name, one in VERSIONS for route in routes.load(name, one)}
    paths = sorted({re.sub(r"\{[^}]*\}", "glm-5.1-fp8", path) for path in known if not path.startswith("$")})
    passes = {
        (method, re.sub(r"\{[^}]*\}", "glm-5.1-fp8", route["path"]))
        for route in allowed["routes"]
        for method in route["methods"]
    }
    counted: Counter[tuple[str, int]] = Counter()
    with echo() as engine, proxy.running(tmp_path, engine) as front:
        for key, headers in KEYS.items():
            connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=PATIENCE_SECONDS)
            for path in paths:
                for method in METHODS:
                    connection.request(method, path, headers=headers)
                    answered = connection.getresponse()
                    answered.read()
                    if (method, path) == ("GET", "/ready"):  # the door's own, whatever an engine has there
                        assert answered.status == 200
                        continue
                    expected = 404 if (method, path) not in passes else 200 if key == "client" else 401
                    assert answered.status == expected, (method, path, key)
                    counted[key, answered.status] += 1
            connection.close()
    print(f"{version}: {len(paths)} paths, {sum(counted.values())} requests: {dict(counted)}")
    assert counted["client", 200] == len(passes) >= 5
