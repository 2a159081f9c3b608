"""Single hosts outside the Lambda Cloud API, for tests of roles: ``python -m simulator hosts create``."""

from __future__ import annotations

import re
import sys
import time
from dataclasses import dataclass

from simulator.hosts.accelerators import Declaration
from simulator.hosts.adapted import ensure_adapted_image, is_reference
from simulator.hosts.images import ensure_image, find_recipe
from simulator.hosts.machines import Host, HostRequest, Machines
from simulator.hosts.podman import Podman
from simulator.settings import Settings
from simulator.support import RehearsalError, cloud_init_seed

_NAME = re.compile(r"^[a-z0-9][a-z0-9-]{0,62}$")


@dataclass(frozen=True)
class ManualHost:
    """What to boot; ``public_key`` is the line of an OpenSSH public key file, let in as user ubuntu.

    ``image`` is one of ours, or somebody else's with its tag, of which a bare host is made.
    """

    name: str
    image: str
    public_key: str
    accelerators: Declaration | None = None
    user_data: str | None = None


def create(settings: Settings, wanted: ManualHost, timeout: float = 600) -> dict[str, str]:
    """Boot a host, building its image if needed, and wait until ssh lets ubuntu in; returns {name, ip, private_ip}.

    Raises RehearsalError when the name cannot be used, or when nobody is let in for ``timeout`` seconds (the host is
    left running, to be looked at).
    """
    if not _NAME.match(wanted.name):
        raise RehearsalError(f"host name {wanted.name!r}: expected lower case letters, digits and '-', at most 63")
    if not re.match(r"^(ssh-|ecdsa-|sk-)\S+ \S+", wanted.public_key):
        raise RehearsalError("--ssh-key: the file holds no OpenSSH public key; give the .pub file")
    foreign = is_reference(wanted.image)
    cloud_init = not foreign and "cloud-init" in find_recipe(wanted.image).packages
    if not cloud_init and (wanted.user_data or wanted.accelerators):
        raise RehearsalError(f"image {wanted.image} has no cloud-init and no accelerators; use gpu-base")
    podman = Podman(settings)
    machines = Machines(settings, podman)
    ensure = ensure_adapted_image if foreign else ensure_image
    host = machines.create(
        HostRequest(
            name=wanted.name,
            image=ensure(settings, podman, wanted.image),
            hostname=wanted.name,
            kind="manual",
            seed=cloud_init_seed(wanted.name, wanted.name, [wanted.public_key], wanted.user_data) if cloud_init else {},
            accelerators=wanted.accelerators,
            docker=cloud_init,
        )
    )
    if not cloud_init:
        machines.authorize(wanted.name, wanted.public_key)
    _await_ssh(machines, host, timeout)
    return {"name": host.name, "ip": host.ip, "private_ip": host.private_ip}


def _await_ssh(machines: Machines, host: Host, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while not machines.lets_in(host):
        if time.monotonic() > deadline:
            print(machines.logs(host.name), file=sys.stderr)
            raise RehearsalError(
                f"host {host.name}: ssh at {host.ip} let nobody in within {timeout:g} s; look at it with "
                f"`podman exec -it {machines.container(host.name)} bash`, then `hosts destroy {host.name}`"
            )
        time.sleep(0.2)
