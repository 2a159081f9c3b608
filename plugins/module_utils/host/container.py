# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an engine's container may do and see, as arguments of ``docker run``.

This module util is PRIVATE to the collection. The unit that serves and the probe of an image have the same, so that an
image which cannot bear its confinement is found before the weights are fetched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from ansible_collections.glm.fleet.plugins.module_utils.finding import QuotingError


class Limits(TypedDict):
    """``confinement`` of a plan, as plugin_utils/plan/schema.py describes it."""

    user: str
    capabilities: list[str]
    writable: list[str]
    processes: int
    shared_memory_gib: float
    imports: list[str]


def rights(limits: Limits) -> list[str]:
    """No more capabilities than the plan says, and none can be gained."""
    argv = ["--security-opt", "no-new-privileges", "--cap-drop", "ALL"]
    for name in limits["capabilities"]:
        argv += ["--cap-add", name]
    return argv


def confined(limits: Limits) -> list[str]:
    """All that the plan says, whatever the image's authors expected."""
    argv = ["--user", limits["user"], *rights(limits)]
    argv += ["--pids-limit", str(int(limits["processes"])), "--read-only"]
    for folder in limits["writable"]:
        # Engines compile code into temporary files and load it.
        argv += ["--tmpfs", f"{folder}:rw,exec,nosuid,nodev"]
    # Its own shared memory: what a killed engine leaves there goes with it, and other replicas cannot read it.
    argv += ["--ipc", "private", "--shm-size", f"{int(limits['shared_memory_gib'])}g"]
    return [*argv, "--ulimit", "memlock=-1", "--ulimit", "stack=67108864"]


def devices(names: Sequence[str], groups: Sequence[str]) -> list[str]:
    """CDI names or device files, and the numbers of the host's groups that own them."""
    argv: list[str] = []
    for name in names:
        argv += ["--device", name]
    for number in groups:
        argv += ["--group-add", number]
    return argv


def bind(source: str, target: str, read_only: bool) -> list[str]:
    """A bind mount. ``--mount``, not ``--volume``: a source that is missing is an error and not a new empty folder.

    Raises QuotingError for a path that the option cannot carry.
    """
    for path in (source, target):
        if "," in path or '"' in path or not path.startswith("/"):
            raise QuotingError(f"{path!r} cannot be mounted: it must be absolute, without commas and quotes")
    return ["--mount", f"type=bind,source={source},target={target}" + (",readonly" if read_only else "")]
