"""Real hosts behind the Lambda Cloud API simulator: each launched instance boots a container with systemd."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from simulator.hosts import images
from simulator.hosts.accelerators import Declaration, declare
from simulator.hosts.machines import Host, HostRequest, Machines, Mount, NoAddressLeft
from simulator.lambda_cloud.backend import CapacityError, HostState, InstanceTypeSpec, LaunchSpec
from simulator.settings import Settings
from simulator.support import RehearsalError, cloud_init_seed

IMAGE = "gpu-base"
"""Every image family boots this: Lambda's families differ in what is preinstalled beyond driver and Docker."""

_SNAPSHOT_SECONDS = 1.0


class PodmanBackend:
    """Implements ``simulator.lambda_cloud.backend.Backend``; hosts are found again by instance id after a restart.

    ``state_dir`` overrides GLM_REHEARSAL_DIR; ``capacity`` limits the hosts alive at one time (None: no limit).
    """

    def __init__(self, state_dir: str | None = None, capacity: int | None = None) -> None:
        settings = Settings.from_environment()
        if state_dir is not None:
            settings = settings.with_state_dir(Path(state_dir))
        self._machines = Machines(settings)
        self._capacity = capacity
        self._lock = threading.Lock()
        self._snapshot: dict[str, Host] = {}
        self._snapshot_at = float("-inf")

    def launch(self, instance: LaunchSpec) -> None:
        """Start a host; see the protocol. The image must have been built (``python -m simulator build``)."""
        tag = images.image_tag(images.find_recipe(IMAGE))
        if not images.has_image(self._machines.podman, tag):
            raise RehearsalError(f"the host image {tag} is not built; run `python -m simulator build`")
        if self._capacity is not None and len(self._machines.hosts(["instance"])) >= self._capacity:
            raise CapacityError(f"{self._capacity} hosts are running, which is this rehearsal's capacity")
        try:
            self._machines.create(
                HostRequest(
                    name=instance.id,
                    image=tag,
                    hostname=instance.hostname,
                    kind="instance",
                    seed=cloud_init_seed(instance.id, instance.hostname, instance.ssh_public_keys, instance.user_data),
                    accelerators=declaration(instance.instance_type),
                    docker=True,
                    mounts=self._file_systems(instance),
                )
            )
        except NoAddressLeft as error:
            raise CapacityError(str(error)) from error
        finally:
            # The next poll must see this host, not the list from before.
            self._forget_snapshot()

    def poll(self, instance_id: str) -> HostState:
        """Ready means that sshd greets on the public address."""
        host = self._hosts().get(instance_id)
        if host is None:
            return HostState("failed", detail="no such host")
        if host.state == "running":
            return HostState("ready" if host.ssh_answers() else "booting", host.ip, host.private_ip)
        if host.state in ("created", "configured", "initialized"):
            return HostState("booting")
        return HostState("failed", host.ip, host.private_ip, f"the host's container is {host.state}")

    def terminate(self, instance_id: str) -> None:
        """Remove the host; its file systems stay."""
        self._machines.destroy(instance_id)
        self._forget_snapshot()

    def restart(self, instance_id: str) -> None:
        """Reboot the host."""
        self._machines.restart(instance_id)
        self._forget_snapshot()

    def _hosts(self) -> dict[str, Host]:
        """All hosts by instance id, read once a second at most: a listing polls every instance in turn."""
        with self._lock:
            if time.monotonic() - self._snapshot_at > _SNAPSHOT_SECONDS:
                self._snapshot = {host.name: host for host in self._machines.hosts(["instance"])}
                self._snapshot_at = time.monotonic()
            return self._snapshot

    def _forget_snapshot(self) -> None:
        with self._lock:
            self._snapshot_at = float("-inf")

    def _file_systems(self, instance: LaunchSpec) -> list[Mount]:
        mounts = []
        for item in instance.file_systems:
            source = self._machines.settings.state_dir / "file-systems" / item.id
            source.mkdir(parents=True, exist_ok=True)
            # User ubuntu of any host may write, as on the provider's shared file systems.
            source.chmod(0o1777)
            mounts.append(Mount(source, item.mount_point))
        return mounts


def declaration(instance_type: InstanceTypeSpec) -> Declaration | None:
    """What nvidia-smi will say on this instance type; None for types without accelerators."""
    accelerator = instance_type.accelerator
    if accelerator is None or instance_type.gpus == 0:
        return None
    return declare(accelerator.name, accelerator.count, accelerator.memory_gb)
