# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The links of a host to others: its network interfaces and RDMA ports, as the kernel shows them.

This module util is PRIVATE to the collection. Reads below a given root.
Sources: Documentation/ABI/testing/sysfs-class-net, sysfs-class-infiniband.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils import files


def read(root: Path = Path("/")) -> dict[str, list[dict[str, Any]]]:
    """``{interfaces, ports}``.

    ``interfaces``: those with hardware behind them (name, up, mbit, mtu); ``ports``: of RDMA devices (name, state
    and link as the kernel words them, gbit, layer). Numbers are None where the kernel does not say them.
    """
    interfaces = [_interface(path) for path in sorted((root / "sys/class/net").glob("*")) if (path / "device").exists()]
    ports = sorted((root / "sys/class/infiniband").glob("*/ports/*"))
    return {"interfaces": interfaces, "ports": [_port(path) for path in ports]}


def _interface(path: Path) -> dict[str, Any]:
    speed = files.read_text(path / "speed")
    return {
        "name": path.name,
        "up": files.read_text(path / "operstate") == "up",
        # -1 is unknown, as of virtual functions and of links that are down.
        "mbit": _number(speed) or None,
        "mtu": _number(files.read_text(path / "mtu")),
    }


def _port(path: Path) -> dict[str, Any]:
    # "4: ACTIVE", "5: LinkUp", "400 Gb/sec (4X NDR)".
    return {
        "name": f"{path.parents[1].name}/{path.name}",
        "state": files.read_text(path / "state").partition(": ")[2] or None,
        "link": files.read_text(path / "phys_state").partition(": ")[2] or None,
        "gbit": _number(files.read_text(path / "rate")),
        "layer": files.read_text(path / "link_layer") or None,
    }


def _number(text: str) -> Optional[int]:
    found = re.match(r"\d+", text)
    return int(found.group()) if found else None
