"""Rehearsal hosts after all processes of the machine were killed, as when a build machine is stopped and continued.

Nothing of podman's is on a file system in memory there, so that podman sees no reboot.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulator.hosts.backend import IMAGE
from simulator.hosts.images import ensure_image
from simulator.hosts.machines import HostRequest, Machines
from simulator.hosts.podman import Machine, Podman
from simulator.settings import LAST_WORLD, Settings

pytestmark = pytest.mark.podman


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 300
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
        assert time.monotonic() < deadline, f"process {pid} does not end"
        time.sleep(0.1)


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """A world whose containers are in a store of its own: what is killed here is nobody else's."""
    environ = {**os.environ, "GLM_REHEARSAL_WORLD": str(LAST_WORLD), "GLM_REHEARSAL_DIR": str(tmp_path / "rehearsal")}
    made = dataclasses.replace(Settings.from_environment(environ), podman_store=tmp_path / "podman")
    try:
        yield made
    finally:
        Machines(made).remove_all(["manual"])
        kill(int(Podman(made).pid_file.read_text("utf-8")))
        # Pytest would take minutes over the layers of a dozen runs.
        shutil.rmtree(tmp_path / "podman")


@pytest.mark.skipif(Machine.detect().unified_cgroup, reason="podman has no private mount namespace on this machine")
@pytest.mark.skipif(os.geteuid() != 0, reason="processes of root are killed")
def test_hosts_can_be_removed_and_made_again_after_all_their_processes_were_killed(settings: Settings) -> None:
    machines = Machines(settings)
    # Built in the machine's store, from where this one reads it.
    image = ensure_image(settings, Podman(dataclasses.replace(settings, podman_store=None)), IMAGE)
    request = HostRequest("gpu-1", image, "gpu-1", "manual", {}, None, docker=False)
    machines.create(request)
    monitor = machines.podman.monitor("glm-rehearsal-")
    assert monitor is not None
    init = machines.podman.run("inspect", "--format={{.State.Pid}}", machines.container("gpu-1")).strip()
    holder = int(machines.podman.pid_file.read_text("utf-8"))
    for pid in (monitor, int(init), holder):
        kill(pid)
    assert machines.podman.monitor() is None

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
