"""The simulated hub over plain HTTP: what the client reads is there, and faults do what they say."""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from simulator.hub import Fault, Hub
from simulator.hub.__main__ import address, write_tiny
from simulator.hub.server import Access
from tests.patience import PATIENCE_SECONDS

REPO = "zai-org/Tiny"
WEIGHTS = bytes(range(256)) * 400


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "repos" / REPO
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_text('{"a": 1}')
    (folder / "sub" / "notes.txt").write_text("hello")
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    return tmp_path / "repos"


@pytest.fixture
def hub(root: Path) -> Iterator[Hub]:
    with Hub(root, control=("127.0.0.1", 0)) as hub:
        yield hub


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: Any) -> None:
        return None


def ask(
    url: str, method: str = "GET", data: bytes | None = None, **headers: str
) -> tuple[int, Any, http.client.HTTPMessage]:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, data=data, headers=names, method=method)
    try:
        response = urllib.request.build_opener(NoRedirect).open(request, timeout=PATIENCE_SECONDS)
    except urllib.error.HTTPError as exc:
        response = exc
    with response:
        body = response.read()
        is_json = "json" in (response.headers.get("Content-Type") or "")
        return response.status, json.loads(body) if is_json and body else body, response.headers


def test_model_and_revision_name_the_same_commit(hub: Hub) -> None:
    _status, model, _headers = ask(f"{hub.url}/api/models/{REPO}")
    assert len(model["sha"]) == 40
    _status, by_commit, _headers = ask(f"{hub.url}/api/models/{REPO}/revision/{model['sha']}?blobs=true")
    assert by_commit["sha"] == model["sha"]
    siblings = {entry["rfilename"]: entry for entry in by_commit["siblings"]}
    assert siblings["model.safetensors"]["lfs"]["sha256"] == hashlib.sha256(WEIGHTS).hexdigest()
    assert siblings["config.json"]["blobId"] == hashlib.sha1(b'blob 8\0{"a": 1}').hexdigest()
    assert "lfs" not in siblings["config.json"]


def test_the_commit_follows_the_content_and_old_states_stay(hub: Hub, root: Path) -> None:
    before = ask(f"{hub.url}/api/models/{REPO}")[1]["sha"]
    (root / REPO).rename(root / f"{REPO}@old")
    (root / REPO).mkdir()
    (root / REPO / "config.json").write_text('{"a": 2}')
    after = ask(f"{hub.url}/api/models/{REPO}")[1]["sha"]
    assert after != before
    assert ask(f"{hub.url}/api/models/{REPO}/revision/{before}")[1]["sha"] == before
    assert ask(f"{hub.url}/api/models/{REPO}/revision/old")[1]["sha"] == before
    assert ask(f"{hub.url}/{REPO}/resolve/{before}/config.json")[1] == b'{"a": 1}'
    refs = ask(f"{hub.url}/api/models/{REPO}/refs")[1]
    assert {entry["name"]: entry["targetCommit"] for entry in refs["branches"]} == {"main": after, "old": before}


def test_tree_lists_folders_and_pages(root: Path) -> None:
    with Hub(root, page_size=2) as hub:
        url, seen, pages = f"{hub.url}/api/models/{REPO}/tree/main?recursive=true", [], 0
        while url:
            _status, entries, headers = ask(url)
            seen += [(entry["type"], entry["path"]) for entry in entries]
            pages += 1
            link = headers.get("Link") or ""
            url = link[1 : link.index(">")] if link else ""
        assert pages == 2
        assert seen == [
            ("file", "config.json"), ("file", "model.safetensors"), ("directory", "sub"), ("file", "sub/notes.txt")
        ]  # fmt: skip
        flat = ask(f"{hub.url}/api/models/{REPO}/tree/main")[1]
        assert [entry["path"] for entry in flat] == ["config.json", "model.safetensors"]
        inner = ask(f"{hub.url}/api/models/{REPO}/tree/main/sub")[1]
        assert [entry["path"] for entry in inner] == ["sub/notes.txt"]


def test_paths_info_answers_for_known_paths_only(hub: Hub) -> None:
    body = json.dumps({"paths": ["config.json", "nothing"]}).encode()
    status, entries, _headers = ask(
        f"{hub.url}/api/models/{REPO}/paths-info/main", "POST", body, Content_Type="application/json"
    )
    assert status == 200
    assert [entry["path"] for entry in entries] == ["config.json"]


def test_small_files_come_at_once_with_commit_and_etag(hub: Hub) -> None:
    status, body, headers = ask(f"{hub.url}/{REPO}/resolve/main/config.json")
    assert (status, body) == (200, b'{"a": 1}')
    assert len(headers["X-Repo-Commit"]) == 40
    assert headers["ETag"] == f'"{hashlib.sha1(b"blob 8" + bytes(1) + body).hexdigest()}"'
    head = ask(f"{hub.url}/{REPO}/resolve/main/config.json", "HEAD")
    assert (head[0], head[1], head[2]["Content-Length"]) == (200, b"", "8")


def test_large_files_redirect_to_a_signed_address_that_takes_ranges(hub: Hub) -> None:
    status, _body, headers = ask(f"{hub.url}/{REPO}/resolve/main/model.safetensors", "HEAD")
    assert status == 302
    assert headers["X-Linked-Size"] == str(len(WEIGHTS))
    assert headers["X-Linked-Etag"] == f'"{hashlib.sha256(WEIGHTS).hexdigest()}"'
    location = headers["Location"]
    assert ask(location)[1] == WEIGHTS
    status, body, headers = ask(location, Range="bytes=1000-")
    assert (status, body) == (206, WEIGHTS[1000:])
    assert headers["Content-Range"] == f"bytes 1000-{len(WEIGHTS) - 1}/{len(WEIGHTS)}"
    assert ask(location, Range="bytes=5-9")[1] == WEIGHTS[5:10]
    assert ask(location, Range=f"bytes={len(WEIGHTS)}-")[0] == 416
    assert ask(location.split("?")[0])[0] == 403


@pytest.mark.parametrize(
    ("path", "token", "status", "code"),
    [
        ("/api/models/zai-org/Nothing", None, 401, None),
        ("/api/models/zai-org/Nothing", "t", 404, "RepoNotFound"),
        (f"/api/models/{REPO}/revision/v9", None, 404, "RevisionNotFound"),
        (f"/{REPO}/resolve/main/nothing.bin", None, 404, "EntryNotFound"),
        (f"/api/models/{REPO}/tree/main/nothing", None, 404, "EntryNotFound"),
        ("/elsewhere", None, 404, None),
        ("/api/models/../Tiny", None, 401, None),
    ],
)
def test_what_does_not_exist(hub: Hub, path: str, token: str | None, status: int, code: str | None) -> None:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    found, _body, answer = ask(hub.url + path, **headers)
    assert (found, answer.get("X-Error-Code")) == (status, code)
    assert answer["X-Error-Message"]


def test_gates_and_tokens(hub: Hub) -> None:
    hub.access = Access(tokens={"good", "other"}, gated={REPO: {"good"}})
    file = f"{hub.url}/{REPO}/resolve/main/config.json"
    assert ask(f"{hub.url}/api/models/{REPO}")[0] == 200
    anonymous, stranger = ask(file), ask(file, Authorization="Bearer other")
    assert (anonymous[0], anonymous[2]["X-Error-Code"]) == (401, "GatedRepo")
    assert (stranger[0], stranger[2]["X-Error-Code"]) == (403, "GatedRepo")
    assert ask(file, Authorization="Bearer good")[0] == 200
    invalid = ask(file, Authorization="Bearer invented")
    assert (invalid[0], invalid[2]["X-Error-Message"]) == (401, "Invalid credentials in Authorization header")
    assert ask(f"{hub.url}/api/whoami-v2", Authorization="Bearer good")[1]["name"] == "rehearsal"
    hub.access = Access(private={REPO: {"good"}})
    assert ask(f"{hub.url}/api/models/{REPO}", Authorization="Bearer other")[0] == 404


def download(hub: Hub) -> tuple[bytes, bool]:
    """Body of the large file, and whether all that was promised came."""
    location = ask(f"{hub.url}/{REPO}/resolve/main/model.safetensors", "HEAD")[2]["Location"]
    with urllib.request.urlopen(location, timeout=PATIENCE_SECONDS) as response:
        try:
            return response.read(), True
        except http.client.IncompleteRead as exc:
            return exc.partial, False


def test_faults_hit_as_often_as_told(hub: Hub) -> None:
    hub.fail(f"{REPO}/*.safetensors", "truncate", after_bytes=500)
    assert download(hub) == (WEIGHTS[:500], False)
    assert download(hub) == (WEIGHTS, True)
    hub.fail(f"{REPO}/*", "corrupt", after_bytes=100, times=-1)
    for _ in range(2):
        body, complete = download(hub)
        assert complete and body[:100] == WEIGHTS[:100]
        assert body[100:] == bytes(byte ^ 0xFF for byte in WEIGHTS[100:])
    hub.faults.clear()
    assert download(hub) == (WEIGHTS, True)


def test_stall_and_slow_take_their_time(hub: Hub) -> None:
    hub.fail(f"{REPO}/*", "stall", after_bytes=10, seconds=0.5)
    start = time.monotonic()
    assert download(hub) == (WEIGHTS[:10], False)
    assert time.monotonic() - start >= 0.5
    hub.fail(f"{REPO}/*", "slow", bytes_per_second=200_000)
    start = time.monotonic()
    assert download(hub) == (WEIGHTS, True)
    assert time.monotonic() - start >= 0.3


def test_status_faults_for_files_and_api(hub: Hub) -> None:
    hub.fail(f"{REPO}/config.json", "status", status=429, retry_after=7)
    status, _body, headers = ask(f"{hub.url}/{REPO}/resolve/main/config.json")
    assert (status, headers["Retry-After"]) == (429, "7")
    hub.fail("api:*/revision/main", "status", status=500)
    assert ask(f"{hub.url}/api/models/{REPO}/revision/main")[0] == 500
    assert ask(f"{hub.url}/api/models/{REPO}/revision/main")[0] == 200


def test_control_listener(hub: Hub) -> None:
    control = hub.control_url
    assert control is not None
    fault = {"match": f"{REPO}/config.json", "kind": "status", "status": 500, "times": -1}
    assert ask(f"{control}/faults", "POST", json.dumps(fault).encode())[0] == 201
    assert ask(f"{hub.url}/{REPO}/resolve/main/config.json")[0] == 500
    assert ask(f"{control}/faults", "DELETE")[0] == 200
    assert ask(f"{hub.url}/{REPO}/resolve/main/config.json")[0] == 200
    access = {"tokens": ["x"], "gated": {REPO: ["x"]}}
    assert ask(f"{control}/access", "PUT", json.dumps(access).encode())[0] == 200
    assert ask(f"{hub.url}/{REPO}/resolve/main/config.json")[0] == 401
    log = ask(f"{control}/requests")[1]
    assert [entry["status"] for entry in log] == [500, 200, 401]
    assert ask(f"{hub.url}/faults", "DELETE")[0] == 501, "the public side has no control"


@pytest.mark.parametrize(
    ("fault", "problem"),
    [({"match": "*", "kind": "melt"}, "unknown kind"), ({"kind": "slow"}, "match"), ({"speed": 1}, "unknown key")],
)
def test_bad_faults_are_refused(hub: Hub, fault: dict[str, Any], problem: str) -> None:
    status, body, _headers = ask(f"{hub.control_url}/faults", "POST", json.dumps(fault).encode())
    assert status == 400
    assert problem in body["error"]
    with pytest.raises(ValueError, match=problem):
        Fault.from_json(fault)


def test_command_line_serves_until_told_to_stop(root: Path) -> None:
    command = [sys.executable, "-m", "simulator.hub", "--repos", str(root), "--token", "t", "--gated", REPO]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert ready["repositories"] == [REPO]
        assert ask(f"{ready['url']}/{REPO}/resolve/main/config.json")[0] == 401
        process.terminate()
        assert process.wait(10) == 0


def test_tiny_checkpoint_is_written_once(tmp_path: Path) -> None:
    folder = tmp_path / "zai-org" / "GLM-5.1-FP8"
    write_tiny(folder)
    assert (folder / "config.json").exists() and list(folder.glob("*.safetensors"))
    assert [path.name for path in folder.parent.iterdir()] == ["GLM-5.1-FP8"]
    (folder / "config.json").write_text("kept")
    write_tiny(folder)
    assert (folder / "config.json").read_text() == "kept"


def test_addresses() -> None:
    assert address("0.0.0.0:80") == ("0.0.0.0", 80)
    with pytest.raises(argparse.ArgumentTypeError, match="HOST:PORT"):
        address("8080")
