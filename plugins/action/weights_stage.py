# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring weights from the hub to an object store. Documented in ``plugins/modules/weights_stage.py``."""

from __future__ import annotations

import collections
import fnmatch
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet, counted
from ansible_collections.glm.fleet.plugins.module_utils.weights.hub import HubClient
from ansible_collections.glm.fleet.plugins.module_utils.weights.store import Manifest, WeightFile, human_bytes
from ansible_collections.glm.fleet.plugins.plugin_utils.actions import heartbeat
from ansible_collections.glm.fleet.plugins.plugin_utils.actions.base import FleetAction
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import known
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.records import Catalog, StoragePrice
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import lockfile, own, repositories
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Intent, weights_repository
from ansible_collections.glm.fleet.plugins.plugin_utils.store import staged, staging
from ansible_collections.glm.fleet.plugins.plugin_utils.store.bucket import Bucket, Place, place

_RATE_WINDOW_SECONDS = 60.0
_NAMES = ("model", "precision", "repository", "model_config", "revision", "origin", "endpoint", "region")


@dataclass(frozen=True)
class Wanted:
    """One model's weights in one place. ``catalog``: the folders of glm_catalog; ``unsafe``: with pickles and code."""

    repository: str
    revision: str
    place: Place
    lock_file: str
    catalog: tuple[str, ...]
    unsafe: bool


class ActionModule(FleetAction):
    """Resolve, compare, stream, record, and look again."""

    LABEL = "stage"
    PLACE = "controller"
    ARGUMENTS = {
        "wanted": {
            "type": "list", "elements": "dict", "required": True,
            "options": {
                **{name: {"type": "str", "default": ""} for name in _NAMES},
                "extra_repositories": {"type": "list", "elements": "str", "default": []},
                "lock_file": {"type": "path", "required": True},
                "catalog": {"type": "list", "elements": "path", "default": []},
                "allow_unsafe": {"type": "bool", "default": False},
            },
        },
        "hub_endpoint": {"type": "str", "default": "https://huggingface.co"},
        "hub_token": {"type": "str", "no_log": True},
    }  # fmt: skip
    _requires_connection = False

    def _outcome(self) -> dict[str, Any]:
        self._warnings: list[str] = []
        self._hub = HubClient(self._args["hub_endpoint"], self._args["hub_token"] or None)
        done = [self._stage(wanted) for wanted in self._wanted()]
        warned = {"warnings": self._warnings} if self._warnings else {}
        return {**warned, "changed": any(one["brought_bytes"] or one["locked_now"] for one in done), "staged": done}

    def _wanted(self) -> list[Wanted]:
        """Each once, however many hosts want it; with what runs code where one of them takes it."""
        found: dict[Wanted, bool] = {}
        for one in self._args["wanted"]:
            if not one["origin"]:
                raise Unmet("glm_weights_origin to name an object store", "none", "set it, as s3://bucket/prefix")
            # Weights are the same on whatever they run.
            intent = Intent(
                one["model"], "", 0, precision=one["precision"], repository=one["repository"] or None,
                model_config=one["model_config"] or None,
            )  # fmt: skip
            where, folders = place(one["origin"], one["endpoint"], one["region"]), tuple(one["catalog"])
            of_model = weights_repository(intent, own.known(folders)), one["revision"]
            for repository, revision in (of_model, *map(repositories.named, one["extra_repositories"])):
                wanted = Wanted(repository, revision, where, one["lock_file"], folders, unsafe=False)
                found[wanted] = found.get(wanted, False) or one["allow_unsafe"]
        return [replace(wanted, unsafe=unsafe) for wanted, unsafe in found.items()]

    def _stage(self, wanted: Wanted) -> dict[str, Any]:
        bucket = Bucket(wanted.place)
        entry, locked_now = self._locked(wanted)
        record = self._record(bucket, wanted, entry)
        record.manifest.require_data(wanted.unsafe)
        files = record.manifest.wanted(wanted.unsafe)
        total = sum(file.size for file in files)
        absent = staged.missing(bucket, record, wanted.unsafe)
        price = _price(bucket.host, own.known(wanted.catalog))
        month = _usd_per_month(total, price)
        self._say_plan(wanted, record.manifest, absent, price, month)
        started = time.monotonic()
        if absent and not self._task.check_mode:
            staging.Staging(self._hub, bucket, record, total).run(absent, self._watching())
            # What is reported as there is what the store says now.
            staged.complete(bucket, wanted.repository, record.manifest.commit, wanted.unsafe)
        return {
            "repository": wanted.repository,
            "commit": record.manifest.commit,
            "place": str(wanted.place),
            "files": len(files),
            "total_bytes": total,
            "brought_bytes": sum(file.size for file in absent),
            "seconds": round(time.monotonic() - started, 1),
            "usd_per_month": month,
            "locked_now": locked_now,
        }

    def _locked(self, wanted: Wanted) -> tuple[lockfile.ModelEntry, bool]:
        """What the revision means, and whether this call wrote it down."""
        key, keep = lockfile.model_key(wanted.repository, wanted.revision), not self._task.check_mode
        return lockfile.model_entry(wanted.lock_file, key, lambda: self._resolved(wanted), keep)

    def _resolved(self, wanted: Wanted) -> lockfile.ModelEntry:
        commit = self._hub.resolve(wanted.repository, wanted.revision)
        manifest = self._hub.manifest(wanted.repository, commit)
        caution = known.require_model(wanted.repository, commit, manifest.sha256, known.load())
        if caution:
            self._warnings.append(f"controller, {self.LABEL}: {caution}")
        return {
            "commit": commit,
            "bytes": manifest.total_bytes,
            "files": len(manifest.files),
            "manifest_sha256": manifest.sha256,
        }

    def _record(self, bucket: Bucket, wanted: Wanted, entry: lockfile.ModelEntry) -> staged.Record:
        commit = entry["commit"]
        record = staged.read_record(bucket, wanted.repository, commit)
        record = record or staged.Record(self._hub.manifest(wanted.repository, commit))
        locked = entry.get("manifest_sha256")
        if locked and locked != record.manifest.sha256:
            raise Unmet(
                f"the list of files that the lock file {wanted.lock_file} has for {wanted.repository}@{commit} "
                f"({locked})",
                f"another one ({record.manifest.sha256})",
                "find out which of hub, record in the store and lock file is wrong, since a commit cannot change",
            )
        return record

    # Lines -------------------------------------------------------------------------------------------------------

    def _say_plan(
        self, wanted: Wanted, manifest: Manifest, absent: list[WeightFile],
        price: StoragePrice | None, month: float | None,
    ) -> None:  # fmt: skip
        size = sum(file.size for file in absent)
        files = manifest.wanted(wanted.unsafe)
        whole = f"{counted(len(files), 'file')}, {human_bytes(sum(file.size for file in files))}"
        still = f"{human_bytes(size)} still to be brought" if absent else "all there"
        self._say(f"{wanted.repository}@{manifest.commit[:12]} to {wanted.place}: {whole}, {still}")
        if left_out := len(manifest.files) - len(files):
            self._say(f"without {counted(left_out, 'file')} of pickles and code (glm_allow_unsafe_weights)")
        if price is None or month is None:
            self._say("what they cost there is not known to the catalogue; look at the store's price list")
        else:
            rate = f"{price.usd_per_gib_month:g} USD for each GiB"
            self._say(f"there they cost about {month:.2f} USD a month ({rate}: {price.source}, {price.date})")

    def _say(self, text: str) -> None:
        self._show([f"{self.PLACE}: {self.LABEL}: {text}"])

    def _say_alive(self, seconds: float) -> None:
        self._say(f"{self._far or 'asking the store'}, {seconds:.0f} s so far")

    def _watching(self) -> Any:
        samples: collections.deque[tuple[float, int]] = collections.deque()

        def report(progress: staging.Progress) -> None:
            for text in _drained(progress.events):
                self._say(text)
            now = time.monotonic()
            samples.append((now, progress.done_bytes))
            while now - samples[0][0] > _RATE_WINDOW_SECONDS:
                samples.popleft()
            rate = (progress.done_bytes - samples[0][1]) / max(0.001, now - samples[0][0])
            self._far = heartbeat.share("staged", progress.done_bytes, progress.total_bytes, rate)

        return report


def _drained(events: list[str]) -> Iterator[str]:
    while events:
        yield events.pop(0)


def _price(host: str, catalog: Catalog) -> StoragePrice | None:
    return next((price for price in catalog.storage if fnmatch.fnmatchcase(host, price.host)), None)


def _usd_per_month(count: int, price: StoragePrice | None) -> float | None:
    return None if price is None else round(count / 2**30 * price.usd_per_gib_month, 2)
