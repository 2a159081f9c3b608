# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge the state that drivers report of their GPUs, and the links of a host, against the platform table.

Pure. What is judged is module_utils/host/gpu_state.py and links.py read. A driver that does not say what its GPUs must
say (they are in the platform table) proves nothing; a strict acceptance refuses that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Optional

from ansible_collections.glm.fleet.plugins.module_utils import finding
from ansible_collections.glm.fleet.plugins.module_utils.finding import Finding
from ansible_collections.glm.fleet.plugins.module_utils.host.gpu_state import NOT_SUPPORTED, NOTHING_TO_DO, State
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import platforms
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.platforms import Platform
from ansible_collections.glm.fleet.plugins.plugin_utils.host.checks import UNDO_PARTITIONS

GIVE_BACK = "drain the node, terminate it and send this report to the provider"
WHOLE = "SPX/NPS1"
# A cap below this share of the GPU's default was set by somebody.
_POWER_SHARE = 0.98
_HEALTHY = ("full", "false", "no", "none", "healthy")
_UNHEALTHY = ("degraded", "true", "yes", "unhealthy", "limited capacity")
_MOST_NAMED = 8


class Said(NamedTuple):
    """What one GPU says: what is wrong and what to do about it, a doubt, or what it does not say."""

    wrong: str = ""
    next: str = ""
    doubt: str = ""
    silent: str = ""


class _Question(NamedTuple):
    check: str
    expected: str
    ask: Callable[[State], Said]
    good: str


def judge(
    facts: Mapping[str, Any], states: Sequence[State], problem: Optional[str], platform: Optional[Platform]
) -> list[Finding]:
    """A finding for each kind of state; ``problem``: why there are none. Without a platform nothing has to be said."""
    vendor = "amd" if any(entry["vendor"] == "amd" for entry in facts["pci"]["gpus"]) else "nvidia"
    asked = _of_amd(platform) if vendor == "amd" else _of_nvidia(facts, platform)
    return [_judged(question, states, len(facts["gpus"]), problem, platform) for question in asked]


def _of_nvidia(facts: Mapping[str, Any], platform: Optional[Platform]) -> Iterator[_Question]:
    yield _Question("GPU recovery", "GPUs of which the driver wants nothing done", _needs, "none has to be reset")
    yield _Question(
        "GPU modes", "whole GPUs for everybody: no MIG, compute mode Default", _modes, "no MIG, mode Default"
    )
    yield from _of_pcie(platform)
    if platform and platform.nvlinks and has_nvlink(facts, platform):
        count, speed = platform.nvlinks
        expected = f"{count} NVLinks of {speed} GB/s or more on each GPU"
        yield _Question("NVLink", expected, lambda state: _nvlinks(state, count, speed), f"{count} up on each GPU")
    if (facts.get("fabric") or {}).get("present"):
        yield _Question("fabric health", "an NVLink fabric that is healthy", _fabric, "healthy")
    yield _Question(
        "clocks", "clocks and power that nothing cuts", _clocks, "nothing slows them down, full power limit"
    )


def bus(entry: Mapping[str, Any]) -> str:
    """Where a GPU is on the bus: nvidia-smi writes eight digits of a domain, the kernel four."""
    return str(entry.get("bus_id", "")).lower()[-12:]


def has_nvlink(facts: Mapping[str, Any], platform: Platform) -> bool:
    """Whether NVLink joins the GPUs of this host. Some of a baseboard may come without it, and one has no other."""
    if len(facts["gpus"]) < 2:
        return False
    completed = (facts.get("fabric") or {}).get("state") == "Completed"
    return completed or platforms.fabric_of(facts, platform) != "none"


def _of_amd(platform: Optional[Platform]) -> Iterator[_Question]:
    yield _Question("GPU modes", f"whole GPUs: partitions {WHOLE}", _partitions, WHOLE)
    yield from _of_pcie(platform)
    yield _Question("bad pages", "no page of memory that waits to be retired or cannot be", _pages, "none that matters")


def _of_pcie(platform: Optional[Platform]) -> Iterator[_Question]:
    if platform and platform.pcie:
        generation, width = platform.pcie
        expected = f"PCIe {generation} x{width} to each GPU"
        yield _Question("PCIe links", expected, lambda state: _pcie(state, generation, width), expected)


def _judged(
    question: _Question, states: Sequence[State], gpus: int, problem: Optional[str], platform: Optional[Platform]
) -> Finding:
    said = [(state["bus_id"], question.ask(state)) for state in states]
    silent = _by_gpu((bus, one.silent) for bus, one in said)
    unheard = sum(bool(one.silent) for _bus, one in said)
    if len(states) != gpus or not gpus:
        silent.insert(0, f"rows of {len(states)} of {gpus} GPUs" + (f" ({problem})" if problem else ""))
    if wrong := _by_gpu((bus, one.wrong) for bus, one in said):
        steps = dict.fromkeys(one.next for _bus, one in said if one.wrong)
        return _check(question, False, _listed([*wrong, *silent]), "; ".join(steps))
    if silent:
        # A virtual function of AMD has none of these files; a GPU of which the others speak has lost them.
        owed = platform and (platform.vendor == "nvidia" or unheard < gpus)
        if not owed:
            return _check(question, None, _listed(silent))
        advice = "nvidia-smi -q and nvidia-smi nvlink --status on the host (AMD: /sys/bus/pci/devices/BUS)"
        return finding.unread("acceptance", question.check, question.expected, _listed(silent), advice)
    if doubts := _by_gpu((bus, one.doubt) for bus, one in said):
        return _check(question, None, _listed(doubts), next(one.next for _bus, one in said if one.doubt))
    return _check(question, True, f"{question.good} ({gpus} GPUs)")


def _by_gpu(words: Iterable[tuple[str, str]]) -> list[str]:
    """What GPUs say, after the name of the one that says it, or the number of those that say the same."""
    found: dict[str, list[str]] = {}
    for bus, text in words:
        if text:
            found.setdefault(text, []).append(bus)
    return [
        f"{buses[0]}: {text}" if len(buses) == 1 else f"{len(buses)} GPUs ({_listed(buses, ', ')}): {text}"
        for text, buses in found.items()
    ]


def _check(question: _Question, ok: Optional[bool], found: str, next_step: str = "") -> Finding:
    return finding.judged("acceptance", question.check, ok, question.expected, found, next_step)


def _listed(words: Sequence[str], separator: str = "; ") -> str:
    more = f"{separator}and {len(words) - _MOST_NAMED} more" if len(words) > _MOST_NAMED else ""
    return separator.join(words[:_MOST_NAMED]) + more


def _needs(state: State) -> Said:
    needs = state["needs"]
    if needs is None:
        return Said(silent="the driver does not say whether it has to be reset")
    if needs == NOTHING_TO_DO:
        return Said()
    if "reboot" in needs.lower():
        return Said(f"the driver wants: {needs}", "drain the node and reboot it")
    if "lost" in needs.lower():
        return Said(needs, f"drain the node and reboot it; if that GPU does not come back, {GIVE_BACK}")
    return Said(
        f"the driver wants: {needs}",
        f"drain the node and reboot it, or nvidia-smi --gpu-reset -i {state['bus_id']} (without -i, all of a fabric)",
    )


def _modes(state: State) -> Said:
    if state["mig"] not in (None, "Disabled", NOT_SUPPORTED):
        return Said("MIG is on", "nvidia-smi -mig 0 on the host, with no process on the GPUs, then a reset or a reboot")
    if state["compute_mode"] not in (None, "Default"):
        return Said(f"compute mode {state['compute_mode']}", "nvidia-smi --compute-mode=0 on the host")
    modes = {"MIG": state["mig"], "compute mode": state["compute_mode"], "persistence": state["persistence"]}
    unsaid = [name for name, word in modes.items() if word is None]
    if unsaid:
        return Said(silent=f"no word of {', '.join(unsaid)}")
    if state["persistence"] != "Enabled":
        advice = "systemctl enable --now nvidia-persistenced: without it the driver loads anew for each program, slowly"
        return Said(doubt="no persistence mode", next=advice)
    return Said()


def _partitions(state: State) -> Said:
    if state["partitions"] is None:
        return Said(silent="no word of its partitions")
    modes = state["partitions"].split("/")
    if not set(modes) <= set(WHOLE.split("/")):
        return Said(f"in partitions {state['partitions']}", UNDO_PARTITIONS)
    return Said() if len(modes) > 1 else Said(silent=f"no word of its partitions but {modes[0]}")


def _pcie(state: State, generation: int, width: int) -> Said:
    seen = (state["link_generation"], state["link_width"])
    if None in seen:
        return Said(silent="no word of its PCIe link")
    link = f"PCIe {seen[0]} x{seen[1]}"
    advice = f"reboot the node, which trains the link again; if it stays so, {GIVE_BACK}"
    if (seen[1] or 0) < width:
        return Said(link, advice)
    if (seen[0] or 0) < generation:
        # Some boards lower the generation while they are idle, never the width.
        if state["performance"] not in (None, "P0", "P1", "P2"):
            return Said(silent=f"{link} in the idle state {state['performance']}, in which it may be lowered")
        return Said(link, advice)
    return Said()


def _nvlinks(state: State, count: int, speed: int) -> Said:
    links = state["nvlinks"]
    if links is None:
        return Said(silent="no word of its NVLinks")
    up = [link for link in links if link > 0]
    slow = [f"{link:g}" for link in up if link < speed]
    advice = f"reboot the node, which trains the links again; if it stays so, {GIVE_BACK}"
    if len(up) < count:
        return Said(f"{len(up)} of {count} NVLinks are up", advice)
    return Said(f"NVLinks of {', '.join(slow)} GB/s", advice) if slow else Said()


def _fabric(state: State) -> Said:
    words = state["fabric_health"].items()
    wrong = [f"{name} {word}" for name, word in words if word.lower() in _UNHEALTHY or _misconfigured(name, word)]
    if wrong:
        return Said(", ".join(wrong), f"reboot the node; if that does not help, {GIVE_BACK}")
    if not words:
        return Said(doubt="the driver says nothing of the fabric's health beyond its state")
    unknown = [f"{name} {word}" for name, word in words if word.lower() not in _HEALTHY]
    return Said(silent=", ".join(unknown)) if unknown else Said()


def _misconfigured(name: str, word: str) -> bool:
    return name == "incorrect_configuration" and word.lower() not in _HEALTHY


def _clocks(state: State) -> Said:
    slowed, limit, full = state["slowdowns"], state["power_limit"], state["power_default"]
    if slowed:
        words = ", ".join(name.replace("_", " ") for name in slowed)
        return Said(
            f"clocks are lowered by {words}", f"look at temperature and power (nvidia-smi -q); if it stays, {GIVE_BACK}"
        )
    if limit and full and limit < full * _POWER_SHARE:
        advice = (
            f"nvidia-smi --power-limit={full:.0f} on the host, or leave this check out where the provider wants it so"
        )
        return Said(f"power is limited to {limit:.0f} of {full:.0f} W", advice)
    unsaid = [name for name, value in (("throttling", slowed), ("its power limit", limit and full)) if value is None]
    return Said(silent=f"no word of {' and '.join(unsaid)}") if unsaid else Said()


def _pages(state: State) -> Said:
    pages = state["bad_pages"]
    if pages is None:
        return Said(silent="no word of bad pages")
    if pages["failed"]:
        return Said(f"{pages['failed']} bad pages that cannot be retired", GIVE_BACK)
    if pages["pending"]:
        return Said(f"{pages['pending']} bad pages wait to be retired", "drain the node and reboot it")
    return Said()


def network(links: Mapping[str, Sequence[Mapping[str, Any]]], hosts: int) -> Finding:
    """The links of a host to others. A replica of several ``hosts`` has to have an RDMA port up where there are any."""
    expected = "links to other hosts that are up" if hosts > 1 else "no link to other hosts that is half up"
    ports, up = links["ports"], [port for port in links["ports"] if port["state"] == "ACTIVE"]
    words = [
        f"{one['name']} {'up' if one['up'] else 'down'}, {_mbit(one['mbit'])}, MTU {one['mtu']}"
        for one in links["interfaces"]
        if one["up"]
    ]
    words += [f"{port['name']} {port['state']}, {port['gbit']} Gbit/s ({port['layer']})" for port in ports]
    found = _listed(words) or "no network interface of its own"

    def check(ok: Optional[bool], next_step: str = "") -> Finding:
        return finding.judged("acceptance", "network links", ok, expected, found, next_step)

    if hosts > 1 and ports and not up:
        return check(False, "ibstat and rdma link on the host: cable, switch port and subnet manager of its RDMA ports")
    fastest = max((port["gbit"] or 0 for port in up), default=0)
    odd = [port for port in ports if port["link"] == "LinkUp" and port["state"] != "ACTIVE"]
    odd += [port for port in up if (port["gbit"] or 0) < fastest]
    if odd:
        return check(
            None, f"look at {', '.join(port['name'] for port in odd)} (ibstat), if a replica of several hosts is slow"
        )
    return check(True if words else None)


def _mbit(number: Optional[int]) -> str:
    return f"{number / 1000:g} Gbit/s" if number else "speed unknown"
