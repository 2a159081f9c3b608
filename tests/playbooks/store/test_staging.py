"""Weights streamed from the hub simulator into a kept S3 server, with the troubles of both."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.finding import QuotingError
from ansible_collections.glm.fleet.plugins.module_utils.weights.hub import HubClient
from ansible_collections.glm.fleet.plugins.module_utils.weights.store import Manifest
from ansible_collections.glm.fleet.plugins.plugin_utils.store import bucket as buckets
from ansible_collections.glm.fleet.plugins.plugin_utils.store import staged, staging
from ansible_collections.glm.fleet.plugins.plugin_utils.store.bucket import Bucket, place
from ansible_collections.glm.fleet.plugins.plugin_utils.store.errors import StoreError
from simulator.hub import Hub
from tests.playbooks.store import s3

REPO = "zai-org/Tiny"
MIB = 2**20
CONTENT = {
    "config.json": b'{"a": 1}',
    "empty.txt": b"",
    # Over two parts and a bit, with a size that no buffer divides.
    "model-1.safetensors": os.urandom(64) * (12 * MIB // 64) + b"end",
    "model-2.safetensors": os.urandom(64) * (8 * MIB // 64),
}
# What hosts leave out.
UNSAFE = {"modeling_tiny.py": b"import os", "optimizer.pt": os.urandom(64) * 200}
BIG = f"{REPO}/model-1.safetensors"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repos")
    for name, content in {**CONTENT, **UNSAFE}.items():
        path = root / REPO / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


@pytest.fixture
def hub(root: Path) -> Iterator[Hub]:
    with Hub(root) as hub:
        yield hub


class Bench:
    """A hub, a store, and runs between them with buffers as small as S3 allows."""

    def __init__(self, hub: Hub, store: s3.Store) -> None:
        self.hub, self.store = hub, store
        self.client = HubClient(hub.url, sleep=lambda _seconds: None)
        self.bucket = Bucket(place(f"s3://{s3.BUCKET}/models", store.url))
        self.manifest = self.client.manifest(REPO, self.client.resolve(REPO, "main"))
        self.events: list[str] = []
        self.total = sum(map(len, CONTENT.values()))

    def run(self, unsafe: bool = False) -> list[str]:
        """Stage what is missing; the paths that were."""
        record = staged.read_record(self.bucket, REPO, self.manifest.commit) or staged.Record(self.manifest)
        files = staged.missing(self.bucket, record, unsafe)
        waits: list[float] = []
        total = sum(file.size for file in self.manifest.wanted(unsafe))
        run = staging.Staging(self.client, self.bucket, record, total, sleep=waits.append)
        try:
            run.run(files, lambda _progress: None)
        finally:
            self.events = run.progress.events
            self.done = run.progress.done_bytes
            self.waits = waits
        return [file.path for file in files]

    def content(self, path: str) -> bytes | None:
        key = f"models/{REPO}/{self.manifest.commit}/{path}"
        return self.store.direct.get_object(Bucket=s3.BUCKET, Key=key)["Body"].read()

    @property
    def keys(self) -> set[str]:
        below = f"models/{REPO}/{self.manifest.commit}/"
        return {key.removeprefix(below) for key in self.bucket.objects(below)}

    def complete(self, unsafe: bool = False) -> Manifest:
        return staged.complete(self.bucket, REPO, self.manifest.commit, unsafe)

    def require_whole(self) -> None:
        assert self.complete() == self.manifest
        assert {name: hashlib.sha256(self.content(name) or b"").digest() for name in CONTENT} == {
            name: hashlib.sha256(content).digest() for name, content in CONTENT.items()
        }
        assert self.bucket.unfinished("") == []


@pytest.fixture
def bench(hub: Hub, store: s3.Store, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(staging, "BUFFER_BYTES", 5 * MIB)
    return Bench(hub, store)


def test_weights_are_streamed_hashed_and_recorded_and_a_second_run_moves_nothing(bench: Bench) -> None:
    with pytest.raises(StoreError, match="no record that they were staged"):
        bench.complete()
    assert sorted(bench.run()) == sorted(CONTENT)
    bench.require_whole()
    assert bench.done == bench.total
    bench.hub.requests.clear()
    bench.store.requests.clear()
    assert bench.run() == []
    assert bench.hub.requests == []
    assert [one.method for one in bench.store.requests if one.sent > 10_000] == []
    # Hosts fetch what was hashed, and nothing else that is called so.
    key = f"models/{REPO}/{bench.manifest.commit}/config.json"
    bench.store.direct.put_object(Bucket=s3.BUCKET, Key=key, Body=b'{"a": 2}')
    with pytest.raises(StoreError, match=r"1 of 4 files \(8 bytes\) absent or changed since: config.json"):
        bench.complete()
    assert bench.run() == ["config.json"]
    bench.require_whole()


def test_what_runs_code_is_staged_only_when_asked_for_and_is_no_damage_where_it_was(bench: Bench) -> None:
    assert sorted(bench.run()) == sorted(CONTENT)
    assert bench.keys == set(CONTENT) and bench.done == bench.total
    assert not [one for one in bench.hub.downloads() if one.target.removeprefix(f"{REPO}/") in UNSAFE]
    with pytest.raises(StoreError, match=r"2 of 6 files .* absent or changed since: modeling_tiny\.py, optimizer\.pt"):
        bench.complete(unsafe=True)
    assert sorted(bench.run(unsafe=True)) == sorted(UNSAFE)
    assert bench.complete(unsafe=True) == bench.complete() == bench.manifest
    # Left there, changed or gone: whoever leaves it out does not look at it, sign it or drop what the record says.
    bench.bucket.write(f"models/{REPO}/{bench.manifest.commit}/optimizer.pt", b"something else")
    assert bench.run() == []
    assert set(staged.addresses(bench.bucket, bench.complete(), False, 60)) == set(CONTENT)
    assert bench.run(unsafe=True) == ["optimizer.pt"]
    assert set(staged.addresses(bench.bucket, bench.complete(True), True, 60)) == {*CONTENT, *UNSAFE}


def test_a_stream_that_breaks_goes_on_where_it_broke(bench: Bench) -> None:
    bench.hub.fail(BIG, "truncate", after_bytes=7 * MIB, times=1)
    bench.hub.fail(f"{REPO}/model-2.safetensors", "status", status=503, retry_after=7, times=1)
    bench.run()
    bench.require_whole()
    ranges = [one.range for one in bench.hub.downloads() if one.target == BIG]
    assert ranges[0] is None and ranges[1:] == [f"bytes={7 * MIB}-"]
    assert any("the answer ended early; going on at byte" in text for text in bench.events)
    assert 7.0 in bench.waits


def test_a_file_that_is_wrong_once_is_fetched_again_and_one_that_stays_wrong_makes_no_object(bench: Bench) -> None:
    bench.hub.fail(BIG, "corrupt", times=1)
    bench.run()
    bench.require_whole()
    assert any("fetching it again" in text for text in bench.events)
    assert bench.done == bench.total
    bench.store.direct.delete_object(Bucket=s3.BUCKET, Key=f"models/{REPO}/{bench.manifest.commit}/model-1.safetensors")
    bench.hub.fail(BIG, "corrupt", times=2)
    with pytest.raises(QuotingError, match="fetched twice, found sha256:"):
        bench.run()
    assert "model-1.safetensors" not in bench.keys and bench.bucket.unfinished("") == []


def test_what_is_complete_stays_when_a_run_fails_and_the_next_one_goes_on(bench: Bench) -> None:
    fault = bench.store.fail("PUT *model-1*partNumber=3*", status=403, code="AccessDenied")
    with pytest.raises(StoreError, match="the right s3:PutObject") as caught:
        bench.run()
    assert caught.value.kind == "forbidden" and bench.bucket.unfinished("") == []
    bench.store.faults.remove(fault)
    assert "model-1.safetensors" in bench.run()
    bench.require_whole()
    assert len([one for one in bench.hub.downloads() if one.target == f"{REPO}/config.json"]) == 1


def test_a_store_that_is_busy_slows_a_run_down_and_does_not_end_it(bench: Bench) -> None:
    bench.store.fail("PUT *partNumber=*", status=503, code="SlowDown", times=3)
    bench.run()
    bench.require_whole()


@pytest.mark.parametrize("cut", [0, 20])
def test_an_object_whose_completion_was_not_heard_of_is_there(bench: Bench, cut: int) -> None:
    # The answer is lost on its way, and to the second question the store knows no such upload.
    bench.store.fail("POST *model-1*uploadId=*", cut=cut, times=1)
    bench.store.fail("POST *model-1*uploadId=*", status=404, code="NoSuchUpload")
    bench.run()
    bench.require_whole()
    assert len([one for one in bench.hub.downloads() if one.target == BIG]) == 1


@pytest.mark.parametrize("old", [None, b"short", CONTENT["model-1.safetensors"]])
def test_an_upload_that_somebody_aborted_is_none_whatever_was_there_before(bench: Bench, old: bytes | None) -> None:
    key = f"models/{REPO}/{bench.manifest.commit}/model-1.safetensors"
    if old is not None:
        bench.store.direct.put_object(Bucket=s3.BUCKET, Key=key, Body=old)
    bench.store.fail("POST *model-1*uploadId=*", status=404, code="NoSuchUpload")
    with pytest.raises(StoreError, match="aborted by somebody else"):
        bench.run()
    with pytest.raises(StoreError, match=r"model-1\.safetensors"):
        bench.complete()


def test_a_store_may_take_its_time_to_make_an_object_of_its_parts(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets, "READ_SECONDS", 1)
    bucket = Bucket(bench.bucket.place)
    upload = bucket.begin("models/a")
    etags = {1: bucket.part("models/a", upload, 1, bytearray(b"x"))}
    bench.store.delay = 1.5
    bucket.complete("models/a", upload, etags)
    assert len(bench.store.asked("POST *uploadId=*")) == 1


def test_uploads_that_a_killed_run_left_are_dropped(bench: Bench) -> None:
    key = f"models/{REPO}/{bench.manifest.commit}/model-1.safetensors"
    left, others = bench.bucket.begin(key), bench.bucket.begin("models/other/thing")
    bench.bucket.part(key, left, 1, bytearray(10))
    bench.run()
    assert "dropped 1 unfinished uploads of an earlier run" in bench.events
    assert bench.bucket.unfinished("") == [("models/other/thing", others)]


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data["manifest"]["files"][0].update(path="../../etc/cron.d/x"),
        lambda data: data["manifest"]["files"][0].update(blob_id="x"),
        lambda data: data["manifest"].update(commit="0" * 40),
        lambda data: data.update(schema=99),
        lambda data: data.update(etags=[1]),
        lambda data: data["manifest"]["files"].append("x"),
    ],
)
def test_a_record_that_cannot_be_right_is_refused(bench: Bench, change: object) -> None:
    staged.write_record(bench.bucket, staged.Record(bench.manifest))
    key = f"models/{REPO}/{bench.manifest.commit}.glm.json"
    data = json.loads(bench.bucket.read(key, 10**6) or b"")
    change(data)  # type: ignore[operator]
    bench.bucket.write(key, json.dumps(data).encode())
    with pytest.raises(StoreError, match=r"remove that object and run stage\.yml"):
        bench.complete()
