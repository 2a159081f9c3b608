"""The real vLLM or SGLang on the CPU, with the tiny model and a secret file as the product writes it."""

from __future__ import annotations

import dataclasses
import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import disks, routes
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import make as planner
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Door, Plan
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import replica
from ansible_collections.glm.fleet.plugins.plugin_utils.tls import authority
from simulator.engines import front_door, tiny_glm, trees
from simulator.settings import Settings
from tests.engines import cpu_start
from tests.unit.serve.plans import plan

# With a slash, as some fleets serve it: clients must find it all the same.
MODEL = "zai-org/GLM-5.1-FP8"
ADMIN = "glm-the-key-of-root-0123456789"
START_SECONDS = 300


class Running(NamedTuple):
    """A started engine with two doors in front of it, one over TLS: their ports, and who signed the certificate."""

    name: str
    engine: int
    door: int
    secure: int
    signer: authority.Authority

    @property
    def table(self) -> tuple[routes.Route, ...]:
        """The routes of its version."""
        return routes.load(self.name, trees.ENGINES[self.name].version)

    @property
    def passing(self) -> Door:
        """What its version lets pass, and what it lacks."""
        return routes.door(catalog.load(), self.name, trees.ENGINES[self.name].version)


def ask(
    port: int, method: str, path: str, headers: Mapping[str, str] | None = None, body: Any = None
) -> tuple[int, str]:
    """Status and text of an answer."""
    data = None if body is None else json.dumps(body).encode()
    given = {"Content-Type": "application/json", **(headers or {})}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, given, method=method)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return int(answer.status), answer.read().decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode("utf-8", "replace")


def bearer(key: str) -> dict[str, str]:
    """The header with a key."""
    return {"Authorization": f"Bearer {key}"}


def on_network_disk(engine: str, version: str, filesystem: str) -> Plan:
    """A plan for weights on that file system, of a model that the version knows."""
    disk = disks.disk_of(
        {
            "hf_home": "/var/lib/glm/huggingface", "device": "there", "filesystem": filesystem, "kind": "network",
            "read_mb_s": None, "measured_at": None, "memory_gib": 2000,
        }
    )  # fmt: skip
    intent = planner.Intent("GLM-5.1", "H200", 8, engine=engine, engine_version=version, disk=disk, runtime="venv")
    try:
        return planner.make(intent, catalog.load())
    except planner.PlanError:
        return planner.make(dataclasses.replace(intent, model="GLM-4.7"), catalog.load())


def loader_words(engine: str) -> list[str]:
    """What a plan adds to the command for weights on virtiofs: the engine loads the tiny model so."""
    made = on_network_disk(engine, trees.ENGINES[engine].version, "virtiofs")
    words: list[str] = []
    for option in made["loading"]["options"]:
        # The option, or a key of its mapping, and its values.
        at = next(at for at, word in enumerate(made["command"]) if word.split(".")[0] == option)
        end = next((to for to in range(at + 1, len(made["command"])) if made["command"][to].startswith("--")), None)
        words += made["command"][at:end]
    assert words, engine
    return words


@contextmanager
def started(engine: str, folder: Path, key: str, admin_key: str) -> Iterator[int]:
    """The port of an engine that serves, with the keys that the product would give it. It is ended afterwards."""
    tiny_glm.write(folder / "model")
    secret, log = folder / "secret.yaml", folder / "log"
    text = replica.secret_file(plan(engine), key, admin_key)  # type: ignore[arg-type]  # test plans are dicts
    secret.write_text(f"# written by the role\n{text}", encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    tree = trees.build_tree(Settings.from_environment().cache_dir, engine)
    words = [word.format(model=folder / "model", port=port) for word in cpu_start.WORDS[engine]]
    words += ["--served-model-name", MODEL, *loader_words(engine)]
    environ = cpu_start.environment(folder, tree) | {"VLLM_CACHE_ROOT": str(folder / "cache")}
    front_door.seed_cache(tree, environ)
    if plan(engine)["secret"]["kind"] == "env":
        environ |= dict(line.split("=", 1) for line in text.splitlines())
    else:
        words += ["--config", str(secret)]
    with log.open("wb") as output:
        command = [cpu_start.python(), *words]
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environ)
    try:
        _wait(port, process, log)
        yield port
    finally:
        process.terminate()
        process.wait(60)


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if ask(port, "GET", "/health")[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.5)
    pytest.fail(f"the engine does not serve:\n{log.read_text('utf-8', 'replace')[-2000:]}")
