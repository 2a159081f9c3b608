"""The Python source of a wheel, fetched in parts from a server that sends them, and whole from one that does not."""

from __future__ import annotations

import http.server
import re
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulator.engines import wheels


class Server(http.server.ThreadingHTTPServer):
    """One wheel, and what was asked for of it."""

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.parts = True
        self.asked: list[str] = []
        self.sent = 0


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        content, size = self.server.content, len(self.server.content)
        self.server.asked.append(asked := self.headers["Range"])
        if self.server.parts and (suffix := re.fullmatch(r"bytes=-(\d+)", asked)):
            start, end = max(0, size - int(suffix[1])), size
        elif self.server.parts and (both := re.fullmatch(r"bytes=(\d+)-(\d+)", asked)):
            start, end = int(both[1]), min(int(both[2]) + 1, size)
        else:
            start, end = 0, size
        self.send_response(206 if self.server.parts else 200)
        if self.server.parts:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        self.wfile.write(content[start:end])
        self.server.sent += end - start

    def log_message(self, *args: object) -> None:
        """Silence."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    path = tmp_path / "whole.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for number in range(5):
            archive.writestr(f"vllm/part_{number}.py", f"NUMBER = {number}\n")
            archive.writestr(f"vllm/kernel_{number}.so", bytes(3 << 20))
        archive.writestr("vllm-1.dist-info/METADATA", "Name: vllm\n")
    with Server(path.read_bytes()) as served:
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        yield served
        served.shutdown()
        thread.join()


def address(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_port}/vllm.whl"


def test_only_the_directory_and_the_source_of_a_wheel_are_fetched(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheels, "_address", lambda _requirement: address(server))
    monkeypatch.setattr(wheels, "_END", 1 << 16)
    source = wheels.fetch_source("vllm", "1", tmp_path)
    assert sorted(path.name for path in source.rglob("*") if path.is_file()) == [
        "METADATA", *(f"part_{number}.py" for number in range(5)),
    ]  # fmt: skip
    assert (source / "vllm" / "part_3.py").read_text() == "NUMBER = 3\n"
    assert server.sent < len(server.content) / 10
    server.asked.clear()
    assert wheels.fetch_source("vllm", "1", tmp_path) == source
    assert not server.asked


@pytest.mark.parametrize(("parts", "end"), [(False, 1 << 16), (True, 64)])
def test_a_server_without_parts_and_a_directory_out_of_reach_are_refused(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: bool, end: int
) -> None:
    server.parts = parts
    monkeypatch.setattr(wheels, "_END", end)
    with pytest.raises((ValueError, zipfile.BadZipFile)):
        wheels._parts(address(server), tmp_path / "parts.whl")
