"""The simulated account: its records, its hosts and the passing of time. Operations on it live in the other modules."""

from __future__ import annotations

import contextlib
import datetime
import logging
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, runtime_checkable

from simulator.lambda_cloud import state as state_file
from simulator.lambda_cloud.backend import Backend, HostState
from simulator.lambda_cloud.catalogue import REGIONS
from simulator.lambda_cloud.config import Config
from simulator.lambda_cloud.errors import ApiError, missing
from simulator.lambda_cloud.faults import Faults, Pacing
from simulator.lambda_cloud.state import State
from simulator.lambda_cloud.types import InstanceRecord, InstanceStatus, Json

LOG = logging.getLogger("simulator.lambda_cloud")
ALIVE: tuple[InstanceStatus, ...] = ("booting", "active", "unhealthy", "terminating", "preempted")
AUDIT_CATALOGUE = "2025-09-06"
OWNER = {"id": "5" * 32, "email": "owner@example.com", "status": "active"}


@runtime_checkable
class Adopter(Protocol):
    """A backend without hosts of its own, which gets the instances of a state file."""

    def adopt(self, instance_id: str, ip: str | None, private_ip: str | None) -> None: ...


class World:
    """Records under one lock. Backend calls happen outside the lock; slow ones on worker threads."""

    def __init__(self, config: Config, backend: Backend, clock: Callable[[], float] = time.time) -> None:
        self.config = config
        self.settings = config.settings
        self.backend = backend
        self.clock = clock
        self.lock = threading.RLock()
        self.faults = Faults()
        self.pacing = Pacing()
        self.capacity = {
            name: dict(config.capacity.get(name, kind.capacity)) for name, kind in config.instance_types.items()
        }
        self.uploads: dict[str, bytes] = {}
        self.state = State() if config.state_file is None else state_file.load(config.state_file)
        self._dirty = False
        self._idle = threading.Condition(self.lock)
        self._workers = ThreadPoolExecutor(max_workers=16, thread_name_prefix="host")
        self._pending: Counter[str] = Counter()
        self._turns: dict[str, threading.Lock] = {}
        self._adopt()

    def _adopt(self) -> None:
        if isinstance(self.backend, Adopter):
            for record in self.state.instances.values():
                if not record.hostless and not record.host_gone:
                    self.backend.adopt(record.id, record.ip, record.private_ip)

    # Records

    def changed(self) -> None:
        """Note that the state differs from the file."""
        self._dirty = True

    def save(self) -> None:
        """Write the state file when there is one and something changed."""
        with self.lock:
            if self._dirty and self.config.state_file is not None:
                state_file.save(self.config.state_file, self.state)
            self._dirty = False

    def audit(self, resource: str, action: str, ids: Iterable[str], **details: str) -> None:
        """Record an event as the provider's audit log would, and mark the state as changed."""
        self.state.audit_events.append(
            {
                "service_name": "cloud",
                "resource_name": resource,
                "action": action,
                "catalog_version": AUDIT_CATALOGUE,
                "event_id": uuid.uuid4().hex,
                "event_time": self.timestamp(),
                "actor_lrn": f"lrn:cloud:user:{OWNER['id']}",
                "resource_lrns": [f"lrn:cloud:{resource}:{identifier}" for identifier in ids],
                "resource_owner_lrn": None,
                "request_api_key_lrn": f"lrn:cloud:api_key:{'a' * 32}",
                "additional_details": dict(details),
            }
        )
        self.changed()

    def timestamp(self) -> str:
        """Now, in UTC, as the API writes it."""
        now = datetime.datetime.fromtimestamp(self.clock(), datetime.timezone.utc)
        return now.isoformat(timespec="microseconds").replace("+00:00", "Z")

    def need_region(self, name: str) -> str:
        """The region's name, or the 400 that a request with an unknown region gets."""
        if name not in REGIONS:
            raise missing(f"Region '{name}' does not exist.", status=400)
        return name

    def instance(self, instance_id: str) -> InstanceRecord:
        """A live record, or object-does-not-exist."""
        try:
            return self.state.instances[instance_id]
        except KeyError:
            raise missing("The instance does not exist.") from None

    # Capacity

    def free_capacity(self, name: str, region: str) -> int | None:
        """Instances of a type that a region can still start; None is without limit."""
        total = self.capacity[name].get(region, 0)
        if total is None:
            return None
        return max(total - self.state.capacity_used.get(f"{name}/{region}", 0), 0)

    def use_capacity(self, name: str, region: str, change: int) -> None:
        """Take (1) or release (-1) one host."""
        key = f"{name}/{region}"
        self.state.capacity_used[key] = max(self.state.capacity_used.get(key, 0) + change, 0)
        self.changed()

    # Hosts

    def poll(self, instance_id: str) -> HostState:
        """Ask the backend; a backend that raises counts as a failed host, with the reason in the log."""
        try:
            return self.backend.poll(instance_id)
        except Exception as error:
            LOG.exception("polling host %s failed", instance_id)
            return HostState("failed", detail=str(error))

    @contextlib.contextmanager
    def host_call(self, instance_id: str) -> Iterator[None]:
        """Mark the instance busy and wait for its turn: backend calls for one host never overlap."""
        with self.lock:
            self._pending[instance_id] += 1
            turn = self._turns.setdefault(instance_id, threading.Lock())
        try:
            with turn:
                yield
        finally:
            with self.lock:
                self._pending[instance_id] -= 1
                self._idle.notify_all()

    def in_background(self, instance_id: str, work: Callable[[str], None], done: Callable[[], None]) -> None:
        """Run a slow backend call on a worker; ``done`` runs under the lock when it succeeded."""
        with self.lock:
            self._pending[instance_id] += 1
        self._workers.submit(self._job, instance_id, work, done)

    def _job(self, instance_id: str, work: Callable[[str], None], done: Callable[[], None]) -> None:
        try:
            with self.host_call(instance_id):
                work(instance_id)
                with self.lock:
                    done()
                    self.save()
        except Exception:
            LOG.exception("backend call for host %s failed; the next read tries again", instance_id)
        finally:
            with self.lock:
                self._pending[instance_id] -= 1
                self._idle.notify_all()

    def busy(self, instance_id: str) -> bool:
        """Whether a backend call for the instance runs or waits."""
        with self.lock:
            return self._pending[instance_id] > 0

    def wait_idle(self, ids: list[str]) -> None:
        """Wait until no backend call runs for any of the instances."""
        with self._idle:
            self._idle.wait_for(lambda: not any(self.busy(identifier) for identifier in ids))

    def forget(self, instance_id: str) -> None:
        """Drop a record that has ended, with what was kept for its backend calls."""
        with self.lock:
            self.state.instances.pop(instance_id, None)
            self._pending.pop(instance_id, None)
            self._turns.pop(instance_id, None)
            self.changed()

    def close(self) -> None:
        """Wait for backend calls that are under way and write the state."""
        self._workers.shutdown(wait=True)
        self.save()


def refuse_money(world: World) -> None:
    """Refuse a call that costs money when the account's billing address is bad."""
    if world.settings.account == "invalid-address":
        raise ApiError("global/invalid-address", "The billing address of the account is not valid.")


def page(world: World, rows: list[Json], token: str | None) -> tuple[list[Json], str | None]:
    """One page of ``rows`` and the token of the next (None at the end); a token that was never given is a 400."""
    start = 0
    if token is not None:
        prefix, _, number = token.partition("-")
        if prefix != "page" or not number.isdigit() or int(number) >= max(len(rows), 1):
            raise ApiError("global/invalid-parameters", "page_token: not a token of this listing")
        start = int(number)
    end = start + world.settings.page_size
    return rows[start:end], f"page-{end}" if end < len(rows) else None
