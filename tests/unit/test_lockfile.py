"""The lock file: reading, refusing, writing, and excluding other processes."""

from __future__ import annotations

import multiprocessing
import os
import stat
import threading
import time
from pathlib import Path

import pytest
import yaml

from ansible_collections.glm.fleet.plugins.plugin_utils.plan import lockfile

COMMIT = "0123456789abcdef0123456789abcdef01234567"
DIGEST = "sha256:" + "ab" * 32
MODEL = {"commit": COMMIT, "bytes": 756160000000, "files": 142, "manifest_sha256": "cd" * 32}


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "inventory").mkdir()
    return tmp_path / "inventory" / "glm.lock.yml"


def test_missing_file_is_empty(path: Path) -> None:
    assert lockfile.read(path) == {"images": {}, "models": {}, "builds": {}}


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\nimages:\nmodels:\n", "images: {}\n"])
def test_empty_files_are_empty(path: Path, text: str) -> None:
    path.write_text(text)
    assert lockfile.read(path) == {"images": {}, "models": {}, "builds": {}}


def test_round_trip_keeps_everything_and_sorts(path: Path) -> None:
    with lockfile.locked(path) as lock:
        lock.data["models"][lockfile.model_key("zai-org/GLM-5.1-FP8", "main")] = dict(MODEL)
        lock.data["images"][lockfile.image_key("vllm/vllm-openai", "v0.32.0")] = {
            "digest": DIGEST,
            "resolved_at": "2026-11-20T12:00:00Z",
        }
        lock.data["images"]["a/b:c"] = {"digest": DIGEST, "later": {"kept": [1]}}
        assert lock.save() is True
    data = lockfile.read(path)
    assert data["models"] == {"zai-org/GLM-5.1-FP8@main": MODEL}
    assert list(data["images"]) == ["a/b:c", "vllm/vllm-openai:v0.32.0"]
    assert data["images"]["a/b:c"]["later"] == {"kept": [1]}
    assert data["images"]["vllm/vllm-openai:v0.32.0"]["resolved_at"] == "2026-11-20T12:00:00Z"


def test_written_file_explains_itself_and_is_readable(path: Path) -> None:
    with lockfile.locked(path) as lock:
        lock.data["images"]["a/b:c"] = {"digest": DIGEST}
        lock.save()
    text = path.read_text()
    assert text.startswith("# Lock file of glm.fleet")
    assert "version control" in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert yaml.safe_load(text)["images"]["a/b:c"]["digest"] == DIGEST


class Unsafe(str):
    """Like ansible's text from a host."""


def test_text_from_a_play_is_written_as_plain_text(path: Path) -> None:
    with lockfile.locked(path) as lock:
        lock.data["images"][Unsafe("a/b:c")] = {"digest": Unsafe(DIGEST)}
        lock.save()
    assert lockfile.read(path)["images"] == {"a/b:c": {"digest": DIGEST}}


def test_a_date_written_by_hand_survives(path: Path) -> None:
    path.write_text(f"images:\n  a/b:c:\n    digest: {DIGEST}\n    resolved_at: 2026-11-20 12:00:00\n")
    with lockfile.locked(path) as lock:
        lock.save()
    assert lockfile.read(path)["images"]["a/b:c"]["resolved_at"] == "2026-11-20 12:00:00"


def test_nothing_is_left_beside_the_file(path: Path) -> None:
    with lockfile.locked(path) as lock:
        lock.data["images"]["a/b:c"] = {"digest": DIGEST}
        lock.save()
    assert [entry.name for entry in path.parent.iterdir()] == ["glm.lock.yml"]


def test_saving_the_same_data_writes_nothing(path: Path) -> None:
    with lockfile.locked(path) as lock:
        lock.data["images"]["a/b:c"] = {"digest": DIGEST}
        lock.save()
    before = path.stat().st_mtime_ns, path.stat().st_ino
    with lockfile.locked(path) as lock:
        assert lock.save() is False
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before


def test_locking_without_saving_writes_nothing(path: Path) -> None:
    with lockfile.locked(path) as lock:
        lock.data["images"]["a/b:c"] = {"digest": DIGEST}
    assert not path.exists()


def test_a_link_stays_a_link(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "shared.yml"
    path.symlink_to(target)
    with lockfile.locked(path) as lock:
        lock.data["images"]["a/b:c"] = {"digest": DIGEST}
        lock.save()
    assert path.is_symlink()
    assert "a/b:c" in target.read_text()


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("images:\n  a: [\n", 3, "not valid YAML"),
        ("<<<<<<< HEAD\nimages: {}\n=======\n", 2, "not valid YAML"),
        ("- a\n- b\n", 1, "must be a mapping"),
        ("images: {}\nimage: {}\n", 2, "unknown section 'image'"),
        ("images:\n  - a\n", 2, "section 'images' must be a mapping"),
        ("images:\n  a:b: sha256:00\n", 2, "entry 'a:b' must be a mapping"),
        (f"images:\n  a:b:\n    digets: {DIGEST}\n", 3, "entry 'a:b' has no 'digest'"),
        ("images:\n  a:b:\n    digest: latest\n", 3, "'digest' of 'a:b' must be 'sha256:'"),
        ("models:\n  a@b:\n    commit: main\n", 3, "40 hexadecimal digits"),
        ("models:\n  a@b:\n    commit: " + "1" * 40 + "\n", 3, "quote it"),
        (f"models:\n  a@b:\n    commit: {COMMIT}\n    bytes: many\n", 4, "'bytes' of 'a@b' must be a number"),
        (f"models:\n  a@b:\n    commit: {COMMIT}\n  a@b:\n    commit: {COMMIT}\n", 4, "appears twice"),
    ],
)
def test_malformed_files_are_refused_by_file_and_line(path: Path, text: str, line: int, problem: str) -> None:
    path.write_text(text)
    with pytest.raises(lockfile.LockFileError) as caught:
        lockfile.read(path)
    message = str(caught.value)
    assert f"{path}, line {line}: " in message
    assert problem in message
    assert "version control" in message


def test_bad_data_is_never_written(path: Path) -> None:
    with lockfile.locked(path) as lock:
        lock.data["models"]["a@b"] = {"commit": "main"}
        with pytest.raises(lockfile.LockFileError, match="40 hexadecimal digits"):
            lock.save()
    assert not path.exists()


def test_a_second_holder_waits_then_sees_the_first_ones_answer(path: Path) -> None:
    order: list[str] = []

    def second() -> None:
        with lockfile.locked(path) as lock:
            order.append("second")
            assert "a/b:c" in lock.data["images"]

    with lockfile.locked(path) as lock:
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.3)
        order.append("first")
        lock.data["images"]["a/b:c"] = {"digest": DIGEST}
        lock.save()
    thread.join(5)
    assert order == ["first", "second"]


def test_the_deadline_names_the_holder(path: Path) -> None:
    second = lockfile.locked(path, timeout=0.2)
    with lockfile.locked(path), pytest.raises(lockfile.LockFileError) as caught:
        second.__enter__()
    assert f"locked by process {os.getpid()} after 0.2 s" in str(caught.value)


def _add(path: Path, key: str) -> None:
    with lockfile.locked(path) as lock:
        lock.data["images"][key] = {"digest": DIGEST}
        lock.save()


def test_processes_do_not_lose_each_others_entries(path: Path) -> None:
    context = multiprocessing.get_context("fork")
    keys = [f"repo:{number}" for number in range(8)]
    workers = [context.Process(target=_add, args=(path, key)) for key in keys]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(20)
        assert worker.exitcode == 0
    assert sorted(lockfile.read(path)["images"]) == keys


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with lockfile.locked(tmp_path / "inventory" / "glm.lock.yml") as lock:
        (tmp_path / "inventory").write_text("a file where the folder should be")
        lock.data["images"]["a/b:c"] = {"digest": DIGEST}
        with pytest.raises(lockfile.LockFileError, match="glm_lock_file"):
            lock.save()
