"""Background programs of a rehearsal, with real ones: started once, found again, stopped, distinguished from others."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from simulator.services import Service, Services
from simulator.settings import Settings
from simulator.support import RehearsalError


def settings(folder: Path) -> Settings:
    return Settings.from_environment(
        {"GLM_REHEARSAL_DIR": str(folder / "state"), "GLM_CACHE_DIR": str(folder / "cache")}
    )


def service(folder: Path, port: int, program: str) -> Service:
    return Service("web", [sys.executable, "-c", program, str(port)], f"http://127.0.0.1:{port}/", "SOME_PORT")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


SERVER = """
import http.server, sys
http.server.test(http.server.SimpleHTTPRequestHandler, port=int(sys.argv[1]), bind="127.0.0.1")
"""


def test_a_service_is_started_once_found_again_and_stopped(tmp_path: Path) -> None:
    services = Services(settings(tmp_path))
    web = service(tmp_path, free_port(), SERVER)
    try:
        assert services.start(web) is True
        pid = services.running("web")
        assert pid is not None
        assert Services(settings(tmp_path)).start(web) is False
        assert services.running("web") == pid
    finally:
        assert services.stop("web") is True
    assert services.running("web") is None
    assert services.stop("web") is False


def test_a_service_that_ends_shows_its_last_words(tmp_path: Path) -> None:
    services = Services(settings(tmp_path))
    broken = service(tmp_path, free_port(), "import sys; sys.exit('no room on the disk')")
    with pytest.raises(RehearsalError, match="ended with 1") as caught:
        services.start(broken)
    assert "no room on the disk" in str(caught.value)
    assert "web.log" in str(caught.value) and "SOME_PORT" in str(caught.value)
    assert services.running("web") is None


def test_another_program_on_the_port_is_not_taken_for_the_service(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-c", SERVER, str(port)]
    other = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not _listens(port):
            assert other.poll() is None, "somebody else took the port in between"
        with pytest.raises(RehearsalError, match="SOME_PORT"):
            Services(settings(tmp_path)).start(service(tmp_path, port, SERVER))
    finally:
        other.kill()
        other.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
