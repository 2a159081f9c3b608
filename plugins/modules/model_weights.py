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
  - Checks free disk space, then fetches the files with the real C(huggingface_hub) client inside the engine image, in
    a transient systemd unit that keeps running after an interrupted run and that the next run finds again.
  - Restarts a stalled client, without Xet from the second attempt on, and compares every file with the size and hash
    that the hub gives for it. A wrong file is removed and fetched once more.
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
    description: Linux with systemd and docker.
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
  image:
    description:
      - Engine image that is on the host and carries C(huggingface_hub). Needed to fetch, unless O(python) is given.
      - When O(lock_file) has a digest for this C(<repository>:<tag>), the image of that digest is used.
    type: str
  python:
    description:
      - Python interpreter on the host that has C(huggingface_hub), such as that of an engine's virtual environment.
      - No image and no Docker is needed then.
    type: path
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
    description: Hash every file again even if a record says that all are right.
    type: bool
    default: false
  environment:
    description: Further environment variables for the client, for example E(HF_XET_HIGH_PERFORMANCE). No secrets.
    type: dict
    default: {}
  disk_margin_bytes:
    description: Bytes that must stay free on the file system after everything is fetched.
    type: int
    default: 10000000000
  stall_seconds:
    description: Seconds with less than O(min_bytes_per_second) after which the client is restarted.
    type: float
    default: 120
  min_bytes_per_second:
    description: Slowest acceptable rate.
    type: float
    default: 1000000
  attempts:
    description: Attempts in a row that complete no file before giving up.
    type: int
    default: 5
  retry_seconds:
    description: Wait before the second attempt; it doubles from attempt to attempt, up to a minute.
    type: float
    default: 5
  download_workers:
    description: Files fetched at the same time.
    type: int
    default: 8
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
  - Python 3.9, systemd and, with O(image), docker on the host
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
    image: vllm/vllm-openai:v0.32.0

- name: Read every byte again after a disk was replaced
  glm.fleet.model_weights:
    state: verified
    rehash: true
    repository: zai-org/GLM-5.1-FP8
    lock_file: "{{ inventory_dir }}/glm.lock.yml"
    hf_home: /var/lib/glm/huggingface
    image: vllm/vllm-openai:v0.32.0
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
attempts_made:
  description: How often the client was started.
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
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils import arguments, files, finding, unreachable
from ansible_collections.glm.fleet.plugins.module_utils.finding import QuotingError
from ansible_collections.glm.fleet.plugins.module_utils.host.module import end
from ansible_collections.glm.fleet.plugins.module_utils.weights import fetch as _weights_fetch
from ansible_collections.glm.fleet.plugins.module_utils.weights import origin as _weights_origin
from ansible_collections.glm.fleet.plugins.module_utils.weights import store as _weights_store
from ansible_collections.glm.fleet.plugins.module_utils.weights.hub import (
    HubClient,
    advice,
    check_repository,
    check_revision,
    refuse_in_clear,
)
from ansible_collections.glm.fleet.plugins.module_utils.weights.store import (
    Manifest,
    Store,
    human_bytes,
)

RUN_DIR = Path("/run/glm-weights")
CONTAINER_TOKEN = "/run/glm-hub-token"
CONTAINER_CODE = "/glm"
CONTAINER_ADDRESSES = "/run/glm-addresses"
# The program that runs in the image and all that it imports of the collection, under their own names.
FETCHER = (_weights_fetch, _weights_origin, _weights_store, files, finding, unreachable)
# One status call waits this long on the host, which spares a connection every second.
STATUS_WAIT_SECONDS = 15.0
PROXIES = ("http_proxy", "https_proxy", "no_proxy")
JOURNAL_LINES = 15
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


class Weights:
    """One model on this host."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params: dict[str, Any] = module.params
        self.repository: str = self.params["repository"]
        check_repository(self.repository)
        check_revision(self.params["revision"])
        self.hf_home = Path(self.params["hf_home"])
        self.store = Store(self.hf_home, self.repository)
        self.hub = HubClient(self.params["endpoint"], self.params["token"])
        # What the client is given beside it may name another hub.
        refuse_in_clear(str(self.params["environment"].get("HF_ENDPOINT", self.hub.endpoint)), self.params["token"])

    @property
    def commit(self) -> str:
        """The commit given by the action plugin."""
        commit = self.params["commit"]
        if not commit or not re.fullmatch(r"[0-9a-f]{40}", commit):
            raise QuotingError("this module is run by its action plugin, which gives it the commit of the lock file")
        return str(commit)

    @property
    def key(self) -> str:
        """Name of the unit, the container and the folders of one fetch; each data directory has its own."""
        place = hashlib.sha256(str(self.hf_home).encode()).hexdigest()[:6]
        return f"{self.repository.replace('/', '--')}-{self.commit[:12]}-{place}"

    @property
    def unit(self) -> str:
        """The transient unit."""
        return f"glm-weights-{self.key}.service"

    @property
    def folder(self) -> Path:
        """Where job, status and log of the fetch are."""
        return self.hf_home / "glm-fetch" / self.key

    # Phases ------------------------------------------------------------------------------------------------------

    def resolve(self) -> dict[str, Any]:
        """Ask the hub what the revision means now."""
        commit = self.hub.resolve(self.repository, self.params["revision"])
        manifest = self.hub.manifest(self.repository, commit)
        return {"changed": False, "commit": commit, **_summary(manifest)}

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
                **_summary(manifest), **self._place(),
            }  # fmt: skip
        if self.params["origin"] and self.params["state"] == "present" and not self.params["addresses"]:
            # The action asks the store only when something is to be fetched.
            return {"changed": not recorded, "progress": "origin", **self._place()}
        manifest = self._manifest()
        needed = self.store.bytes_to_fetch(manifest) if self.params["state"] == "present" else 0
        self._check_disk(needed)
        # Hashing recorded files again changes nothing unless it finds one wrong; the action plugin sees that.
        report = {"changed": not recorded, "missing_bytes": needed, **_summary(manifest), **self._place()}
        if self.module.check_mode:
            return {**report, "progress": "absent"}
        self._start_unit(manifest)
        return {**report, "progress": "running"}

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
            shutil.rmtree(RUN_DIR / self.key, ignore_errors=True)
            if status.get("phase") != "done":
                raise QuotingError(self._why_it_ended(status))
        return {
            "changed": False,
            "progress": "running" if active else "present",
            "status": status,
            **_summary(self._job_manifest()),
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
            "changed": changed, "progress": "present", "missing_bytes": 0, **_summary(manifest), **self._place()
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

    def _start_unit(self, manifest: Manifest) -> None:
        run_dir = RUN_DIR / self.key
        unit = ["systemd-run", "--quiet", "--collect", "--unit", self.unit]
        unit += ["--description", f"Weights of {self.repository}", "--property", "Type=exec"]
        unit += ["--property", f"ExecStopPost=-/bin/rm -rf {run_dir}"]
        if self.params["python"]:
            self._check_python()
            unit += ["--property", f"EnvironmentFile={run_dir / 'environment'}"]
            command = [self.params["python"]]
        else:
            command = self._docker_run(self._check_image(), run_dir)
        self._write_job(manifest)
        command += ["-m", _weights_fetch.__name__, "run", f"{self._inside(self.hf_home)}/glm-fetch/{self.key}"]
        code, _out, err = self.module.run_command([*unit, "--", *command])
        if code != 0:
            shutil.rmtree(run_dir, ignore_errors=True)
            raise QuotingError(f"systemd did not start {self.unit}: {err.strip()}. Look at `systemctl status` there.")

    def _docker_run(self, image: str, run_dir: Path) -> list[str]:
        """The Python inside the image; what it needs of the host is mounted."""
        container = self.unit[: -len(".service")]
        # A container survives when its docker client is killed; it would hold the name.
        self.module.run_command(["docker", "rm", "--force", container])
        command = ["docker", "run", "--rm", "--pull", "never", "--name", container, "--network", "host"]
        command += ["--env-file", str(run_dir / "environment")]
        command += ["--volume", f"{self.hf_home}:{_weights_store.CONTAINER_HF_HOME}"]
        command += ["--volume", f"{self.folder / 'code'}:{CONTAINER_CODE}:ro"]
        if self.params["token"]:
            command += ["--volume", f"{run_dir / 'token'}:{CONTAINER_TOKEN}:ro"]
        if self.params["origin"]:
            # The folder, because a mounted file stays the one that it was when it is replaced.
            command += ["--volume", f"{self._addresses_folder}:{CONTAINER_ADDRESSES}:ro"]
        return [*command, "--entrypoint", "python3", image]

    def _inside(self, path: Path) -> str:
        """Where the client finds one of its folders or files."""
        if self.params["python"]:
            return str(path)
        mounted = {
            self.hf_home: _weights_store.CONTAINER_HF_HOME,
            self.folder / "code": CONTAINER_CODE,
            RUN_DIR / self.key / "token": CONTAINER_TOKEN,
            self._addresses_folder: CONTAINER_ADDRESSES,
        }
        return mounted[path]

    def _check_python(self) -> None:
        code, _out, err = self.module.run_command([self.params["python"], "-c", "import huggingface_hub"])
        if code != 0:
            said = (err.strip().splitlines() or ["it did not run"])[-1]
            raise QuotingError(
                f"{self.params['python']} has no huggingface_hub ({said}). Run the role engine_venv first."
            )

    def _check_image(self) -> str:
        image = self.params["image"]
        if not image:
            raise QuotingError("neither image nor python is given. Set one of them: it supplies the client.")
        if self.module.get_bin_path("docker") is None:
            raise QuotingError("docker is not installed. Run the role docker first.")
        code, _out, err = self.module.run_command(["docker", "image", "inspect", "--format", "{{.Id}}", image])
        if code != 0:
            raise QuotingError(
                f"the image {image} is not on this host ({err.strip()}). Run the role engine_image first."
            )
        return str(image)

    def _write_job(self, manifest: Manifest) -> None:
        job = _weights_fetch.Job(
            manifest=manifest.as_json(),
            requested=self.params["revision"],
            repair=self.params["state"] == "present",
            stall_seconds=self.params["stall_seconds"],
            min_bytes_per_second=self.params["min_bytes_per_second"],
            attempts=self.params["attempts"],
            retry_seconds=self.params["retry_seconds"],
            download_workers=self.params["download_workers"],
            hash_workers=self.params["hash_workers"],
            addresses=f"{self._inside(self._addresses_folder)}/addresses.json" if self.params["origin"] else "",
        )
        files.write_json(self.folder / "job.json", asdict(job), files.READABLE)
        status = _weights_fetch.Status(total_bytes=manifest.total_bytes)
        files.write_json(self.folder / "status.json", asdict(status), files.READABLE)
        (self.folder / "client.log").unlink(missing_ok=True)
        for code in FETCHER:
            path = self.folder / "code" / Path(*code.__name__.split(".")).with_suffix(".py")
            files.write_text(path, inspect.getsource(code), files.READABLE)
        self._write_secrets()

    def _write_secrets(self) -> None:
        run_dir = RUN_DIR / self.key
        run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        environment = {
            "PYTHONPATH": self._inside(self.folder / "code"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "HF_HOME": self._inside(self.hf_home),
            "HF_ENDPOINT": self.hub.endpoint,
            "HF_HUB_DISABLE_TELEMETRY": "1",
            # The chunk cache would keep a second copy of what it fetches.
            "HF_XET_CHUNK_CACHE_SIZE_BYTES": "0",
        }
        environment.update({str(name): str(value) for name, value in self.params["environment"].items()})
        for name in (*PROXIES, *(name.upper() for name in PROXIES)):
            if os.environ.get(name):
                environment[name] = os.environ[name]
        if self.params["token"]:
            files.write_text(run_dir / "token", self.params["token"])
            environment["HF_TOKEN_PATH"] = self._inside(run_dir / "token")
        else:
            environment["HF_HUB_DISABLE_IMPLICIT_TOKEN"] = "1"
        lines = "".join(f"{name}={value}\n" for name, value in sorted(environment.items()))
        files.write_text(run_dir / "environment", lines)
        self._write_addresses()

    @property
    def _addresses_folder(self) -> Path:
        return RUN_DIR / self.key / "addresses"

    def _write_addresses(self) -> None:
        """Addresses that the controller signed, for a fetch that begins or goes on."""
        if self.params["addresses"] and (RUN_DIR / self.key).exists():
            files.write_json(self._addresses_folder / "addresses.json", self.params["addresses"])

    # Parts of status ---------------------------------------------------------------------------------------------

    def _active(self) -> bool:
        code, out, _err = self.module.run_command(["systemctl", "is-active", self.unit])
        return code == 0 or out.strip() in ("activating", "deactivating", "reloading")

    def _why_it_ended(self, status: dict[str, Any]) -> str:
        if status.get("phase") == "failed":
            return f"{status.get('error')}. {self._next_step(str(status.get('error_kind')))}{self._said()}"
        if status.get("phase") == "interrupted":
            return f"{self.unit} was stopped before the end. Run again: it continues from what is there."
        return (
            f"{self.unit} ended in phase {status.get('phase', 'unknown')!r} without a result. "
            f"Run again: it continues from what is there.{self._said()}"
        )

    def _next_step(self, kind: str) -> str:
        if self.params["origin"] and kind in ORIGIN_ADVICE:
            return ORIGIN_ADVICE[kind]
        has_token = bool(self.params["token"])
        statuses = {"unauthorised": 401, "forbidden": 403, "not_found": 404, "rate_limited": 429}
        if kind in statuses:
            return advice(statuses[kind], "", self.repository, has_token)
        if kind == "disk_full":
            return f"Free space on the file system of {self.hf_home}, or set glm_data_dir to a larger disk."
        if kind == "no_client":
            place = self.params["python"] or self.params["image"]
            option = "python" if self.params["python"] else "image"
            return f"{place} is not that of an engine. Correct the option {option}."
        if kind == "damaged" and self.params["state"] == "verified":
            return "Run the role weights without tags: it hashes all files and fetches the wrong ones again."
        if kind == "damaged":
            return (
                "They were fetched twice. If the hash differs each time, suspect memory or disk of this host; "
                "if it is the same, suspect a proxy or mirror: try another glm_hub_endpoint."
            )
        return "Run again: it continues. Check this host's connection to the hub if it fails in the same way."

    def _said(self) -> str:
        log = _weights_fetch.log_tail(self.folder).splitlines()[-JOURNAL_LINES:]
        if not log:
            command = ["journalctl", "--no-pager", "--output", "cat", "--lines", str(JOURNAL_LINES)]
            log = self.module.run_command([*command, "--unit", self.unit])[1].strip().splitlines()
        return "\nIts last lines:\n  " + "\n  ".join(log) if log else ""


def _summary(manifest: Manifest) -> dict[str, Any]:
    return {
        "total_bytes": manifest.total_bytes,
        "files": len(manifest.files),
        "manifest_sha256": manifest.sha256,
    }


def run(module: AnsibleModule) -> dict[str, Any]:
    """Do the phase that the action asks for. Raises QuotingError with what to do."""
    try:
        weights = Weights(module)
        phases = {"resolve": weights.resolve, "start": weights.start, "status": weights.status}
        return phases[module.params["phase"]]()
    except OSError as exc:
        raise QuotingError(f"{exc}. Check the disk below {module.params['hf_home']}.") from exc


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(argument_spec=arguments.MODEL_WEIGHTS, supports_check_mode=True)
    end(module, module.params["phase"], lambda: run(module), labelled=False)


if __name__ == "__main__":
    main()
