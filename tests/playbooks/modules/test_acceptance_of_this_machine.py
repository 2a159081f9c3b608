"""node_acceptance as a playbook runs it, and a download from a real server."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.host import health
from tests.unit.modules.test_node_acceptance import PLAN

ROOT = Path(__file__).parents[3]
BOOK = """
- hosts: all
  gather_facts: false
  tasks:
    - glm.fleet.node_acceptance:
        plans: "{{ plans }}"
        measure_disk: false
        report: report.json
"""


@pytest.mark.parametrize("check", [False, True])
def test_a_host_that_is_not_ready_fails_a_run_and_warns_in_check_mode(tmp_path: Path, check: bool) -> None:
    """This machine has no GPUs: the whole way from the module to the verdict, as a playbook goes it."""
    (tmp_path / "book.yml").write_text(BOOK, "utf-8")
    variables = {"plans": [{**PLAN, "devices": []}], "glm_host_id": "i-0{{ 'a1b2c3d' }}"}
    (tmp_path / "vars.json").write_text(json.dumps(variables), "utf-8")
    python = f"ansible_python_interpreter={sys.executable}"
    command = ["ansible-playbook", "-i", "h0,", "-c", "local", "book.yml", "-e", "@vars.json", "-e", python]
    done = subprocess.run(
        [*command, *(["--check"] if check else [])], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"), "ANSIBLE_NOCOLOR": "1"},
    )  # fmt: skip
    text = " ".join((done.stdout + done.stderr).split())
    assert (done.returncode == 0) is check, text
    assert "h0, acceptance, gpu: expected 8 GPUs, found 0" in text
    assert ("A run without --check would fail" in text) is check
    assert (tmp_path / "report.json").exists() is not check
    ticket = tmp_path / "report.ticket.txt"
    assert ticket.exists() is not check
    if not check:
        said = ticket.read_text("utf-8")
        assert said.startswith("Acceptance of h0: FAILED at ") and "\nid: i-0a1b2c3d\n" in said
        assert "gpu: expected 8 GPUs, found 0" in said and not ticket.stat().st_mode & 0o077


@pytest.fixture
def download() -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"x" * 4_000_000)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def test_download_speed_is_measured(download: str) -> None:
    assert health.download_speed(download, 5) > 0
