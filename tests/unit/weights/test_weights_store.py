"""Weights on disk: what is missing, what is wrong, what is recorded."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.finding import QuotingError
from ansible_collections.glm.fleet.plugins.module_utils.weights import fetch
from ansible_collections.glm.fleet.plugins.module_utils.weights.store import (
    Damage,
    Manifest,
    Store,
    WeightFile,
    human_bytes,
    replaced_at,
)
from ansible_collections.glm.fleet.plugins.modules import model_weights

COMMIT = "c" * 40
LARGE = b"weights" * 1000
SMALL = b'{"a": 1}'


def lfs(path: str, content: bytes) -> WeightFile:
    return WeightFile(path, len(content), "b" * 40, hashlib.sha256(content).hexdigest())


def git(path: str, content: bytes) -> WeightFile:
    return WeightFile(path, len(content), hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest())


CONTENT = {"model.safetensors": LARGE, "sub/config.json": SMALL}
MANIFEST = Manifest("org/name", COMMIT, (lfs("model.safetensors", LARGE), git("sub/config.json", SMALL)))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path, "org/name")


def blob(store: Store, name: str) -> Path:
    etag = next(file.etag for file in MANIFEST.files if file.path == name)
    return store.folder / "blobs" / etag


def put(store: Store, name: str, content: bytes | None = None) -> None:
    """Write a file as the client does: a blob, and a link to it in the snapshot."""
    target = blob(store, name)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(CONTENT[name] if content is None else content)
    link = store.snapshot(COMMIT) / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(os.path.relpath(target, link.parent))


def put_all(store: Store) -> None:
    for name in CONTENT:
        put(store, name)


def verify(store: Store) -> list[Damage]:
    found = [store.check(file, COMMIT, lambda _count: None) for file in MANIFEST.files]
    return [damage for damage in found if damage is not None]


def test_manifest_round_trip_and_fingerprint() -> None:
    again = Manifest.from_json(MANIFEST.as_json())
    assert again == MANIFEST
    assert again.total_bytes == len(LARGE) + len(SMALL)
    shuffled = Manifest("org/name", COMMIT, tuple(reversed(MANIFEST.files)))
    assert shuffled.sha256 == MANIFEST.sha256
    other = Manifest("org/name", COMMIT, (MANIFEST.files[0], git("sub/config.json", b"{}")))
    assert other.sha256 != MANIFEST.sha256


def test_an_empty_disk_misses_everything(store: Store) -> None:
    assert [file.path for file in store.missing(MANIFEST)] == list(CONTENT)
    assert store.bytes_to_fetch(MANIFEST) == MANIFEST.total_bytes
    assert store.changed_since_record(COMMIT) is None


def test_complete_blobs_and_partial_files_are_not_counted_again(store: Store) -> None:
    put(store, "sub/config.json")
    (store.snapshot(COMMIT) / "sub/config.json").unlink()
    partial = blob(store, "model.safetensors")
    partial.with_name(partial.name + ".incomplete").write_bytes(LARGE[:3000])
    assert store.bytes_to_fetch(MANIFEST) == len(LARGE) - 3000
    assert store.begun(blob(store, "sub/config.json").name, len(SMALL)) == len(SMALL)
    partial.with_name(partial.name + ".incomplete").write_bytes(LARGE + b"too much")
    assert store.bytes_to_fetch(MANIFEST) == len(LARGE)


def test_two_files_of_one_content_are_fetched_once(store: Store) -> None:
    twins = Manifest("org/name", COMMIT, (lfs("a", LARGE), lfs("b", LARGE)))
    assert store.bytes_to_fetch(twins) == len(LARGE)


def test_right_files_verify(store: Store) -> None:
    put_all(store)
    seen: list[int] = []
    assert [store.check(file, COMMIT, seen.append) for file in MANIFEST.files] == [None, None]
    assert sum(seen) == MANIFEST.total_bytes


def test_pieces_of_any_length_are_hashed_to_the_end(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    # Past the page cache, the disk is read in blocks.
    monkeypatch.setattr("ansible_collections.glm.fleet.plugins.module_utils.weights.store._HASH_CHUNK_BYTES", 4096)
    put_all(store)
    assert verify(store) == []


def test_a_file_system_that_reads_through_memory_only_is_read_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def refuse(path: Path, flags: int, *more: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument", str(path))
        return opened(path, flags, *more)

    put_all(store)
    monkeypatch.setattr(os, "open", refuse)
    assert verify(store) == []
    put(store, "sub/config.json", b'{"a": 2}')
    assert [damage.path for damage in verify(store)] == ["sub/config.json"]


def test_what_runs_code_belongs_to_a_commit_only_when_asked_for(tmp_path: Path) -> None:
    names = ["model.safetensors", "a.BIN", "b.pt", "c.pkl", "modeling_x.py", "lib.so", "tokenizer.model", "README.md"]
    manifest = Manifest("org/name", COMMIT, tuple(git(name, b"x") for name in names))
    kept = [file.path for file in Store(tmp_path, "org/name").wanted(manifest)]
    assert kept == ["model.safetensors", "tokenizer.model", "README.md"]
    assert len(Store(tmp_path, "org/name", unsafe=True).wanted(manifest)) == len(names)
    manifest.require_data(unsafe=False)
    pickles = Manifest("org/name", COMMIT, (git("pytorch_model.bin", b"x"), git("config.json", b"x")))
    pickles.require_data(unsafe=True)
    with pytest.raises(QuotingError, match=r"org/name@.* are pickles, which run code .*glm_allow_unsafe_weights=true"):
        pickles.require_data(unsafe=False)


def test_wrong_short_and_absent_files_are_named(store: Store) -> None:
    put(store, "model.safetensors", b"X" + LARGE[1:])
    (damage, absent) = verify(store)
    assert damage.path == "model.safetensors"
    assert damage.expected == "sha256:" + hashlib.sha256(LARGE).hexdigest()
    assert damage.found == "sha256:" + hashlib.sha256(b"X" + LARGE[1:]).hexdigest()
    assert str(absent) == "sub/config.json: expected 8 bytes, found no file"
    put(store, "sub/config.json", b'{"a": 2}')
    put(store, "model.safetensors", LARGE[:-1])
    short, wrong = verify(store)
    assert str(short) == f"model.safetensors: expected {len(LARGE)} bytes, found {len(LARGE) - 1} bytes"
    assert wrong.expected.startswith("git-sha1:")


def test_files_of_the_wrong_size_are_removed_with_their_blobs(store: Store) -> None:
    put(store, "sub/config.json")
    put(store, "model.safetensors", LARGE[:100])
    assert [str(damage) for damage in store.remove_wrong_sizes(MANIFEST)] == [
        f"model.safetensors: expected {len(LARGE)} bytes, found 100 bytes"
    ]
    assert not blob(store, "model.safetensors").exists()
    assert not (store.snapshot(COMMIT) / "model.safetensors").is_symlink()
    assert blob(store, "sub/config.json").exists()
    # A blob of the wrong size without a link would be linked and taken for complete, too.
    blob(store, "model.safetensors").write_bytes(b"short")
    assert len(store.remove_wrong_sizes(MANIFEST)) == 1
    assert store.remove_wrong_sizes(MANIFEST) == []


def test_what_the_commit_does_not_have_is_damage(store: Store) -> None:
    put_all(store)
    store.write_record(MANIFEST)
    extra = store.snapshot(COMMIT) / "sub" / "generation_config.json"
    extra.write_text("{}")
    assert store.changed_since_record(COMMIT) == store.unlisted(MANIFEST)
    assert [damage.path for damage in store.remove_unlisted(MANIFEST)] == ["sub/generation_config.json"]
    assert store.changed_since_record(COMMIT) == []


def test_what_another_client_began_of_a_whole_blob_is_removed(store: Store) -> None:
    put_all(store)
    whole = blob(store, "model.safetensors")
    # huggingface_hub 2.x gives each try a name of its own, and continues none.
    parts = [whole.with_name(f"{whole.name}.0123abcd.incomplete"), whole.with_name(f"{whole.name}.incomplete")]
    foreign = whole.with_name(f"{'d' * 64}.0123abcd.incomplete")
    for path in (*parts, foreign):
        path.write_bytes(b"x" * 10)
    assert store.remove_leftovers(MANIFEST) == 20
    assert [path.exists() for path in (*parts, foreign, whole)] == [False, False, True, True]
    assert verify(store) == []


def test_a_record_keeps_when_files_were_replaced(store: Store) -> None:
    put_all(store)
    store.write_record(MANIFEST)
    assert files.read_json(store.record_path(COMMIT))["replaced_at"] == 0
    store.write_record(MANIFEST, replaced=True)
    at = files.read_json(store.record_path(COMMIT))["replaced_at"]
    assert at > 0
    store.write_record(MANIFEST)
    assert files.read_json(store.record_path(COMMIT))["replaced_at"] == at
    for broken in ("[1]", '"text"', '{"replaced_at": "soon"}', "{"):
        store.record_path(COMMIT).write_text(broken)
        assert replaced_at(store.record_path(COMMIT)) == 0
        store.write_record(MANIFEST)


def test_a_file_system_without_links_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put_all(store)

    def refuse(_link: Path, _target: str) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    with pytest.raises(OSError, match="the file system has no symbolic links") as caught:
        store.place(MANIFEST.files[0], COMMIT)
    assert caught.value.errno == errno.EOPNOTSUPP


def test_record_notices_later_changes(store: Store) -> None:
    put_all(store)
    store.write_record(MANIFEST)
    assert store.changed_since_record(COMMIT) == []
    record = store.read_record(COMMIT)
    assert record is not None and record[0] == MANIFEST
    path = blob(store, "model.safetensors")
    os.utime(path, ns=(1, 1))
    assert store.changed_since_record(COMMIT) == [
        Damage("model.safetensors", "the file that was verified", "one modified since")
    ]
    path.write_bytes(LARGE[:-1])
    blob(store, "sub/config.json").unlink()
    assert [damage.found for damage in store.changed_since_record(COMMIT) or []] == [
        f"{len(LARGE) - 1} bytes",
        "no file",
    ]
    store.forget(COMMIT)
    assert store.changed_since_record(COMMIT) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 99}', '{"schema": 1}', '{"schema": 1, "manifest": 3}'])
def test_a_broken_record_is_no_record(store: Store, content: str) -> None:
    path = store.record_path(COMMIT)
    path.parent.mkdir()
    path.write_text(content)
    assert store.changed_since_record(COMMIT) is None


@pytest.mark.parametrize(
    ("requested", "names"),
    [("main", ["main"]), ("v1", ["main", "v1"]), ("refs/pr/1", ["main", "refs/pr/1"]), (COMMIT, ["main"])],
)
def test_references_lead_to_the_commit(store: Store, requested: str, names: list[str]) -> None:
    assert not store.references_right(requested, COMMIT)
    store.write_references(requested, COMMIT)
    assert store.references_right(requested, COMMIT)
    assert {name: (store.folder / "refs" / name).read_text() for name in names} == dict.fromkeys(names, COMMIT)
    (store.folder / "refs" / "main").write_text("d" * 40)
    assert not store.references_right(requested, COMMIT)


def test_json_files_are_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "status.json"
    files.write_json(path, {"a": 1})
    files.write_json(path, {"a": 2})
    assert files.read_json(path) == {"a": 2}
    assert [entry.name for entry in path.parent.iterdir()] == ["status.json"]
    with pytest.raises(TypeError):
        files.write_json(path, {"a": object()})
    assert files.read_json(path) == {"a": 2}


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (756_160_000_000, "756.2 GB"), (2.5e15, "2500.0 TB")],
)
def test_bytes_for_people(count: float, text: str) -> None:
    assert human_bytes(count) == text


def test_every_trouble_of_a_disk_has_a_next_step() -> None:
    for kind in {*fetch._DISK.values(), "lost", "no_links"}:
        assert "{" not in model_weights.DISK_ADVICE[kind].format(place="/data")
