# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may talk to the processes of a running replica: where they are, and what systemd filters there.

This module util is PRIVATE to the collection. Standard library, Python 3.9 or newer. The guard of a unit proves its
filter when it starts; this is what somebody sees who looks later.
"""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path
from typing import TypedDict, Union

from ansible_collections.glm.fleet.plugins.module_utils import address
from ansible_collections.glm.fleet.plugins.module_utils.finding import QuotingError
from ansible_collections.glm.fleet.plugins.module_utils.serving import occupancy
from ansible_collections.glm.fleet.plugins.module_utils.serving.occupancy import Runner

_CONTAINER = "{{.State.Pid}}{{range .NetworkSettings.Networks}} {{.IPAddress}}{{end}}"


class Walls(TypedDict):
    """What was seen of one replica.

    ``processes``: control groups of the unit's main process and of the container's; one that does not run is missing.
    ``group``: that of the slice. ``own``: addresses of the host and of the container.
    """

    replica: int
    group: str
    denied: list[str]
    allowed: list[str]
    processes: dict[str, str]
    own: list[str]


def name_of(replica: int) -> str:
    """The name of a replica's container, and of its unit without the suffix."""
    return f"glm-serve-{replica}"


def unit_of(replica: int) -> str:
    """The unit of a replica."""
    return f"{name_of(replica)}.service"


def slice_of(replica: int) -> str:
    """The systemd slice of everything that belongs to a replica, its container included."""
    return f"{name_of(replica)}.slice"


def seen(run: Runner, replica: int, proc: Path = Path("/proc")) -> Walls:
    """What there is of one replica. Raises QuotingError when systemd or the network does not say."""
    shown = properties(run, slice_of(replica), "ControlGroup", "IPAddressAllow", "IPAddressDeny")
    pids = {"unit": properties(run, unit_of(replica), "MainPID")["MainPID"]}
    own = _addresses(run)
    inspected = run(("docker", "inspect", "--format", _CONTAINER, name_of(replica)))
    if inspected.ok:
        pids["container"], *more = inspected.stdout.split()
        # One that is not there is nothing to Docker before 29, and "invalid IP" since.
        own += [word for word in more if address.is_address(word)]
    groups = {what: _group(proc, pid) for what, pid in pids.items() if pid != "0"}
    return {
        "replica": replica,
        "group": shown["ControlGroup"],
        "denied": shown["IPAddressDeny"].split(),
        "allowed": shown["IPAddressAllow"].split(),
        "processes": {what: group for what, group in groups.items() if group},
        "own": own,
    }


def properties(run: Runner, unit: str, *names: str) -> dict[str, str]:
    """Properties of a unit. Raises QuotingError when systemd does not say all of them."""
    done = run(("systemctl", "show", unit, *(f"--property={name}" for name in names)))
    found = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
    missing = [name for name in names if name not in found]
    if not done.ok or missing:
        raise QuotingError(f"expected {' and '.join(names)} of {unit} from systemctl show, found {done.evidence()}")
    return found


def _addresses(run: Runner) -> list[str]:
    done = run(("ip", "-json", "address", "show"))
    try:
        listed = json.loads(done.stdout)
    except ValueError:
        raise QuotingError(f"expected the host's addresses from ip address, found {done.evidence()}") from None
    return [info["local"] for interface in listed for info in interface["addr_info"] if "local" in info]


def _group(proc: Path, pid: str) -> str:
    """The control group (v2) of a process; empty when it is gone."""
    rows = occupancy.control_groups(pid, proc).splitlines()
    return next((row[3:] for row in rows if row.startswith("0::")), "")


def networks(texts: list[str]) -> list[Union[ipaddress.IPv4Network, ipaddress.IPv6Network]]:
    """Addresses and networks as systemd and ip write them, in one form."""
    return [ipaddress.ip_network(text.partition("%")[0], strict=False) for text in texts]
