"""The hosts of a rehearsed fleet as the proof sees them: what they serve, what their gateways admit, and their ends."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import threading
import time
from typing import Any

from simulator.hosts.machines import Machines
from simulator.settings import Settings
from tests.benchmark.fleet.counting import Look
from tests.integration.rehearsal import STATE, inventory, root_on

# Runs on a host: prints what its gateway admits, four times a second.
_LOOKER = r"""
import json, re, time, urllib.request
UP = re.compile(r'haproxy_server_status\{proxy="replicas",server="([^"]+)",state="UP"\} 1')
while True:
    begun = time.time()
    try:
        text = urllib.request.urlopen("http://127.0.0.1:9801/metrics?scope=server", timeout=1).read().decode()
        up = sorted(UP.findall(text))
    except OSError:
        up = None
    print(json.dumps([begun, up]), flush=True)
    time.sleep(max(0, begun + 0.25 - time.time()))
"""
# What a host serves, and what a run may have left on it. None of it changes by itself.
_STATE = r"""
import hashlib, json, pathlib, time
def text(path):
    try:
        return pathlib.Path(path).read_text()
    except FileNotFoundError:
        return ""
marks = [line.split() for line in text("/etc/glm/door/drain.map").splitlines() if line.strip()]
lease = json.loads(text("/run/glm/lease.json") or "{}")
print(json.dumps({
    "good": text("/var/lib/glm/releases/good").strip(),
    "files": {path: hashlib.sha256(text(path).encode()).hexdigest()[:12]
              for path in ("/etc/systemd/system/glm-serve-0.service", "/etc/glm/serve-0.env")},
    "drained": sorted(name for name, until in marks if int(until) > time.time()),
    "lease": "" if not lease or lease["released"] else lease["by"] + " with " + lease["playbook"],
}))
"""


class Fleet:
    """A deployed rehearsal: names and addresses are read once."""

    def __init__(self) -> None:
        self.variables = inventory()
        self.names = list(self.variables)
        self._roots: dict[str, list[str]] = {}

    def address(self, host: str) -> str:
        """Where gateways listen, and doors."""
        return str(self.variables[host]["glm_host_private_address"])

    def replica(self, host: str) -> str:
        """What gateways call the replica of a host."""
        return re.sub(r"[^A-Za-z0-9_.-]", "_", f"{host}-0")

    def root(self, host: str) -> list[str]:
        """How a command is run on a host as root; the connection is kept."""
        if host not in self._roots:
            command, control = root_on(host), STATE / "proof-%C"
            kept = ["-o", "ControlMaster=auto", "-o", f"ControlPath={control}", "-o", "ControlPersist=60"]
            self._roots[host] = [command[0], *kept, *command[1:]]
        return self._roots[host]

    def on(self, host: str, *argv: str, stdin: str | None = None) -> str:
        """What a command prints on a host. Raises CalledProcessError."""
        return subprocess.run([*self.root(host), *argv], input=stdin, capture_output=True, text=True, check=True).stdout

    def state(self, host: str) -> dict[str, Any]:
        """Release, files, drains and lease of a host."""
        found: dict[str, Any] = json.loads(self.on(host, "python3", "-I", "-", stdin=_STATE))
        return found

    def states(self) -> dict[str, dict[str, Any]]:
        return {host: self.state(host) for host in self.names}

    def starts(self) -> dict[str, str]:
        """What each host's unit calls its current start."""
        show = ("systemctl", "show", "glm-serve-0", "--property=InvocationID", "--value")
        return {host: self.on(host, *show).strip() for host in self.names}

    def flag(self, host: str, name: str) -> str:
        """The value of an engine's flag in a host's unit; empty where it has none."""
        unit = self.on(host, "cat", "/etc/systemd/system/glm-serve-0.service")
        found = re.search(rf"--{name}[= ](\S+)", unit)
        return found[1] if found else ""

    @functools.cached_property
    def machines(self) -> Machines:
        return Machines(Settings.from_environment())

    def kill(self, host: str, silent: bool) -> float:
        """Kill all that runs on a host, and return when; ``silent``: as without power, nobody closes connections."""
        container, begun = self._container(host), time.time()
        if silent:
            cut = "date +%s.%N; for link in eth0 eth1; do ip link set $link down; done"
            begun = float(self.machines.podman.run("exec", container, "sh", "-c", cut))
        self.machines.podman.run("kill", "--signal=KILL", container)
        return begun

    def boot(self, host: str) -> None:
        """Start a host that was killed."""
        self._roots.pop(host, None)
        self.machines.podman.run("start", self._container(host))

    def _container(self, host: str) -> str:
        address = str(self.variables[host]["ansible_host"])
        return next(self.machines.container(one.name) for one in self.machines.hosts() if one.ip == address)


class Watch:
    """What the gateways admit from the start of the block to its end."""

    def __init__(self, fleet: Fleet, gateways: list[str]) -> None:
        self._fleet, self._gateways = fleet, gateways
        self._processes: list[subprocess.Popen[str]] = []
        self._threads: list[threading.Thread] = []
        self.looks: list[Look] = []

    def __enter__(self) -> Watch:
        for gateway in self._gateways:
            process = subprocess.Popen(
                [*self._fleet.root(gateway), "python3", "-I", "-"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            assert process.stdin is not None
            process.stdin.write(_LOOKER)
            process.stdin.close()
            self._processes.append(process)
            self._threads.append(threading.Thread(target=self._read, args=(gateway, process)))
            self._threads[-1].start()
        return self

    def __exit__(self, *_error: object) -> None:
        for process in self._processes:
            process.terminate()
        for thread in self._threads:
            thread.join()

    def _read(self, gateway: str, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            at, admitted = json.loads(line)
            self.looks.append(Look(at, gateway, None if admitted is None else frozenset(admitted)))
