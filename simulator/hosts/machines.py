"""Create, find, restart and remove rehearsal hosts.

A host is a privileged container that boots systemd, with one address in each of two bridge networks. The controller has
address 1 in both. Everything made here carries the label ``glm-rehearsal=<owner>``; only that is ever removed.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import shutil
import socket
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from simulator.hosts.accelerators import Declaration
from simulator.hosts.podman import Podman
from simulator.settings import Settings
from simulator.support import RehearsalError, locked, write_atomically

LABEL = "glm-rehearsal"
KIND_LABEL = "glm-rehearsal-kind"
NUMBER_LABEL = "glm-rehearsal-number"
NAME_LABEL = "glm-rehearsal-name"
ENGINES_IN_HOST = "/opt/glm-rehearsal/engines"
FIRST_NUMBER = 10
GATEWAY = "_gateway"
"""Name of the container that keeps the networks up; no host can have it, as host names have no underscore."""

Kind = Literal["instance", "manual", "gateway"]
HOST_KINDS: tuple[Kind, ...] = ("instance", "manual")


class NoAddressLeft(RehearsalError):
    """All addresses of the subnets are in use."""


@dataclass(frozen=True)
class Mount:
    """A folder of this machine inside a host."""

    source: Path
    target: str
    read_only: bool = False

    def option(self) -> str:
        return f"--volume={self.source}:{self.target}" + (":ro" if self.read_only else "")


@dataclass(frozen=True)
class HostRequest:
    """What to boot. ``name`` is the container's unique key; ``seed`` is cloud-init's NoCloud seed, file to content."""

    name: str
    image: str
    hostname: str
    kind: Kind
    seed: dict[str, str] = field(default_factory=dict)
    accelerators: Declaration | None = None
    docker: bool = False
    mounts: Sequence[Mount] = ()


@dataclass(frozen=True)
class Host:
    """A host that exists. ``state`` is podman's word: created, running, exited …"""

    name: str
    kind: str
    ip: str
    private_ip: str
    state: str

    def to_json(self) -> dict[str, str]:
        """For programs that drive hosts from outside."""
        return asdict(self)

    def ssh_answers(self, timeout: float = 0.5) -> bool:
        """Whether sshd greets on port 22."""
        try:
            with socket.create_connection((self.ip, 22), timeout) as connection:
                connection.settimeout(timeout)
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False


class Machines:
    """The hosts of one rehearsal. Safe to use from several threads and processes at once."""

    def __init__(self, settings: Settings, podman: Podman | None = None) -> None:
        self.settings = settings
        self.podman = podman or Podman(settings)
        self._directory = settings.state_dir / "hosts"
        self._public_network, self._private_network = settings.networks

    # -- hosts ----------------------------------------------------------------------------------------------------

    def create(self, request: HostRequest) -> Host:
        """Start a host; does not wait for its boot. Leaves nothing behind when it fails.

        Raises NoAddressLeft, or RehearsalError when the name is taken or podman refuses.
        """
        if self.find(request.name) is not None:
            raise RehearsalError(f"a host named {request.name!r} exists already; destroy it first")
        self._write_files(request)
        try:
            with self._address_lock():
                self._ensure_networks()
                number = self._free_number()
                self.podman.run(*self._run_arguments(request, number))
            self._join_private_network()
        except BaseException:
            self.destroy(request.name)
            raise
        host = self.find(request.name)
        if host is None:
            raise RehearsalError(f"host {request.name!r} vanished right after its start")
        return host

    def find(self, name: str) -> Host | None:
        """The host with this name, or None."""
        return next((host for host in self.hosts() if host.name == name), None)

    def hosts(self, kinds: Sequence[str] = HOST_KINDS) -> list[Host]:
        """This rehearsal's hosts of the given kinds, oldest number first."""
        rows = self.podman.containers(f"label={LABEL}={self.settings.owner}")
        wanted = [row for row in rows if row["Labels"].get(KIND_LABEL) in kinds]
        return [self._host(row) for row in sorted(wanted, key=lambda row: int(row["Labels"][NUMBER_LABEL]))]

    def execute(self, name: str, *argv: str, stdin: str | None = None) -> str:
        """Run a program inside a host as root and return its output."""
        interactive = ["--interactive"] if stdin is not None else []
        return self.podman.run("exec", *interactive, self.container(name), *argv, stdin=stdin)

    def authorize(self, name: str, public_key: str) -> None:
        """Let ``public_key`` in as user ubuntu, on images without cloud-init."""
        target = "/home/ubuntu/.ssh/authorized_keys"
        install = ("install", "-m", "0600", "-o", "ubuntu", "-g", "ubuntu", "/dev/stdin", target)
        self.execute(name, *install, stdin=public_key.strip() + "\n")

    def lets_in(self, host: Host) -> bool:
        """Whether ubuntu can log in: sshd answers, there is a key, and no /run/nologin, as while a host boots."""
        ready = "test -s /home/ubuntu/.ssh/authorized_keys && test ! -e /run/nologin"
        # In this order: sshd starts after /run/nologin was made.
        if not host.ssh_answers(10):
            return False
        try:
            self.execute(host.name, "sh", "-c", ready)
        except RehearsalError:
            return False
        return True

    def restart(self, name: str) -> None:
        """Reboot a host; addresses and disks stay. Returns when it has begun to boot."""
        self.podman.run("restart", "--time=20", self.container(name))

    def start_stopped(self, kinds: Sequence[str]) -> list[str]:
        """Boot the hosts that do not run, as after a power cut, and return their names; addresses and disks stay."""
        names = [host.name for host in self.hosts(kinds) if host.state != "running"]
        for name in names:
            self.podman.run("start", self.container(name))
        return names

    def destroy(self, name: str) -> None:
        """Remove a host, its volumes and its files; a name that does not exist is no error."""
        self._remove_container(name)
        shutil.rmtree(self._directory / name, ignore_errors=True)

    def logs(self, name: str) -> str:
        """The last lines a host's init wrote."""
        return self.podman.run("logs", "--tail=5", self.container(name)).strip()

    # -- networks -------------------------------------------------------------------------------------------------

    def open_gateway(self, image: str) -> None:
        """Keep the bridges up while no host runs, so that services can listen on the controller's addresses."""
        name = GATEWAY
        rows = self.podman.containers(f"name=^{self.container(name)}$")
        if rows and rows[0]["State"] != "running":
            self._remove_container(name)
            rows = []
        if not rows:
            with self._address_lock():
                self._ensure_networks()
                self.podman.run(
                    *self._common_arguments(name, "gateway", self._free_number()),
                    image,
                    "/usr/bin/sleep",
                    "infinity",
                )
        self._join_private_network()

    def remove_all(self, kinds: Sequence[str]) -> list[str]:
        """Destroy all hosts of these kinds and return their names; unused networks are removed, too."""
        hosts = self.hosts(kinds)
        names = [host.name for host in hosts]
        for host in hosts:
            self._hang_up(host)
        for name in names:
            self.destroy(name)
        self._remove_unused_networks()
        return names

    def _hang_up(self, host: Host) -> None:
        """End the host's ssh connections while its network is there: those that controllers keep open end with them."""
        if host.kind in HOST_KINDS and host.state == "running":
            with contextlib.suppress(RehearsalError):
                self.execute(host.name, "pkill", "sshd")

    # -- parts ----------------------------------------------------------------------------------------------------

    def container(self, name: str) -> str:
        """The container's name, for podman on the command line."""
        return f"glm-rehearsal-{self.settings.owner}-{name}"

    def _volume(self, name: str) -> str:
        return f"{self.container(name)}-docker"

    def _host(self, row: dict[str, Any]) -> Host:
        labels = row["Labels"]
        number = int(labels[NUMBER_LABEL])
        return Host(
            name=labels[NAME_LABEL],
            kind=labels[KIND_LABEL],
            ip=str(self.settings.public_subnet[number]),
            private_ip=str(self.settings.private_subnet[number]),
            state=row["State"],
        )

    def _common_arguments(self, name: str, kind: Kind, number: int) -> list[str]:
        labels = {LABEL: self.settings.owner, KIND_LABEL: kind, NUMBER_LABEL: number, NAME_LABEL: name}
        public, private = self.settings.public_subnet[number], self.settings.private_subnet[number]
        return [
            "run",
            "--detach",
            "--pull=never",
            *self.podman.run_options,
            f"--name={self.container(name)}",
            *(f"--label={key}={value}" for key, value in labels.items()),
            f"--network={self._public_network}:ip={public},mac={_mac(public)},interface_name=eth0",
            f"--network={self._private_network}:ip={private},mac={_mac(private)},interface_name=eth1",
        ]

    def _run_arguments(self, request: HostRequest, number: int) -> list[str]:
        files = self._directory / request.name
        mounts = list(request.mounts)
        if request.seed:
            mounts.append(Mount(files / "seed", "/var/lib/cloud/seed/nocloud", read_only=True))
        if request.accelerators is not None:
            mounts.append(Mount(files / "declared", "/etc/glm-rehearsal", read_only=True))
        if request.docker:
            self.settings.engines_dir.mkdir(parents=True, exist_ok=True)
            mounts.append(Mount(self.settings.engines_dir, ENGINES_IN_HOST, read_only=True))
        volumes = [*(mount.option() for mount in mounts), *(f"--volume={mount}" for mount in self.settings.mounts)]
        if request.docker:
            # Docker's overlay cannot stand on the container's own overlay.
            volumes.append(f"--volume={self._volume(request.name)}:/var/lib/docker")
        return [
            *self._common_arguments(request.name, request.kind, number),
            f"--hostname={request.hostname}",
            "--systemd=always",
            "--privileged",
            "--shm-size=4g",
            *volumes,
            request.image,
            "/sbin/init",
        ]

    def _write_files(self, request: HostRequest) -> None:
        files = self._directory / request.name
        for name, content in request.seed.items():
            write_atomically(files / "seed" / name, content, 0o600)
        if request.accelerators is not None:
            write_atomically(files / "declared" / "accelerator.json", request.accelerators.to_json())

    def _remove_container(self, name: str) -> None:
        self.podman.run("rm", "--force", "--ignore", "--time=0", "--volumes", self.container(name))
        volume = self._volume(name)
        if self.podman.run("volume", "ls", "--quiet", f"--filter=name=^{volume}$").strip():
            self.podman.run("volume", "rm", "--force", volume)

    @contextlib.contextmanager
    def _address_lock(self) -> Iterator[None]:
        with locked(self.settings.cache_dir / "podman" / "addresses.lock"):
            yield

    def _free_number(self) -> int:
        """Lowest number that no container on these networks has, of this rehearsal or another."""
        rows = self.podman.containers(f"network={self._public_network}")
        used = {int(row["Labels"][NUMBER_LABEL]) for row in rows}
        last = min(self.settings.public_subnet.num_addresses, self.settings.private_subnet.num_addresses) - 2
        for number in range(FIRST_NUMBER, last + 1):
            if number not in used:
                return number
        raise NoAddressLeft(f"all {last + 1 - FIRST_NUMBER} addresses are in use; remove hosts or widen the subnets")

    def _ensure_networks(self) -> None:
        for name, subnet in self.settings.networks.items():
            if self._network_subnet(name) == str(subnet):
                continue
            # An internal network sets no second default route in the hosts.
            internal = ["--internal"] if name == self._private_network else []
            try:
                self.podman.run("network", "create", "--disable-dns", f"--subnet={subnet}", *internal, name)
            except RehearsalError as error:
                variable = name.rpartition("-")[2].upper()
                raise RehearsalError(
                    f"{error}\nIf the subnet {subnet} is taken, take hosts down that use the network {name}, or set "
                    f"GLM_REHEARSAL_{variable}_SUBNET or GLM_REHEARSAL_WORLD to another one."
                ) from error

    def _network_subnet(self, name: str) -> str | None:
        if not self.podman.run("network", "ls", "--quiet", f"--filter=name=^{name}$").strip():
            return None
        network = json.loads(self.podman.run("network", "inspect", name))[0]
        return str(network["subnets"][0]["subnet"])

    def _join_private_network(self) -> None:
        """Give the controller its address on the internal bridge, which podman leaves out."""
        network = json.loads(self.podman.run("network", "inspect", self._private_network))[0]
        address = f"{self.settings.private_subnet[1]}/{self.settings.private_subnet.prefixlen}"
        self.podman.host_command("ip", "address", "replace", address, "dev", network["network_interface"])

    def _remove_unused_networks(self) -> None:
        with self._address_lock():
            for name in self.settings.networks:
                if self._network_subnet(name) and not self.podman.containers(f"network={name}"):
                    self.podman.run("network", "rm", name)


def _mac(address: ipaddress.IPv4Address) -> str:
    """A hardware address that belongs to the IP address.

    With a random one, the controller would go on sending to the old one for 40 s after a reboot (its ARP cache).
    """
    return ":".join(f"{byte:02x}" for byte in (0x0A, 0x58, *address.packed))
