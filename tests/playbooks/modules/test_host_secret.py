"""The module host_secret on a folder of this machine."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.modules import host_secret


def test_a_secret_is_made_once_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "engine.key"
    first = host_secret.made(path, check_mode=False)
    assert first["changed"] and re.fullmatch(r"[0-9a-f]{64}", first["value"])
    assert path.stat().st_mode & 0o777 == 0o600
    assert host_secret.made(path, check_mode=False) == {"changed": False, "value": first["value"]}
    assert host_secret.made(path, check_mode=True) == {"changed": False, "value": first["value"]}


def test_check_mode_makes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "none" / "engine.key"
    assert host_secret.made(path, check_mode=True) == {"changed": True, "value": host_secret.PLACEHOLDER}
    assert not path.parent.exists()


def test_all_of_several_runs_at_once_return_the_same(tmp_path: Path) -> None:
    path = tmp_path / "engine.key"
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _number: host_secret.made(path, check_mode=False), range(64)))
    assert len({one["value"] for one in found}) == 1 and sum(one["changed"] for one in found) == 1


@pytest.mark.parametrize(
    ("mode", "text", "words"),
    [
        (0o644, "a" * 43, "mode 0644"),
        # SGLang would take it for an option.
        (0o600, "-" + "a" * 42, "without a dash in front"),
        (0o640, "a" * 43, "mode 0640"),
        (0o600, "", "32 or more characters"),
        (0o600, "short", "32 or more characters"),
        (0o600, "two words " * 5, "32 or more characters"),
        (0o600, '"; server evil 192.0.2.1 #' + "a" * 43, "32 or more characters"),
    ],
)
def test_what_is_no_secret_of_the_host_s_is_refused_with_what_to_do(
    tmp_path: Path, mode: int, text: str, words: str
) -> None:
    path = tmp_path / "engine.key"
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    with pytest.raises(Unmet, match=re.escape(words)) as refused:
        host_secret.made(path, check_mode=False)
    assert f"remove {path}" in str(refused.value) and (not text or text not in str(refused.value))
    assert path.read_text(encoding="utf-8") == text


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unmet, match="the folder"):
        host_secret.made(tmp_path / "none" / "engine.key", check_mode=False)
