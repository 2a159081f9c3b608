"""Asking a hub: commits, file lists, and answers that help when it refuses."""

from __future__ import annotations

import http.server
import io
import itertools
import threading
import urllib.request
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.finding import QuotingError
from ansible_collections.glm.fleet.plugins.module_utils.weights import hub as hub_of_host
from ansible_collections.glm.fleet.plugins.module_utils.weights.hub import (
    HubClient,
    HubError,
    _SameHostRedirects,
    weight_file,
)
from ansible_collections.glm.fleet.plugins.modules import model_weights
from simulator.hub import Hub
from simulator.hub.server import Access

REPO = "zai-org/Tiny"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    folder = tmp_path / REPO
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    for number in range(5):
        (folder / "sub" / f"model-{number}.safetensors").write_bytes(bytes([number]) * 1000)
    with Hub(tmp_path, page_size=2) as hub:
        yield hub


def client(hub: Hub, token: str | None = None) -> HubClient:
    return HubClient(hub.url, token, sleep=lambda _seconds: None)


def test_resolves_and_lists_over_several_pages(hub: Hub) -> None:
    commit = client(hub).resolve(REPO, "main")
    manifest = client(hub).manifest(REPO, commit)
    assert [file.path for file in manifest.files] == [
        "config.json", *(f"sub/model-{number}.safetensors" for number in range(5))
    ]  # fmt: skip
    assert manifest.total_bytes == 5002
    assert manifest.files[0].sha256 is None
    assert all(file.sha256 for file in manifest.files[1:])
    assert client(hub).resolve(REPO, commit) == commit


@pytest.mark.parametrize(
    ("repository", "revision", "token", "words"),
    [
        ("zai-org/Typo", "main", None, ["401", "does not exist or it is not public", "glm_hub_token"]),
        ("zai-org/Typo", "main", "good", ["404", "Check the name zai-org/Typo"]),
        (REPO, "v9", None, ["404", f"{REPO}@v9", "Set glm_revision"]),
        (REPO, "main", "invented", ["401", "does not accept the token"]),
        ("Typo", "main", None, ["'Typo'", "<organisation>/<name>"]),
        ("zai-org/../x", "main", None, ["<organisation>/<name>"]),
    ],
)
def test_refusals_say_what_to_do(hub: Hub, repository: str, revision: str, token: str | None, words: list[str]) -> None:
    hub.access = Access(tokens={"good"})
    with pytest.raises(HubError) as caught:
        client(hub, token).resolve(repository, revision)
    assert [word for word in words if word not in str(caught.value)] == []
    assert "invented" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "code", "token", "words"),
    [
        (401, "GatedRepo", None, "needs a token"),
        (403, "GatedRepo", "t", "Accept the conditions on the page"),
        (403, None, None, "needs a token"),
        (503, None, None, "The hub has a fault"),
    ],
)
def test_gates_and_faults_say_what_to_do(
    hub: Hub, status: int, code: str | None, token: str | None, words: str
) -> None:
    hub.fail("api:*", "status", status=status, error_code=code, times=-1)
    with pytest.raises(HubError, match=words):
        client(hub, token).resolve(REPO, "main")


def test_short_troubles_are_waited_out(hub: Hub) -> None:
    waits: list[float] = []
    hub.fail("api:*", "status", status=429, retry_after=3)
    hub.fail("api:*", "status", status=502)
    commit = HubClient(hub.url, sleep=waits.append).resolve(REPO, "main")
    assert len(commit) == 40
    assert waits == [3.0, 4.0]


def test_long_waits_are_left_to_people(hub: Hub) -> None:
    hub.fail("api:*", "status", status=429, retry_after=300, times=-1)
    with pytest.raises(HubError, match="Wait 300 s and run again, or set glm_hub_token"):
        client(hub).resolve(REPO, "main")
    assert len(hub.requests) == 1


def test_an_unreachable_hub_is_named() -> None:
    with pytest.raises(HubError) as caught:
        HubClient("http://127.0.0.1:9", sleep=lambda _seconds: None).resolve(REPO, "main")
    assert "cannot query http://127.0.0.1:9" in str(caught.value)
    assert f"for {REPO}: 127.0.0.1 port 9 refuses connections. Check" in str(caught.value)
    assert "glm_hub_endpoint" in str(caught.value)


@pytest.mark.parametrize("endpoint", ["", "huggingface.co", "ftp://x", "https://user:secret@hub"])
def test_endpoints_are_checked(endpoint: str) -> None:
    with pytest.raises(HubError, match="glm_hub_endpoint"):
        HubClient(endpoint)


class Canned(http.server.BaseHTTPRequestHandler):
    """Answers every request with ``server.answer`` and remembers what came."""

    server: Any

    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers.get("Authorization")))
        status, headers, body = self.server.answer(self.path)
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def canned() -> Iterator[Any]:
    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Canned)
    server.seen = []
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("body", [b"{}", b'{"sha": "main"}', b'{"sha": 5}', b"[]"])
def test_an_answer_without_a_commit_is_refused(canned: Any, body: bytes) -> None:
    canned.answer = lambda _path: (200, {}, body)
    with pytest.raises(HubError, match="without a commit"):
        HubClient(canned.url).resolve(REPO, "main")


def test_half_a_body_is_asked_for_again_then_reported(canned: Any) -> None:
    canned.answer = lambda _path: (200, {}, b'{"sha": "0123')
    with pytest.raises(HubError, match="cannot query"):
        HubClient(canned.url, sleep=lambda _seconds: None).resolve(REPO, "main")
    assert len(canned.seen) == 4


@pytest.mark.parametrize("body", [b"{}", b"[]"])
def test_an_answer_without_files_is_refused(canned: Any, body: bytes) -> None:
    canned.answer = lambda _path: (200, {}, body)
    with pytest.raises(HubError, match="files"):
        HubClient(canned.url).manifest(REPO, "a" * 40)


def test_the_token_follows_a_redirect_on_the_same_host_only(canned: Any, hub: Hub) -> None:
    hub.requests.clear()
    sha = b'{"sha": "' + b"a" * 40 + b'"}'
    renamed = {"Location": "/api/models/zai-org/New"}
    canned.answer = lambda path: (200, {}, sha) if "New" in path else (307, renamed, b"")
    HubClient(canned.url, "secret").resolve(REPO, "main")
    assert [token for _path, token in canned.seen] == ["Bearer secret", "Bearer secret"]
    canned.answer = lambda _path: (307, {"Location": f"{hub.url}/api/models/{REPO}"}, b"")
    HubClient(canned.url, "secret").resolve(REPO, "main")
    assert [request.authenticated for request in hub.requests] == [False]


@pytest.mark.parametrize(
    "endpoint", ["http://hub.example.com", "http://10.0.0.5:8090", "http://localhost.example.com/"]
)
def test_the_token_goes_to_no_other_machine_in_clear(endpoint: str) -> None:
    # Without one, a mirror may be plain http.
    assert HubClient(endpoint).endpoint == endpoint.rstrip("/")
    with pytest.raises(HubError, match="expected an https address for the hub") as caught:
        HubClient(endpoint, "secret")
    assert f"found '{endpoint}'; the token was not sent" in str(caught.value)
    assert "leave glm_hub_token empty" in str(caught.value) and "secret" not in str(caught.value)


def test_what_only_another_client_understands_is_refused(tmp_path: Path) -> None:
    params = {
        "repository": REPO, "revision": "main", "hf_home": str(tmp_path), "endpoint": "https://hub.example.com",
        "token": "secret", "environment": {"HF_ENDPOINT": "http://hub.example.com"}, "allow_unsafe": False,
    }  # fmt: skip
    with pytest.raises(QuotingError, match="has HF_ENDPOINT, which only huggingface_hub understands"):
        model_weights.Weights(SimpleNamespace(params=params))
    model_weights.Weights(SimpleNamespace(params={**params, "environment": {"HTTPS_PROXY": "http://proxy:3128"}}))


def test_a_list_without_an_end_is_refused(canned: Any) -> None:
    entry = b'[{"type": "file", "path": "p", "size": 1, "oid": "' + b"a" * 40 + b'"}]'
    canned.answer = lambda path: (200, {"Link": f'<{canned.url}{path}>; rel="next"'}, entry)
    with pytest.raises(HubError, match=r"does not end on .*: 1 files after 1 pages"):
        HubClient(canned.url).manifest(REPO, "a" * 40)
    again = itertools.count()
    canned.answer = lambda path: (200, {"Link": f'</api/more?page={next(again)}>; rel="next"'}, entry * 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hub_of_host, "_MOST_FILES", 50)
        with pytest.raises(HubError, match=r"does not end on .*: 51 files after 51 pages"):
            HubClient(canned.url).manifest(REPO, "a" * 40)


def test_an_answer_without_an_end_is_refused(canned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    canned.answer = lambda _path: (200, {}, b"[" * 3_000_000)
    monkeypatch.setattr(hub_of_host, "_MOST_BYTES", 1_000_000)
    with pytest.raises(HubError, match="and went on"):
        HubClient(canned.url).manifest(REPO, "a" * 40)
    assert len(canned.seen) == 1
    monkeypatch.setattr(hub_of_host, "_MOST_BYTES", 10_000_000)
    with pytest.raises(HubError, match="cannot query"):
        HubClient(canned.url, sleep=lambda _seconds: None).manifest(REPO, "a" * 40)


def test_an_answer_that_drips_is_refused(canned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_of_host, "_MOST_SECONDS", -1.0)
    canned.answer = lambda _path: (200, {}, b"[]")
    with pytest.raises(HubError, match="answered with 2 bytes in 0 s and went on"):
        HubClient(canned.url).manifest(REPO, "a" * 40)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "45"}, 45.0),
        ({"RateLimit": '"resolvers";r=0;t=300'}, 300.0),
        ({"Retry-After": "soon", "RateLimit": '"api";r=0;t=7'}, 7.0),
        ({"Retry-After": "-1"}, None),
        ({}, None),
    ],
)
def test_what_a_hub_asks_for_is_read(headers: dict[str, str], seconds: float | None) -> None:
    message = Message()
    for name, value in headers.items():
        message[name] = value
    assert hub_of_host.seconds_asked(message) == seconds


@pytest.mark.parametrize(
    ("target", "kept"),
    [
        ("https://hub.example.com/new", True),
        ("http://hub.example.com/new", False),
        ("https://other.example.com", False),
    ],
)
def test_a_redirect_to_plain_http_loses_the_token(target: str, kept: bool) -> None:
    request = urllib.request.Request("https://hub.example.com/old")
    request.add_unredirected_header("Authorization", "Bearer secret")
    new = _SameHostRedirects().redirect_request(request, io.BytesIO(), 307, "", Message(), target)
    assert new is not None
    assert new.has_header("Authorization") is kept


def test_a_mirror_that_passes_foreign_links_on_stays_in_charge(canned: Any) -> None:
    entry = b'[{"type": "file", "path": "p%d", "size": 1, "oid": "' + b"a" * 40 + b'"}]'
    link = {"Link": '<https://huggingface.co/api/models/x/tree/y?cursor=1>; rel="next"'}
    canned.answer = lambda path: (200, {}, entry % 2) if "cursor" in path else (200, link, entry % 1)
    assert [file.path for file in HubClient(canned.url).manifest(REPO, "a" * 40).files] == ["p1", "p2"]


@pytest.mark.parametrize(
    "entry",
    [
        {"path": "../../etc/passwd"},
        {"path": "/etc/passwd"},
        {"path": "a/../../b"},
        {"path": ""},
        {"path": "a\0b"},
        {"path": "a\x1b[2Jb"},
        {"path": "a\nb"},
        {"lfs": "text"},
        {"lfs": ["x"]},
        {"oid": "../../x"},
        {"size": -1},
        {"size": "1"},
        {"lfs": {"oid": "../x", "size": 1}},
    ],
)
def test_file_lists_cannot_reach_outside(entry: dict[str, Any]) -> None:
    good = {"type": "file", "path": "model.safetensors", "size": 1, "oid": "a" * 40}
    assert weight_file(good, REPO).path == "model.safetensors"
    with pytest.raises(HubError, match="cannot be right"):
        weight_file({**good, **entry}, REPO)


def test_what_a_hub_says_is_no_command_for_a_terminal(canned: Any) -> None:
    canned.answer = lambda _path: (404, {"X-Error-Message": "gone\x1b]0;owned\x07\x1b[2J\x9b31m"}, b"")
    with pytest.raises(HubError, match=r"answered 404 \(gone\)") as caught:
        HubClient(canned.url).resolve(REPO, "main")
    assert str(caught.value).isprintable()
