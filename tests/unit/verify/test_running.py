"""What is seen of a running replica, and whether that is the plan."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.host.commands import CommandResult
from ansible_collections.glm.fleet.plugins.module_utils.serving import running
from ansible_collections.glm.fleet.plugins.module_utils.serving.client import Answer, Endpoint, NoAnswer
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import replica
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import running as judge
from tests.unit.serve.plans import nodes, plan, venv

KEY = "a" * 64
UNIT = "/etc/systemd/system/glm-serve-0.service"


class Host:
    """A host with one replica as planned: answers of its commands, its files, and of its engine."""

    def __init__(self, root: Path, made: dict[str, Any]) -> None:
        self.root, self.plan = root, made
        self.unit = {
            "ActiveState": "active",
            "MainPID": "41",
            "NRestarts": "0",
            "ActiveEnterTimestampMonotonic": "1000000",
        }
        self.silent: set[str] = set()
        image = made["image"] or {"reference": "", "digest": "", "repository": ""}
        environment = [f"{name}={value}" for name, value in made["env"].items()]
        self.container: list[Any] = [
            True, "sha256:feed", image["reference"], replica.engine_words(made), ["PATH=/bin", *environment],
        ]  # fmt: skip
        self.image: list[Any] = [[f"{image['repository']}@{image['digest']}"], ["PATH=/bin"]]
        self.answers: dict[str, Any] = {judge.versions()[made["engine"]["name"]]: made["engine"]["version"]}
        self.file("etc/glm/engine.key", KEY)
        self.file(UNIT, "the unit")
        self.stamp()
        self.process(["/usr/bin/python3", *replica.engine_words(made)], environment)

    def file(self, path: str, text: str) -> None:
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, "utf-8")

    def stamp(self) -> None:
        self.file("run/glm-serve-0/started.json", json.dumps({UNIT: hashlib.sha256(b"the unit").hexdigest()}))

    def process(self, words: list[str], environment: list[str]) -> None:
        self.file("proc/41/cmdline", "".join(f"{word}\0" for word in words))
        self.file("proc/41/environ", "".join(f"{line}\0" for line in environment))

    def run(self, argv: Any) -> CommandResult:
        name = " ".join(argv[:2])
        if name in self.silent:
            return CommandResult(tuple(argv), 1, "", f"{name} says nothing")
        lines = {"docker inspect": self.container, "docker image": self.image}.get(name)
        text = "".join(f"{json.dumps(line)}\n" for line in lines or [])
        text = text or "".join(f"{key}={value}\n" for key, value in self.unit.items())
        return CommandResult(tuple(argv), 0, text, "")

    def ask(self, endpoint: Endpoint, _method: str, path: str, key: str | None = None) -> Answer:
        assert (endpoint.port, key) == (self.plan["listen"]["engine_port"], KEY)
        said = self.answers.get(path)
        if said is None:
            return Answer(404, "")
        if isinstance(said, Exception):
            raise said
        return Answer(200, {"version": said})

    def seen(self) -> running.Running:
        return running.seen(self.run, running.Wanted(**judge.wanted(self.plan)), self.root)  # type: ignore[arg-type]

    def judged(self) -> tuple[str, str]:
        found = judge.judged(self.plan, self.seen())  # type: ignore[arg-type]
        assert found["check"] == "running"
        return found["outcome"], found["found"]


@pytest.fixture(params=["vllm", "sglang", "venv", "node"])
def host(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    plans = {"vllm": plan, "sglang": lambda: plan("sglang"), "venv": venv, "node": lambda: nodes(plan(), 1)}
    made = Host(tmp_path, copy.deepcopy(plans[request.param]()))
    monkeypatch.setattr(running, "ask", made.ask)
    monkeypatch.setattr(running, "uptime_seconds", lambda: 61.0)
    monkeypatch.setattr(running.time, "time", lambda: 1_000_060.0)
    return made


only = pytest.mark.parametrize


def test_what_runs_as_planned_passes(host: Host) -> None:
    outcome, found = host.judged()
    assert outcome == "passed", found
    assert found.endswith("as planned, since 1970-01-12T13:46:40Z")


@only("host", ["vllm", "sglang", "venv"], indirect=True)
def test_another_argument_than_planned_fails_with_both(host: Host) -> None:
    """What A4 of the first day shows: two deploys at once, and the plan of a third."""
    host.plan["command"] += ["--max-num-seqs", "64"]
    words = [*replica.engine_words(host.plan)[:-1], "22"]
    host.container[3] = words
    host.process(["/usr/bin/python3", *words], [f"{name}={value}" for name, value in host.plan["env"].items()])
    outcome, found = host.judged()
    assert outcome == "failed" and found.startswith("serves --max-num-seqs 22, plan says 64, since ")


@only("host", ["vllm"], indirect=True)
def test_arguments_that_only_one_of_the_two_has_are_named(host: Host) -> None:
    host.container[3] = [*host.container[3], "--enforce-eager", "--seed=7"]
    assert "--enforce-eager it without a value, plan says none; --seed 7, plan says none" in host.judged()[1]
    host.container[3] = replica.engine_words(host.plan)[:-2]
    missing = replica.engine_words(host.plan)[-2:]
    outcome, found = host.judged()
    assert outcome == "failed" and "plan says" in found and missing[-1].strip("-") in found


@only("host", ["vllm"], indirect=True)
def test_another_engine_is_named_by_what_it_says(host: Host) -> None:
    host.answers = {"/server_info": "0.5.10"}
    host.image[0] = ["lmsysorg/sglang@sha256:beef"]
    host.container[2] = "lmsysorg/sglang@sha256:beef"
    outcome, found = host.judged()
    assert outcome == "failed" and "serves sglang 0.5.10, plan says vllm 0.32.0" in found
    assert "the image lmsysorg/sglang@sha256:beef, plan says vllm/vllm-openai@sha256:abab" in found
    assert judge.words_of(judge.served(host.seen())) == "sglang 0.5.10"  # type: ignore[arg-type]


@only("host", ["vllm"], indirect=True)
def test_an_image_is_the_planned_one_by_its_digest_whatever_it_calls_itself(host: Host) -> None:
    host.answers["/version"] = "0.32.0rc1"
    assert host.judged()[0] == "passed"
    host.container[2] = "registry.example/mirror:latest"
    assert host.judged()[0] == "passed"
    host.image[0] = ["vllm/vllm-openai@sha256:cd"]
    assert host.judged()[0] == "failed"


@only("host", ["venv"], indirect=True)
@only(("version", "outcome"), [("0.32.0", "passed"), ("0.32.0+cu130", "passed"), ("0.31.0", "failed")])
def test_without_an_image_the_release_is_the_engines_word(host: Host, version: str, outcome: str) -> None:
    host.answers["/version"] = version
    assert host.judged()[0] == outcome


@only("host", ["vllm", "venv"], indirect=True)
def test_the_environment_is_compared_without_what_the_image_brings(host: Host) -> None:
    name = next(iter(host.plan["env"]))
    lines = [f"{name}=other", "MORE=1"]
    host.container[4] = ["PATH=/bin", *lines]
    host.process(["python3", *replica.engine_words(host.plan)], lines)
    outcome, found = host.judged()
    assert outcome == "failed" and f"{name}=other, plan says {host.plan['env'][name]}" in found
    assert ("MORE, which the plan does not set" in found) == (host.plan["runtime"]["kind"] == "container")


@only("host", ["venv"], indirect=True)
def test_the_last_argument_of_a_process_may_be_empty(host: Host) -> None:
    host.plan = {**host.plan, "command": [*host.plan["command"], "--note", ""]}  # type: ignore[typeddict-item]
    host.process(
        ["python3", *replica.engine_words(host.plan)], [f"{name}={value}" for name, value in host.plan["env"].items()]
    )
    assert host.judged()[0] == "passed", host.judged()


def test_files_that_changed_since_the_start_fail(host: Host) -> None:
    host.file(UNIT, "another unit")
    outcome, found = host.judged()
    assert outcome == "failed" and f"from its next start on another {UNIT}" in found


@only("host", ["vllm", "venv"], indirect=True)
def test_what_cannot_be_read_is_not_proven_and_not_the_same(host: Host) -> None:
    for silent in ("docker inspect", "docker image"):
        host.silent = {silent}
        outcome, found = host.judged()
        if host.plan["runtime"]["kind"] == "container":
            assert (outcome, f"{silent} says nothing" in found) == ("not_proven", True)
    host.silent = set()
    (host.root / "run/glm-serve-0/started.json").unlink()
    assert host.judged()[0] == "not_proven"
    host.stamp()
    # What a process that gave itself a title leaves of its arguments and of its environment.
    host.file("proc/41/cmdline", "VLLM::APIServer" + "\0" * 300)
    host.file("proc/41/environ", "\0" * 300)
    host.answers = {"/version": NoAnswer("no answer within 3 s", True)}
    outcome, found = host.judged()
    # The digest says which release it is; without one nobody does.
    expected = ("not_proven", "no answer within 3 s") if host.plan["image"] is None else ("passed", "vllm as planned")
    assert outcome == expected[0] and expected[1] in found
    host.silent = {"systemctl show"}
    assert host.judged()[0] == "not_proven"


def test_a_replica_that_is_down_serves_nothing(host: Host) -> None:
    host.unit.update(ActiveState="failed", MainPID="0")
    outcome, found = host.judged()
    assert (outcome, found) == ("not_proven", "glm-serve-0.service is failed: nothing of it runs")
    none = {"count": 0, "recent": 0, "last_at": None, "last_cause": ""}
    assert judge.served(host.seen()) == {"restarts": none}  # type: ignore[arg-type]


def test_nothing_is_asked_of_a_replica_while_it_starts(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "ask", lambda *_args, **_more: pytest.fail("asked"))
    host.unit["ActiveState"] = "activating"
    assert host.seen()["since"] is None


@only("host", ["vllm"], indirect=True)
def test_no_secret_is_returned(host: Host) -> None:
    """Somebody may have started an engine by hand, with a key in its command line."""
    host.file(replica.secret_path(host.plan), f"VLLM_API_KEY={KEY}\n")
    host.plan["env"]["HF_TOKEN"] = "hf_" + "b" * 20
    host.container[3] = [*host.container[3], "--api-key", "c" * 20, f"--x={KEY}", "--admin-api-key=" + "d" * 20]
    host.container[4] = ["HF_TOKEN=hf_" + "b" * 20, "MY_SECRET=" + "e" * 20]
    text = json.dumps(host.seen())
    for secret in (KEY, "b" * 20, "c" * 20, "d" * 20, "e" * 20):
        assert secret not in text
    assert "MY_SECRET" in text and "--api-key" in text


@only("host", ["sglang"], indirect=True)
def test_the_second_key_is_tried_where_the_first_is_refused(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.file("etc/glm/admin.key", "f" * 64)

    def ask(_endpoint: Endpoint, _method: str, path: str, key: str | None = None) -> Answer:
        if path != "/server_info":
            return Answer(404, "")
        return Answer(200, {"version": "0.5.10"}) if key == "f" * 64 else Answer(401, "")

    monkeypatch.setattr(running, "ask", ask)
    assert host.seen()["version"] == "0.5.10"
