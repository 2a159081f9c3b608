# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What apt is going to do (``apt-get --simulate``, apt-get(8)), and what of it nobody asked for.

This module util is PRIVATE to the collection. Pure, but for the room in /boot. apt installs what it was asked for by
whatever way it finds: it removes what conflicts, it takes another version than the pinned one where no source has that
(a pin prefers and forbids nothing, apt_preferences(5)), and it makes boot images in a /boot that may be full.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Optional

from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.module_utils.host.apt import Policy, Source
from ansible_collections.glm.fleet.plugins.module_utils.host.commands import CommandResult

_INSTALL = re.compile(r"^Inst (?P<name>[^\s:]+)\S* (?:\[(?P<old>[^\]]+)\] )?\((?P<new>\S+)")
_REMOVE = re.compile(r"^(?:Remv|Purg) (?P<name>[^\s:]+)\S* \[(?P<old>[^\]]+)\]")
_SECTION = re.compile(r"^The following packages will be (?P<what>[A-Z]+):\n(?P<names>(?: .*\n?)+)", re.MULTILINE)
_UNREAD = re.compile(
    r"^[EW]: (?:The repository '(?P<a>\S+)|Failed to fetch (?P<b>\S+)|GPG error: (?P<c>\S+))(?P<words>.*)"
)
_OF_SEVERAL = "E: Some index files failed to download"
# dpkg(1): a package in one of these was left in the middle. Triggers that wait are run by apt with whatever comes next.
HALF_DONE = ("unpacked", "half-configured", "half-installed")
# Packages that rebuild the initramfs of each kernel, and those that bring a kernel with one of its own.
_REBUILD = (
    "*-dkms*",
    "linux-headers-*",
    "linux-modules-*",
    "initramfs-tools*",
    "dracut*",
    "nvidia-open*",
    "nvidia-driver*",
)
_KERNEL = ("linux-image-[0-9]*", "linux-image-unsigned-*")
NOTHING = ". Nothing was changed"


class Install(NamedTuple):
    """A package that apt would install; ``old`` is empty for one that is not there."""

    name: str
    old: str
    new: str


class Plan(NamedTuple):
    """What apt would do. ``removes``: by name. ``downgrades``: names, also of a plan that apt itself refuses."""

    installs: list[Install]
    removes: dict[str, str]
    downgrades: list[str]


def parse_plan(text: str) -> Plan:
    """The output of ``apt-get --simulate install``."""
    lines = text.splitlines()
    installs = [Install(row["name"], row["old"] or "", row["new"]) for row in map(_INSTALL.match, lines) if row]
    removes = {row["name"]: row["old"] for row in map(_REMOVE.match, lines) if row}
    lowered = [name for row in _SECTION.finditer(text) if row["what"] == "DOWNGRADED" for name in row["names"].split()]
    return Plan(installs, removes, [name.partition(":")[0] for name in lowered])


def check(
    done: CommandResult, what: str, removes: Collection[str], upgrade: Collection[str], held: Collection[str] = ()
) -> Plan:
    """The plan that a simulation made. Raises Unmet for one that removes or lowers what nobody asked for, or for none.

    ``removes``, ``upgrade``: shell patterns of what may be removed, and changed to a lower version. ``held``: packages
    that somebody holds, of those that a plan which fails names.
    """
    plan = parse_plan(done.stdout)
    removed = [f"{name} {version}" for name, version in plan.removes.items() if not _one_of(name, removes)]
    if removed:
        raise Unmet(
            f"apt to remove nothing for {what} but what it takes the place of",
            f"that it would remove {', '.join(removed)}{NOTHING}",
            "see who needs them (apt-cache rdepends --installed NAME), and remove them yourself if nobody does; or "
            "leave out what conflicts with them",
        )
    lowered = [name for name in plan.downgrades if not _one_of(name, upgrade)]
    if lowered:
        raise Unmet(
            f"apt to lower no version for {what}",
            f"that it would lower {', '.join(lowered)}{NOTHING}",
            f"see which preference asks for it (apt-cache policy {lowered[0]}, /etc/apt/preferences.d)",
        )
    if not done.ok:
        said = f" (held: {', '.join(held)})" if held else ""
        raise Unmet(
            f"apt to find a way to install {what}",
            f"none ({done.rc}): {_reason(done)}{said}{NOTHING}",
            "see what is held (apt-mark showhold) and where each version comes from (apt-cache policy NAME)",
            rc=done.rc,
            stdout=done.stdout,
            stderr=done.stderr,
        )
    return plan


def _reason(done: CommandResult) -> str:
    """Which package cannot have what, and apt's last words."""
    _head, _title, unmet = done.stdout.partition("unmet dependencies:")
    said = " | ".join(line.strip() for line in unmet.splitlines() if line.strip())
    return (f"{said} | {done.evidence(400)}" if said else done.evidence(1200)).removesuffix(".")


def require_free(plan: Plan, held: Mapping[str, bool], asked: Collection[str]) -> None:
    """Raise Unmet when the plan changes a package that somebody holds and that was not asked for by name."""
    changed = [*(row.name for row in plan.installs if row.old), *plan.removes]
    against = [name for name in changed if held.get(name) and name not in asked]
    if against:
        raise Unmet(
            "apt to leave alone what is held",
            f"that it would change {', '.join(against)}, which somebody holds{NOTHING}",
            f"ask who holds it, then apt-mark unhold {' '.join(against)}",
        )


def require_pinned(policies: Mapping[str, Policy], pins: Sequence[Mapping[str, str]]) -> None:
    """Raise Unmet when apt would take another version of a package than its pin names: the first that has its name."""
    for name, policy in policies.items():
        wanted = _pinned(name, pins)
        version = policy["candidate"]
        if wanted and version and not any(fnmatch.fnmatchcase(text, wanted) for text in (version, _released(version))):
            raise Unmet(
                f"{name} {wanted}, the version that it is pinned to",
                f"that apt would take {version}, and the sources have {', '.join(policy['sources'])}{NOTHING}",
                f"add a source that has it (apt-cache policy {name}), or change to a version that the sources have",
            )


def _pinned(name: str, pins: Sequence[Mapping[str, str]]) -> Optional[str]:
    return next(
        (pin["version"] for pin in pins if any(fnmatch.fnmatchcase(name, part) for part in pin["packages"].split())),
        None,
    )


def _released(version: str) -> str:
    return version.partition(":")[2] or version


def require_room(plan: Plan, boot: Path) -> None:
    """Raise Unmet when /boot has no room for the images that the plan makes: update-initramfs then fails half-way."""
    images = [path.stat().st_size for path in (*boot.glob("initrd.img-*"), *boot.glob("initramfs-*"))]
    names = [row.name for row in plan.installs]
    kernels = sum(_one_of(name, _KERNEL) for name in names)
    if not images or not (kernels or any(_one_of(name, _REBUILD) for name in names)):
        return
    image = max((path.stat().st_size for path in boot.glob("vmlinuz-*")), default=0)
    # A new image is written beside the old one before it takes its place.
    needed = max(images) + kernels * (max(images) + image)
    status = os.statvfs(boot)
    free = status.f_bavail * status.f_frsize
    if free < needed:
        raise Unmet(
            f"{needed / 1e6:,.0f} MB free in {boot}, as boot images are made for {', '.join(names[:5])}",
            f"{free / 1e6:,.0f} MB{NOTHING}",
            "remove kernels that are not needed any more (apt-get autoremove --purge; where they are held, first "
            "apt-mark unhold)",
        )


def _one_of(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def unread(stderr: str) -> Optional[dict[str, str]]:
    """The sources that ``apt-get update`` could not read, address to words; None when it failed for something else."""
    found: dict[str, str] = {}
    for line in stderr.splitlines():
        row = _UNREAD.match(line)
        if row:
            address = (row["a"] or row["b"] or row["c"]).rstrip("'")
            found.setdefault(address, line[3:].strip())
        elif line.startswith("E: ") and not line.startswith(_OF_SEVERAL):
            return None
    return found or None


def whose(address: str, sources: Iterable[Source]) -> str:
    """The file that names a source, by an address within it."""
    files = {source["file"] for source in sources if any(_within(uri, [address]) for uri in source["uris"])}
    return ", ".join(sorted(files)) or "a file of /etc/apt"


def needed(policies: Mapping[str, Policy], addresses: Collection[str], sources: Iterable[Source]) -> list[str]:
    """Packages whose candidate comes only from sources that could not be read."""
    lost = {uri.rstrip("/") for source in sources for uri in source["uris"] if _within(uri, addresses)}
    found = []
    for name, policy in policies.items():
        origins = [origin.partition(" ")[0].rstrip("/") for origin in policy["sources"].get(policy["candidate"], [])]
        if origins and all(origin in lost for origin in origins):
            found.append(name)
    return found


def _within(uri: str, addresses: Collection[str]) -> bool:
    return any(f"{address}/".startswith(f"{uri.rstrip('/')}/") for address in addresses)
