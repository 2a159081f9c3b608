"""Every version of the catalogue x every route it serves x every method x every key: what the front door answers.

The conditions are those that HAProxy gets; tests/playbooks/door asks a real one.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import routes
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import door
from tests.unit.serve.plans import plan

CATALOG = catalog.load()
VERSIONS = [(name, version) for name, engine in CATALOG.engines.items() for version in engine.versions]
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
# Whose key: nobody's, one that is in no map, a client's, the administrator's of the engine.
KEYS = ("none", "wrong", "client", "admin")
# What a route is about that changes the engine, shows its inside, or is another name of something else. Written without
# a look at catalog/routes.yml.
DANGEROUS = re.compile(
    "pause|continue|resume|abort|cancel|stop|start|update|destroy|release|reset|flush|clear|freeze|slow|sleep|wake|scale"
    "|elastic|fault|profile|trace|record|dump|debug|config|logging|internal|state|server_info|model_info|get_|set_|weight"
    "|lora|adapter|hicache|corpus|corpora|session|rpc|role|checker|tokeniz|tokenise|load|metrics|health|ready|ping|version"
    "|kv_event|world_size|invocations|vertex|predict|openapi|docs|redoc|static|render|batch|encode|pooling|scor|rerank"
    "|classify|embed|realtime|audio|inference|generate|collective|remote|sources|/api/|/adapters|/cohere|decisions|systemone"
)


def passing(conditions: Sequence[dict[str, str]], method: str, path: str) -> bool:
    """Whether a condition of HAProxy holds for a request: ``{ method A B } { path X }`` or ``{ path_reg X }``."""
    for route in conditions:
        parts = re.fullmatch(r"\{ method ([A-Z ]+) \} \{ (path|path_reg) (\S+) \}", route["condition"])
        assert parts, route["condition"]
        alike = path == parts[3] if parts[2] == "path" else re.search(parts[3], path) is not None
        if alike and method in parts[1].split():
            return True
    return False


def answer(conditions: Sequence[dict[str, str]], method: str, path: str, key: str) -> int:
    """The status for a request, or 200 for one that goes on to the engine: first what, then who, as in the template."""
    if not passing(conditions, method, path):
        return 404
    return 200 if key == "client" else 401


def asked(route: routes.Route) -> Iterator[str]:
    """Paths that reach a route: its parameters filled, and something below what is mounted."""
    path = re.sub(r"\{[^}]*\}", "some-1", route.path)
    yield path
    if "ANY" in route.methods:
        yield f"{path}/below"


def conditions(engine: str, version: str) -> list[dict[str, str]]:
    made = plan(engine, door=routes.door(CATALOG, engine, version))
    found: list[dict[str, str]] = door.door([made])["routes"]  # type: ignore[list-item]  # test plans are dicts
    return found


@pytest.fixture(scope="module")
def decisions() -> Counter[tuple[str, int]]:
    return Counter()


@pytest.mark.parametrize(("engine", "version"), VERSIONS)
def test_what_the_door_answers(engine: str, version: str, decisions: Counter[tuple[str, int]]) -> None:
    allowed = {
        routes.shape(path): set(methods) for use in CATALOG.purposes.values() for path, methods in use.routes.items()
    }
    listed = conditions(engine, version)
    table = routes.load(engine, version)
    reached = Counter[str]()
    for route, method, key in itertools.product(table, METHODS, KEYS):
        for path in asked(route):
            status = answer(listed, method, path, key)
            decisions[key, status] += 1
            expected = method in allowed.get(routes.shape(route.path), ())
            assert status == (404 if not expected else 200 if key == "client" else 401), (method, path, key)
            if status == 200 and method in route.methods:
                reached[route.path] += 1
                assert route.guard == "key", f"{path} passes, and the engine asks {route.guard} for it"
                assert not DANGEROUS.search(route.path.replace("/v1/messages/count_tokens", "")), route.path
    lacking = routes.door(CATALOG, engine, version)["lacking"]
    assert len(reached) >= sum(name not in lacking for name in CATALOG.purposes)


def test_nearly_every_route_of_an_engine_is_dangerous_or_a_clients() -> None:
    """The rule above is worth something only if it finds what is known to be dangerous."""
    known = {route.path for name, version in VERSIONS for route in routes.load(name, version)}
    allowed = {routes.shape(path) for use in CATALOG.purposes.values() for path in use.routes}
    harmless = {path for path in known if not DANGEROUS.search(path) and routes.shape(path) not in allowed}
    assert harmless == {
        "/", "$SGLANG_OLLAMA_ROOT_ROUTE", "/separate_reasoning", "/parse_function_call", "/v1/responses/{response_id}",
    }  # fmt: skip
    administrative = {
        route.path for name, version in VERSIONS for route in routes.load(name, version) if route.administrative
    }
    assert len(administrative) > 40
    assert {path for path in administrative if not DANGEROUS.search(path)} == set()


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions/", "//v1/chat/completions", "/v1/./chat/completions", "/v1/chat/../completions",
        "/V1/chat/completions", "/v1/chat%2fcompletions", "/v1/chat/completions;x", "/v1/chat/completions/batch",
        "/v1/models/", "/v1/models/a/", "/v1/models/a//b", "/v1/models/a/../b", "/v1/models/a/.b",
        "/v1/models/a%2f..%2fb", "/v1/models/a%2F%2Fb", "/v1/models/a%252Fb", "/v1/models/%2fa", "/v1/models/a%5Cb",
        "/v1/models/..", "/v1/models/%2e%2e", "/v1/responses/resp_1", "/x/v1/models",
    ],
)  # fmt: skip
def test_another_spelling_of_a_path_does_not_pass(path: str) -> None:
    for engine, version in (("vllm", "0.32.0"), ("sglang", "0.5.10")):
        assert answer(conditions(engine, version), "POST", path, "client") == 404
        assert answer(conditions(engine, version), "GET", path, "client") == 404


def test_figures(decisions: Counter[tuple[str, int]], capsys: pytest.CaptureFixture[str]) -> None:
    rows = sum(len(routes.load(name, version)) for name, version in VERSIONS)
    with capsys.disabled():
        counted = ", ".join(f"{key} {status}: {count}" for (key, status), count in sorted(decisions.items()))
        print(
            f"\nroute matrix: {len(VERSIONS)} versions, {rows} routes, {sum(decisions.values())} decisions ({counted})"
        )
    assert rows > 3600
