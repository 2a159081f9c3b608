# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether what runs is what is planned, by what was seen on the host. Pure.

A difference says what is served, and what the plan says instead. What was not seen is not proven.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils import finding
from ansible_collections.glm.fleet.plugins.module_utils.finding import Finding
from ansible_collections.glm.fleet.plugins.module_utils.serving import running
from ansible_collections.glm.fleet.plugins.module_utils.serving.status import redact
from ansible_collections.glm.fleet.plugins.plugin_utils import report
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan
from ansible_collections.glm.fleet.plugins.plugin_utils.report import ServedProcess
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import replica

CHECK = "running"
_NEXT = (
    "run deploy.yml, which starts the replica with the plan; if that undoes what another run did, find out who made it"
)
_MOST_SHOWN = 6


def wanted(plan: Plan) -> dict[str, Any]:
    """Where a host finds what runs as a replica, as the module host_status takes it."""
    return {
        "replica": int(plan["replica"]),
        "container": plan["runtime"]["kind"] == "container",
        "port": int(plan["listen"]["engine_port"]),
        "versions": versions(),
        "keys": list(replica.key_files(plan)),
        "secret_files": [replica.secret_path(plan)],
        "environment": list(plan["env"]),
        "answers": not plan["node"]["rank"],
    }


def versions() -> dict[str, str]:
    """By engine, where it says its release. All of them are tried: what runs may be another engine than planned."""
    return {name: engine.version_path for name, engine in catalog.load().engines.items()}


def judged(plan: Plan, seen: Mapping[str, Any]) -> Finding:
    """The finding ``running`` about a replica; ``seen`` is what module_utils/serving/running.py saw of it."""
    engine = plan["engine"]
    expected = f"{engine['name']} {engine['version']} to run with the image and the arguments of the plan"
    if "problems" not in seen:
        return finding.not_proven("verify", CHECK, expected, "nobody looked")
    differs = differences(plan, seen)
    if differs:
        more = f" and {len(differs) - _MOST_SHOWN} more" if len(differs) > _MOST_SHOWN else ""
        found = f"serves {'; '.join(differs[:_MOST_SHOWN])}{more}{_since(seen)}"
        return finding.failed("verify", expected, found, _NEXT, check=CHECK)
    unread = [] if _proven(plan, seen) else (list(seen["problems"]) or ["a part of it was not seen"])
    if unread:
        return finding.not_proven("verify", CHECK, expected, "; ".join(unread))
    found = f"{words_of(served(seen)) or engine['name']} as planned{_since(seen)}"
    return finding.judged("verify", CHECK, True, expected, found, seconds=0.0)


def _since(seen: Mapping[str, Any]) -> str:
    return f", since {seen['since']}" if seen.get("since") else ""


def _proven(plan: Plan, seen: Mapping[str, Any]) -> bool:
    """Whether everything was seen that the plan decides. Of an image that is the planned one by its digest, or of a
    host whose engine answers nobody, the engine's own word is not needed.
    """
    container = plan["runtime"]["kind"] == "container"
    says = seen["version"] is not None or bool(plan["node"]["rank"]) or _same_digest(plan, seen)
    parts = (seen["words"], seen["environment"], seen["started"])
    return None not in parts and says and (not container or _image(plan, seen))


def _image(plan: Plan, seen: Mapping[str, Any]) -> bool:
    return _same_digest(plan, seen) or bool(plan["image"] and seen["image"] == plan["image"]["reference"])


def _same_digest(plan: Plan, seen: Mapping[str, Any]) -> bool:
    return bool(plan["image"] and plan["image"]["digest"] in seen["digests"])


def differences(plan: Plan, seen: Mapping[str, Any]) -> list[str]:
    """What was seen and is not as planned, each as ``what runs, plan says what``; what was not seen is not in it."""
    return [
        *_engine(plan, seen),
        *_of_image(plan, seen),
        *_of_words(plan, seen),
        *_of_environment(plan, seen),
        *_of_files(seen),
    ]


def _engine(plan: Plan, seen: Mapping[str, Any]) -> list[str]:
    planned = plan["engine"]
    if seen["version"] is None or seen["engine"] is None:
        return []
    # A build for another platform says so behind a plus sign. The same image may call itself otherwise than its tag.
    same = seen["version"].partition("+")[0] == planned["version"] or _same_digest(plan, seen)
    if seen["engine"] == planned["name"] and same:
        return []
    return [f"{seen['engine']} {seen['version']}, plan says {planned['name']} {planned['version']}"]


def _of_image(plan: Plan, seen: Mapping[str, Any]) -> list[str]:
    image = plan["image"]
    if image is None or seen["image"] is None or _image(plan, seen):
        return []
    return [f"the image {seen['image']}, plan says {image['reference']}"]


def _of_words(plan: Plan, seen: Mapping[str, Any]) -> list[str]:
    if seen["words"] is None:
        return []
    planned = running.without_secrets(replica.engine_words(plan))
    # Without a container the interpreter, or the guard of several hosts, stands before the command.
    words = seen["words"] if plan["runtime"]["kind"] == "container" else seen["words"][-len(planned) :]
    if words == planned:
        return []
    runs, says = options(seen["words"]), options(planned)
    found = [
        f"{name} {_text(runs.get(name))}, plan says {_text(says.get(name))}".strip()
        for name in dict.fromkeys([*says, *runs])
        if name and runs.get(name) != says.get(name)
    ]
    return found or [f"the command {short(' '.join(words))}, plan says {short(' '.join(planned))}"]


def options(words: Sequence[str]) -> dict[str, list[str]]:
    """What follows each option of a command line, by its name; what stands before the first has the name ""."""
    found: dict[str, list[str]] = {"": []}
    name = ""
    for word in words:
        if word.startswith("--"):
            name, separator, value = word.partition("=")
            found.setdefault(name, []).extend([value] if separator else [])
        else:
            found[name].append(word)
    return found


def _text(values: Sequence[str] | None) -> str:
    if values is None:
        return "none"
    return short(" ".join(values)) if values else "it without a value"


def short(text: str) -> str:
    """The text, cut for a line."""
    return text if len(text) <= 120 else f"{text[:119]}…"


def _of_environment(plan: Plan, seen: Mapping[str, Any]) -> list[str]:
    runs = seen["environment"]
    if runs is None:
        return []
    planned = {name: redact(f"{name}={value}", ()).partition("=")[2] for name, value in plan["env"].items()}
    found = [
        f"{name}={short(runs[name])}, plan says {short(value)}" if name in runs else f"no {name}, plan says {value}"
        for name, value in planned.items()
        if runs.get(name) != value
    ]
    return [*found, *(f"{name}, which the plan does not set" for name in seen["unplanned"])]


def _of_files(seen: Mapping[str, Any]) -> list[str]:
    changed = [file for file, mark in (seen["started"] or {}).items() if seen["files"].get(file) != mark]
    return [f"what it was started from, and from its next start on another {' and '.join(changed)}"] if changed else []


def served(seen: Mapping[str, Any]) -> ServedProcess:
    """What runs, for a report: only what was seen."""
    found: ServedProcess = {}
    if seen.get("engine") and seen.get("version"):
        found["engine"] = {"name": str(seen["engine"]), "version": str(seen["version"])}
    if seen.get("image"):
        found["image"] = str(seen["image"])
        found["digests"] = [str(one) for one in seen["digests"]]
    if seen.get("release"):
        found["release"] = int(seen["release"])
    if seen.get("since"):
        found["since"] = str(seen["since"])
    if seen.get("words") is not None:
        text = json.dumps(list(seen["words"]))
        found["command_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    if ended := seen.get("ended"):
        found["restarts"] = {
            "count": int(ended["count"]),
            "recent": int(ended["recent"]),
            "last_at": report.iso(ended["last_at"]) if ended["last_at"] else None,
            "last_cause": finding.printable(ended["last_cause"]),
        }
    return found


def words_of(process: Mapping[str, Any]) -> str:
    """Engine and release that were seen, for a table; empty where they were not."""
    engine = process.get("engine")
    return f"{engine['name']} {engine['version']}" if engine else ""
