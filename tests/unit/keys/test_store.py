"""The key store: private, whole or not there, changed by one process at a time."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ansible.errors import AnsibleLookupError

from ansible_collections.glm.fleet.plugins.lookup.api_key import LookupModule as ApiKey
from ansible_collections.glm.fleet.plugins.lookup.client_keys import LookupModule
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.plugin_utils.keys import records, store, strength
from ansible_collections.glm.fleet.plugins.plugin_utils.keys.records import Key

NOW = records.now()


def add(state: Path, name: str) -> None:
    with store.changing(state) as keys:
        store.write(state, records.add(keys, Key(name, records.digest(name), NOW)))


def test_keys_added_at_once_are_all_there_and_only_their_owner_can_read_them(tmp_path: Path) -> None:
    state = tmp_path / "fleet"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: add(state, f"team-{number}"), range(40)))
    assert sorted(key.name for key in store.read(state)) == sorted(f"team-{number}" for number in range(40))
    assert stat.S_IMODE((state / "keys.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(state.stat().st_mode) == 0o700


def test_no_store_is_no_keys(tmp_path: Path) -> None:
    assert store.read(tmp_path / "none") == ()


@pytest.mark.parametrize(
    ("mode", "text", "words"),
    [
        (0o640, '{"keys": []}', "chmod 600"),
        (0o600, "{", "in .*keys.json: JSON"),
        (0o600, b"\xff", "to read the key store"),
    ],
)
def test_a_store_that_cannot_be_used_is_named(tmp_path: Path, mode: int, text: str | bytes, words: str) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    with pytest.raises(Unmet, match=words) as error:
        store.read(tmp_path)
    assert "keys.json" in str(error.value)


def test_a_plain_key_is_its_owners_only(tmp_path: Path) -> None:
    path = store.plain_path(tmp_path, "team-a")
    store.write_plain(path, "k")
    assert path.read_text("utf-8") == "k\n" and stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_lookup_gives_the_fleets_key_and_those_of_clients(tmp_path: Path) -> None:
    own = strength.new()
    add(tmp_path, "team-a")
    (found,) = LookupModule().run([str(tmp_path)], {}, api_key=own)
    assert [(key["name"], key["sha256"]) for key in found["keys"]] == [
        ("fleet", records.digest(own)),
        ("team-a", records.digest("team-a")),
    ]


@pytest.mark.parametrize(("terms", "more"), [([], {"api_key": "k"}), (["x"], {}), (["x", "y"], {"api_key": "k"})])
def test_the_lookup_wants_one_folder_and_the_key(terms: list[str], more: dict[str, str]) -> None:
    with pytest.raises(AnsibleLookupError, match="expected one state folder"):
        LookupModule().run(terms, {}, **more)


def test_a_broken_store_is_an_error_of_the_lookup(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text("{", "utf-8")
    (tmp_path / "keys.json").chmod(0o600)
    with pytest.raises(AnsibleLookupError, match=r"controller, keys: .*keys\.json"):
        LookupModule().run([str(tmp_path)], {}, api_key="k")


def test_a_weak_key_in_the_file_is_refused_and_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "api_key"
    path.write_text("changeme-please\n", "utf-8")
    path.chmod(0o600)
    with pytest.raises(AnsibleLookupError, match=r"a key needs 128.*a new key is made") as error:
        ApiKey().run([str(path)], {})
    assert "changeme" not in str(error.value)
