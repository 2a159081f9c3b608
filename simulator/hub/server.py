"""The HTTP side of the simulated hub: addresses, headers and errors as the public hub gives them.

Facts were read in the ``huggingface_hub`` client (0.36 to 2.4), which distinguishes errors by status, ``X-Error-Code``
and ``X-Error-Message``, names blobs by ``X-Linked-Etag`` or ``ETag``, and follows ``Link: …; rel="next"``.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

from simulator.hub.content import Repositories, Revision, Sibling
from simulator.hub.faults import Fault, FaultList
from simulator.support import serving

PAGE_SIZE = 1000
CHUNK_BYTES = 64 * 1024
_REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"
_API = re.compile(
    rf"/api/models/{_REPO}(?:/(?P<what>revision|tree|paths-info|refs)(?:/(?P<rev>[^/]+)(?:/(?P<path>.+))?)?)?"
)
_RESOLVE = re.compile(rf"/{_REPO}/resolve/(?P<rev>[^/]+)/(?P<path>.+)")
_CDN = re.compile(rf"/cdn/{_REPO}/(?P<commit>[0-9a-f]{{40}})/(?P<path>.+)")
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@dataclass
class Access:
    """Who may read what. Without ``tokens`` any token is valid; ``gated`` maps a repository to the admitted tokens."""

    tokens: set[str] = field(default_factory=set)
    gated: dict[str, set[str]] = field(default_factory=dict)
    private: dict[str, set[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """One answered request, as kept in the log; ``target`` is ``<repository>/<file>`` for downloads."""

    method: str
    path: str
    target: str
    status: int
    range: str | None
    authenticated: bool


class HubError(Exception):
    """An error answer: status, hub error code and message, further headers."""

    def __init__(
        self, status: int, message: str, code: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Message": message, **(headers or {})}
        if code:
            self.headers["X-Error-Code"] = code


class Hub:
    """The simulated hub; a context manager that listens while it is entered.

    ``page_size`` is the number of entries in one page of a file list. ``control`` adds a second listener with
    ``POST /faults``, ``DELETE /faults``, ``PUT /access`` and ``GET /requests``; keep it on a loopback address.
    ``cdn_host`` is another name of this machine to send downloads of large files to, as the public hub does; without
    it they stay on the name the client used.
    """

    def __init__(
        self,
        root: Path,
        listen: tuple[str, int] = ("127.0.0.1", 0),
        control: tuple[str, int] | None = None,
        page_size: int = PAGE_SIZE,
        cdn_host: str | None = None,
    ) -> None:
        self.repositories = Repositories(root)
        self.access = Access()
        self.faults = FaultList()
        self.requests: list[Request] = []
        self.page_size = page_size
        self.cdn_host = cdn_host
        # Signed download addresses carry it, so an address cannot be made up.
        self.signature = secrets.token_hex(8)
        self.stopping = threading.Event()
        self._servers = [_Server(listen, _HubHandler, self)]
        if control is not None:
            self._servers.append(_Server(control, _ControlHandler, self))
        self._running = contextlib.ExitStack()

    @property
    def url(self) -> str:
        """The address for ``HF_ENDPOINT``."""
        return self._servers[0].url

    @property
    def control_url(self) -> str | None:
        """The address of the control listener, if there is one."""
        return self._servers[1].url if len(self._servers) > 1 else None

    def fail(self, match: str, kind: str, **options: Any) -> None:
        """Put a fault in force; see ``Fault`` for the options."""
        self.faults.add(Fault(match, kind, **options))

    def downloads(self) -> list[Request]:
        """The requests that fetched file content."""
        return [entry for entry in self.requests if entry.method == "GET" and entry.target]

    def __enter__(self) -> Hub:
        for server in self._servers:
            self._running.enter_context(serving(server))
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stopping.set()
        self._running.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # A stalled download must not keep the hub from stopping.
    block_on_close = False

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], hub: Hub) -> None:
        super().__init__(address, handler)
        self.hub = hub

    @property
    def url(self) -> str:
        host, port = cast("tuple[str, int]", self.server_address[:2])
        return f"http://{host}:{port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up in the middle of a file are part of the tests; their tracebacks are noise."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "glm-fleet-hub-simulator"

    @property
    def hub(self) -> Hub:
        return cast("_Server", self.server).hub

    def log_message(self, format: str, *args: Any) -> None:
        """The request log of the hub replaces lines on standard error."""

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def reply(self, status: int, document: Any, headers: dict[str, str] | None = None) -> None:
        payload = json.dumps(document).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(payload)


class _HubHandler(_Handler):
    """The public side; ``target`` is ``<repository>/<file>`` while a file is sent."""

    target = ""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        split = urlsplit(self.path)
        self.target = ""
        self.query = parse_qs(split.query)
        payload = self.body()
        try:
            self._route(split.path, payload)
        except HubError as exc:
            self.reply(exc.status, {"error": str(exc)}, exc.headers)

    def send_response(self, code: int, message: str | None = None) -> None:
        # Logged when the answer begins, so that a test sees a download while it goes on.
        wanted, authenticated = self.headers.get("Range"), "Authorization" in self.headers
        self.hub.requests.append(Request(self.command, self.path, self.target, int(code), wanted, authenticated))
        super().send_response(code, message)

    def _route(self, path: str, payload: bytes) -> None:
        if match := _CDN.fullmatch(path):
            self._cdn(match["repo"], match["commit"], unquote(match["path"]))
        elif match := _RESOLVE.fullmatch(path):
            self._resolve(match["repo"], unquote(match["rev"]), unquote(match["path"]))
        elif match := _API.fullmatch(path):
            if fault := self.hub.faults.take(f"api:{path}"):
                self._fail_by_status(fault)
            self._authorise(match["repo"])
            self._api(match, payload)
        elif path == "/api/whoami-v2":
            if not self._token():
                raise HubError(401, "Invalid username or password.")
            self.reply(200, {"type": "user", "name": "rehearsal", "orgs": [], "auth": {"type": "access_token"}})
        else:
            raise HubError(404, "Sorry, we can't find the page you are looking for.")

    # Access ----------------------------------------------------------------------------------------------------

    def _token(self) -> str | None:
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return None
        if self.hub.access.tokens and token not in self.hub.access.tokens:
            raise HubError(401, "Invalid credentials in Authorization header")
        return token

    def _authorise(self, repository: str) -> None:
        token = self._token()
        admitted = self.hub.access.private.get(repository)
        hidden = admitted is not None and token not in admitted
        if hidden or not self.hub.repositories.branches(repository):
            # The public hub does not show anonymous callers whether a repository exists.
            if token is None:
                raise HubError(401, "Invalid username or password.")
            raise HubError(404, "Repository not found", "RepoNotFound")

    def _pass_gate(self, repository: str) -> None:
        """Gated repositories show their metadata to everyone, and their files to the admitted only."""
        admitted = self.hub.access.gated.get(repository)
        if admitted is None:
            return
        token = self._token()
        restricted = f"Access to model {repository} is restricted"
        if token is None:
            raise HubError(401, f"{restricted}. You must have access to it and be authenticated.", "GatedRepo")
        if token not in admitted:
            raise HubError(403, f"{restricted} and you are not in the authorized list.", "GatedRepo")

    # API -------------------------------------------------------------------------------------------------------

    def _api(self, match: re.Match[str], payload: bytes) -> None:
        repository, what = match["repo"], match["what"]
        if what == "refs":
            branches = self.hub.repositories.branches(repository)
            refs = [
                {"name": name, "ref": f"refs/heads/{name}", "targetCommit": commit} for name, commit in branches.items()
            ]
            self.reply(200, {"branches": refs, "tags": [], "converts": []})
            return
        revision = self._revision(repository, unquote(match["rev"] or "main"))
        if what is None or what == "revision":
            self.reply(200, self._model(repository, revision))
        elif what == "tree":
            self._tree(repository, match["rev"], unquote(match["path"] or ""), revision)
        else:
            wanted = _wanted_paths(payload, self.headers.get("Content-Type", ""))
            self.reply(200, [_entry(revision.files[path]) for path in wanted if path in revision.files])

    def _revision(self, repository: str, name: str) -> Revision:
        revision = self.hub.repositories.find(repository, name)
        if revision is None:
            raise HubError(404, f"Invalid rev id: {name}", "RevisionNotFound")
        return revision

    def _model(self, repository: str, revision: Revision) -> dict[str, Any]:
        blobs = self.query.get("blobs", ["false"])[0].lower() in ("true", "1")
        document: dict[str, Any] = {
            "_id": revision.commit[:24],
            "id": repository,
            "modelId": repository,
            "author": repository.split("/")[0],
            "sha": revision.commit,
            "lastModified": "2026-01-01T00:00:00.000Z",
            "createdAt": "2026-01-01T00:00:00.000Z",
            "private": repository in self.hub.access.private,
            "gated": "manual" if repository in self.hub.access.gated else False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "library_name": "transformers",
            "siblings": [_sibling(file, blobs) for file in revision.files.values()],
        }
        if expand := self.query.get("expand"):
            kept = {"_id", "id", *expand}
            document = {key: value for key, value in document.items() if key in kept}
        return document

    def _tree(self, repository: str, quoted_revision: str | None, folder: str, revision: Revision) -> None:
        recursive = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
        entries = _list(revision, folder, recursive)
        if folder and not entries:
            raise HubError(404, f"{folder} does not exist on {quoted_revision}", "EntryNotFound")
        start = int(self.query.get("cursor", ["0"])[0])
        limit = min(int(self.query.get("limit", [str(self.hub.page_size)])[0]), self.hub.page_size)
        headers = {}
        if start + limit < len(entries):
            query = {"recursive": str(recursive).lower(), "limit": limit, "cursor": start + limit}
            path = f"/api/models/{repository}/tree/{quoted_revision or 'main'}"
            path += f"/{quote(folder, safe='')}" if folder else ""
            headers["Link"] = f'<{self._base()}{path}?{urlencode(query)}>; rel="next"'
        self.reply(200, entries[start : start + limit], headers)

    def _base(self) -> str:
        """The address under which this client reached the hub; behind a bridge it is not the listening one."""
        return f"http://{self.headers['Host']}" if self.headers.get("Host") else self.hub.url

    def _cdn_base(self) -> str:
        base = urlsplit(self._base())
        return f"{base.scheme}://{self.hub.cdn_host or base.hostname}:{base.port}"

    # Files -----------------------------------------------------------------------------------------------------

    def _resolve(self, repository: str, name: str, path: str) -> None:
        self._authorise(repository)
        self._pass_gate(repository)
        revision = self._revision(repository, name)
        file = revision.files.get(path)
        if file is None:
            raise HubError(404, "Entry not found", "EntryNotFound", {"X-Repo-Commit": revision.commit})
        common = {"X-Repo-Commit": revision.commit}
        if file.sha256 is None:
            self.target = f"{repository}/{path}"
            self._send_file(file, common)
            return
        self.send_response(HTTPStatus.FOUND)
        location = f"{self._cdn_base()}/cdn/{repository}/{revision.commit}/{quote(path)}"
        location += f"?Signature={self.hub.signature}"
        for header, value in {
            **common,
            "X-Linked-Size": str(file.size),
            "X-Linked-Etag": f'"{file.etag}"',
            "Location": location,
            "Content-Length": "0",
        }.items():
            self.send_header(header, value)
        self.end_headers()

    def _cdn(self, repository: str, commit: str, path: str) -> None:
        if self.query.get("Signature") != [self.hub.signature]:
            raise HubError(403, "The signature does not match")
        revision = self.hub.repositories.find(repository, commit)
        if revision is None or path not in revision.files:
            raise HubError(404, "No such object")
        self.target = f"{repository}/{path}"
        # A client follows a redirect that stays on the hub's own name and reads the commit where it ends.
        self._send_file(revision.files[path], {"X-Repo-Commit": revision.commit})

    def _send_file(self, file: Sibling, headers: dict[str, str]) -> None:
        fault = self.hub.faults.take(self.target) if self.command == "GET" else None
        if fault is not None and fault.kind == "status":
            self._fail_by_status(fault)
        start, end = self._range(file.size)
        partial = (start, end) != (0, file.size)
        self.send_response(HTTPStatus.PARTIAL_CONTENT if partial else HTTPStatus.OK)
        for name, value in {**headers, "ETag": f'"{file.etag}"', "Accept-Ranges": "bytes"}.items():
            self.send_header(name, value)
        if partial:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{file.size}")
        self.send_header("Content-Length", str(end - start))
        self.send_header("Content-Type", "application/octet-stream")
        self.end_headers()
        if self.command == "GET":
            self._send_body(_chunks(file.source, start, end), fault)

    def _range(self, size: int) -> tuple[int, int]:
        match = _RANGE.fullmatch(self.headers.get("Range", ""))
        if match is None:
            return 0, size
        start, end = int(match[1]), min(int(match[2]) + 1, size) if match[2] else size
        if start >= size:
            raise HubError(416, "Range not satisfiable", headers={"Content-Range": f"bytes */{size}"})
        return start, end

    def _send_body(self, chunks: Iterator[bytes], fault: Fault | None) -> None:
        sent = 0
        for chunk in chunks:
            if fault is None:
                self.wfile.write(chunk)
            elif fault.kind == "slow":
                # Never a long silence: a tenth of a second's worth at a time.
                size = max(1, fault.bytes_per_second // 10)
                for piece in (chunk[at : at + size] for at in range(0, len(chunk), size)):
                    self.wfile.write(piece)
                    self.wfile.flush()
                    self.hub.stopping.wait(len(piece) / fault.bytes_per_second)
            elif fault.kind == "corrupt":
                clean = max(0, fault.after_bytes - sent)
                self.wfile.write(chunk[:clean] + bytes(byte ^ 0xFF for byte in chunk[clean:]))
            elif sent + len(chunk) >= fault.after_bytes:
                self.wfile.write(chunk[: fault.after_bytes - sent])
                self.wfile.flush()
                if fault.kind == "stall":
                    self.hub.stopping.wait(fault.seconds)
                self.close_connection = True
                return
            else:
                self.wfile.write(chunk)
            sent += len(chunk)

    def _fail_by_status(self, fault: Fault) -> None:
        headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
        raise HubError(fault.status, HTTPStatus(fault.status).phrase, fault.error_code, headers)


class _ControlHandler(_Handler):
    """The operator's side: faults, access and the request log."""

    def do_GET(self) -> None:
        if self.path == "/requests":
            self.reply(200, [asdict(entry) for entry in self.hub.requests])
        else:
            self.reply(404, {"error": "known: GET /requests, POST /faults, DELETE /faults, PUT /access"})

    def do_POST(self) -> None:
        payload = self.body()
        with self._bad_request():
            self._expect("/faults")
            self.hub.faults.add(Fault.from_json(json.loads(payload)))
            self.reply(201, {})

    def do_DELETE(self) -> None:
        with self._bad_request():
            self._expect("/faults")
            self.hub.faults.clear()
            self.reply(200, {})

    def do_PUT(self) -> None:
        payload = self.body()
        with self._bad_request():
            self._expect("/access")
            data = json.loads(payload)
            self.hub.access = Access(
                tokens=set(data.get("tokens", [])),
                gated={name: set(tokens) for name, tokens in data.get("gated", {}).items()},
                private={name: set(tokens) for name, tokens in data.get("private", {}).items()},
            )
            self.reply(200, {})

    def _expect(self, path: str) -> None:
        if self.path != path:
            raise ValueError(f"unknown path {self.path}; known: {path} for {self.command}")

    @contextlib.contextmanager
    def _bad_request(self) -> Iterator[None]:
        try:
            yield
        except (ValueError, AttributeError, TypeError) as exc:
            self.reply(400, {"error": str(exc)})


def _wanted_paths(payload: bytes, content_type: str) -> list[str]:
    if content_type.startswith("application/json"):
        return [str(path) for path in json.loads(payload)["paths"]]
    return parse_qs(payload.decode()).get("paths", [])


def _sibling(file: Sibling, blobs: bool) -> dict[str, Any]:
    entry: dict[str, Any] = {"rfilename": file.path}
    if blobs:
        entry.update(size=file.size, blobId=file.blob_id)
        if file.sha256 is not None:
            entry["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": file.pointer_size}
    return entry


def _entry(file: Sibling) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "oid": file.blob_id, "size": file.size, "path": file.path}
    if file.sha256 is not None:
        entry["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": file.pointer_size}
    return entry


def _list(revision: Revision, folder: str, recursive: bool) -> list[dict[str, Any]]:
    prefix = f"{folder.strip('/')}/" if folder else ""
    entries: dict[str, dict[str, Any]] = {}
    for path, file in revision.files.items():
        if not path.startswith(prefix):
            continue
        parts = path[len(prefix) :].split("/")
        for depth in range(1, len(parts)) if recursive else range(1, min(2, len(parts))):
            name = prefix + "/".join(parts[:depth])
            # Git tree ids are not modelled; the commit stands in, as nothing reads them.
            entries.setdefault(name, {"type": "directory", "oid": revision.commit, "size": 0, "path": name})
        if recursive or len(parts) == 1:
            entries[path] = _entry(file)
    return sorted(entries.values(), key=lambda entry: str(entry["path"]))


def _chunks(source: Path, start: int, end: int) -> Iterator[bytes]:
    with source.open("rb") as handle:
        handle.seek(start)
        left = end - start
        while left > 0 and (chunk := handle.read(min(CHUNK_BYTES, left))):
            left -= len(chunk)
            yield chunk
