"""Rehearsal hosts after all processes of the machine were killed, as when a build machine is stopped and continued.

Nothing of podman's is on a file system in memory there, so that podman sees no reboot.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

from simulator.hosts.backend import IMAGE
from simulator.hosts.images import ensure_image
from simulator.hosts.machines import HostRequest, Machines
from simulator.hosts.podman import Machine, running_monitor
from simulator.settings import Settings

pytestmark = pytest.mark.podman


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
        assert time.monotonic() < deadline, f"process {pid} does not end"
        time.sleep(0.1)


def test_hosts_can_be_removed_and_made_again_after_all_their_processes_were_killed(tmp_path: Path) -> None:
    if Machine.detect().unified_cgroup or os.geteuid() != 0:
        pytest.skip("only where all podman commands share a private mount namespace, and as root")
    if running_monitor() is not None:
        pytest.skip("other containers run on this machine, which would be killed")
    settings = Settings.from_environment().with_state_dir(tmp_path / "rehearsal")
    machines = Machines(settings)
    image = ensure_image(settings, machines.podman, IMAGE)
    request = HostRequest("gpu-1", image, "gpu-1", "manual", {}, None, docker=False)
    try:
        machines.create(request)
        monitor = running_monitor(name="glm-rehearsal-")
        assert monitor is not None
        init = machines.podman.run("inspect", "--format={{.State.Pid}}", machines.container("gpu-1")).strip()
        holder = int((settings.cache_dir / "podman" / "namespace.pid").read_text("utf-8"))
        for pid in (monitor, int(init), holder):
            kill(pid)

        again = Machines(settings)
        dead = again.find("gpu-1")
        assert dead is not None
        assert dead.state != "running"
        address = dead.ip
        assert again.start_stopped(["manual"]) == ["gpu-1"]
        assert again.start_stopped(["manual"]) == []
        started = again.find("gpu-1")
        assert started is not None
        assert (started.state, started.ip) == ("running", address)
        again.destroy("gpu-1")
        assert again.create(request).state == "running"
        assert again.execute("gpu-1", "true") == ""
    finally:
        Machines(settings).remove_all(["manual"])
