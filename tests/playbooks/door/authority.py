"""A certificate authority that speaks ACME on this machine, pebble, and the DNS that it asks."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.tls import authority
from tests.patience import PATIENCE_SECONDS
from tests.playbooks.door import proxy


@dataclass
class Pebble:
    """A running authority. ``authorities`` is a file with its directory's authority and that of what it issues."""

    directory: str
    authorities: Path
    process: subprocess.Popen[bytes]
    dns: str
    log: Path

    def no_answer_for(self, name: str) -> None:
        """Have the DNS fail for a name."""
        self._told("set-servfail", {"host": f"{name}."})

    def leads_to(self, name: str, address: str) -> None:
        """Have a name lead elsewhere."""
        self._told("add-a", {"host": f"{name}.", "addresses": [address]})

    def _told(self, what: str, body: dict[str, object]) -> None:
        urllib.request.urlopen(f"{self.dns}/{what}", json.dumps(body).encode(), timeout=PATIENCE_SECONDS).close()

    def orders(self) -> int:
        """How many orders it was sent."""
        return self.log.read_text("utf-8", "replace").count("POST /order-plz")

    def stop(self) -> None:
        """End it: the directory is down."""
        self.process.terminate()
        self.process.wait(PATIENCE_SECONDS)


@contextmanager
def running(folder: Path, asks_at: int) -> Iterator[Pebble]:
    """An authority that asks names at port ``asks_at``; every name leads to 127.0.0.1."""
    for name in ("pebble", "pebble-challtestsrv", "certbot"):
        if shutil.which(name) is None:
            pytest.fail(f"{name} is not installed; run scripts/install_system_packages.sh")
    folder.mkdir()
    signer = authority.read_or_make(folder / "tls", "pebble", datetime.now(timezone.utc))
    pair = authority.issue(signer, ["127.0.0.1"], datetime.now(timezone.utc))
    (folder / "pebble.crt").write_text(pair.chain)
    (folder / "pebble.key").write_text(pair.key)
    port, management, dns, dns_management = proxy.free_ports(4)
    config = {
        "listenAddress": f"127.0.0.1:{port}", "managementListenAddress": f"127.0.0.1:{management}",
        "certificate": str(folder / "pebble.crt"), "privateKey": str(folder / "pebble.key"), "httpPort": asks_at,
        "tlsPort": management, "ocspResponderURL": "", "externalAccountBindingRequired": False,
    }  # fmt: skip
    (folder / "pebble.json").write_text(json.dumps({"pebble": config}))
    quick = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_AUTHZREUSE": "0", "PEBBLE_WFE_NONCEREJECT": "0"}
    names = [
        "pebble-challtestsrv", "-dns01", f"127.0.0.1:{dns}", "-management", f"127.0.0.1:{dns_management}",
        "-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", "",
    ]  # fmt: skip
    serves = ["pebble", "-config", str(folder / "pebble.json"), "-dnsserver", f"127.0.0.1:{dns}"]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(names, stdout=log, stderr=log) as resolver,
        subprocess.Popen(serves, env={**os.environ, **quick}, stdout=log, stderr=log) as process,
    ):
        try:
            for one in (port, management, dns_management):
                _wait_for(one)
            trusted = ssl.create_default_context(cadata=signer.pem)
            with urllib.request.urlopen(
                f"https://127.0.0.1:{management}/roots/0", context=trusted, timeout=PATIENCE_SECONDS
            ) as root:
                (folder / "authorities.pem").write_text(signer.pem + root.read().decode())
            yield Pebble(
                f"https://127.0.0.1:{port}/dir", folder / "authorities.pem", process,
                f"http://127.0.0.1:{dns_management}", folder / "log",
            )  # fmt: skip
        finally:
            process.terminate()
            resolver.terminate()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            time.sleep(0.02)
    raise AssertionError(f"nothing listens on {port}")
