"""podman, on ordinary machines and on restricted ones.

Hosts run rootful (through ``sudo -n`` for other users): their addresses must be reachable from the controller, which
rootless networks do not offer. Two restrictions of build machines are detected and worked around:

- cgroup v1 and v2 mounted side by side, which podman refuses. All podman commands then run in one private mount
  namespace in which /sys/fs/cgroup is v2. It must be the same one for all commands, because the network namespaces
  of containers are bind mounts that another mount namespace cannot see; a small process holds it open.
- no CAP_SYS_RESOURCE, with which crun cannot start a container. runc and lower limits are configured then.

Where neither is found, this is plain podman with the user's own configuration.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from simulator.settings import Settings
from simulator.support import RehearsalError, as_root, locked, run, write_atomically

CAP_SYS_RESOURCE = 24
_ENOUGH = {"nofile": 16000, "nproc": 32768}
_HOLDER = "glm-rehearsal-namespace"
_OWN_STORE = "glm-rehearsal-store"
# Images are read from here, wherever a rehearsal's containers are (podman's default for root).
_MACHINE_STORE = Path("/var/lib/containers/storage")
_CGROUPS = "libpod_parent"
# What a reboot empties on a machine whose /run and /dev/shm are in memory (podman's defaults for root).
_RUNTIME_STATE = tuple(map(Path, ("/run/libpod", "/run/containers", "/run/runc", "/run/crun", "/dev/shm/libpod_lock")))
_HOLD = """
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
# Those of containers that were killed; one with processes in it cannot be removed.
find "/sys/fs/cgroup/$2" -mindepth 1 -depth -type d -exec rmdir {} + 2>/dev/null || true
# What podman and the runtime write there is for all stores together.
[ -z "$3" ] || for name in libpod containers runc crun; do
    mkdir -p "$3/$name" "/run/$name"
    mount --bind "$3/$name" "/run/$name"
done
echo $$ > "$1"
exec sleep infinity
"""


@dataclass(frozen=True)
class Machine:
    """What of this machine decides how podman has to be run."""

    unified_cgroup: bool
    can_raise_limits: bool
    systemd: bool

    @classmethod
    def detect(cls, root: Path = Path("/")) -> Machine:
        """Read the mounts, the capabilities that a root process has here, and whether systemd runs the machine."""
        mounts = (root / "proc/self/mounts").read_text("utf-8").splitlines()
        rows = [line.split() for line in mounts]
        cgroup_types = [row[2] for row in rows if len(row) > 2 and row[1] == "/sys/fs/cgroup"]
        status = (root / "proc/self/status").read_text("utf-8").splitlines()
        # The bounding set is what sudo can give at most, and equals root's own set.
        bounding = next((int(line.split()[1], 16) for line in status if line.startswith("CapBnd:")), 0)
        return cls(
            unified_cgroup=cgroup_types[-1:] == ["cgroup2"],
            can_raise_limits=bool(bounding >> CAP_SYS_RESOURCE & 1),
            systemd=(root / "run/systemd/system").is_dir(),
        )


def containers_conf(
    machine: Machine, limit: Callable[[int], tuple[int, int]] = resource.getrlimit, store: Path | None = None
) -> str | None:
    """The configuration that a restricted machine or a store of one's own needs, or None where podman's is right."""
    containers: list[str] = []
    engine: list[str] = []
    if store is not None:
        # Locks in files: those in shared memory are one set for all stores.
        engine += [f'static_dir = "{store}/libpod"', f'volume_path = "{store}/volumes"', 'lock_type = "file"']
    if not machine.can_raise_limits:
        kinds = {"nofile": resource.RLIMIT_NOFILE, "nproc": resource.RLIMIT_NPROC}
        hard = {name: limit(number)[1] for name, number in kinds.items()}
        ulimits = [f'"{name}={value}:{value}"' for name, value in _lowered(hard).items()]
        containers += ["pids_limit = 0", f"default_ulimits = [{', '.join(ulimits)}]"]
        engine += ['runtime = "runc"']
    if not machine.systemd or not machine.unified_cgroup:
        engine += ['cgroup_manager = "cgroupfs"', 'events_logger = "file"']
    if not engine:
        return None
    return "\n".join(["[containers]", *containers, "[engine]", *engine, ""])


def storage_conf(store: Path) -> str:
    """Containers and layers in ``store``, images also from the machine's own."""
    return "\n".join(
        (
            "[storage]",
            'driver = "overlay"',
            f'graphroot = "{store}/graph"',
            'runroot = "/run/containers/storage"',
            "[storage.options]",
            f'additionalimagestores = ["{_MACHINE_STORE}"]',
            "",
        )
    )


def _lowered(hard: dict[str, int]) -> dict[str, int]:
    """Limits that runc can set without the capability: asking for the hard limit itself was refused (podman 4.3)."""
    return {
        name: _ENOUGH[name] if value == resource.RLIM_INFINITY else min(value, _ENOUGH[name])
        for name, value in hard.items()
    }


class Podman:
    """Runs podman commands for one user of this machine."""

    def __init__(self, settings: Settings, machine: Machine | None = None) -> None:
        self._machine = machine or Machine.detect()
        self._directory = settings.podman_store or settings.cache_dir / "podman"
        self.store = self._directory / _OWN_STORE if settings.podman_store else None
        self._cgroups = f"glm-rehearsal-{settings.owner}" if settings.podman_store else _CGROUPS
        self.pid_file = self._directory / "namespace.pid"
        """Holds the number of the process that keeps the private mount namespace open."""
        self._lock = self._directory / "namespace.lock"
        self._users = self._directory / "users.lock"

    def run(self, *argv: str, stdin: str | None = None, timeout: float | None = 300) -> str:
        """Run ``podman argv…`` and return what it printed. Raises RehearsalError."""
        with locked(self._users, shared=True):
            return run([*self.prefix(), "podman", *argv], stdin=stdin, timeout=timeout)

    def host_command(self, *argv: str) -> str:
        """Run another program as root on this machine (not in a container)."""
        return run([*as_root(), *argv], timeout=60)

    def containers(self, *filters: str) -> list[dict[str, Any]]:
        """Containers in any state that match all filters, in the shape of ``podman ps --format json``."""
        options = [f"--filter={item}" for item in filters]
        found: list[dict[str, Any]] = json.loads(self.run("ps", "--all", "--format=json", *options) or "[]")
        return found

    @property
    def run_options(self) -> list[str]:
        """What ``podman run`` needs for containers of a store of one's own."""
        return [f"--cgroup-parent=/{self._cgroups}"] if self.store else []

    def monitor(self, name: str = "") -> int | None:
        """The process id of a living conmon of this store whose container's name starts with ``name``, or None."""
        return running_monitor(name=name, store=self.store)

    def prefix(self) -> list[str]:
        """What has to stand before ``podman`` on this machine."""
        command = as_root()
        if not self._machine.unified_cgroup:
            command += ["nsenter", f"--mount=/proc/{self._namespace_holder()}/ns/mnt", "--wd=/"]
        files = {"CONTAINERS_CONF": self._conf_file, "CONTAINERS_STORAGE_CONF": self._storage_conf_file}
        given = [f"{name}={path}" for name, path in files.items() if path is not None]
        return [*command, "env", *given] if given else command

    @cached_property
    def _conf_file(self) -> Path | None:
        return self._written("containers.conf", containers_conf(self._machine, store=self.store))

    @cached_property
    def _storage_conf_file(self) -> Path | None:
        return self._written("storage.conf", storage_conf(self.store) if self.store else None)

    def _written(self, name: str, text: str | None) -> Path | None:
        if text is None:
            return None
        path = self._directory / name
        if not path.is_file() or path.read_text("utf-8") != text:
            write_atomically(path, text)
        return path

    def _namespace_holder(self) -> int:
        pid = self._living_holder()
        if pid is not None:
            return pid
        with locked(self._lock):
            return self._living_holder() or self._start_holder()

    def _living_holder(self) -> int | None:
        """The recorded holder, if it lives and is not another process that got its number later."""
        try:
            pid = int(self.pid_file.read_text("utf-8"))
            argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        return pid if argv[:2] == [b"sleep", b"infinity"] else None

    def _start_holder(self) -> int:
        self._directory.mkdir(parents=True, exist_ok=True)
        self.pid_file.unlink(missing_ok=True)
        conmon = self.monitor("glm-rehearsal-")
        if conmon is not None:
            # Containers outlived the holder: only the namespace they were started from sees their mounts.
            enter = ["nsenter", f"--mount=/proc/{conmon}/ns/mnt", "--wd=/", "sh", "-c"]
            script = 'echo $$ > "$1"\nexec sleep infinity'
        else:
            if self.monitor() is None:
                # The mounts of containers that were killed went with their namespace. Without this, podman takes
                # them for running and every command fails on a network namespace that is no longer one.
                state = (self.store / "run",) if self.store else _RUNTIME_STATE
                run([*as_root(), "rm", "-rf", *map(str, state)], timeout=30)
            enter = ["unshare", "--mount", "sh", "-ec"]
            script = _HOLD
        log = self._directory / "namespace.log"
        arguments = [str(self.pid_file), self._cgroups, str(self.store / "run") if self.store else ""]
        detach = ["setsid", "--fork", "sh", "-c", 'exec "$@" >"$0" 2>&1', str(log)]
        run([*as_root(), *detach, *enter, script, _HOLDER, *arguments], timeout=30)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            pid = self._living_holder()
            if pid is not None:
                return pid
            time.sleep(0.05)
        raise RehearsalError("the mount namespace for podman could not be made", log)

    def release(self) -> None:
        """End the process that holds the private mount namespace, unless something else still runs in it."""
        if self._machine.unified_cgroup or self.containers():
            return
        # Another rehearsal that is about to enter it holds the second lock.
        with contextlib.suppress(BlockingIOError), locked(self._lock), locked(self._users, wait=False):
            pid = self._living_holder()
            if pid is None:
                return
            inside = self.host_command("lsns", "--noheadings", "--output=NPROCS", "--type=mnt", f"--task={pid}")
            if inside.split() == ["1"]:
                self.host_command("kill", str(pid))
                self.pid_file.unlink(missing_ok=True)


def running_monitor(*, name: str = "", store: Path | None = None, proc: Path = Path("/proc")) -> int | None:
    """The process id of a living conmon with an argument that starts with ``name``; None when there is none.

    Only those of containers in ``store`` count; None stands for the machine's own store.
    """
    mark = f"/{_OWN_STORE}/" if store is None else f"{store}/"
    for process in proc.iterdir():
        if not process.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            argv = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            ours = any(mark in item for item in argv) == (store is not None)
            if argv[0].endswith("conmon") and ours and any(item.startswith(name) for item in argv):
                return int(process.name)
    return None


def require_podman() -> None:
    """Raise RehearsalError when the programs are missing or this user may not use them."""
    missing = [program for program in ("podman", "mmdebstrap", "skopeo") if shutil.which(program) is None]
    if missing:
        raise RehearsalError(f"{', '.join(missing)} not found; run scripts/install_system_packages.sh")
    if os.geteuid() != 0:
        try:
            run(["sudo", "-n", "true"], timeout=20)
        except RehearsalError as error:
            raise RehearsalError(
                "rehearsal hosts need root for their networks: run `sudo -v` first, or start the rehearsal as root"
            ) from error
