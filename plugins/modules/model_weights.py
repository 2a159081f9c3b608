#!/usr/bin/python
# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetch a model's weights to a host and prove that they are right."""

from __future__ import annotations

DOCUMENTATION = r"""
module: model_weights
short_description: Fetch and verify the weights of a model
version_added: 0.1.0
author:
  - glm.fleet contributors (@glm-fleet)
description:
  - Resolves a model revision to a commit once per fleet, records it in the lock file on the controller, and uses
    that record afterwards.
  - Checks free disk space, then fetches the files into the cache of C(huggingface_hub), in a transient systemd unit
    that keeps running after an interrupted run and that the next run finds again. What is on the disk is continued.
  - Waits for as long as the hub asks, and asks again where nothing arrives.
  - Hashes every file as soon as it is whole, as it is on the disk, and compares it with what the hub gives for it. A
    wrong file is removed and fetched once more; a file that the commit does not have is removed.
  - Hashed files are recorded with size and modification time, so a later run only looks at those and needs no hub.
extends_documentation_fragment:
  - glm.fleet.attributes
  - glm.fleet.attributes.action
attributes:
  check_mode:
    support: full
    details: Reads the hub and the disk, reports what would be fetched, and writes nothing anywhere.
  diff_mode:
    support: none
    details: Reports sizes and counts instead.
  idempotent:
    support: full
  platform:
    support: full
    description: Linux with systemd.
    platforms: linux
options:
  state:
    description:
      - V(present) fetches what is missing or wrong.
      - V(verified) fails when anything is missing or wrong, and fetches nothing.
    type: str
    choices: [present, verified]
    default: present
  repository:
    description: Repository on the hub, C(<organisation>/<name>).
    type: str
    required: true
  revision:
    description: Branch, tag or commit. Its commit is resolved once and then read from O(lock_file).
    type: str
    default: main
  lock_file:
    description: Lock file on the controller that records the commit.
    type: path
    required: true
  hf_home:
    description: Folder on the host that becomes E(HF_HOME), with the client's cache in C(hub).
    type: path
    required: true
  endpoint:
    description:
      - Address of the hub, or of a mirror that speaks its protocol. With O(token) it has to be https, unless it is on
        the host's own loopback.
    type: str
    default: https://huggingface.co
  token:
    description: Read token for the hub. It travels in a file of mode 0600, never on a command line.
    type: str
  rehash:
    description:
      - Hash every file again even if a record says that all are right. With O(state=present) what is wrong is fetched
        again.
    type: bool
    default: false
  allow_unsafe:
    description:
      - Fetch pickles and code of the repository, too. Without it they are left out, and a repository whose weights are
        pickles only is refused.
    type: bool
    default: false
    version_added: 0.2.0
  environment:
    description: Environment variables for the fetch, for example E(HTTPS_PROXY). No secrets.
    type: dict
    default: {}
  disk_margin_bytes:
    description: Bytes that must stay free on the file system after everything is fetched.
    type: int
    default: 10000000000
  stall_seconds:
    description: Seconds with less than O(min_bytes_per_second) after which all connections are made anew.
    type: float
    default: 120
  min_bytes_per_second:
    description: Slowest acceptable rate.
    type: float
    default: 1000000
  attempts:
    description: Answers in a row that bring no byte of a file, or stalls in a row, before giving up.
    type: int
    default: 5
  retry_seconds:
    description: Wait before the second attempt; it doubles from attempt to attempt, up to a minute.
    type: float
    default: 5
  limit_seconds:
    description: For how long the hub may ask this host to wait, without a byte meanwhile, before giving up.
    type: float
    default: 3600
    version_added: 0.2.0
  download_workers:
    description: Files fetched at the same time.
    type: int
    default: 16
  hash_workers:
    description: Threads that hash. V(0) takes one per processor, 16 at most.
    type: int
    default: 0
  progress_seconds:
    description: After so many seconds without a line of progress there is one.
    type: float
    default: 10
  phase:
    description:
      - What one call on the host does. The action plugin sets it; playbooks leave it out.
    type: str
    choices: [resolve, start, status]
    default: start
  commit:
    description: The commit to work on. The action plugin sets it from O(lock_file).
    type: str
  manifest_sha256:
    description: Fingerprint that the file list of the commit must have. The action plugin sets it from O(lock_file).
    type: str
  origin:
    description:
      - Object store that M(glm.fleet.weights_stage) brought the weights to, such as V(s3://acme-weights/models). Hosts
        fetch them from there, and need neither the hub nor a key. Empty fetches from O(endpoint).
    type: str
    default: ""
    version_added: 0.2.0
  origin_endpoint:
    description: Address of that store. Empty lets boto3 find it.
    type: str
    default: ""
    version_added: 0.2.0
  origin_region:
    description: Region of that store. Empty lets boto3 find it.
    type: str
    default: ""
    version_added: 0.2.0
  address_seconds:
    description:
      - Seconds for which an address that a host is given can be used. The controller signs them anew while a fetch goes
        on.
    type: int
    default: 3600
    version_added: 0.2.0
  manifest:
    description: The list of files that was staged. The action plugin sets it from O(origin).
    type: dict
    version_added: 0.2.0
  addresses:
    description: Signed addresses of the files. The action plugin sets them from O(origin).
    type: dict
    version_added: 0.2.0
requirements:
  - Python 3.9 and systemd on the host
  - the lock file is read and written on the controller, with PyYAML
  - boto3 1.36 or newer on the controller, with O(origin)
notes:
  - The host contacts the hub; the controller does not have to reach it. With O(origin) the host contacts that store
    only.
"""

EXAMPLES = r"""
- name: Fetch the weights of GLM-5.1 to every host, at one commit
  glm.fleet.model_weights:
    repository: zai-org/GLM-5.1-FP8
    lock_file: "{{ inventory_dir }}/glm.lock.yml"
    hf_home: /var/lib/glm/huggingface

- name: Read every byte again after a disk was replaced
  glm.fleet.model_weights:
    state: verified
    rehash: true
    repository: zai-org/GLM-5.1-FP8
    lock_file: "{{ inventory_dir }}/glm.lock.yml"
    hf_home: /var/lib/glm/huggingface
"""

RETURN = r"""
commit:
  description: The commit that the files belong to.
  returned: success
  type: str
  sample: 0123456789abcdef0123456789abcdef01234567
snapshot:
  description: Folder on the host with the files, as the engines load it.
  returned: success
  type: str
  sample: /var/lib/glm/huggingface/hub/models--zai-org--GLM-5.1-FP8/snapshots/0123456789abcdef0123456789abcdef01234567
manifest_sha256:
  description: Fingerprint of the file list (paths, sizes, hashes).
  returned: success
  type: str
total_bytes:
  description: Size of all files.
  returned: success
  type: int
files:
  description: Number of files.
  returned: success
  type: int
missing_bytes:
  description: Bytes that were, or in check mode would be, fetched.
  returned: success
  type: int
locked_now:
  description: Whether this call resolved the revision and wrote the lock file.
  returned: success
  type: bool
disk:
  description:
    - What the weights are on - hf_home, mount, device, filesystem, kind, read_mb_s and measured_at as
      M(glm.fleet.gpu_facts) has them, and memory_gib of the host.
    - The action plugin keeps it beside O(lock_file), where plans read it.
  returned: success
  type: dict
  version_added: 0.2.0
retries:
  description: How many answers broke off or were refused, and were asked for again.
  returned: when something was fetched or hashed
  type: int
seconds:
  description: Seconds that fetching and hashing took.
  returned: when something was fetched or hashed
  type: float
events:
  description: What happened on the way (stalls, retries, wrong files), with times in UTC.
  returned: when something was fetched or hashed
  type: list
  elements: str
"""

import hashlib
import inspect
import os
import re
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils import address, arguments, files, finding, outside, unreachable
from ansible_collections.glm.fleet.plugins.module_utils.finding import QuotingError
from ansible_collections.glm.fleet.plugins.module_utils.host import data_disk
from ansible_collections.glm.fleet.plugins.module_utils.host.module import end
from ansible_collections.glm.fleet.plugins.module_utils.weights import download as _weights_download
from ansible_collections.glm.fleet.plugins.module_utils.weights import fetch as _weights_fetch
from ansible_collections.glm.fleet.plugins.module_utils.weights import hub as _weights_hub
from ansible_collections.glm.fleet.plugins.module_utils.weights import lease as _weights_lease
from ansible_collections.glm.fleet.plugins.module_utils.weights import sources as _weights_sources
from ansible_collections.glm.fleet.plugins.module_utils.weights import store as _weights_store
from ansible_collections.glm.fleet.plugins.module_utils.weights.hub import (
    HubClient,
    advice,
    check_repository,
    check_revision,
)
from ansible_collections.glm.fleet.plugins.module_utils.weights.store import (
    Manifest,
    Store,
    human_bytes,
)

# Not below hf_home: how a fetch ended is to be read also when that disk is full.
RUN_DIR = Path("/run/glm-weights")
# The program and all that it imports of the collection, under their own names.
FETCHER = (
    _weights_fetch, _weights_download, _weights_lease, _weights_sources, _weights_hub, _weights_store, address, files,
    finding, unreachable,
)  # fmt: skip
# One status call waits this long on the host, which spares a connection every second.
STATUS_WAIT_SECONDS = 15.0
JOURNAL_LINES = 15
# The unit writes weights and what it says of them, and needs nothing else of the host.
CONFINED = (
    "NoNewPrivileges=yes", "ProtectSystem=strict", "ProtectHome=read-only", "PrivateTmp=yes", "PrivateDevices=yes",
    "ProtectKernelTunables=yes", "ProtectKernelModules=yes", "ProtectControlGroups=yes", "RestrictSUIDSGID=yes",
    "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
)  # fmt: skip
ORIGIN_ADVICE = {
    "expired": "Run again: the controller signs new addresses, and it continues. If they expire early again, "
    "sign with a key pair whose session outlives weights_address_seconds.",
    "forbidden": "Give the key pair that the controller signs with the right s3:GetObject on that bucket.",
    "region": "Set glm_store_region and glm_store_endpoint to those of the bucket: the store did not take the address "
    "as it was signed, whatever the key pair may read.",
    "not_found": "Run stage.yml, which brings the weights to the store.",
    "attempts": "Run again: it continues. Check that this host reaches the store of glm_weights_origin.",
    "damaged": "They were fetched twice. If the hash differs each time, suspect memory or disk of this host; if it is "
    "the same, remove them from the store and run stage.yml.",
}
DISK_ADVICE = {
    "disk_full": "Free space on the file system of {place}, or set glm_data_dir to a larger disk.",
    "quota": "The quota of {place} is used up. Raise it, or set glm_data_dir to a disk without one.",
    "read_only": "{place} is read-only. Look at `dmesg` for why, and mount it for writing.",
    "no_rights": "The unit may not write there, although it is root's. On NFS that is root_squash: export {place} with "
    "no_root_squash, or set glm_data_dir to a local disk.",
    "stale": "The file server no longer knows that file. Mount {place} anew.",
    "lost": "This fetch was halted for so long that another host goes on with it, or the file server of {place} was "
    "away from this host only. Run again: it waits for that host, and finds the work done.",
    "no_links": "The file system of {place} has no symbolic links, which the cache is made of. Set glm_data_dir to one "
    "that has.",
    "input_output": "Look at the path it names, and at `dmesg` for errors of that disk.",
}


class Weights:
    """One model on this host."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params: dict[str, Any] = module.params
        self.repository: str = self.params["repository"]
        check_repository(self.repository)
        check_revision(self.params["revision"])
        self.hf_home = Path(self.params["hf_home"])
        self.store = Store(self.hf_home, self.repository, self.params["allow_unsafe"])
        self.hub = HubClient(self.params["endpoint"], self.params["token"])
        of_clients = sorted(name for name in self.params["environment"] if name.startswith("HF_"))
        if of_clients:
            raise QuotingError(
                f"the environment of the fetch has {', '.join(of_clients)}, which only huggingface_hub understands. "
                "Remove it from weights_environment; the hub is glm_hub_endpoint, the token glm_hub_token."
            )

    @property
    def commit(self) -> str:
        """The commit given by the action plugin."""
        commit = self.params["commit"]
        if not commit or not re.fullmatch(r"[0-9a-f]{40}", commit):
            raise QuotingError("this module is run by its action plugin, which gives it the commit of the lock file")
        return str(commit)

    @property
    def key(self) -> str:
        """Name of the unit and the folder of one fetch; each data directory has its own."""
        place = hashlib.sha256(str(self.hf_home).encode()).hexdigest()[:6]
        return f"{self.repository.replace('/', '--')}-{self.commit[:12]}-{place}"

    @property
    def unit(self) -> str:
        """The transient unit."""
        return f"glm-weights-{self.key}.service"

    @property
    def folder(self) -> Path:
        """Where job, status and program of the fetch are."""
        return RUN_DIR / self.key

    @property
    def secrets(self) -> Path:
        """Token or addresses, and environment, while the unit runs."""
        return self.folder / "secret"

    # Phases ------------------------------------------------------------------------------------------------------

    def resolve(self) -> dict[str, Any]:
        """Ask the hub what the revision means now."""
        commit = self.hub.resolve(self.repository, self.params["revision"])
        manifest = self.hub.manifest(self.repository, commit)
        return {"changed": False, "commit": commit, **self._summary(manifest)}

    def described(self) -> dict[str, Any]:
        """What ``start`` found, and the disk that the weights are on."""
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        found = data_disk.describe(os.path.realpath(self.hf_home))
        return {**self.start(), "disk": {**found, "hf_home": str(self.hf_home), "memory_gib": round(memory, 1)}}

    def start(self) -> dict[str, Any]:
        """Find the files right, or an earlier fetch still running, or start one; ``progress`` says which."""
        if self.params["state"] == "verified" and (self.module.check_mode or not self.params["rehash"]):
            return self._recorded_or_fail()
        recorded = self.store.changed_since_record(self.commit) == []
        if recorded and not self.params["rehash"]:
            return self._present()
        if self._active():
            manifest = self._job_manifest()
            needed = self.store.bytes_to_fetch(manifest)
            return {
                "changed": True, "progress": "running", "reattached": True, "missing_bytes": needed,
                **self._summary(manifest), **self._place(),
            }  # fmt: skip
        if self.params["origin"] and self.params["state"] == "present" and not self.params["addresses"]:
            # The action asks the store only when something is to be fetched.
            return {"changed": not recorded, "progress": "origin", **self._place()}
        manifest = self._manifest()
        needed = self.store.bytes_to_fetch(manifest) if self.params["state"] == "present" else 0
        if self.params["state"] == "present":
            manifest.require_data(self.params["allow_unsafe"])
        self._check_disk(needed)
        # Hashing recorded files again changes nothing unless it finds one wrong; the action plugin sees that.
        report = {"changed": not recorded, "missing_bytes": needed, **self._summary(manifest), **self._place()}
        if self.module.check_mode:
            return {**report, "progress": "absent"}
        return {**report, "progress": "running", "reattached": not self._start_unit(manifest)}

    def status(self) -> dict[str, Any]:
        """Wait for the fetch to end, at most STATUS_WAIT_SECONDS, and report how far it is."""
        self._write_addresses()
        deadline = time.monotonic() + min(STATUS_WAIT_SECONDS, self.params["progress_seconds"] / 2)
        active = self._active()
        while active and time.monotonic() < deadline:
            time.sleep(0.5)
            active = self._active()
        status = files.read_json(self.folder / "status.json") or {}
        if not active:
            # What it says of itself stays: another run may watch the same fetch.
            shutil.rmtree(self.secrets, ignore_errors=True)
            if status.get("phase") != "done":
                raise QuotingError(self._why_it_ended(status))
        return {
            "changed": False,
            "progress": "running" if active else "present",
            "status": status,
            **self._summary(self._job_manifest()),
            **self._place(),
        }

    # Parts of start ----------------------------------------------------------------------------------------------

    def _place(self) -> dict[str, Any]:
        return {"commit": self.commit, "snapshot": str(self.store.snapshot(self.commit))}

    def _recorded_or_fail(self) -> dict[str, Any]:
        damages = self.store.changed_since_record(self.commit)
        if damages is None and self.module.check_mode:
            return {"changed": False, "progress": "absent", "missing_bytes": 0, **self._place()}
        if damages is None:
            raise QuotingError(
                f"{self.repository}@{self.commit} was never verified in {self.hf_home}. "
                "Run the role weights without tags, which fetches and verifies."
            )
        if damages:
            shown = "; ".join(str(damage) for damage in damages[:5])
            raise QuotingError(
                f"{len(damages)} files of {self.repository}@{self.commit} changed after they were verified: {shown}. "
                "Run the role weights without tags: it hashes them and fetches the wrong ones again."
            )
        return self._present()

    def _present(self) -> dict[str, Any]:
        record = self.store.read_record(self.commit)
        if record is None:
            raise QuotingError(f"the record {self.store.record_path(self.commit)} vanished; run again")
        manifest = record[0]
        self._compare(manifest, f"the record {self.store.record_path(self.commit)}")
        changed = not self.store.references_right(self.params["revision"], self.commit)
        if changed and not self.module.check_mode:
            self.store.write_references(self.params["revision"], self.commit)
        return {
            "changed": changed, "progress": "present", "missing_bytes": 0, **self._summary(manifest), **self._place()
        }  # fmt: skip

    def _manifest(self) -> Manifest:
        record = self.store.read_record(self.commit)
        if record is not None:
            # Hashes of a commit never change, so a damaged file can be found without the hub.
            self._compare(record[0], f"the record {self.store.record_path(self.commit)}")
            return record[0]
        if self.params["manifest"]:
            manifest = Manifest.from_json(self.params["manifest"])
        else:
            manifest = self.hub.manifest(self.repository, self.commit)
        self._compare(manifest, self.params["origin"] or self.params["endpoint"])
        return manifest

    def _compare(self, manifest: Manifest, source: str) -> None:
        wanted = self.params["manifest_sha256"]
        if wanted and manifest.sha256 != wanted:
            raise QuotingError(
                f"the file list of {self.repository}@{self.commit} from {source} has the fingerprint "
                f"{manifest.sha256}, the lock file {self.params['lock_file']} says {wanted}. A commit cannot change: "
                "find out which of the two is wrong; if it is the lock file, delete its entry and run again."
            )

    def _job_manifest(self) -> Manifest:
        job = files.read_json(self.folder / "job.json")
        if job is None:
            raise QuotingError(f"{self.folder / 'job.json'} is gone; stop {self.unit} and run again")
        return Manifest.from_json(job["manifest"])

    def _check_disk(self, needed: int) -> None:
        if needed == 0:
            return
        place = self.hf_home
        while not place.exists():
            place = place.parent
        stat = os.statvfs(place)
        free = stat.f_bavail * stat.f_frsize
        margin = self.params["disk_margin_bytes"]
        if free < needed + margin:
            raise QuotingError(
                f"not enough disk for {self.repository}: {human_bytes(needed)} are still to be fetched and "
                f"{human_bytes(margin)} must stay free, but the file system of {place} has {human_bytes(free)} free. "
                f"Free {human_bytes(needed + margin - free)} there, or set glm_data_dir to a larger disk."
            )

    def _start_unit(self, manifest: Manifest) -> bool:
        """Start the fetch; False when another run was a moment faster."""
        self.hf_home.mkdir(parents=True, exist_ok=True)
        self._write_job(manifest)
        unit = ["systemd-run", "--quiet", "--collect", "--unit", self.unit]
        unit += ["--description", f"Weights of {self.repository}", "--property", "Type=exec"]
        unit += ["--property", f"EnvironmentFile={self.secrets / 'environment'}"]
        unit += ["--property", f"ExecStopPost=-/bin/rm -rf {self.secrets}"]
        for line in (*CONFINED, f"ReadWritePaths={self.hf_home} {self.folder}"):
            unit += ["--property", line]
        command = [sys.executable, "-m", _weights_fetch.__name__, "run", str(self.folder)]
        code, _out, err = self.module.run_command([*unit, "--", *command])
        if code != 0 and self._active():
            return False
        if code != 0:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise QuotingError(f"systemd did not start {self.unit}: {err.strip()}. Look at `systemctl status` there.")
        return True

    def _write_job(self, manifest: Manifest) -> None:
        token, origin = self.params["token"], self.params["origin"]
        job = _weights_fetch.Job(
            hf_home=str(self.hf_home),
            manifest=manifest.as_json(),
            requested=self.params["revision"],
            endpoint=self.hub.endpoint,
            token_file=str(self.secrets / "token") if token and not origin else "",
            addresses=str(self.secrets / "addresses.json") if origin else "",
            repair=self.params["state"] == "present",
            unsafe=self.params["allow_unsafe"],
            stall_seconds=self.params["stall_seconds"],
            min_bytes_per_second=self.params["min_bytes_per_second"],
            attempts=self.params["attempts"],
            retry_seconds=self.params["retry_seconds"],
            limit_seconds=self.params["limit_seconds"],
            download_workers=self.params["download_workers"],
            hash_workers=self.params["hash_workers"],
        )
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.write_json(self.folder / "job.json", asdict(job), files.READABLE)
        status = _weights_fetch.Status(total_bytes=self._summary(manifest)["total_bytes"])
        files.write_json(self.folder / "status.json", asdict(status), files.READABLE)
        for code in FETCHER:
            path = self.folder / "code" / Path(*code.__name__.split(".")).with_suffix(".py")
            files.write_text(path, inspect.getsource(code), files.READABLE)
        self._write_secrets(job.token_file)

    def _write_secrets(self, token_file: str) -> None:
        self.secrets.mkdir(mode=0o700, parents=True, exist_ok=True)
        environment = {
            "PYTHONPATH": str(self.folder / "code"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
        }
        environment.update(outside.proxies())
        environment.update({str(name): str(value) for name, value in self.params["environment"].items()})
        if token_file:
            files.write_text(Path(token_file), self.params["token"])
        lines = "".join(f"{name}={value}\n" for name, value in sorted(environment.items()))
        files.write_text(self.secrets / "environment", lines)
        self._write_addresses()

    def _write_addresses(self) -> None:
        """Addresses that the controller signed, for a fetch that begins or goes on."""
        if self.params["addresses"] and self.secrets.exists():
            files.write_json(self.secrets / "addresses.json", self.params["addresses"])

    # Parts of status ---------------------------------------------------------------------------------------------

    def _active(self) -> bool:
        code, out, _err = self.module.run_command(["systemctl", "is-active", self.unit])
        return code == 0 or out.strip() in ("activating", "deactivating", "reloading")

    def _why_it_ended(self, status: dict[str, Any]) -> str:
        if status.get("phase") == "failed":
            error = str(status.get("error")).rstrip(".")
            return f"{error}. {self._next_step(str(status.get('error_kind')))}{self._said()}"
        if status.get("phase") == "interrupted":
            return f"{self.unit} was stopped before the end. Run again: it continues from what is there."
        return (
            f"{self.unit} ended in phase {status.get('phase', 'unknown')!r} without a result. "
            f"Run again: it continues from what is there.{self._said()}"
        )

    def _next_step(self, kind: str) -> str:
        if self.params["origin"] and kind in ORIGIN_ADVICE:
            return ORIGIN_ADVICE[kind]
        if kind in DISK_ADVICE:
            return DISK_ADVICE[kind].format(place=self.hf_home)
        if kind in ("unauthorised", "forbidden", "not_found", "hub"):
            return "Nothing that was fetched is lost."
        if kind == "rate_limited":
            return advice(429, "", self.repository, bool(self.params["token"]))
        if kind == "damaged" and self.params["state"] == "verified":
            return "Run the role weights without tags: it hashes all files and fetches the wrong ones again."
        if kind == "damaged":
            return (
                "They were fetched twice. If the hash differs each time, suspect memory or disk of this host; "
                "if it is the same, suspect a proxy or mirror: try another glm_hub_endpoint."
            )
        return "Run again: it continues. Check this host's connection to the hub if it fails in the same way."

    def _said(self) -> str:
        command = ["journalctl", "--no-pager", "--output", "cat", "--lines", str(JOURNAL_LINES)]
        log = self.module.run_command([*command, "--unit", self.unit])[1].strip().splitlines()
        return "\nIts last lines:\n  " + "\n  ".join(log) if log else ""

    def _summary(self, manifest: Manifest) -> dict[str, Any]:
        wanted = self.store.wanted(manifest)
        return {
            "total_bytes": sum(file.size for file in wanted),
            "files": len(wanted),
            "manifest_sha256": manifest.sha256,
        }


def run(module: AnsibleModule) -> dict[str, Any]:
    """Do the phase that the action asks for. Raises QuotingError with what to do."""
    try:
        weights = Weights(module)
        phases = {"resolve": weights.resolve, "start": weights.described, "status": weights.status}
        return phases[module.params["phase"]]()
    except OSError as exc:
        raise QuotingError(f"{exc}. Check the disk below {module.params['hf_home']}.") from exc


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(argument_spec=arguments.MODEL_WEIGHTS, supports_check_mode=True)
    end(module, module.params["phase"], lambda: run(module), labelled=False)


if __name__ == "__main__":
    main()
