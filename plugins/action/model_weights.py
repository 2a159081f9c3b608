# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of ``glm.fleet.model_weights``: the lock file, and progress while a host fetches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils import arguments
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.module_utils.weights.store import human_bytes
from ansible_collections.glm.fleet.plugins.plugin_utils.actions import heartbeat
from ansible_collections.glm.fleet.plugins.plugin_utils.actions.base import Failed
from ansible_collections.glm.fleet.plugins.plugin_utils.actions.remote_job import RemoteJobAction
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import known
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import disks, lockfile
from ansible_collections.glm.fleet.plugins.plugin_utils.store.bucket import place
from ansible_collections.glm.fleet.plugins.plugin_utils.store.errors import StoreError
from ansible_collections.glm.fleet.plugins.plugin_utils.store.origin import Origin


class ActionModule(RemoteJobAction):
    """Resolve once per fleet, start on the host, watch, report."""

    MODULE = "glm.fleet.model_weights"
    LABEL = "weights"
    ARGUMENTS = arguments.MODEL_WEIGHTS
    INTERNAL = ("phase", "commit", "manifest_sha256", "manifest", "addresses")
    _warnings: Sequence[str] = ()

    def _outcome(self) -> dict[str, Any]:
        if self._args["origin"]:
            # The host has nothing to ask the hub.
            self._args["token"] = None
        entry, locked_now = self._locked_entry()
        outcome = self._bring(entry) if entry else self._unlocked()
        warned = {"warnings": self._warnings} if self._warnings else {}
        kept = self._kept_disk(outcome)
        changed = bool(outcome["changed"] or locked_now or kept)
        return {**outcome, **warned, "changed": changed, "locked_now": locked_now}

    def _kept_disk(self, outcome: dict[str, Any]) -> bool:
        """Keep what the weights are on, for plans; whether that is new."""
        if "disk" not in outcome or self._task.check_mode or self._args["state"] == "verified":
            return False
        return disks.keep(self._args["lock_file"], self._host, disks.disk_of(outcome["disk"]))

    # The lock file -----------------------------------------------------------------------------------------------

    def _locked_entry(self) -> tuple[lockfile.ModelEntry | None, bool]:
        """What the revision means, and whether this call wrote it down."""
        path = self._args["lock_file"]
        key = lockfile.model_key(self._args["repository"], self._args["revision"])
        entry = lockfile.read(path)["models"].get(key)
        if entry is not None or self._args["state"] == "verified":
            return entry, False
        if self._args["origin"]:
            found = f"none in the lock file {path}"
            advice = "run stage.yml, which brings the weights to the store and writes their commit there"
            raise Unmet(f"the commit of {key}, staged in {self._args['origin']}", found, advice)
        return lockfile.model_entry(path, key, self._ask_hub, keep=not self._task.check_mode)

    def _unlocked(self) -> dict[str, Any]:
        """Nothing was ever fetched for this lock file, and this call is not to fetch."""
        repository, revision = self._args["repository"], self._args["revision"]
        problem = f"{self._args['lock_file']} has no commit for {repository}@{revision}"
        if self._task.check_mode:
            return {"changed": False, "msg": f"not there yet: {problem}"}
        raise Failed({"msg": f"{problem}. Run the role weights without tags, which resolves and fetches it."})

    def _ask_hub(self) -> lockfile.ModelEntry:
        found = self._on_host("resolve")
        caution = known.require_model(self._args["repository"], found["commit"], found["manifest_sha256"], known.load())
        if caution:
            self._warnings = [f"{self._host}, {self.LABEL}: {caution}"]
        return {
            "commit": found["commit"],
            "bytes": found["total_bytes"],
            "files": found["files"],
            "manifest_sha256": found["manifest_sha256"],
        }

    # The host ----------------------------------------------------------------------------------------------------

    def _bring(self, entry: lockfile.ModelEntry) -> dict[str, Any]:
        locked = {"commit": entry["commit"], "manifest_sha256": entry.get("manifest_sha256")}
        origin = self._origin(entry)
        started = self._on_host("start", **locked)
        if started["progress"] == "origin" and origin is not None:
            given = {"manifest": origin.manifest.as_json(), "addresses": origin.addresses()}
            started = self._on_host("start", **locked, **given)
        outcome = {name: started[name] for name in _RETURNED if name in started}
        if started["progress"] != "running":
            return {**outcome, "msg": _sentence(started)}
        if started.get("reattached"):
            self._say("an earlier run's fetch is still running, watching it")
        status = self._watch(locked, origin)
        changed = self._args["state"] == "present" and (started["changed"] or status["fetched_bytes"] > 0)
        return {
            **outcome,
            "changed": changed,
            "retries": status["retries"],
            "seconds": round(status["updated"] - status["started"], 1),
            "events": status["events"],
            "msg": f"{started['files']} files, {human_bytes(started['total_bytes'])}, verified",
        }

    def _origin(self, entry: lockfile.ModelEntry) -> Origin | None:
        """The object store that the host is to fetch from; None where that is the hub."""
        args = self._args
        if not args["origin"]:
            return None
        if not entry.get("manifest_sha256"):
            # Whoever can write to the bucket would decide what is served.
            expected = f"manifest_sha256 of {args['repository']}@{args['revision']} in {args['lock_file']}"
            raise Unmet(expected, "none", "delete that entry and run stage.yml, which writes it anew")
        where = place(args["origin"], args["origin_endpoint"], args["origin_region"])
        return Origin(where, args["repository"], entry["commit"], args["address_seconds"], args["allow_unsafe"])

    def _renewed(self, origin: Origin | None, status: dict[str, Any]) -> dict[str, Any]:
        """Addresses for a fetch that goes on, when it is time; what an earlier run signed may expire at any moment."""
        if origin is None or not origin.due(status):
            return {}
        try:
            return {"addresses": origin.addresses()}
        except StoreError as exc:
            # What the host has may last to the end; if it does not, the fetch says so.
            self._say(f"no new addresses: {exc}")
            return {}

    def _watch(self, locked: dict[str, Any], origin: Origin | None) -> dict[str, Any]:
        """Follow the fetch to its end and return its last status."""
        status: dict[str, Any] = {}
        while True:
            outcome = self._status(**locked, **self._renewed(origin, status))
            status = outcome["status"]
            if outcome["progress"] == "present":
                return status
            self._say_if_due(progress_line(status))


_RETURNED = ("changed", "commit", "snapshot", "manifest_sha256", "total_bytes", "files", "missing_bytes", "disk")


def _sentence(started: dict[str, Any]) -> str:
    if started["progress"] == "present":
        return f"{started['files']} files, {human_bytes(started['total_bytes'])}, verified earlier"
    if "files" not in started:
        return "not there yet"
    return (
        f"would fetch {human_bytes(started['missing_bytes'])} and verify {started['files']} files, "
        f"{human_bytes(started['total_bytes'])}"
    )


def progress_line(status: dict[str, Any]) -> str:
    """One line for people from a status of the fetcher (``_weights_fetch.Status`` as a dictionary)."""
    done, total, rate = status["done_bytes"], status["total_bytes"], status["rate"]
    last = status["events"][-1] if status["events"] else ""
    if status["phase"] in ("starting", "wait"):
        return last or "starting"
    verb = "hashed" if status["phase"] == "verify" else "fetched"
    return heartbeat.share(verb, done, total, rate)
