"""What the openai and anthropic packages make of the door's own answers: wrong key, limit, engine down."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.tls import authority
from tests.playbooks.door import proxy, scripted
from tests.playbooks.door.proxy import entry
from tests.playbooks.door.test_limits import early_in_a_minute

pytestmark = pytest.mark.one_core
NOW = datetime.now(timezone.utc)
PACKAGES = {"openai": openai, "anthropic": anthropic}


@contextmanager
def served(folder: Path, port: int) -> Iterator[tuple[str, ssl.SSLContext]]:
    """The URL of a door over TLS, with a key without limits and one that is good for one request in a minute."""
    signer = authority.read_or_make(folder / "tls", "blue", NOW)
    pair = authority.issue(signer, ["127.0.0.1"], NOW).together
    keys = [entry("free", "free"), entry("limited", "limited", requests_per_minute=1)]
    (folder / "door").mkdir()
    with proxy.running(folder / "door", port, keys=keys, certificate=pair) as door:
        yield f"https://127.0.0.1:{door.port}", ssl.create_default_context(cadata=signer.pem)


def models(name: str, place: tuple[str, ssl.SSLContext], key: str, retries: int = 0) -> Any:
    """Ask for the list of models with a package."""
    url, trust = place
    client = {"openai": openai.OpenAI, "anthropic": anthropic.Anthropic}[name]
    return client(
        base_url=f"{url}/v1" if name == "openai" else url,
        api_key=key,
        max_retries=retries,
        http_client=PACKAGES[name].DefaultHttpxClient(verify=trust),
    ).models.list()


@pytest.mark.parametrize("name", PACKAGES)
def test_a_wrong_key_is_an_authentication_error_that_says_what_to_send(name: str, tmp_path: Path) -> None:
    error = PACKAGES[name].AuthenticationError
    with scripted.engine() as engine, served(tmp_path, engine.port) as place, pytest.raises(error) as refused:
        models(name, place, "wrong")
    assert refused.value.status_code == 401
    assert "No key was sent, or one that is not known here. Send it as Authorization: Bearer KEY" in str(refused.value)


@pytest.mark.parametrize("name", PACKAGES)
def test_a_limit_is_a_rate_limit_error_after_the_wait_that_the_door_asked_for(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    with scripted.engine() as engine, served(tmp_path, engine.port) as place:
        early_in_a_minute()
        models(name, place, "limited")
        monkeypatch.setattr(time, "sleep", slept.append)
        with pytest.raises(PACKAGES[name].RateLimitError) as refused:
            models(name, place, "limited", retries=1)
        monkeypatch.undo()
    wait = int(refused.value.response.headers["retry-after"])
    assert "may have 1 requests per minute on this host. Try again in" in str(refused.value)
    assert len(slept) == 1 and wait <= slept[0] <= wait + 2


@pytest.mark.parametrize("name", PACKAGES)
def test_an_engine_that_is_down_is_asked_again_and_then_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    (nobody,) = proxy.free_ports(1)
    with served(tmp_path, nobody) as place:
        monkeypatch.setattr(time, "sleep", slept.append)
        with pytest.raises(PACKAGES[name].APIStatusError, match="engine does not accept requests now") as refused:
            models(name, place, "free", retries=2)
        monkeypatch.undo()
    assert refused.value.status_code == 503 and slept == [10, 10]
