"""Waiting for hosts and for what runs on them: until it is so, however long a busy machine takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from simulator.hosts.machines import Machines
from simulator.support import RehearsalError
from tests.patience import PATIENCE_SECONDS


def wait_for(what: str, condition: Callable[[], Any], said: Callable[[], Any] = str) -> None:
    """Return when it holds; a host that boots cannot say, which is not yet. ``said`` shows why it never held."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            if condition():
                return
            problem = ""
        except RehearsalError as error:
            problem = str(error)
        assert time.monotonic() < deadline, f"not yet after {PATIENCE_SECONDS} s: {what} {problem} {said()}"
        time.sleep(0.5)


def wait_for_login(machines: Machines, name: str, more: str = "true") -> None:
    """Until ubuntu is let in over ssh. ``more``: a command that must succeed on the host as well."""

    def let_in() -> bool:
        host = machines.find(name)
        if host is None or not machines.lets_in(host):
            return False
        machines.execute(name, "sh", "-c", more)
        return True

    wait_for(f"a login on {name}", let_in)


def wait_for_port(machines: Machines, name: str, port: int) -> None:
    """Until something listens."""
    listening = ("ss", "-Hltn", f"sport = :{port}")
    wait_for(f"port {port} of {name}", lambda: machines.execute(name, *listening).strip())
