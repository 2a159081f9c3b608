# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge what module_utils/host/kernel_log.py collected, by what each line means (``catalog/kernel_log.yml``).

Pure. A fault counts until its device has recovered, which its driver writes into the same log.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils import finding
from ansible_collections.glm.fleet.plugins.module_utils.finding import Finding
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import kernel_log as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.kernel_log import Action, Table

EXPECTED = "no hardware error in the kernel log since boot"
SEND_BACK = "terminate it and send this report to the provider"
# With MIG the address is followed by the instance. Some releases write no "PCI:".
_XID = re.compile(
    r"NVRM: Xid \((?:PCI:)?(?P<device>[0-9a-fA-F:.]+)(?P<instance> [^)]*)?\).*?: (?P<number>\d+)\b(?P<rest>.*)"
)
_XID_OF_ANY_SHAPE = re.compile(r"NVRM: Xid\b")
_CHANGED = re.compile(r"changed from 0x[0-9a-fA-F]+ \([^)]*\) to (?P<code>0x[0-9a-fA-F]+) \((?P<words>[^)]*)\)")
_SXID = re.compile(r"SXid \(PCI:(?P<device>[0-9a-fA-F:.]+)\): (?P<number>\d+)\b(?:, (?P<word>Fatal|Non-fatal))?")
_RECOVERY_CHANGED = 154
# The log begins with the kernel's first words; what begins later has lost them.
_LATEST_BEGIN_SECONDS = 60.0


@dataclass(frozen=True)
class Entry:
    """What some lines of one kind mean. ``kind``: what the entry is called; ``number``: of an Xid."""

    kind: str
    name: str
    device: str
    action: Action
    line: str
    count: int = 1
    number: Optional[int] = None
    next_step: str = ""

    @property
    def counts(self) -> bool:
        return self.action in catalog.AGAINST

    @property
    def place(self) -> str:
        """The device without its function and instance: how Xids of one GPU differ from those of another."""
        return self.device.partition(" ")[0].partition(".")[0].lower()

    @property
    def words(self) -> str:
        """The entry without its line."""
        return f"{self.kind} on {self.device}" if self.device else self.kind

    @property
    def explained(self) -> str:
        return "" if self.name == self.kind else f" ({self.name})"


def judge(log: Mapping[str, Any]) -> Finding:
    """The check of what ``module_utils.host.kernel_log.gather`` found on a host."""
    if not log["lines"]:
        found = f"the kernel log cannot be read here ({'; '.join(log['problems']) or 'no line'})"
        return _unread(found, "journalctl --dmesg and dmesg on the host, as root")
    entries = entries_of(log["rows"], catalog.load())
    bad = [entry for entry in entries if entry.counts]
    if bad:
        found = "; ".join(f"{entry.words}, {entry.count} times: {entry.line}{entry.explained}" for entry in bad)
        return _check(False, found, _next_step(bad))
    notes = ", ".join(f"{entry.words}{entry.explained}" for entry in entries)
    found = f"only notes: {notes}" if notes else "none"
    gaps = _gaps(log)
    if gaps:
        return _unread(f"{found}, but {gaps}", "reboot the node before it is accepted: a new log begins then")
    return _check(True, found)


def _unread(found: str, next_step: str) -> Finding:
    """A log of which a part is not there proves nothing; a strict acceptance refuses that."""
    return finding.unread("acceptance", "kernel log", EXPECTED, found, next_step)


def _gaps(log: Mapping[str, Any]) -> str:
    gaps = []
    if log["begins"] > _LATEST_BEGIN_SECONDS:
        gaps.append(f"the log begins {log['begins']:,.0f} s after the boot")
    if log["left_out"]:
        gaps.append(f"{log['left_out']} older lines did not find room")
    return " and ".join(gaps)


def entries_of(rows: Iterable[Mapping[str, Any]], table: Table) -> list[Entry]:
    """What the rows mean, one entry for each kind and device; recovered ones are notes."""
    lines, found = [], []
    for at, row in enumerate(rows):
        lines.append(str(row["line"]))
        entry = _read(lines[-1], table)
        if entry:
            found.append((at, replace(entry, count=int(row["count"]))))
    # The driver writes some faults twice, once with their number.
    numbered = {(entry.name, entry.place) for _at, entry in found if entry.number is not None}
    found = [row for row in found if row[1].number is not None or (row[1].name, row[1].place) not in numbered]
    return _together(_settled(_as_it_ended(entry, at, found, table), at, lines, found, table) for at, entry in found)


def _read(line: str, table: Table) -> Optional[Entry]:
    """What one line means; None when it means nothing here."""
    for reader in (_xid, _sxid):
        entry = reader(line, table)
        if entry:
            return entry
    if "SXid (" in line:
        # It goes on with the data of the one above.
        return None
    for rule in table.lines:
        for pattern in rule.patterns:
            match = catalog.compiled(pattern).search(line)
            if match:
                device = match.groupdict().get("device") or ""
                return Entry(rule.name, rule.name, device, rule.action, line, next_step=rule.next or "")
    return None


def _xid(line: str, table: Table) -> Optional[Entry]:
    match = _XID.search(line)
    if not match:
        if _XID_OF_ANY_SHAPE.search(line):
            return Entry("an Xid", "it cannot be read", "", "reset", line, next_step=_LOOK_UP)
        return None
    number = int(match["number"])
    device = f"{match['device']}{match['instance'] or ''}".strip()
    row = table.xid(number)
    if row is None:
        return Entry(f"Xid {number}", "not known here", device, "reset", line, number=number, next_step=_LOOK_UP)
    words = match["rest"].lower().replace(",", " ").split()
    action = next((chosen for word, chosen in row.words.items() if word in words), row.action)
    return Entry(f"Xid {number}", row.name, device, action, line, number=number)


_LOOK_UP = "look it up (docs.nvidia.com/deploy/xid-errors), drain the node and reboot it"


def _sxid(line: str, table: Table) -> Optional[Entry]:
    match = _SXID.search(line)
    if not match:
        return None
    number = int(match["number"])
    if match["word"] == "Non-fatal":
        return Entry(f"SXid {number}", "an error that the NVSwitch dealt with", match["device"], "ignore", line)
    if match["word"] is None and not any(number in numbers for numbers in table.sxids.always_fatal):
        return None
    return Entry(f"fatal SXid {number}", "an error of an NVSwitch", match["device"], table.sxids.action, line)


def _as_it_ended(entry: Entry, at: int, found: Sequence[tuple[int, Entry]], table: Table) -> Entry:
    """An error of NVIDIA's driver by the last recovery action that it wrote of that GPU after it, if it did."""
    if "NVRM:" not in entry.line or not entry.counts or entry.action == "replace":
        return entry
    # It may itself be the change, which is the last word only if no other follows.
    later = [
        other for place, other in found
        if place >= at and other.number == _RECOVERY_CHANGED and other.place == entry.place
    ]  # fmt: skip
    changed = _CHANGED.search(later[-1].line) if later else None
    if not changed:
        return entry
    action = table.recovery.get(str(int(changed["code"], 16)), entry.action)
    if action == "ignore":
        return _recovered(entry)
    return replace(entry, action=action, name=f"{entry.name}; the driver needs: {changed['words']}")


def _settled(entry: Entry, at: int, lines: Sequence[str], found: Sequence[tuple[int, Entry]], table: Table) -> Entry:
    """An entry that something else in the log has settled is a note: an Xid beside it, or a later line."""
    if not entry.counts:
        return entry
    row = table.xid(entry.number) if entry.number is not None else None
    beside = {other.number for _at, other in found if other.place == entry.place}
    if (row and beside.intersection(row.settled_by)) or any(
        _says(pattern, entry.place, lines[at + 1 :]) for pattern in _settlers(entry, table)
    ):
        return _recovered(entry)
    return entry


def _recovered(entry: Entry) -> Entry:
    return replace(entry, action="ignore", name=f"{entry.name}; the GPU has recovered")


def _settlers(entry: Entry, table: Table) -> list[str]:
    return [rule.settled_by for rule in table.lines if rule.name == entry.name and rule.settled_by]


def _says(pattern: str, place: str, lines: Sequence[str]) -> bool:
    for line in lines:
        match = catalog.compiled(pattern).search(line)
        if match and (not place or match["device"].partition(".")[0].lower() == place):
            return True
    return False


def _together(entries: Iterable[Entry]) -> list[Entry]:
    """One entry for each kind, device and action: the last, with all their number."""
    found: dict[tuple[str, str, str], Entry] = {}
    for entry in entries:
        key = (entry.kind, entry.device, entry.action)
        known = found.get(key)
        found[key] = replace(entry, count=entry.count + known.count) if known else entry
    return list(found.values())


def _next_step(bad: Sequence[Entry]) -> str:
    """What ends the faults, the hardest first; each remedy once, with the devices that it is for."""
    actions = {entry.action for entry in bad if not entry.next_step}
    steps: dict[str, list[str]] = {}
    for entry in sorted(bad, key=lambda entry: -catalog.ACTIONS.index(entry.action)):
        # A reboot resets every GPU.
        action = "reboot" if entry.action == "reset" and "reboot" in actions else entry.action
        devices = steps.setdefault(entry.next_step or _REMEDIES[action], [])
        if entry.device and entry.device not in devices:
            devices.append(entry.device)
    return "; ".join(f"{', '.join(devices)}: {step}" if devices else step for step, devices in steps.items())


_REMEDIES: dict[str, str] = {
    "reset": "drain the node and reset the GPU (nvidia-smi --gpu-reset -i, amd-smi reset --gpureset), or reboot; if it "
    f"fails again, {SEND_BACK}",
    "reboot": f"drain the node and reboot it; if it fails again, {SEND_BACK}",
    "replace": f"drain the node, {SEND_BACK}",
}


def _check(ok: bool | None, found: str, next_step: str = "") -> Finding:
    return finding.judged("acceptance", "kernel log", ok, EXPECTED, found, next_step)
