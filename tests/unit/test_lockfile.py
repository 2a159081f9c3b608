"""The lock file: reading, refusing, writing, and excluding other processes."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import shutil
import stat
import tempfile
import threading
import time
from pathlib import Path

import pytest
import yaml

from ansible_collections.glm.fleet.plugins.module_utils import whoami
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import lockfile
from tests.patience import PATIENCE_SECONDS

COMMIT = "0123456789abcdef0123456789abcdef01234567"
DIGEST = "sha256:" + "ab" * 32
OTHER = "sha256:" + "cd" * 32
MODEL = {"commit": COMMIT, "bytes": 756160000000, "files": 142, "manifest_sha256": "cd" * 32}


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


def test_only_the_guard_is_left_beside_the_file_and_git_ignores_it(path: Path) -> None:
    _add(path, "a/b:c")
    assert sorted(entry.name for entry in path.parent.iterdir()) == [".glm.lock.yml.lock", "glm.lock.yml"]
    assert ".*.lock" in (Path(__file__).parents[2] / ".gitignore").read_text().splitlines()


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
    thread.join(PATIENCE_SECONDS)
    assert order == ["first", "second"]


def test_the_deadline_names_the_holder(path: Path) -> None:
    second = lockfile.locked(path, timeout=0.2)
    with lockfile.locked(path), pytest.raises(lockfile.LockFileError) as caught:
        second.__enter__()
    holder = f"process {os.getpid()} of {whoami.user_at_machine()}"
    assert f"{path}: still locked after 0.2 s, last by {holder}. " in str(caught.value)


def _add(path: Path, key: str) -> None:
    with lockfile.locked(path) as lock:
        lock.data["images"][key] = {"digest": DIGEST}
        lock.save()


def _add_twenty(path: Path, home: Path, repository: str) -> None:
    os.environ["XDG_STATE_HOME"] = str(home)
    for number in range(20):
        _add(path, f"{repository}:{number}")


def test_users_who_share_a_checkout_do_not_lose_each_others_entries(path: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_add_twenty, args=(path, tmp_path / name, name)) for name in "abcd"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(PATIENCE_SECONDS)
        assert worker.exitcode == 0
    assert set(lockfile.read(path)["images"]) == {f"{name}:{number}" for name in "abcd" for number in range(20)}


def test_the_guard_is_as_open_as_the_folder(path: Path) -> None:
    path.parent.chmod(0o2770)
    _add(path, "a/b:c")
    assert stat.S_IMODE(path.with_name(".glm.lock.yml.lock").stat().st_mode) == 0o660


def test_a_file_keeps_its_mode_and_its_owners(path: Path) -> None:
    _add(path, "a/b:1")
    path.chmod(0o664)
    if os.geteuid() == 0:
        os.chown(path, 1234, 4321)
    before = path.stat()
    _add(path, "a/b:2")
    after = path.stat()
    assert after.st_ino != before.st_ino
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
@pytest.mark.parametrize("mode", [0o644, 0o600])
def test_a_guard_of_another_user_excludes(mode: int) -> None:
    """In a folder of everybody's, where another user's run made the guard. One that can only be read locks, too."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        folder.chmod(0o1777)
        path = folder / "glm.lock.yml"
        _add(path, "a/b:1")
        guard = folder / ".glm.lock.yml.lock"
        guard.chmod(mode)
        context = multiprocessing.get_context("fork")
        with guard.open() as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            other = context.Process(target=_refused_as_nobody, args=(path,))
            other.start()
            other.join(PATIENCE_SECONDS)
        assert other.exitcode == (0 if mode == 0o644 else 3)
    finally:
        shutil.rmtree(folder)


def _refused_as_nobody(path: Path) -> None:
    os.setgid(65534)
    os.setuid(65534)
    try:
        with lockfile.locked(path, timeout=0.1):
            os._exit(2)
    except lockfile.LockFileError as error:
        os._exit(0 if "still locked" in str(error) else 3 if "Make it readable" in str(error) else 4)


def _by_other_means(path: Path, key: str, digest: str, **more: str) -> None:
    """As an editor, git or an earlier release writes: without the lock."""
    data = lockfile.read(path)
    data["images"][key] = {"digest": digest, **more}  # type: ignore[typeddict-item]
    path.write_text(yaml.safe_dump(dict(data)))


def test_what_others_wrote_without_the_lock_stays(path: Path) -> None:
    _add(path, "kept:1")
    _add(path, "deleted:1")
    with lockfile.locked(path) as lock:
        lock.data["images"]["ours:1"] = {"digest": DIGEST}
        path.write_text(path.read_text().replace("deleted:1", "renamed:1"))
        _by_other_means(path, "theirs:1", OTHER)
        assert lock.save() is True
    assert set(lockfile.read(path)["images"]) == {"kept:1", "renamed:1", "ours:1", "theirs:1"}
    assert lockfile.read(path)["images"]["theirs:1"] == {"digest": OTHER}


def test_entries_that_disagree_are_refused_with_both_values(path: Path) -> None:
    with lockfile.locked(path) as lock:
        lock.data["images"]["a/b:c"] = {"digest": DIGEST}
        _by_other_means(path, "a/b:c", OTHER)
        before = path.read_text()
        with pytest.raises(lockfile.LockFileError) as caught:
            lock.save()
    assert f"the file has digest {OTHER}, this run found {DIGEST}" in str(caught.value)
    assert "'a/b:c'" in str(caught.value) and str(path) in str(caught.value)
    assert path.read_text() == before


def test_entries_that_say_the_same_at_another_time_agree(path: Path) -> None:
    with lockfile.locked(path) as lock:
        lock.data["images"]["a/b:c"] = {"digest": DIGEST, "resolved_at": "2026-11-20T12:00:09Z"}
        _by_other_means(path, "a/b:c", DIGEST, resolved_at="2026-11-20T12:00:00Z")
        lock.save()
    assert lockfile.read(path)["images"]["a/b:c"] == {"digest": DIGEST, "resolved_at": "2026-11-20T12:00:00Z"}


def test_an_entry_that_this_run_completes_is_no_disagreement(path: Path) -> None:
    """A derived image gets its digest, and the list of another kind of machine, later."""
    built = {"image": "a/b:c", "base": DIGEST, "requirements": {"x86_64": ["x==1"]}}
    for entry in (built, {**built, "requirements": {"x86_64": ["x==1"], "aarch64": ["x==1"]}, "digest": OTHER}):
        with lockfile.locked(path) as lock:
            lock.data["builds"]["a/b:c + x==1"] = entry  # type: ignore[assignment]
            lock.save()
        assert lockfile.read(path)["builds"]["a/b:c + x==1"] == entry


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "inventory").write_text("a file where the folder should be")
    path = tmp_path / "inventory/glm.lock.yml"
    with pytest.raises(lockfile.LockFileError, match="glm_lock_file"), lockfile.locked(path):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_a_folder_that_can_only_be_read_is_read_and_named_when_it_is_written() -> None:
    """A check run needs no more than to read."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    try:
        other = multiprocessing.get_context("fork").Process(target=_save_as_nobody, args=(folder / "glm.lock.yml",))
        other.start()
        other.join(PATIENCE_SECONDS)
        assert other.exitcode == 0
        assert list(folder.iterdir()) == []
    finally:
        shutil.rmtree(folder)


def _save_as_nobody(path: Path) -> None:
    os.setgid(65534)
    os.setuid(65534)
    with lockfile.locked(path) as lock:
        lock.data["images"]["a/b:c"] = {"digest": DIGEST}
        with pytest.raises(lockfile.LockFileError, match="glm_lock_file"):
            lock.save()
