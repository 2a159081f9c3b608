"""The lock file and what starts reported, in a kept S3 server over HTTP that several machines share."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.cloud import shared
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import disks, lockfile, starts
from ansible_collections.glm.fleet.plugins.plugin_utils.store import state
from ansible_collections.glm.fleet.plugins.plugin_utils.store.errors import StoreError
from tests.playbooks.store import s3

DIGEST, OTHER = ("sha256:" + letter * 64 for letter in "ab")
ROOT = Path(__file__).parents[3]
ADDRESS = f"s3://{s3.BUCKET}/fleets/blue"
LOCK = "/weights/fleets/blue/glm.lock.yml"


@pytest.fixture(autouse=True)
def store_of_state(store: s3.Store, monkeypatch: pytest.MonkeyPatch) -> s3.Store:
    monkeypatch.setenv(shared.ENVIRONMENT, "")
    state.use(ADDRESS, store.url)
    return store


@pytest.fixture
def machines(tmp_path: Path) -> list[Path]:
    """The lock files of two checkouts that have nothing but the store in common."""
    return [tmp_path / name / "glm.lock.yml" for name in ("one", "two")]


def add(path: Path, tag: str, digest: str = DIGEST) -> bool:
    with lockfile.locked(path) as lock:
        lock.data["images"][f"a/b:{tag}"] = {"digest": digest}
        return lock.save()


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / ".collections")}


def images(path: Path) -> dict[str, Any]:
    return {key.partition(":")[2]: entry["digest"] for key, entry in lockfile.read(path)["images"].items()}


def test_what_one_machine_resolves_the_other_reads_and_nothing_lies_on_their_disks(
    store_of_state: s3.Store, machines: list[Path]
) -> None:
    one, two = machines
    assert images(one) == {}
    assert add(one, "1") and not add(one, "1")
    assert add(two, "2")
    assert images(one) == images(two) == {"1": DIGEST, "2": DIGEST}
    assert not one.exists() and not two.exists()
    text = store_of_state.direct.get_object(Bucket=s3.BUCKET, Key="fleets/blue/glm.lock.yml")["Body"].read().decode()
    assert text.startswith(lockfile.HEADER)
    two.write_text(text, "utf-8")
    state.use("")
    assert images(two) == {"1": DIGEST, "2": DIGEST}, "the same form: it can be downloaded, and kept in git"
    assert images(one) == {}


def test_without_a_store_nothing_of_it_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from ansible_collections.glm.fleet.plugins.plugin_utils.plan import lockfile\n"
        "with lockfile.locked(Path(sys.argv[1])) as lock:\n    lock.save()\n"
        "assert not any(name.startswith('boto') for name in sys.modules), sorted(sys.modules)\n"
    )
    state.use("")
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "glm.lock.yml")], env=environment(), check=True)


def test_a_lock_file_of_before_is_brought_along_and_what_it_says_otherwise_is_refused(machines: list[Path]) -> None:
    one, two = machines
    state_of, mine = os.environ.pop(shared.ENVIRONMENT), {"old": DIGEST}
    add(one, "old")
    os.environ[shared.ENVIRONMENT] = state_of
    assert images(one) == mine and images(two) == {}, "a plan obeys it before anything is written"
    assert add(one, "new")
    assert images(two) == {"old": DIGEST, "new": DIGEST}
    one.write_text(one.read_text("utf-8").replace(DIGEST, OTHER), "utf-8")
    for act in (lambda: lockfile.read(one), lambda: add(one, "newer")):
        with pytest.raises(lockfile.LockFileError) as caught:
            act()
        text = str(caught.value)
        assert str(one) in text and f"{ADDRESS}/glm.lock.yml disagree about 'a/b:old'" in text
        assert f"the file has digest {OTHER}, the store {DIGEST}" in text
    assert images(two) == {"old": DIGEST, "new": DIGEST}


def test_what_a_person_uploaded_keeps_its_form_until_there_is_something_to_add(
    store_of_state: s3.Store, machines: list[Path]
) -> None:
    written = f"images:\n  a/b:1: {{digest: '{DIGEST}'}}\n# ours\n".encode()
    store_of_state.direct.put_object(Bucket=s3.BUCKET, Key="fleets/blue/glm.lock.yml", Body=written)
    assert not add(machines[0], "1")
    assert store_of_state.direct.get_object(Bucket=s3.BUCKET, Key="fleets/blue/glm.lock.yml")["Body"].read() == written
    assert add(machines[0], "2") and images(machines[1]) == {"1": DIGEST, "2": DIGEST}


WRITER = """
import sys
from pathlib import Path
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import lockfile
for number in range(20):
    with lockfile.locked(Path(sys.argv[1]) / "glm.lock.yml") as lock:
        lock.data["images"][f"{sys.argv[2]}:{number}"] = {"digest": "sha256:" + "c" * 64}
        assert lock.save()
"""


def test_of_many_writers_on_many_machines_none_loses_an_entry(store_of_state: s3.Store, tmp_path: Path) -> None:
    names = "abcd"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / name), name], env=environment())
        for name in names
    ]
    assert [writer.wait() for writer in writers] == [0] * len(names)
    found = set(lockfile.read(tmp_path / "glm.lock.yml")["images"])
    assert found == {f"{name}:{number}" for name in names for number in range(20)}
    refused = [one for one in store_of_state.asked(f"PUT {LOCK}*") if one.status == 412]
    print(f"{len(refused)} writes were overtaken")


def test_two_that_resolve_one_tag_at_the_same_time_agree_or_are_told(machines: list[Path]) -> None:
    one, two = machines
    with lockfile.locked(one) as lock:
        lock.data["images"]["a/b:1"] = {"digest": DIGEST, "resolved_at": "2026-12-01T12:00:00Z"}
        lock.data["images"]["a/b:2"] = {"digest": DIGEST}
        add(two, "1")
        assert lock.save() and images(two) == {"1": DIGEST, "2": DIGEST}
        lock.data["images"]["a/b:3"] = {"digest": DIGEST}
        add(two, "3", OTHER)
        with pytest.raises(lockfile.LockFileError, match=f"{ADDRESS}/glm.lock.yml: two runs resolved 'a/b:3'"):
            lock.save()
    assert images(one)["3"] == OTHER


@pytest.mark.parametrize("status", [412, 409])
def test_a_write_that_was_overtaken_is_made_again(store_of_state: s3.Store, machines: list[Path], status: int) -> None:
    add(machines[0], "1")
    code = {412: "PreconditionFailed", 409: "ConditionalRequestConflict"}[status]
    store_of_state.fail(f"PUT {LOCK}*", status=status, code=code, times=3)
    assert add(machines[0], "2") and images(machines[1]) == {"1": DIGEST, "2": DIGEST}


def test_one_that_is_always_overtaken_says_so(
    store_of_state: s3.Store, machines: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "CHANGE_SECONDS", 0.1)
    store_of_state.fail(f"PUT {LOCK}*", status=412, code="PreconditionFailed")
    with pytest.raises(StoreError, match=r"to write s3://.*/glm.lock.yml, found that others wrote it in each of"):
        add(machines[0], "1")


@pytest.mark.parametrize("there", [False, True])
def test_a_lost_answer_of_a_write_that_was_made_is_found_to_be_ones_own(
    store_of_state: s3.Store, machines: list[Path], there: bool
) -> None:
    if there:
        add(machines[0], "0")
    fault = store_of_state.fail(f"PUT {LOCK}*", lost=True, times=1)
    assert add(machines[0], "1") and fault.times == 0
    assert images(machines[1]) == ({"0": DIGEST, "1": DIGEST} if there else {"1": DIGEST})
    assert [one.status for one in store_of_state.asked(f"PUT {LOCK}*")][-2:] == [0, 412]


@pytest.mark.parametrize("ignored", [("if-none-match",), ("if-match",), ("if-none-match", "if-match")])
def test_a_store_without_conditional_writes_is_refused_before_anything_is_written(
    store_of_state: s3.Store, machines: list[Path], ignored: tuple[str, ...]
) -> None:
    store_of_state.fail("PUT *", strip=ignored)
    with pytest.raises(StoreError, match="to refuse a write whose condition is not met") as caught:
        add(machines[0], "1")
    assert ADDRESS in str(caught.value) and "glm_state_store" in str(caught.value)
    assert store_of_state.asked(f"PUT {LOCK}*") == []


def test_a_store_that_does_not_know_conditions_is_refused_too(store_of_state: s3.Store, machines: list[Path]) -> None:
    store_of_state.fail("PUT *", status=501, code="NotImplemented", text="A header you provided implies functionality")
    with pytest.raises(StoreError, match="NotImplemented"):
        add(machines[0], "1")
    assert store_of_state.asked(f"PUT {LOCK}*") == []


def test_the_promise_is_proven_once_in_a_process(store_of_state: s3.Store, machines: list[Path]) -> None:
    for number in range(3):
        add(machines[0], str(number))
    assert [one.status for one in store_of_state.asked("PUT */.conditional-write*")] == [200, 412, 412]


TROUBLES = [
    ({"status": 503, "code": "SlowDown"}, "SlowDown from s3://weights/fleets/blue in each of several attempts"),
    ({"status": 403, "code": "AccessDenied"}, "give the key pair the right s3:GetObject on s3://weights/fleets/blue"),
    ({"status": 403, "code": "InvalidAccessKeyId"}, "set AWS_PROFILE"),
    ({"status": 404, "code": "NoSuchBucket"}, "make the bucket, or correct its name and glm_store_endpoint"),
    ({"status": 404, "page": b"<html><body>no such page</body></html>"}, "correct glm_store_endpoint"),
    ({"status": 404, "page": b"-"}, ""),
    ({"status": 200, "page": b"<html>login</html>"}, "an answer that is not a store's from http"),
    ({"cut": 20}, ""),
]  # fmt: skip


@pytest.mark.parametrize(("trouble", "words"), TROUBLES, ids=lambda value: str(value)[:40])
def test_a_store_that_does_not_say_what_it_has_is_never_an_empty_lock_file(
    store_of_state: s3.Store, machines: list[Path], trouble: dict[str, Any], words: str
) -> None:
    add(machines[0], "1")
    fault = store_of_state.fail(f"GET {LOCK}*", **trouble)
    for act in (lambda: images(machines[1]), lambda: add(machines[1], "2")):
        with pytest.raises((Unmet, lockfile.LockFileError)) as caught:
            act()
        assert words in str(caught.value) and f"{ADDRESS}/glm.lock.yml" in str(caught.value)
        assert not any(secret in str(caught.value) for secret in s3.KEY_PAIR.values())
    store_of_state.faults.remove(fault)
    assert images(machines[1]) == {"1": DIGEST}


def test_a_store_that_cannot_be_reached_is_never_an_empty_lock_file(machines: list[Path]) -> None:
    state.use(ADDRESS, "http://127.0.0.1:9")
    for act in (lambda: images(machines[0]), lambda: add(machines[0], "1"), lambda: starts.read(machines[0])):
        with pytest.raises(StoreError) as caught:
            act()
        assert caught.value.kind == "unreachable" and "127.0.0.1 port 9 refuses" in str(caught.value)


def test_an_empty_object_is_no_lock_file(store_of_state: s3.Store, machines: list[Path]) -> None:
    store_of_state.direct.put_object(Bucket=s3.BUCKET, Key="fleets/blue/glm.lock.yml", Body=b"")
    with pytest.raises(lockfile.LockFileError, match=r"glm\.lock\.yml, line 1: it is empty"):
        images(machines[0])


def test_a_key_pair_that_may_only_read_plans_and_is_told_at_the_first_write(
    store_of_state: s3.Store, machines: list[Path]
) -> None:
    add(machines[0], "1")
    state._state.cache_clear()
    store_of_state.fail("PUT *", status=403, code="AccessDenied", text="Access Denied")
    assert images(machines[1]) == {"1": DIGEST}
    with pytest.raises(StoreError, match="s3:PutObject"):
        add(machines[1], "2")


def test_starts_of_two_machines_are_kept_side_by_side(
    store_of_state: s3.Store, machines: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starts, "taken", lambda _plan, _pool: 1.5)
    plan: Any = {"memory": {"configuration": "c"}, "replica": 0, "contract": {"context_length": 8}}
    threads = [
        threading.Thread(
            target=starts.keep, args=(machines[number % 2], plan, f"h{number}", 100, "2026-12-01T12:00:00Z")
        )
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(starts.read(machines[0])["c"]) == {f"h{number}/0" for number in range(8)}
    assert not starts.keep(machines[1], plan, "h1", 100, "2026-12-01T13:00:00Z"), "nothing new"
    store_of_state.direct.put_object(Bucket=s3.BUCKET, Key="fleets/blue/glm.starts.json", Body=b'{"schema": 9}')
    with pytest.raises(Unmet, match=r"fleets/blue/glm.starts.json, found a file of another form"):
        starts.read(machines[0])


def test_disks_of_two_machines_are_kept_side_by_side(store_of_state: s3.Store, machines: list[Path]) -> None:
    found: disks.HostDisk = {
        "hf_home": "/srv/glm/huggingface", "device": "nvme0n1", "filesystem": "ext4", "kind": "nvme",
        "read_mb_s": 3000.0, "measured_at": "2026-12-01T12:00:00Z", "memory_gib": 512.0,
    }  # fmt: skip
    assert disks.keep(machines[0], "h1", found) and disks.keep(machines[1], "h2", found)
    assert disks.KEPT.read(machines[1]) == disks.KEPT.read(machines[0]) == {"h1": found, "h2": found}
    assert not disks.keep(machines[1], "h1", found), "nothing new"
    assert not disks.KEPT.path_of(machines[0]).exists()
    store_of_state.direct.put_object(Bucket=s3.BUCKET, Key="fleets/blue/glm.disks.json", Body=b'{"schema": 9}')
    with pytest.raises(Unmet, match=r"fleets/blue/glm.disks.json, found a file of another form"):
        disks.of_host(machines[0], "h1")
