"""The fleet's key: made once, kept private, never half."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ansible_collections.glm.fleet.plugins.lookup.api_key import LookupModule
from ansible_collections.glm.fleet.plugins.module_utils.finding import QuotingError
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import api_key


def test_a_key_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "fleet" / "api_key"
    first = api_key.read_or_make(path)
    assert first.startswith("glm-") and len(first) > 40
    assert api_key.read_or_make(path) == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["api_key"]


def test_hosts_that_ask_at_once_get_the_same_key(tmp_path: Path) -> None:
    path = tmp_path / "api_key"
    with ThreadPoolExecutor(16) as pool:
        keys = set(pool.map(lambda _n: api_key.read_or_make(path), range(64)))
    assert len(keys) == 1


def test_a_key_that_others_can_read_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "api_key"
    path.write_text("glm-k\n", encoding="utf-8")
    path.chmod(0o644)
    with pytest.raises(QuotingError, match="chmod 600"):
        api_key.read_or_make(path)


@pytest.mark.parametrize("text", ["", "\n", "two words\n"])
def test_a_file_without_exactly_one_word_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "api_key"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    with pytest.raises(QuotingError, match="one word"):
        api_key.read_or_make(path)


def test_check_mode_makes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "api_key"
    assert LookupModule().run([str(path)], {"ansible_check_mode": True}) == [api_key.PLACEHOLDER]
    assert not path.exists()
    made = LookupModule().run([str(path)], {})
    assert LookupModule().run([str(path)], {"ansible_check_mode": True}) == made
