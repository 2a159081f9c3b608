"""Hosts fetch from signed addresses of a kept S3 server: the controller's action and the host's module together."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from ansible_collections.glm.fleet.plugins.action import model_weights as actions
from ansible_collections.glm.fleet.plugins.module_utils import arguments
from ansible_collections.glm.fleet.plugins.module_utils.finding import QuotingError
from ansible_collections.glm.fleet.plugins.module_utils.weights.download import Download
from ansible_collections.glm.fleet.plugins.module_utils.weights.sources import (
    Addresses,
    Expired,
    ObjectStore,
    SourceError,
)
from ansible_collections.glm.fleet.plugins.module_utils.weights.store import Manifest, Store, WeightFile
from ansible_collections.glm.fleet.plugins.modules import model_weights as modules
from ansible_collections.glm.fleet.plugins.plugin_utils.actions.base import Failed
from ansible_collections.glm.fleet.plugins.plugin_utils.store import staged
from ansible_collections.glm.fleet.plugins.plugin_utils.store.bucket import Bucket, place
from ansible_collections.glm.fleet.plugins.plugin_utils.store.errors import StoreError
from ansible_collections.glm.fleet.plugins.plugin_utils.store.origin import Origin
from tests.playbooks.store import s3

REPO = "zai-org/Tiny"
COMMIT = "c" * 40
CONTENT = {
    "config.json": b'{"a": 1}',
    "model-1.safetensors": os.urandom(64) * 40_000,
    "model-2.safetensors": os.urandom(64) * 20_000,
    "sub/same as 2.safetensors": b"",
    "empty.txt": b"",
}
CONTENT["sub/same as 2.safetensors"] = CONTENT["model-2.safetensors"]
ADDRESS = "X-Amz-Signature"


def listed(path: str, content: bytes) -> WeightFile:
    blob = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
    return WeightFile(path, len(content), blob, hashlib.sha256(content).hexdigest() if len(content) > 100 else None)


MANIFEST = Manifest(REPO, COMMIT, tuple(listed(path, content) for path, content in sorted(CONTENT.items())))


class Host(actions.ActionModule):
    """The action, whose module runs here: its units are processes, and what it does is kept."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, **given: Any) -> None:
        self.folder, self.hf_home = folder, folder / "huggingface"
        self.lock_file = folder / "glm.lock.yml"
        entry = {"commit": COMMIT, "manifest_sha256": MANIFEST.sha256}
        self.lock_file.write_text(yaml.safe_dump({"models": {f"{REPO}@main": entry}}), "utf-8")
        monkeypatch.setattr(modules, "RUN_DIR", folder / "run")
        monkeypatch.setattr(modules, "STATUS_WAIT_SECONDS", 0.6)
        defaults = {name: spec.get("default") for name, spec in arguments.MODEL_WEIGHTS.items()}
        self._args = {
            **defaults, "repository": REPO, "lock_file": str(self.lock_file), "hf_home": str(self.hf_home),
            "disk_margin_bytes": 0, "retry_seconds": 0.05, "attempts": 3,
            "token": "hub-token", "hash_workers": 2, **given,
        }  # fmt: skip
        self._task = SimpleNamespace(check_mode=False, name="fetch")
        self._task_vars = {"inventory_hostname": "h1"}
        self.commands: list[list[str]] = []
        self.phases: list[tuple[str, bool]] = []
        self.lines: list[str] = []
        self.process: subprocess.Popen[bytes] | None = None

    def _show(self, lines: Any) -> None:
        self.lines += lines

    def _module(self, name: str | None = None, arguments: Any = None) -> dict[str, Any]:
        self.phases.append((arguments["phase"], "addresses" in arguments))
        params = {**self._args, **dict.fromkeys(("commit", "manifest", "addresses")), **arguments}
        module = SimpleNamespace(params=params, check_mode=self._task.check_mode, run_command=self._run)
        try:
            return modules.run(module)
        except QuotingError as exc:
            return {"failed": True, "msg": str(exc)}

    def _run(self, command: list[str]) -> tuple[int, str, str]:
        self.commands.append(command)
        if command[0] == "systemctl":
            return (3, "inactive", "") if self.process is None or self.process.poll() is not None else (0, "active", "")
        if command[0] != "systemd-run":
            return 0, "", ""
        found = next(part for part in command if part.startswith("EnvironmentFile="))
        lines = Path(found.partition("=")[2]).read_text("utf-8").splitlines()
        environment = dict(line.split("=", 1) for line in lines)
        assert not list((self.folder / "run").rglob("token")), "a host that asks no hub gets no token"
        with (self.folder / "journal").open("ab") as journal:
            program = command[command.index("--") + 1 :]
            self.process = subprocess.Popen(
                program, env={"PATH": os.environ["PATH"], **environment}, stdout=journal, stderr=journal
            )
        return 0, "", ""

    def fetch(self) -> dict[str, Any]:
        try:
            return self._outcome()
        finally:
            if self.process is not None:
                self.process.kill()
                self.process.wait()

    def require_whole(self) -> None:
        snapshot = self.hf_home / "hub" / "models--zai-org--Tiny" / "snapshots" / COMMIT
        assert {path: (snapshot / path).read_bytes() for path in CONTENT} == CONTENT
        assert Store(self.hf_home, REPO).changed_since_record(COMMIT) == []

    def require_no_secret(self) -> None:
        """No address in arguments, lines, logs or files, but for one of mode 0600 that is gone with the unit."""
        assert not any(ADDRESS in part for command in self.commands for part in command)
        assert not any(ADDRESS in line for line in self.lines)
        left = [path for path in self.folder.rglob("*") if path.is_file()]
        assert [path for path in left if ADDRESS.encode() in path.read_bytes()] == []
        for secret in (*s3.KEY_PAIR.values(), "hub-token"):
            assert [path for path in left if secret.encode() in path.read_bytes()] == []


@pytest.fixture
def bucket(store: s3.Store) -> Bucket:
    bucket = Bucket(place(f"s3://{s3.BUCKET}/models", store.url))
    etags = {path: bucket.write(f"models/{REPO}/{COMMIT}/{path}", content) for path, content in CONTENT.items()}
    staged.write_record(bucket, staged.Record(MANIFEST, etags))
    store.requests.clear()
    return bucket


@pytest.fixture
def given(store: s3.Store, bucket: Bucket) -> dict[str, str]:
    return {"origin": str(bucket.place), "origin_endpoint": store.url, "endpoint": "http://127.0.0.1:9"}


def test_a_host_fetches_from_the_store_and_a_second_run_asks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: s3.Store, given: dict[str, str]
) -> None:
    host = Host(tmp_path, monkeypatch, **given)
    store.fail("GET *model-1*Signature*", cut=1_000_000, times=1)
    store.fail("GET *config.json*Signature*", status=503, code="SlowDown", headers={"Retry-After": "0"}, times=1)
    host._task.check_mode = True
    would = host.fetch()
    assert would["changed"] and would["missing_bytes"] > 3_000_000 and not host.hf_home.exists()
    host._task.check_mode = False
    done = host.fetch()
    assert done["changed"] and done["files"] == len(CONTENT)
    host.require_whole()
    host.require_no_secret()
    ranges = [one.headers.get("Range") for one in store.asked("GET *model-1*Signature*")]
    assert ranges == [None, "bytes=1000000-"]
    assert len(store.asked("GET *same%20as*Signature*") + store.asked("GET *model-2*Signature*")) == 1, (
        "one content, once"
    )
    # Whoever fetched had no key: the address was all.
    assert not any("Authorization" in one.headers for one in store.asked("GET *Signature*"))
    store.requests.clear()
    assert host.fetch()["changed"] is False
    assert store.requests == []


def test_a_host_is_given_addresses_of_where_the_bucket_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: s3.Store, given: dict[str, str]
) -> None:
    with s3.in_front(store) as front:
        host = Host(tmp_path, monkeypatch, **{**given, "origin_endpoint": front.url})
        host.fetch()
        host.require_whole()
        assert not front.asked("*Signature*") and store.asked("*Signature*")


def test_a_store_may_send_on_to_an_address_of_its_own(tmp_path: Path, store: s3.Store, bucket: Bucket) -> None:
    there = bucket.sign([f"models/{REPO}/{COMMIT}/config.json"], 300).popitem()[1]
    store.fail("GET *config.json*", status=307, headers={"Location": there}, times=1)
    kept, download = of_host(tmp_path, bucket, [])
    download.bring([file for file in MANIFEST.files if file.path == "config.json"])
    assert "config.json" not in {file.path for file in kept.missing(MANIFEST)}


def test_addresses_that_expire_meanwhile_are_signed_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: s3.Store, given: dict[str, str]
) -> None:
    host = Host(tmp_path, monkeypatch, **given, address_seconds=60, retry_seconds=20)
    # The first answer breaks off, and by then the store takes the address no more.
    store.fail("GET *model-1*Signature*", cut=1_000_000, times=1)
    store.fail("GET *model-1*Signature*", status=403, code="AccessDenied", text="Request has expired", times=1)
    done = host.fetch()
    host.require_whole()
    host.require_no_secret()
    given_with = [phase for phase, addresses in host.phases if addresses]
    assert given_with[0] == "start" and "status" in given_with
    assert any("sign addresses anew" in event for event in done["events"])


def of_host(folder: Path, bucket: Bucket, slept: list[float]) -> tuple[Store, Download]:
    """What brings files from the store; its waits take no time, and are kept."""
    path = folder / "addresses.json"
    path.write_text(json.dumps(Origin(bucket.place, REPO, COMMIT, 600).addresses()), "utf-8")
    kept = Store(folder, REPO)
    download = Download(kept, ObjectStore(Addresses(path)), COMMIT, 4, 1.0, 30.0, lambda _text: None)
    download._sleep = slept.append  # type: ignore[method-assign]
    return kept, download


@pytest.mark.parametrize("fault", [{"status": 500, "code": "InternalError"}, {"cut": 0}])
def test_a_store_that_never_gives_a_byte_is_given_up(
    tmp_path: Path, store: s3.Store, bucket: Bucket, fault: dict[str, Any]
) -> None:
    store.fail("GET *config.json*", **fault)
    slept: list[float] = []
    _kept, download = of_host(tmp_path, bucket, slept)
    with pytest.raises(SourceError, match="4 times in a row") as caught:
        download.bring([file for file in MANIFEST.files if file.path == "config.json"])
    assert (caught.value.kind, slept) == ("attempts", [1, 2, 4])
    assert ADDRESS not in str(caught.value)


def test_addresses_that_are_refused_however_often_they_are_signed_end_the_fetch(tmp_path: Path) -> None:
    """Whoever signs may have lost the right to: new addresses are no end of it."""

    class Refusing:
        signed = 0

        @property
        def expires(self) -> float:
            self.signed += 1
            return float(self.signed)

        def open(self, _file: WeightFile, _offset: int) -> Any:
            raise Expired("the signed address has expired")

        def why(self, _error: Exception, _file: WeightFile) -> str:
            raise AssertionError

    download = Download(Store(tmp_path, REPO), Refusing(), COMMIT, 4, 1.0, 30.0, lambda _text: None)
    with pytest.raises(SourceError, match="has expired, 4 times in a row") as caught:
        download.bring([file for file in MANIFEST.files if file.path == "config.json"])
    assert caught.value.kind == "expired"


@pytest.mark.parametrize(("asked", "waits"), [({}, 5), ({"Retry-After": "29"}, 29)])
def test_a_store_that_is_busy_is_waited_for_as_it_asks(
    tmp_path: Path, store: s3.Store, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, asked: dict[str, str], waits: int
) -> None:
    store.fail("GET *config.json*", status=503, code="SlowDown", headers=asked)
    _kept, download = of_host(tmp_path, bucket, [])
    now = [1000.0]
    clock = SimpleNamespace(**{**vars(time), "monotonic": lambda: now[0]})
    monkeypatch.setattr("ansible_collections.glm.fleet.plugins.module_utils.weights.download.time", clock)
    download._sleep = lambda seconds: now.__setitem__(0, now[0] + seconds)  # type: ignore[method-assign]
    with pytest.raises(SourceError, match=rf"answered 503 \(SlowDown\), and asks to wait {waits} s more") as caught:
        download.bring([file for file in MANIFEST.files if file.path == "config.json"])
    assert caught.value.kind == "rate_limited"
    # All the time that a busy store may have, and no more.
    assert 30 - waits <= now[0] - 1000 <= 30
    assert ADDRESS not in str(caught.value)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"status": 403, "code": "AccessDenied", "text": "Access Denied"}, "the right s3:GetObject"),
        ({"status": 404, "code": "NoSuchKey"}, "Run stage.yml"),
        (
            {"status": 400, "code": "AuthorizationQueryParametersError", "region": "eu-west-1"},
            r"\(AuthorizationQueryParametersError\), which expects the region eu-west-1\. Set glm_store_region",
        ),
        (
            # The controller's key pair is of a session that ends before the addresses.
            {"status": 400, "code": "ExpiredToken"},
            r"the signed address has expired(?:, 3 times in a row)?.* outlives weights_address_seconds",
        ),
        ({"status": 307, "code": "TemporaryRedirect"}, r"answered 307 \(TemporaryRedirect\)\. Set glm_store_region"),
        (
            # With the address as it was signed, and without what makes it a secret.
            {"status": 307, "code": "TemporaryRedirect", "headers": {"Location": "http://127.0.0.1:9{path}"}},
            r"\(TemporaryRedirect\), and sends to http://127\.0\.0\.1:9\. Set glm_store_region",
        ),
    ],
)
def test_what_the_store_refuses_a_host_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: s3.Store, given: dict[str, str],
    fault: dict[str, Any], words: str,
) -> None:  # fmt: skip
    host = Host(tmp_path, monkeypatch, **given, download_workers=1)
    store.fail("GET *config.json*Signature*", **fault)
    with pytest.raises(Failed, match=words):
        host.fetch()
    host.require_no_secret()


def test_what_is_complete_counts_as_there_though_another_file_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: s3.Store, given: dict[str, str]
) -> None:
    host = Host(tmp_path, monkeypatch, **given, download_workers=1)
    store.fail("GET *config.json*Signature*", status=500, code="InternalError")
    with pytest.raises(Failed, match=r"config\.json"):
        host.fetch()
    # One worker takes the largest first, so that only what comes after may be missing too.
    kept = Store(host.hf_home, REPO)
    assert {file.path for file in kept.missing(MANIFEST)} - {"empty.txt"} == {"config.json"}


def test_a_store_with_other_content_is_no_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bucket: Bucket, given: dict[str, str]
) -> None:
    # As staged by the record, and wrong all the same: only the host's own hash shows it.
    etags = {path: bucket.write(f"models/{REPO}/{COMMIT}/{path}", content) for path, content in CONTENT.items()}
    etags["config.json"] = bucket.write(f"models/{REPO}/{COMMIT}/config.json", b'{"a": 2}')
    staged.write_record(bucket, staged.Record(MANIFEST, etags))
    host = Host(tmp_path, monkeypatch, **given)
    with pytest.raises(Failed, match=r"config\.json: expected git-sha1:.*run stage\.yml"):
        host.fetch()
    host.require_no_secret()


def test_before_anything_is_started_a_store_without_the_weights_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: s3.Store, bucket: Bucket, given: dict[str, str]
) -> None:
    host = Host(tmp_path, monkeypatch, **given)
    store.direct.delete_object(Bucket=s3.BUCKET, Key=f"models/{REPO}/{COMMIT}/config.json")
    with pytest.raises(QuotingError, match=r"1 of 5 files .* absent or .*: config\.json\. Next: run stage\.yml"):
        host.fetch()
    host.lock_file.write_text("models: {}", "utf-8")
    with pytest.raises(QuotingError, match=r"found none in the lock file .*Next: run stage\.yml"):
        host.fetch()
    host.lock_file.write_text(yaml.safe_dump({"models": {f"{REPO}@main": {"commit": COMMIT}}}), "utf-8")
    with pytest.raises(QuotingError, match="expected manifest_sha256 of zai-org/Tiny@main"):
        host.fetch()
    assert not any(command[0] == "systemd-run" for command in host.commands)


def test_pickles_that_an_earlier_staging_left_are_neither_fetched_nor_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: s3.Store, bucket: Bucket, given: dict[str, str]
) -> None:
    content = {**CONTENT, "optimizer.pt": b"p" * 500}
    manifest = Manifest(REPO, COMMIT, tuple(listed(path, one) for path, one in sorted(content.items())))
    etags = {path: bucket.write(f"models/{REPO}/{COMMIT}/{path}", one) for path, one in content.items()}
    staged.write_record(bucket, staged.Record(manifest, etags))
    bucket.write(f"models/{REPO}/{COMMIT}/optimizer.pt", b"changed")
    host = Host(tmp_path, monkeypatch, **given)
    entry = {"commit": COMMIT, "manifest_sha256": manifest.sha256}
    host.lock_file.write_text(yaml.safe_dump({"models": {f"{REPO}@main": entry}}), "utf-8")
    assert host.fetch()["files"] == len(CONTENT)
    host.require_whole()
    assert not store.asked("*optimizer.pt*Signature*")
    host._args["allow_unsafe"] = True
    with pytest.raises(QuotingError, match=r"1 of 6 files .* absent or changed since: optimizer\.pt"):
        host.fetch()


def test_the_file_with_the_addresses_is_the_owners_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, str]
) -> None:
    host = Host(tmp_path, monkeypatch, **given)
    seen: list[int] = []
    run = host._run

    def look(command: list[str]) -> tuple[int, str, str]:
        if command[0] == "systemd-run":
            seen.extend(stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "run").rglob("*addresses*"))
        return run(command)

    host._run = look  # type: ignore[method-assign]
    host.fetch()
    assert seen == [0o600]


def _busy(*_given: object) -> dict[str, str]:
    raise StoreError("busy", "to sign addresses", "503", "run again later")


def test_addresses_are_due_after_half_their_time_and_when_the_host_says_so(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    origin = Origin(bucket.place, REPO, COMMIT, 600, now=lambda: now[0])
    assert origin.due({})
    made = origin.addresses()
    assert made["expires"] == 1600 and set(made["addresses"]) == set(CONTENT)
    now[0] = 1299.0
    assert not origin.due({"error_kind": ""}) and origin.due({"error_kind": "expired"})
    now[0] = 1301.0
    assert origin.due({})
    # A store that does not answer now is asked again, not after half the time of addresses that were never made.
    monkeypatch.setattr(staged, "addresses", _busy)
    with pytest.raises(StoreError):
        origin.addresses()
    assert origin.due({})
    for seconds in (0, 59, 604_801):
        with pytest.raises(QuotingError, match="weights_address_seconds"):
            Origin(bucket.place, REPO, COMMIT, seconds)
