# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Weights in an object store: where they lie, and which of them are known to be right.

``<prefix>/<organisation>/<name>/<commit>/<path>`` are the files as the repository has them, and
``<prefix>/<organisation>/<name>/<commit>.glm.json`` is the record of what was hashed on the way: the list of files, and
for each file the ETag that the store gave it then. A file counts as staged while size and ETag are those of the record.
The record is written after the files, and a host hashes what it fetched all the same. Files that run code are in the
list, but need not be in the store: ``unsafe`` says whether they are looked at. What nobody looks at is no damage.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils.weights.hub import HubError, weight_file
from ansible_collections.glm.fleet.plugins.module_utils.weights.store import Manifest, WeightFile, human_bytes
from ansible_collections.glm.fleet.plugins.plugin_utils.store.bucket import Bucket, Place, Stored
from ansible_collections.glm.fleet.plugins.plugin_utils.store.errors import StoreError

RECORD_SCHEMA = 1
# A list of ten thousand files is 3 MB.
_MOST_RECORD_BYTES = 30_000_000
STAGE = "run stage.yml, which brings the weights there"


@dataclass
class Record:
    """Files of one commit that were hashed on their way into the store, by path with the ETag they got there."""

    manifest: Manifest
    etags: dict[str, str] = field(default_factory=dict)


def key_of(where: Place, manifest: Manifest, file: WeightFile) -> str:
    """The key of a file."""
    return where.key(manifest.repository, manifest.commit, file.path)


def read_record(bucket: Bucket, repository: str, commit: str) -> Record | None:
    """What was staged of a commit; None where nothing was. Raises StoreError."""
    key = _record_key(bucket.place, repository, commit)
    content = bucket.read(key, _MOST_RECORD_BYTES)
    if content is None:
        return None
    try:
        data = json.loads(content)
        if data["schema"] != RECORD_SCHEMA:
            raise ValueError(f"its schema is {data['schema']!r:.20}")
        return Record(
            _manifest(data["manifest"], repository, commit), {str(k): str(v) for k, v in data["etags"].items()}
        )
    except (ValueError, KeyError, TypeError, AttributeError, HubError) as exc:
        expected = f"the record of what was staged in s3://{bucket.place.bucket}/{key}"
        remove = "remove that object and run stage.yml, which stages the weights anew"
        raise StoreError("refused", expected, f"something else: {exc or type(exc).__name__}", remove) from None


def write_record(bucket: Bucket, record: Record) -> None:
    """Write the record; everything in it must be in the store. Raises StoreError."""
    manifest = record.manifest
    data = {
        "schema": RECORD_SCHEMA,
        "manifest_sha256": manifest.sha256,
        "manifest": manifest.as_json(),
        "etags": record.etags,
    }
    bucket.write(_record_key(bucket.place, manifest.repository, manifest.commit), json.dumps(data, indent=1).encode())


def missing(bucket: Bucket, record: Record, unsafe: bool) -> list[WeightFile]:
    """Files that belong in the store and are not there as they were staged. Raises StoreError."""
    manifest = record.manifest
    found = bucket.objects(bucket.place.key(manifest.repository, manifest.commit) + "/")
    return [file for file in manifest.wanted(unsafe) if not _is_staged(bucket.place, record, file, found)]


def complete(bucket: Bucket, repository: str, commit: str, unsafe: bool) -> Manifest:
    """The list of files of a commit that is in the store as a whole. Raises StoreError."""
    expected = f"the weights {repository}@{commit} in {bucket.place}"
    record = read_record(bucket, repository, commit)
    if record is None:
        raise StoreError("not_found", expected, "no record that they were staged", STAGE)
    absent = missing(bucket, record, unsafe)
    if absent:
        size = human_bytes(sum(file.size for file in absent))
        named = ", ".join(file.path for file in absent[:3]) + (", …" if len(absent) > 3 else "")
        among = len(record.manifest.wanted(unsafe))
        found = f"{len(absent)} of {among} files ({size}) absent or changed since: {named}"
        raise StoreError("not_found", expected, found, STAGE)
    return record.manifest


def addresses(bucket: Bucket, manifest: Manifest, unsafe: bool, seconds: int) -> dict[str, str]:
    """By path, an address from which a host fetches that file for so long without a key: secrets."""
    keys = {file.path: key_of(bucket.place, manifest, file) for file in manifest.wanted(unsafe)}
    signed = bucket.sign(keys.values(), seconds)
    return {path: signed[key] for path, key in keys.items()}


def _is_staged(where: Place, record: Record, file: WeightFile, found: Mapping[str, Stored]) -> bool:
    stored, etag = found.get(key_of(where, record.manifest, file)), record.etags.get(file.path)
    return stored is not None and stored == Stored(file.size, etag or "")


def _record_key(where: Place, repository: str, commit: str) -> str:
    return where.key(repository, f"{commit}.glm.json")


def _manifest(data: Mapping[str, Any], repository: str, commit: str) -> Manifest:
    """The list of files, checked as one of a hub: its names become paths on hosts."""
    if (data["repository"], data["commit"]) != (repository, commit):
        raise ValueError("it is of another model")
    entries = [{"path": one["path"], "size": one["size"], "oid": one["blob_id"], **_lfs(one)} for one in data["files"]]
    return Manifest(repository, commit, tuple(weight_file(entry, repository) for entry in entries))


def _lfs(one: Mapping[str, Any]) -> dict[str, Any]:
    return {"lfs": {"oid": one["sha256"], "size": one["size"]}} if one["sha256"] is not None else {}
