"""What stands behind a simulated instance: the protocol between the API simulator and its hosts.

The API owns names, statuses, validation and prices; a backend owns hosts. The API calls a backend from many
threads at once and never while holding its own lock, so a backend guards its own state.
"""

from __future__ import annotations

import importlib
import ipaddress
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

Phase = Literal["booting", "ready", "failed"]

BACKENDS = {
    "fake": "simulator.lambda_cloud.backend:FakeBackend",
    "podman": "simulator.hosts.backend:PodmanBackend",
}


class CapacityError(Exception):
    """Raised by ``Backend.launch`` when no host is left; the API answers insufficient-capacity."""


@dataclass(frozen=True)
class AcceleratorSpec:
    """The accelerators of one host. ``memory_gb`` is per accelerator, as the provider advertises it."""

    name: str
    count: int
    memory_gb: int


@dataclass(frozen=True)
class InstanceTypeSpec:
    """A rented shape: ``name`` as in the API, memory and storage in GiB, ``architecture`` x86_64 or arm64."""

    name: str
    gpus: int
    accelerator: AcceleratorSpec | None
    vcpus: int
    memory_gib: int
    storage_gib: int
    architecture: str


@dataclass(frozen=True)
class FileSystemMount:
    """A persistent file system that the host must see at ``mount_point``; data outlives the host."""

    id: str
    name: str
    mount_point: str


@dataclass(frozen=True)
class LaunchSpec:
    """Everything a backend may need to boot one host.

    ``id`` is the API's instance id (32 hexadecimal digits) and the only key of later calls. ``hostname`` is
    never empty. ``ssh_public_keys`` go to user ``ubuntu``. ``user_data`` is plain cloud-init text or None.
    """

    id: str
    name: str
    hostname: str
    region: str
    instance_type: InstanceTypeSpec
    image_family: str
    ssh_public_keys: list[str]
    user_data: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    file_systems: list[FileSystemMount] = field(default_factory=list)


@dataclass(frozen=True)
class HostState:
    """A host right now. Addresses may be known while still booting. ``detail`` explains ``failed``."""

    phase: Phase
    ip: str | None = None
    private_ip: str | None = None
    detail: str = ""


@runtime_checkable
class Backend(Protocol):
    """Boots, watches and removes hosts.

    A backend whose hosts outlive this process must find them again by instance id: after a restart the server
    polls and terminates ids that it read from its state file.
    """

    def launch(self, instance: LaunchSpec) -> None:
        """Start a host. May block for seconds; need not wait for the boot. Raises CapacityError when full.

        Any other exception makes the API answer provider/internal-unavailable; clean up before raising.
        """

    def poll(self, instance_id: str) -> HostState:
        """Say how the host is; quickly, because every read of the instance asks.

        Unknown ids are failed. A host is known from the moment ``launch`` returned: a cached list that is older
        would make the API call it unhealthy.
        """

    def terminate(self, instance_id: str) -> None:
        """Remove the host and return when it is gone. Calling it again, or for an unknown id, is no error."""

    def restart(self, instance_id: str) -> None:
        """Reboot the host, keeping its addresses and disks; return when the reboot has begun."""


class FakeBackend:
    """No hosts at all: addresses come from a pool and a boot advances with each poll.

    An instance shows its address from poll ``polls_to_address`` on and is ready from poll ``polls_to_ready``
    on. ``capacity`` limits the hosts alive at one time (None: no limit).
    """

    def __init__(
        self,
        polls_to_address: int = 2,
        polls_to_ready: int = 4,
        public_pool: str = "192.0.2.0/24",
        private_pool: str = "10.19.0.0/16",
        capacity: int | None = None,
    ) -> None:
        self._polls_to_address = polls_to_address
        self._polls_to_ready = polls_to_ready
        self._public = ipaddress.ip_network(public_pool)
        self._private = ipaddress.ip_network(private_pool)
        self._capacity = capacity
        self._lock = threading.Lock()
        self._slots: dict[str, int] = {}
        self._polls: dict[str, int] = {}
        self.launched: list[LaunchSpec] = []
        self.restarted: list[str] = []

    def launch(self, instance: LaunchSpec) -> None:
        with self._lock:
            if self._capacity is not None and len(self._slots) >= self._capacity:
                raise CapacityError(f"the pool holds {self._capacity} hosts and all are in use")
            self._slots[instance.id] = self._free_slot()
            self._polls[instance.id] = 0
            self.launched.append(instance)

    def poll(self, instance_id: str) -> HostState:
        with self._lock:
            if instance_id not in self._slots:
                return HostState("failed", detail="no such host")
            self._polls[instance_id] += 1
            polls = self._polls[instance_id]
            if polls < self._polls_to_address:
                return HostState("booting")
            slot = self._slots[instance_id]
            phase: Phase = "ready" if polls >= self._polls_to_ready else "booting"
            return HostState(phase, str(self._public[slot]), str(self._private[slot]))

    def terminate(self, instance_id: str) -> None:
        with self._lock:
            self._slots.pop(instance_id, None)
            self._polls.pop(instance_id, None)

    def restart(self, instance_id: str) -> None:
        with self._lock:
            if instance_id in self._slots:
                self._polls[instance_id] = 0
                self.restarted.append(instance_id)

    def adopt(self, instance_id: str, ip: str | None, private_ip: str | None) -> None:
        """Take up an instance that a state file remembers, at its old address or a fresh one."""
        with self._lock:
            known = ip is not None and ipaddress.ip_address(ip) in self._public
            slot = int(ipaddress.ip_address(str(ip))) - int(self._public[0]) if known else self._free_slot()
            self._slots[instance_id] = slot
            self._polls[instance_id] = self._polls_to_ready if known else 0

    def _free_slot(self) -> int:
        """Lowest unused host number of the pools; raises CapacityError when the smaller pool is used up."""
        used = set(self._slots.values())
        last = min(self._public.num_addresses, self._private.num_addresses) - 1
        for slot in range(1, last):
            if slot not in used:
                return slot
        raise CapacityError("the address pool is used up")


def load_backend(name: str, options: Mapping[str, Any]) -> Backend:
    """Make the backend ``name`` ('fake', 'podman' or 'module:Class') with ``options`` as keyword arguments.

    Raises ValueError when the name cannot be resolved or the class lacks a method of the protocol.
    """
    target = BACKENDS.get(name, name)
    module_name, separator, class_name = target.partition(":")
    if not separator:
        raise ValueError(f"backend {name!r}: expected one of {', '.join(sorted(BACKENDS))} or 'module:Class'")
    try:
        backend = getattr(importlib.import_module(module_name), class_name)(**options)
    except (ImportError, AttributeError, TypeError) as error:
        raise ValueError(f"backend {name!r} ({target}) cannot be made: {error}") from error
    if not isinstance(backend, Backend):
        raise ValueError(f"backend {name!r} ({target}) lacks a method of the Backend protocol")
    return backend
