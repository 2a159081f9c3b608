"""Run the gate many times against the real engines with the taught checkpoint, and count the false alarms.

    make gate-runs                                  # 100 runs on each engine, 200 in all: the proof
    .venv/bin/python tests/benchmark/gate_runs.py [--engine vllm] [--runs 3]

Each engine is started as a rehearsal's container starts it, from the command that the planner makes for GLM-5.1 on
8x B200, and asked by the code that ``verify`` runs on a host, with the mini-eval. A check that fails is a false alarm
and is printed; the exit status is 1 if there was one. Also printed: what was not proven, the seconds of a run, and
seconds and tokens by check.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / ".collections")]

from ansible_collections.glm.fleet.plugins.module_utils import arguments, finding
from ansible_collections.glm.fleet.plugins.module_utils.finding import printable
from ansible_collections.glm.fleet.plugins.module_utils.serving import evaluate, gate, own_words, talk
from ansible_collections.glm.fleet.plugins.module_utils.serving.client import Turn
from ansible_collections.glm.fleet.plugins.module_utils.serving.log import Line
from ansible_collections.glm.fleet.plugins.modules import endpoint_check
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import make as planner
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import asking
from simulator.engines import parser_loader, trees
from simulator.hub.__main__ import write_tiny
from simulator.settings import Settings

ENGINES = ("vllm", "sglang")
GPUS = 8
PATIENCE_SECONDS = 300
KEY = "gate-runs-key"


def plan_of(engine: str) -> Plan:
    intent = planner.Intent(model="GLM-5.1", accelerator="B200", accelerator_count=GPUS, engine=engine)
    return planner.make(intent, catalog.load())


@contextlib.contextmanager
def serving(engine: str, plan: Plan, folder: Path) -> Iterator[int]:
    """The engine behind the front door, with the taught checkpoint; gives its port."""
    cache = Settings.from_environment().cache_dir
    trees.build_tree(cache, engine)
    devices = folder / "devices"
    devices.mkdir()
    for number in range(GPUS):
        (devices / f"nvidia{number}").touch()
    model = folder / "model"
    write_tiny(model)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    words = [str(model) if word == plan["model"]["repository"] else word for word in plan["command"]]
    if engine == "sglang":  # the front door is called by the Python that this command starts
        del words[: words.index("sglang.launch_server") + 1]
    words[words.index("--host") + 1], words[words.index("--port") + 1] = "127.0.0.1", str(port)
    environ = {
        **{name: value for name, value in plan["env"].items() if not value.startswith("/root")},
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(ROOT),
        "GLM_REHEARSAL_VERSION": plan["engine"]["version"],
        "GLM_REHEARSAL_ENGINES": str(cache / "engines"),
        "GLM_REHEARSAL_DEVICES": str(devices),
    }
    if plan["secret"]["kind"] == "env":
        environ[plan["secret"]["name"]] = KEY
    else:
        secret = folder / "secret.yaml"
        secret.write_text(f"{plan['secret']['option']}: {KEY}\n", encoding="utf-8")
        words[words.index("--config") + 1] = str(secret)
    python = str(parser_loader.ensure_python())
    command = [python, "-m", "simulator.engines.front_door", engine, "serve", *words]
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
    try:
        wait(process, port, log)
        yield port
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
            return
        time.sleep(0.5)
    raise SystemExit(f"the engine does not serve:\n{log.read_text('utf-8', 'replace')[-3000:]}")


def options(plan: Plan, port: int) -> dict[str, Any]:
    """What the module on the host is given, with its defaults."""
    defaults = {name: option.get("default") for name, option in arguments.ENDPOINT_CHECK.items()}
    share = defaults["context_share"]
    return {**defaults, **asking.options(plan, share), "port": port, "api_key": KEY}


class Costs:
    """Seconds and tokens by check, of one run."""

    def __init__(self) -> None:
        self.tokens: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        self.seconds: dict[str, float] = {}
        self._check = ""

    def measure(self, asked: talk.Asked) -> None:
        """Make every check once and count."""
        plain = talk.chat

        def counting(*given: Any) -> Turn:
            turn = plain(*given)
            self.tokens[self._check][0] += turn.prompt_tokens or 0
            self.tokens[self._check][1] += turn.completion_tokens or 0
            return turn

        talk.chat = counting
        try:
            for name, _expected, check in gate.planned(gate.Gate(asked)):
                self._check, begun = name, time.monotonic()
                with contextlib.suppress(Exception):
                    check()
                self.seconds[name] = time.monotonic() - begun
        finally:
            talk.chat = plain

    def show(self) -> None:
        for name, seconds in self.seconds.items():
            sent, made = self.tokens[name]
            print(f"    {name:32} {seconds:6.2f} s  {sent:7,} + {made:5,} tokens")


def run(asked: talk.Asked, promised: dict[str, Any], log: Path) -> list[finding.Finding]:
    """One run of the gate, with what the engine says of itself, and the mini-eval as a finding."""
    one = gate.Gate(asked)
    before = one.talk.metrics()
    found = gate.made(one)
    lines = [Line(printable(text), True) for text in log.read_text("utf-8", "replace").splitlines()]
    said = own_words.Said(lines, before, one.talk.metrics())
    found += own_words.judge(own_words.Promised(**promised), said).findings
    counted = evaluate.score(asked, one.talk.context)
    right = counted["right"] == counted["asked"]
    shown = f"{counted['right']} of {counted['asked']}; {counted['wrong']}"
    return [*found, finding.judged("verify", "eval", right, "all right", shown, seconds=counted["seconds"])]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=ENGINES, action="append")
    parser.add_argument("--runs", type=int, default=3, help="runs on each engine")
    given = parser.parse_args()
    alarms = 0
    for engine in given.engine or ENGINES:
        plan = plan_of(engine)
        with tempfile.TemporaryDirectory(prefix="glm-gate-") as scratch, serving(engine, plan, Path(scratch)) as port:
            given_options = options(plan, port)
            asked = endpoint_check.asked(given_options)
            costs = Costs()
            costs.measure(asked)
            seconds, unproven = [], Counter[str]()
            for number in range(given.runs):
                begun = time.monotonic()
                found = run(asked, given_options["promised"], Path(scratch) / "log")
                seconds.append(time.monotonic() - begun)
                unproven.update(f"{one['check']}: {one['found']}" for one in found if one["outcome"] == "not_proven")
                for one in finding.against(found):
                    alarms += 1
                    print(f"  ALARM in run {number + 1} on {engine}: {one['check']}: {one['found']}", flush=True)
        print(f"{engine}: {given.runs} runs of {len(found)} checks, {alarms} false alarms so far")
        print(f"  a run took {statistics.median(seconds):.1f} s (median), {max(seconds):.1f} s at most")
        for text, count in unproven.items():
            print(f"  not proven {count} times: {text}")
        costs.show()
    return 1 if alarms else 0


if __name__ == "__main__":
    sys.exit(main())
