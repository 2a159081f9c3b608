"""Digests and commits that the catalogue knows, compared with what a fleet resolves; lock files added to them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import known
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.build import CatalogError
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import lockfile
from tools import known as tool

IMAGE, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
COMMIT, FILES = "c" * 40, "d" * 64
KNOWN = known.Known(
    [known.KnownImage("vllm/vllm-openai:v0.32.0", IMAGE, "fleet blue, 2026-11-01")],
    [known.KnownModel("zai-org/GLM-5.1-FP8", COMMIT, FILES, "fleet blue, 2026-11-01")],
)


def test_a_known_tag_with_another_digest_is_refused() -> None:
    known.require_image("vllm/vllm-openai:v0.32.0", IMAGE, KNOWN)
    known.require_image("vllm/vllm-openai:v0.33.0", OTHER, KNOWN)
    with pytest.raises(Unmet) as refused:
        known.require_image("vllm/vllm-openai:v0.32.0", OTHER, KNOWN)
    text = str(refused.value)
    assert f"to be {IMAGE}" in text and f"found {OTHER}" in text and "without mirrors" in text and "blue" in text
    # The entry that the message shows is one that the lock file takes.
    entry = yaml.safe_load("{" + text.partition("yourself: ")[2].rstrip(".") + "}")
    assert entry == {"images": {"vllm/vllm-openai:v0.32.0": {"digest": OTHER}}}


def test_a_known_commit_with_other_files_is_refused_and_an_unknown_commit_is_a_warning() -> None:
    assert known.require_model("zai-org/GLM-5.1-FP8", COMMIT, FILES, KNOWN) == ""
    assert known.require_model("zai-org/GLM-5", "e" * 40, FILES, KNOWN) == ""
    warning = known.require_model("zai-org/GLM-5.1-FP8", "e" * 40, FILES, KNOWN)
    assert "e" * 12 in warning and "c" * 12 in warning
    with pytest.raises(Unmet, match="another list of files"):
        known.require_model("zai-org/GLM-5.1-FP8", COMMIT, "f" * 64, KNOWN)


@pytest.mark.parametrize(
    ("images", "models", "words"),
    [
        ([{"name": "a:v1", "digest": "sha256:12", "source": "x"}], [], "digest is not of the form"),
        ([{"name": "a:v1", "digest": IMAGE, "source": ""}], [], "expected a source"),
        ([{"name": "a:v1", "digest": IMAGE, "source": "x"}] * 2, [], "listed twice"),
        ([], [{"repository": "a/b", "commit": "main", "manifest_sha256": FILES, "source": "x"}], "commit is not"),
    ],
)
def test_a_wrong_list_is_refused(tmp_path: Path, images: list[object], models: list[object], words: str) -> None:
    (tmp_path / "known.yml").write_text(yaml.safe_dump({"known": {"images": images, "models": models}}))
    with pytest.raises(CatalogError, match=words):
        known.load(tmp_path)


def test_a_lock_file_is_added_without_what_moves() -> None:
    lock: lockfile.LockData = {
        "images": {
            "vllm/vllm-openai:v0.33.0": {"digest": OTHER}, "vllm/vllm-openai:nightly": {"digest": OTHER},
            "lmsysorg/sglang:latest": {"digest": OTHER}, "rocm/sglang:v0.5.9-nightly": {"digest": OTHER},
        },
        "models": {
            "zai-org/GLM-5.1-FP8@main": {"commit": "e" * 40, "manifest_sha256": FILES},
            "zai-org/GLM-5@main": {"commit": "e" * 40},
        },
        "builds": {},
    }  # fmt: skip
    found = tool.merged(KNOWN, lock, "fleet green")
    assert [(row.name, row.source) for row in found.images] == [
        ("vllm/vllm-openai:v0.32.0", "fleet blue, 2026-11-01"), ("vllm/vllm-openai:v0.33.0", "fleet green")
    ]  # fmt: skip
    assert [(row.repository, row.commit[0]) for row in found.models] == [
        ("zai-org/GLM-5.1-FP8", "c"), ("zai-org/GLM-5.1-FP8", "e")
    ]  # fmt: skip
    assert tool.merged(found, lock, "again") == found
    with pytest.raises(Unmet):
        tool.merged(found, {**lock, "images": {"vllm/vllm-openai:v0.33.0": {"digest": IMAGE}}}, "fleet red")


def test_the_files_text_is_read_back(tmp_path: Path) -> None:
    (tmp_path / "known.yml").write_text(tool.rendered(KNOWN, "---\n# head\n"))
    assert known.load(tmp_path) == KNOWN


def test_the_committed_file_is_valid_and_the_tool_leaves_it(tmp_path: Path) -> None:
    before = tool.FILE.read_text()
    (tmp_path / "glm.lock.yml").write_text("images:\n  a:v1: {digest: x}\n")
    done = subprocess.run(
        [sys.executable, "tools/known.py", "--source", "a test", str(tmp_path / "glm.lock.yml")],
        cwd=tool.ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0 and "line 2" in done.stderr
    assert tool.FILE.read_text() == before
