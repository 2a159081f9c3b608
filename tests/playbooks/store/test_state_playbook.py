"""Playbooks of two machines that keep the state of one fleet in a kept S3 server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.glm.fleet.plugins.action.engine_venv import ActionModule as EngineVenv
from ansible_collections.glm.fleet.plugins.module_utils.cloud import shared
from ansible_collections.glm.fleet.plugins.plugin_utils.actions.base import Failed
from ansible_collections.glm.fleet.plugins.plugin_utils.store import state
from simulator.hub import Hub
from tests.playbooks.store import s3

ROOT = Path(__file__).parents[3]
DIGEST = "sha256:" + "cd" * 32
ADDRESS = f"s3://{s3.BUCKET}/fleets/blue"
HOSTS = {"a": {"glm_host_accelerator": "B200", "glm_host_accelerator_count": 8, "glm_host_private_address": "10.0.0.5"}}


class Machine:
    """A checkout with an inventory and a home of its own."""

    def __init__(self, folder: Path, store: s3.Store, hosts: dict[str, Any], **variables: Any) -> None:
        self.folder = folder
        (folder / "group_vars").mkdir(parents=True)
        given = {"glm_state_store": ADDRESS, "glm_store_endpoint": store.url, **variables}
        (folder / "group_vars" / "all.yml").write_text(yaml.safe_dump(given), "utf-8")
        (folder / "hosts.yml").write_text(yaml.safe_dump({"glm_fleet": {"hosts": hosts}}), "utf-8")

    def run(self, *words: str) -> tuple[int, str]:
        program = str(Path(sys.executable).parent / "ansible-playbook")
        command = [program, *words, "-i", str(self.folder / "hosts.yml"), "-e", f"glm_state_dir={self.folder}/state"]
        env = {**os.environ, "ANSIBLE_NOCOLOR": "1", "COLUMNS": "400", "HOME": str(self.folder)}
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
        output = " ".join((done.stdout + done.stderr).split())
        assert not any(secret in output for secret in s3.KEY_PAIR.values())
        return done.returncode, output

    def plans(self) -> Any:
        return json.loads((self.folder / "state/reports/plan.json").read_text("utf-8"))["hosts"]


def test_every_machine_plans_by_the_lock_file_in_the_store(tmp_path: Path, store: s3.Store) -> None:
    lock = f"images:\n  vllm/vllm-openai:v0.32.0: {{digest: '{DIGEST}'}}\nmodels: {{}}\n"
    store.direct.put_object(Bucket=s3.BUCKET, Key="fleets/blue/glm.lock.yml", Body=lock.encode())
    # The weights of a host may lie elsewhere; the state of the fleet does not.
    hosts = {"a": {**HOSTS["a"], "glm_store_endpoint": "http://127.0.0.1:9"}}
    machine = Machine(tmp_path, store, hosts)
    code, output = machine.run("plan.yml", "-vvv")
    assert code == 0, output
    assert machine.plans()["a"]["image"]["reference"] == f"vllm/vllm-openai@{DIGEST}"
    assert [one.method for one in store.requests if one.method != "GET"] == [], "planning writes nothing"
    for request in store.requests:
        assert s3.KEY_PAIR["AWS_SECRET_ACCESS_KEY"] not in str(request.headers)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"status": 403, "code": "AccessDenied"}, "give the key pair the right s3:GetObject on s3://weights/fleets/blue"),
        (None, "127.0.0.1 port 9 refuses connections. Next: check glm_store_endpoint"),
    ],
)  # fmt: skip
def test_a_store_that_cannot_be_read_ends_the_run_before_anything_else(
    tmp_path: Path, store: s3.Store, fault: dict[str, Any] | None, words: str
) -> None:
    if fault:
        store.fail("GET *", **fault)
    machine = Machine(tmp_path, store, HOSTS, **({} if fault else {"glm_store_endpoint": "http://127.0.0.1:9"}))
    code, output = machine.run("plan.yml")
    assert code == 2 and f"controller, preflight: expected to read {ADDRESS}/glm.lock.yml, found" in output, output
    assert words in output and "Traceback" not in output
    assert not (tmp_path / "state").exists()


def test_an_address_that_is_none_is_named(tmp_path: Path, store: s3.Store) -> None:
    code, output = Machine(tmp_path, store, HOSTS, glm_state_store="acme-fleets/blue").run("plan.yml")
    assert code == 2 and "preflight: expected an address like s3://bucket/prefix, found 'acme-fleets/blue'" in output


def test_what_writes_the_ledger_runs_on_the_controller_alone(tmp_path: Path, store: s3.Store) -> None:
    machine = Machine(tmp_path, store, {"a": {"ansible_host": "127.0.0.1", "ansible_port": 9}})
    task = {"name": "End", "glm.fleet.lambda_instance": {"state": "absent", "ssh_key_names": []}}
    book = tmp_path / "elsewhere.yml"
    book.write_text(yaml.safe_dump([{"hosts": "a", "gather_facts": False, "tasks": [task]}]), "utf-8")
    code, output = machine.run(str(book))
    assert code == 2 and f"whose ledger is in {ADDRESS} (glm_state_store), found another host" in output, output


def test_what_one_machine_stages_the_other_finds_locked(tmp_path: Path, store: s3.Store) -> None:
    path = tmp_path / "repos/acme/Tiny/model.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"one" * 1000)
    with Hub(tmp_path / "repos") as hub:
        more = {
            "glm_repository": "acme/Tiny",
            "glm_hub_endpoint": hub.url,
            "glm_weights_origin": f"s3://{s3.BUCKET}/models",
        }
        one, two = (Machine(tmp_path / name, store, {"a": {}}, **more) for name in ("one", "two"))
        code, output = one.run("stage.yml")
        assert code == 0, output
        hub.requests.clear()
        code, output = two.run("stage.yml", "--check")
        assert code == 0 and "all there" in output and hub.requests == [], output
    text = store.direct.get_object(Bucket=s3.BUCKET, Key="fleets/blue/glm.lock.yml")["Body"].read()
    assert set(yaml.safe_load(text)["models"]) == {"acme/Tiny@main"}
    assert list(tmp_path.rglob("glm.lock.yml")) == []


class Venv(EngineVenv):
    """The action without a host: the list of packages that it would have resolved is given."""

    def __init__(self, lock_file: Path, resolved: str, check: bool = False) -> None:
        self._args = {
            "lock_file": str(lock_file),
            "package": "vllm==1",
            "overrides": [],
            "platform": "cuda",
            "python": "3",
        }
        self._task = type("Task", (), {"check_mode": check})
        self._task_vars: dict[str, Any] = {}
        self._resolved = resolved

    def _on_host(self, phase: str, **_more: Any) -> dict[str, Any]:
        return {"requirements": self._resolved}

    def list_of(self, machine: str = "x86_64") -> tuple[str | None, bool]:
        return self._requirements(self._list_path(machine))


def test_the_list_of_packages_of_bare_metal_is_shared_too(
    tmp_path: Path, store: s3.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(shared.ENVIRONMENT, "")
    one, two = (tmp_path / name / "glm.lock.yml" for name in ("one", "two"))
    made, changed = Venv(one, "a==1\n").list_of()
    assert changed and made is not None and made.endswith("a==1\n"), "without a store: beside the lock file"
    beside = one.with_name("glm.lock.vllm-1.cuda-x86_64-py3.txt")
    assert beside.read_text("utf-8") == made
    state.use(ADDRESS, store.url)
    assert Venv(two, "", check=True).list_of() == (None, False)
    assert Venv(one, "b==2\n").list_of() == (made, False), "it is brought along"
    assert Venv(two, "c==3\n").list_of() == (made, False)
    assert not list(two.parent.glob("*.txt"))
    # The one that comes second obeys the first.
    venv = Venv(two, "")
    assert venv._kept(venv._list_path("x86_64"), made.replace("a==1", "d==4")) == made
    store.direct.put_object(Bucket=s3.BUCKET, Key=f"fleets/blue/{beside.name}", Body=b"# Request: vllm==2\n")
    with pytest.raises(Failed, match=f"{ADDRESS}/{beside.name} to be made for vllm==1"):
        Venv(two, "").list_of()
