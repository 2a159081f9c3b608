"""lambda_instance: each instance gets a host key of its own; its public half is there as long as the instance is."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import identity
from tests.playbooks.lambda_api.fake_cloud import error, make_instance, serve
from tests.playbooks.modules import test_lambda_instance as launcher
from tests.playbooks.modules.test_lambda_instance import LAUNCH, Launching


@pytest.fixture
def cloud() -> Iterator[Launching]:
    with serve() as running:
        yield Launching(running)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "host_keys"


def run(cloud: Launching, folder: Path, **options: Any) -> dict[str, Any]:
    return launcher.run(cloud, host_keys=True, host_keys_dir=str(folder), **options)


def sent(request: dict[str, Any]) -> dict[str, str]:
    """The host key in the user data of a launch that has nothing else in it."""
    head, _line, body = request["user_data"].partition("\n")
    assert head == "#cloud-config"
    document = json.loads(body)
    assert document["ssh_deletekeys"] is True
    keys: dict[str, str] = document["ssh_keys"]
    assert keys.keys() == {"ed25519_private", "ed25519_public"}
    return keys


def kept(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text("utf-8").strip() for path in folder.iterdir()}


def test_each_instance_has_its_own_key_and_its_public_half_is_kept(
    cloud: Launching, folder: Path, tmp_path: Path
) -> None:
    result = run(cloud, folder, count=3)
    assert not result["failed"], result
    keys = [sent(request) for request in cloud.launched()]
    assert len({key["ed25519_public"] for key in keys}) == 3
    ids = [item["id"] for item in result["instances"]]
    assert kept(folder) == {f"{identifier}.pub": key["ed25519_public"] for identifier, key in zip(ids, keys)}
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700
    # The halves belong together, and the private one is nowhere here.
    for number, key in enumerate(keys):
        private = tmp_path / f"key-{number}"
        private.write_text(key["ed25519_private"], "ascii")
        private.chmod(0o600)
        derived = subprocess.run(["ssh-keygen", "-y", "-f", private], capture_output=True, text=True, check=True)
        assert derived.stdout.split()[:2] == key["ed25519_public"].split()
        private.unlink()
    written = "".join(path.read_text("utf-8") for path in tmp_path.rglob("*") if path.is_file())
    assert "PRIVATE" not in written and not any(key["ed25519_private"].splitlines()[1] in written for key in keys)
    before = kept(folder)
    assert run(cloud, folder, count=3)["changed"] is False
    assert kept(folder) == before


def test_check_mode_makes_nothing(cloud: Launching, folder: Path) -> None:
    assert launcher.run(cloud, check_mode=True, count=2, host_keys=True, host_keys_dir=str(folder))["changed"] is True
    assert not folder.exists()


def test_without_the_option_there_is_no_key(cloud: Launching, folder: Path) -> None:
    launcher.run(cloud, host_keys_dir=str(folder))
    assert "user_data" not in cloud.launched()[0]
    assert not folder.exists()


def test_the_key_is_there_before_the_instance_is_asked_for(cloud: Launching, folder: Path) -> None:
    seen: list[dict[str, str]] = []
    handle = cloud.cloud.handler

    def look(request: Any) -> Any:
        if request.path == LAUNCH:
            seen.append(kept(folder))
        return handle(request)

    cloud.cloud.handler = look
    run(cloud, folder)
    public = sent(cloud.launched()[0])["ed25519_public"]
    stamp = {tag["key"]: tag["value"] for tag in cloud.launched()[0]["tags"]}["glm-launched"]
    assert seen == [{f"glm-default-1@{stamp}.launching": public}]


def test_an_instance_whose_launch_got_no_answer_keeps_its_key(cloud: Launching, folder: Path) -> None:
    cloud.lose_answer = True
    result = run(cloud, folder)
    assert not result["failed"], result
    public = sent(cloud.launched()[0])["ed25519_public"]
    assert kept(folder) == {f"{result['instances'][0]['id']}.pub": public}


def test_a_launch_that_turns_up_in_the_next_run_gets_its_key_then(cloud: Launching, folder: Path) -> None:
    cloud.launch_answers = [error(500, "global/internal-error")]
    assert run(cloud, folder)["failed"]
    tags, public = cloud.launched()[0]["tags"], sent(cloud.launched()[0])["ed25519_public"]
    late = make_instance(7, name="glm-default-1", tags=tags)
    # Of the same name, but of a run elsewhere: another moment.
    other = [{"key": "glm-fleet", "value": "default"}, {"key": "glm-launched", "value": "20200101T000000Z"}]
    cloud.cloud.instances = [late, make_instance(8, name="glm-default-1", tags=other)]
    assert run(cloud, folder, count=2)["changed"] is False
    assert kept(folder) == {f"{late['id']}.pub": public}


def test_a_refused_launch_leaves_no_key(cloud: Launching, folder: Path) -> None:
    cloud.no_capacity = {("gpu_8x_b200_sxm6", "us-east-1")}
    assert run(cloud, folder, region=["us-east-1", "us-west-1"])["launched"] == ["glm-default-1"]
    assert len(cloud.launched()) == 2 and len(kept(folder)) == 1
    keys = [sent(request)["ed25519_public"] for request in cloud.launched()]
    # Each request has its own: a refused one may have been logged somewhere.
    assert keys[0] != keys[1] and list(kept(folder).values()) == [keys[1]]
    cloud.launch_answers = [error(400, "global/invalid-parameters")]
    assert run(cloud, folder, count=2)["failed"]
    assert list(kept(folder).values()) == [keys[1]]


def test_an_answer_that_quotes_the_request_shows_no_private_key(
    cloud: Launching, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules: list[launcher.Module] = []

    class Kept(launcher.Module):
        def __init__(self, params: dict[str, Any], check_mode: bool) -> None:
            super().__init__(params, check_mode)
            modules.append(self)

    monkeypatch.setattr(launcher, "Module", Kept)
    run(cloud, folder)
    lines = sent(cloud.launched()[0])["ed25519_private"].splitlines()
    assert modules[0].no_log_values == set(lines[1:-1])


def test_the_file_goes_with_the_instance_and_only_that(cloud: Launching, folder: Path) -> None:
    first, second, third = (item["id"] for item in run(cloud, folder, count=3)["instances"])
    (folder / "of-another-fleet.pub").write_text("ssh-ed25519 AAAA\n", "utf-8")
    result = run(cloud, folder, count=3, replace=[{"id": first, "reason": "7 of 8 GPUs"}])
    (new,) = result["launched_ids"]
    assert kept(folder).keys() == {f"{second}.pub", f"{third}.pub", f"{new}.pub", "of-another-fleet.pub"}
    run(cloud, folder, count=2, surplus="terminate")
    assert len(kept(folder)) == 3
    launcher.run(cloud, state="absent", host_keys_dir=str(folder))
    assert kept(folder).keys() == {"of-another-fleet.pub"}


def test_a_key_that_no_instance_has_a_day_later_goes(cloud: Launching, folder: Path) -> None:
    run(cloud, folder)
    ages = {"lost@20260101T000000Z": 90000, "young@20260102T000000Z": 3600, "elsewhere@20260103T000000Z": 90000}
    for name, seconds in ages.items():
        path = folder / f"{name}.launching"
        path.write_text("ssh-ed25519 AAAA\n", "utf-8")
        os.utime(path, (time.time() - seconds,) * 2)
    # Of another fleet, whose runs have not looked yet: the account lists it.
    tags = [{"key": "glm-fleet", "value": "other"}, {"key": "glm-launched", "value": "20260103T000000Z"}]
    cloud.cloud.instances.append(make_instance(9, name="elsewhere", tags=tags))
    assert run(cloud, folder)["changed"] is False
    waiting = {name for name in kept(folder) if name.endswith(".launching")}
    assert waiting == {"young@20260102T000000Z.launching", "elsewhere@20260103T000000Z.launching"}


def test_user_data_and_key_arrive_together(cloud: Launching, folder: Path) -> None:
    run(cloud, folder, user_data="#!/bin/sh\ntouch /x\n")
    document = cloud.launched()[0]["user_data"]
    assert document.startswith("Content-Type: multipart/mixed;")
    assert "ed25519_private" in document and "#!/bin/sh\ntouch /x\n" in document


def test_host_keys_of_the_user_win_and_that_is_said(
    cloud: Launching, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(launcher.Module, "warn", lambda _self, text: said.append(text))
    own = "#cloud-config\nssh_keys: {rsa_private: x, rsa_public: y}\n"
    run(cloud, folder, user_data=own)
    assert cloud.launched()[0]["user_data"] == own
    assert not folder.exists()
    assert len(said) == 1 and "fleet default, launch: user_data sets ssh_keys" in said[0]


def test_too_long_user_data_is_refused_before_anything_is_launched(cloud: Launching, folder: Path) -> None:
    fits = "#" * (identity.USER_DATA_LIMIT - 1500)
    for check_mode in (True, False):
        result = launcher.run(
            cloud, check_mode=check_mode, host_keys=True, host_keys_dir=str(folder), user_data=fits + "#" * 1500
        )
        assert result["failed"] and "user data of at most 1000000 bytes with the host key, found 100" in result["msg"]
        assert "shorten glm_launch_user_data" in result["msg"]
    assert cloud.launched() == [] and not folder.exists()
    assert not run(cloud, folder, user_data=fits)["failed"]
    assert len(cloud.launched()[0]["user_data"]) <= identity.USER_DATA_LIMIT


def test_a_folder_that_cannot_be_written_is_refused_before_the_launch(cloud: Launching, folder: Path) -> None:
    folder.parent.mkdir()
    folder.write_text("not a folder", "utf-8")
    result = run(cloud, folder)
    assert result["failed"] and f"expected to keep the host keys of instances in {folder}, found" in result["msg"]
    assert "set glm_state_dir to another" in result["msg"]
    assert cloud.launched() == []


def test_no_ssh_keygen_is_refused_before_the_launch(
    cloud: Launching, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    result = run(cloud, folder)
    assert result["failed"] and "expected ssh-keygen to make the host key of a new instance, found" in result["msg"]
    assert cloud.launched() == []
