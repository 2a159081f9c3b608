"""Real engines of both kinds behind the real HAProxy: every route of their tables and of their own /openapi.json."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.plan import routes
from tests.engines.live_engine import ADMIN, MODEL, Running, ask, bearer
from tests.playbooks.door import proxy

KEYS = {
    "none": {}, "wrong": bearer("wrong"), "admin": bearer(ADMIN), "engine": bearer(proxy.ENGINE_KEY),
    "client": bearer(proxy.CLIENT_KEY), "client, x-api-key": {"x-api-key": proxy.CLIENT_KEY},
}  # fmt: skip
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS")
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8}
USED = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"model": MODEL, "prompt": "Say hello.", "max_tokens": 8},
    "/v1/responses": {"model": MODEL, "input": "Say hello.", "max_output_tokens": 8},
    "/v1/messages": CHAT,
    "/v1/messages/count_tokens": CHAT,
}
# What an administrator may ask without harm to the other tests, and with what body.
HARMLESS = {
    "/flush_cache": None,
    "/pause_generation": {"mode": "retract"},
    "/continue_generation": {},
    "/abort_request": {"rid": "nobody"},
    "/configure_logging": {},
}


def filled(path: str) -> str:
    return re.sub(r"\{[^}]*\}", MODEL, path)


def test_nothing_passes_but_what_clients_use(running: Running) -> None:
    shown = json.loads(ask(running.engine, "GET", "/openapi.json", bearer(proxy.ENGINE_KEY))[1])["paths"]
    known = {route.path for route in running.table if not route.path.startswith("$")}
    assert len(shown) > 20 and {routes.shape(path) for path in shown} <= {routes.shape(path) for path in known}
    passes = {(method, filled(route["path"])) for route in running.passing["routes"] for method in route["methods"]}
    counted: Counter[tuple[str, int]] = Counter()
    for path in sorted({filled(path) for path in (*known, *shown)}):
        for method in METHODS:
            for key, headers in KEYS.items():
                body = USED.get(path, {}) if method == "POST" else None
                status, text = ask(running.door, method, path, headers, body)
                client = key.startswith("client")
                expected = 404 if (method, path) not in passes else 200 if client else 401
                assert status == expected, (method, path, key, text)
                counted[key, status] += 1
    assert {path for path in USED if ("POST", path) in passes} == set(USED)
    print(f"{running.name}: {len(known | shown.keys())} paths, {sum(counted.values())} requests: {dict(counted)}")


def administrative(running: Running) -> list[tuple[str, str]]:
    """Method and path of everything that the table says is kept for the admin key, and is there in this start."""
    rows = [route for route in running.table if route.administrative and not route.when]
    return [(method, route.path) for route in rows for method in route.methods]


@pytest.mark.parametrize("running", ["sglang"], indirect=True)
def test_the_engines_own_key_administers_nothing(running: Running) -> None:
    """Asked directly: even whoever got past the door, or reads the key of the door, pauses and swaps nothing."""
    asked = administrative(running)
    for key in ("none", "wrong", "engine"):
        answers = {(method, path): ask(running.engine, method, path, KEYS[key], {})[0] for method, path in asked}
        assert set(answers.values()) == {401}, (key, {place: code for place, code in answers.items() if code != 401})
    named = {path for _method, path in asked}
    assert {"/pause_generation", "/flush_cache", "/abort_request", "/configure_logging", "/update_weights_from_disk",
            "/start_profile", "/load_lora_adapter", "/release_memory_occupation"} <= named  # fmt: skip
    print(f"{len(asked)} administrative routes answer 401 without a key, with a wrong one and with the engine's own")


@pytest.mark.parametrize("running", ["sglang"], indirect=True)
@pytest.mark.parametrize("path", HARMLESS)
def test_the_admin_key_administers(running: Running, path: str) -> None:
    assert ask(running.engine, "POST", path, bearer(ADMIN), HARMLESS[path])[0] == 200
    assert ask(running.engine, "POST", "/v1/chat/completions", bearer(ADMIN), CHAT)[0] == 401


@pytest.mark.parametrize("running", ["sglang"], indirect=True)
def test_what_only_the_door_closes(running: Running) -> None:
    """The engine shows both keys here to its own key, which must not leave the host; the door lets none pass."""
    for path in ("/server_info", "/get_server_info"):
        assert ADMIN in ask(running.engine, "GET", path, bearer(proxy.ENGINE_KEY))[1]
        assert ask(running.door, "GET", path, KEYS["client"])[0] == 404
