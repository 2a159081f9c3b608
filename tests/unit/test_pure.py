"""The rule for this folder holds by itself (conftest.py)."""

from __future__ import annotations

import http.server
import subprocess
import time
from collections.abc import Callable

import pytest


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (lambda: subprocess.run(["/usr/bin/ansible-playbook", "plan.yml"], check=False), "ansible-playbook"),
        (lambda: subprocess.Popen("chromium"), "chromium"),
        (lambda: http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler), "a server"),
        (lambda: time.sleep(3), "a sleep of 3 s"),
    ],
)
def test_what_is_not_pure_is_refused_and_told_where_it_belongs(start: Callable[[], object], what: str) -> None:
    with pytest.raises(pytest.fail.Exception, match=f"{what} belongs to tests/playbooks"):
        start()
