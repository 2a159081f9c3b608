# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All that a host shows of itself, in one look: units, requests, releases, door, gateway, driver, lease.

This module util is PRIVATE to the collection. Standard library, Python 3.9 or newer; reads only. Every reading has a
limit of its own, and they are made side by side: a tool that hangs costs its reading and not the look. What could not
be read has a ``problem`` in its place.
"""

from __future__ import annotations

import functools
import http.client
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.door import gateway, master, staged
from ansible_collections.glm.fleet.plugins.module_utils.finding import QuotingError
from ansible_collections.glm.fleet.plugins.module_utils.host import commands, gpu, lease
from ansible_collections.glm.fleet.plugins.module_utils.serving import metrics, release, running, status, walls
from ansible_collections.glm.fleet.plugins.module_utils.serving.causes import Rules
from ansible_collections.glm.fleet.plugins.module_utils.serving.client import Endpoint, NoAnswer, ask
from ansible_collections.glm.fleet.plugins.module_utils.serving.occupancy import Runner
from ansible_collections.glm.fleet.plugins.module_utils.serving.trust import Trust

COMMAND_SECONDS = 5.0
ASKED_SECONDS = 2.0


def whole(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Everything. ``asked``: ``replicas`` (running.Wanted), ``rules`` (causes.Rules), ``metrics`` (metrics.parse),
    ``sample_seconds`` between two readings of counters, and ``door``, None or what ``door.watched`` says.
    """
    run = functools.partial(commands.run, timeout=COMMAND_SECONDS)
    replicas = [running.Wanted(**wanted) for wanted in asked["replicas"]]
    with ThreadPoolExecutor(max_workers=16) as pool:
        door = pool.submit(_safely, _door, asked["door"])
        passes_on = pool.submit(_safely, _gateway)
        kept = pool.submit(_safely, _releases, release.Store())
        seen = [pool.submit(running.seen, run, one) for one in replicas]
        units = [pool.submit(_safely, _unit, run, one, asked["rules"]) for one in replicas]
        sampled = (asked["metrics"], asked["sample_seconds"])
        loads = [pool.submit(_safely, _load, one.port, *sampled) for one in replicas]
        looked = [
            {**one.result(), "unit": unit.result(), "load": load.result()}
            for one, unit, load in zip(seen, units, loads)
        ]
        releases = kept.result()
        if releases.get("problem") is None:
            releases["running"] = release.running_of(releases.pop("all"), looked)
        return {
            "replicas": looked,
            "releases": releases,
            "door": door.result(),
            "gateway": passes_on.result(),
            "driver": gpu.driver(),
            "lease": _safely(_lease) or None,
        }


def _safely(read: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """A reading, or why there is none."""
    try:
        return read(*arguments)
    except (QuotingError, OSError, ValueError, RuntimeError, http.client.HTTPException) as exc:
        return {"problem": str(exc) or type(exc).__name__}


def _lease() -> dict[str, Any]:
    return dict(lease.holder(lease.PATH) or {})


def _unit(run: Runner, wanted: running.Wanted, rules: Mapping[str, Any]) -> dict[str, Any]:
    unit = walls.unit_of(wanted.replica)
    found = status.describe(run, unit, wanted.secret_files, Rules(rules), log_lines=0)
    return {**found, "installed": walls.properties(run, unit, "LoadState")["LoadState"] == "loaded"}


def _load(port: int, rules: Sequence[Mapping[str, Any]], seconds: float) -> dict[str, Any]:
    """Requests, KV cache and tokens of a replica, by its engine; the rate is that of ``seconds``."""
    begun, before = time.monotonic(), _metrics(port, rules)
    time.sleep(seconds)
    after = _metrics(port, rules)
    grown = after.get("generation_tokens", 0.0) - before.get("generation_tokens", 0.0)
    # A counter that fell is that of an engine that was started in between.
    rate = grown / (time.monotonic() - begun) if "generation_tokens" in after and grown >= 0 else None
    return {
        "running": after.get("running"),
        "waiting": after.get("waiting"),
        "kv_usage": after.get("kv_usage"),
        "tokens_per_second": rate,
    }


def _metrics(port: int, rules: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    # Never through a proxy: the address is the host's own.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}/metrics", timeout=ASKED_SECONDS) as answer:
        return metrics.parse(answer.read().decode("utf-8", "replace"), rules)


def release_of(looked: Sequence[Mapping[str, Any]]) -> Optional[int]:
    """The number of the release that runs (running.seen of each replica); None where it is none or cannot be read."""
    kept = _safely(_releases, release.Store())
    return release.running_of(kept.get("all", ()), looked)


def _ready(endpoint: Endpoint) -> Optional[str]:
    """The state that the door says of itself to balancers, such as ``draining``; None where it says none."""
    try:
        said = ask(endpoint, "GET", "/ready").body
    except NoAnswer:
        return None
    return str(said["state"]) if isinstance(said, dict) and isinstance(said.get("state"), str) else None


def _releases(store: release.Store) -> dict[str, Any]:
    """The last that passed, and all of them."""
    found, good = store.releases(), store.good()
    last = next((one for one in found if one["number"] == good), None)
    shown = ("number", "made_at", "passed_at", "by", "verdict", "driver")
    return {"good": {key: last.get(key) for key in shown} if last else None, "all": found}


def _door(door: Optional[Mapping[str, Any]]) -> dict[str, Any]:
    """Open requests and whether new ones are admitted, by the number of the replica, and when the certificate ends."""
    if door is None:
        return {}
    pem = files.text_of(Path(door["certificate"])) if door["certificate"] else None
    held = staged.held(pem) if pem else None
    haproxy = master.Master(Path(door["socket"]), patience=0)
    rows: list[dict[str, str]] = []
    haproxy.in_each(lambda process: rows.extend(haproxy.rows_of(process)), haproxy.processes)
    counted: dict[str, dict[str, Any]] = {}
    trust = Trust(door["name"], door["authorities"]) if door["name"] else None
    for name, place in door["replicas"].items():
        backends = (name, f"{name}-other")
        mine = [row for row in rows if row["pxname"] in backends]
        servers = [row["status"] for row in mine if row["svname"] not in ("BACKEND", "FRONTEND")]
        counted[name] = {
            "open": master.open_in(rows, backends),
            "admitted": any(not state.startswith("MAINT") for state in servers) if servers else None,
            "ready": _ready(Endpoint(place["address"], place["port"], "", tls=trust, timeout=ASKED_SECONDS)),
        }
    return {"replicas": counted, "certificate_ends": held.ends if held else None}


def _gateway() -> dict[str, Any]:
    """Which replicas the gateway of the host sends requests to, and when its certificate ends; empty without one.

    ``unit`` is its state where it does not run. ``certificate_ends`` is 0 where it is not known, None without TLS.
    """
    if not Path(gateway.UNIT_FILE).exists():
        return {}
    found = gateway.view(Path(gateway.SOCKET), patience=ASKED_SECONDS / 2)
    if found is None:
        return {"running": False, "unit": commands.state_of(gateway.UNIT)}
    ends = staged.certificate_ends(files.text_of(Path(gateway.CONFIG)) or "")
    return {"running": True, "replicas": found, "certificate_ends": ends}
