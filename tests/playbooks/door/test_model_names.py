"""The look-up of one model through the real HAProxy: whatever name is served, and however a client spells it."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import routes
from tests.playbooks.door import proxy
from tests.playbooks.door.test_door import BEARER, ask, echo, raw
from tests.unit.serve.plans import plan

pytestmark = pytest.mark.one_core
SPELLINGS = [
    "glm-5.1-fp8",
    "zai-org/GLM-5.1-FP8",
    "zai-org%2FGLM-5.1-FP8",
    "zai-org%2fGLM-5.1",
    "a/b/c",
    "team:glm",
    "team%3Aglm",
    "glm?x=1",
    "a%2Fb?x=1",
]
OTHERS = [
    ".",
    "..",
    "a/",
    "a//b",
    "/a",
    "a/../b",
    "a/..",
    "a/.b",
    "%2e%2e",
    "a%2F..%2Fb",
    "a%2F%2Fb",
    "%2Fa",
    "a%2F",
    "a%252Fb",
    "a%5Cb",
    "a%00",
    "a%20b",
    "a;b",
    "../../invocations",
    "a%2F..%2F..%2F..%2Finvocations",
]


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[proxy.Door]:
    allowed = routes.door(catalog.load(), "sglang", "0.5.10")
    with pytest.MonkeyPatch.context() as patch, echo() as engine:
        patch.setattr(proxy, "plan", functools.partial(plan, door=allowed))
        with proxy.running(tmp_path_factory.mktemp("door"), engine) as one:
            yield one


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_model_is_looked_up_by_its_name(front: proxy.Door, name: str) -> None:
    status, _headers, seen = ask(front.port, "GET", f"/v1/models/{name}", BEARER)
    assert (status, seen["path"]) == (200, f"/v1/models/{name}")
    assert ask(front.port, "GET", f"/v1/models/{name}")[0] == 401
    assert ask(front.port, "POST", f"/v1/models/{name}", BEARER, "{}")[0] == 404


@pytest.mark.parametrize("name", ["", *OTHERS])
def test_what_an_engine_would_resolve_is_no_name(front: proxy.Door, name: str) -> None:
    header = f"Authorization: Bearer {proxy.CLIENT_KEY}\r\nConnection: close\r\n"
    assert raw(front.port, f"GET /v1/models/{name} HTTP/1.1\r\nHost: door\r\n{header}\r\n") == 404
