"""The front door of a host as a real HAProxy on free ports of this machine, in front of engines of the test."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.door import maps, staged
from ansible_collections.glm.fleet.plugins.module_utils.door.master import Master
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import door
from tests.patience import PATIENCE_SECONDS
from tests.unit.serve.plans import listening, plan
from tests.unit.serve.render import render_host

ENGINE_KEY = "engine-key-of-this-host"
CLIENT_KEY = "glm-key-of-the-client"
CLIENT = "anna"


def program() -> str:
    """HAProxy, which these tests run."""
    found = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    if found is None:
        pytest.fail("haproxy is not installed; run scripts/install_system_packages.sh")
    return found


@dataclass
class Door:
    """A running door: the ports of its replicas, in order, and that of the monitoring."""

    ports: list[int]
    monitor: int
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def port(self) -> int:
        return self.ports[0]

    def lines(self) -> list[dict[str, str]]:
        """The whole lines of requests in its log, by field; ``client`` is the address that asked."""
        whole = (self.folder / "log").read_text("utf-8").rpartition("\n")[0]
        return [
            {"client": line.split()[0], **dict(re.findall(r"(\w+)=(\S+)", line))}
            for line in whole.splitlines()
            if " key=" in line
        ]

    def line(self, **fields: str) -> dict[str, str]:
        """The first line with these fields, once it is written: that is after the last byte of the answer."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            for one in self.lines():
                if fields.items() <= one.items():
                    return one
            time.sleep(0.02)
        raise AssertionError(f"no line with {fields} in the log of the door")


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on. HAProxy itself cannot be asked for one."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def entry(name: str, key: str, expires: int = 0, **limits: int) -> dict[str, Any]:
    """A key as the lookup client_keys gives it."""
    return {"name": name, "sha256": hashlib.sha256(key.encode()).hexdigest(), "expires": expires, "limits": limits}


def keys_map(**keys: str) -> str:
    """The lines of keys.map for keys by name."""
    return maps.text(maps.of([entry(name, key) for name, key in keys.items()])["keys"])


def data(
    folder: Path, ports: Sequence[int], engines: Sequence[int], monitor: int, address: str = "127.0.0.1"
) -> dict[str, Any]:
    """What the template needs, with files in ``folder``."""
    plans = []
    for number, (port, engine) in enumerate(zip(ports, engines)):
        plans.append(
            plan(
                replica=number,
                replicas=len(ports),
                listen=listening(address, port, engine),
                paths={"config": str(folder)},
            )
        )
    made = door.door(plans, monitor_port=monitor)  # type: ignore[arg-type]  # test plans are dicts
    made["files"]["master"] = str(folder / "master.sock")
    return made


def configured(
    folder: Path,
    ports: Sequence[int],
    engines: Sequence[int],
    monitor: int,
    keys: Sequence[Mapping[str, Any]] = (entry(CLIENT, CLIENT_KEY),),
    certificate: str = "",
    acme: Mapping[str, Any] | None = None,
    address: str = "127.0.0.1",
) -> Path:
    """The door's files in ``folder``, with one client key unless others are given; the path of its configuration."""
    made = data(folder, ports, engines, monitor, address)
    made["tls"] = {"origin": "fleet", "names": ["127.0.0.1"]} if certificate else None
    # As many connections as for one name.
    made["acme"] = {"peers": [], "order": {"names": ["127.0.0.1"]}, **acme} if acme else None
    (folder / "door").mkdir(exist_ok=True)
    Path(made["files"]["usage"]).write_text(render_host("glm-door-usage.lua"), encoding="utf-8")
    for name, entries in maps.of(keys).items():
        Path(made["files"][name]).write_text(maps.text(entries), encoding="ascii")
        Path(made["files"][name]).chmod(0o640)
    Path(made["files"]["drain"]).touch(0o640)
    Path(made["files"]["certificate"]).write_text(certificate, encoding="ascii")
    config = Path(made["files"]["config"])
    text = render_host("glm-door.cfg", door=made).replace(staged.ENGINE_KEY, ENGINE_KEY)
    config.write_text(staged.marked(text, "", certificate), encoding="utf-8")
    return config


@contextmanager
def running(
    folder: Path,
    *engines: int,
    keys: Sequence[Mapping[str, Any]] = (entry(CLIENT, CLIENT_KEY),),
    certificate: str = "",
    acme: Mapping[str, Any] | None = None,
    address: str = "127.0.0.1",
) -> Iterator[Door]:
    """A door with a replica for each port of an engine; with a certificate and its key it speaks TLS.

    ``acme`` is where an authority asks it, ``listen`` and ``answers``, and ``peers`` that have a name with it.
    """
    *ports, monitor = free_ports(len(engines) + 1)
    config = configured(folder, ports, engines, monitor, keys, certificate, acme, address)
    with haproxy(folder, config, [*ports, monitor]) as process:
        yield Door(ports, monitor, folder, process)


@contextmanager
def haproxy(
    folder: Path, config: Path, ports: Sequence[int], environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """HAProxy with this configuration, once it listens on all of these ports; its master's socket is in ``folder``."""
    subprocess.run([program(), "-c", "-q", "-f", str(config)], check=True)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program(), "-W", "-S", str(folder / "master.sock"), "-f", str(config)], stdout=log, stderr=log,
            env={**os.environ, **(environment or {})},
        )  # fmt: skip
    try:
        for port in ports:
            _wait_for(port, process)
        # The master starts anew once its worker listens, and has its socket then.
        while process.poll() is None and not (folder / "master.sock").exists():
            time.sleep(0.02)
        Master(folder / "master.sock").processes()
        yield process
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            time.sleep(0.02)
    raise AssertionError(f"the door does not listen on {port}; haproxy: {process.poll()}")
