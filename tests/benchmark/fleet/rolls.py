"""Scenarios of changes: rolls that succeed, releases that cannot serve, and controllers that are killed."""

from __future__ import annotations

import functools
import json
import os
import random
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from tests.benchmark.fleet import measured
from tests.benchmark.fleet.measured import Check, Proof, Seen, at_most, equal
from tests.integration.rehearsal import ROOT, command

# A flag that restarts the engine and changes nothing of its answers, with its name in each engine.
FLAGS = {"vllm": "max-num-seqs", "sglang": "max-running-requests"}
# One more image of the same engine, which the rehearsal has once it is asked for; and one that no registry has.
VARIANT, ABSENT = "cu129", {"vllm": "0.31.0", "sglang": "0.5.9"}
IMAGES = {"vllm": "vllm/vllm-openai:v0.32.0-cu129", "sglang": "lmsysorg/sglang:v0.5.10-cu129"}
# What the guard asks is answered; what the gate asks is answered with something else, or for ever rendered. What is
# short is answered: engines try the template themselves when they start.
GARBAGE = "{{ 'Say something else.' }}"
HANGING = (
    "{% if messages[0]['content'] is string and messages[0]['content'] | length > 24 %}"
    "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}{% endif %}Hello"
)
# Less than after which vLLM stops rendering, and more than a healthy answer takes on a busy machine.
HANG_SECONDS = 25


def _other_flag(proof: Proof) -> dict[str, Any]:
    """Engine arguments with another value of the flag than any host has."""
    name = FLAGS[proof.intent["glm_engine"]]
    has = {proof.fleet.flag(host, name) for host in proof.fleet.names}
    return {name: next(value for value in (32, 33, 34, 35, 36) if str(value) not in has)}


def _success(proof: Proof, seen: Seen, before: dict[str, str], restarted: int) -> list[Check]:
    after = proof.fleet.starts()
    return [
        equal("exit status", 0, seen.run.code),
        *measured.nothing_lost(seen),
        *measured.capacity(proof, seen),
        equal("hosts that were restarted", restarted, sum(after[host] != before[host] for host in after)),
        *measured.ends_well(proof, proof.fleet.states().values()),
        Check("seconds", "-", f"{seen.seconds:.0f}; out: {measured.out_of(proof, seen)}", True),
    ]


def roll_flag(proof: Proof) -> list[Check]:
    """Every host with another flag."""
    before = proof.fleet.starts()
    proof.intent["glm_engine_args"] = _other_flag(proof)
    seen = measured.under_load(proof, lambda: proof.play("deploy_glm51.yml"))
    return _success(proof, seen, before, len(before))


def roll_image(proof: Proof) -> list[Check]:
    """Every host with another image of the same engine."""
    before = proof.fleet.starts()
    engine = proof.intent["glm_engine"]
    made = command("python", "-m", "simulator", "up", "--engines", engine, "--image", IMAGES[engine])
    if made.code:
        return [equal("exit status of simulator up", 0, made.code)]
    if proof.intent.get("glm_image_variant"):
        del proof.intent["glm_image_variant"]
    else:
        proof.intent["glm_image_variant"] = VARIANT
    seen = measured.under_load(proof, lambda: proof.play("deploy_glm51.yml"))
    return _success(proof, seen, before, len(before))


def roll(proof: Proof) -> list[Check]:
    """roll.yml: every host again with what it has."""
    before = proof.fleet.starts()
    seen = measured.under_load(proof, lambda: proof.play("roll.yml"))
    return _success(proof, seen, before, len(before))


def _refused(proof: Proof, restarts: int, words: list[str], **more: Any) -> list[Check]:
    """A deploy that cannot succeed, and ends with what was there before."""
    before, states = proof.fleet.starts(), proof.fleet.states()
    # Templates of the engine must not be read as those of Ansible.
    with tempfile.TemporaryDirectory(prefix="glm-proof-") as folder:
        given = Path(folder, "given.yml")
        given.write_text(_as_they_are(more), "utf-8")
        seen = measured.under_load(proof, lambda: proof.play("deploy_glm51.yml", "-e", f"@{given}"))
    last = " ".join(" ".join(seen.run.output.splitlines()[-30:]).split())
    after, now = proof.fleet.starts(), proof.fleet.states()
    return [
        Check("exit status", "not 0", str(seen.run.code), seen.run.code != 0),
        *(
            Check("cause in the last lines", word, word if word in last else last[-1500:], word in last)
            for word in words
        ),
        *measured.nothing_lost(seen),
        *measured.capacity(proof, seen),
        at_most("hosts that were restarted", restarts, sum(after[host] != before[host] for host in after)),
        at_most("hosts that were out", restarts, len(measured.out_of(proof, seen))),
        equal("release and files of every host", _served(states), _served(now)),
        *measured.ends_well(proof, now.values(), freed=restarts > 0),
        Check("seconds", "-", f"{seen.seconds:.0f}; out: {measured.out_of(proof, seen)}", True),
    ]


def _as_they_are(values: dict[str, Any]) -> str:
    """Variables as YAML whose strings Ansible does not read as templates."""

    class Unsafe(str):
        """Marked as such."""

    class Dumper(yaml.SafeDumper):
        """Writes the mark."""

    def marked(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: marked(one) for name, one in value.items()}
        return Unsafe(value) if isinstance(value, str) and "{" in value else value

    Dumper.add_representer(Unsafe, lambda dumper, value: dumper.represent_scalar("!unsafe", str(value), style='"'))
    return yaml.dump(marked(values), Dumper=Dumper)


def _served(states: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {host: (one["good"], one["files"]) for host, one in states.items()}


def _args(proof: Proof, **more: Any) -> dict[str, Any]:
    return {"glm_engine_args": {**proof.intent.get("glm_engine_args", {}), **more}}


def bad_flag(proof: Proof) -> list[Check]:
    """An engine that ends when it is started."""
    # In a folder that the container has: the plan refuses others.
    path = "/root/.cache/huggingface/no-such-template.jinja"
    return _refused(proof, 1, [path, "was put back"], **_args(proof, **{"chat-template": path}))


def bad_image(proof: Proof) -> list[Check]:
    """An image that no registry has."""
    version = ABSENT[proof.intent["glm_engine"]]
    return _refused(proof, 0, [f":v{version}"], glm_engine_version=version)


def garbage(proof: Proof) -> list[Check]:
    """An engine that starts, and answers something else than what it was asked."""
    return _refused(proof, 1, ["verify", "was put back"], **_args(proof, **{"chat-template": GARBAGE}))


def hang(proof: Proof) -> list[Check]:
    """An engine that starts, is healthy, and does not answer."""
    more = {**_args(proof, **{"chat-template": HANGING}), "verify_timeout": HANG_SECONDS}
    return _refused(proof, 1, ["verify", f"{HANG_SECONDS} s", "was put back"], **more)


def kill_controller(proof: Proof) -> list[Check]:
    """The controller is killed at random points of a roll, which is then run again."""
    chance = random.Random(proof.seed)
    checks: list[Check] = []
    # Points are between the start and the end of a roll that nobody kills.
    whole = proof.roll_seconds
    if not whole:
        seen = measured.under_load(proof, lambda: proof.play("roll.yml"))
        checks.append(equal("exit status of a roll that nobody kills", 0, seen.run.code))
        whole = seen.seconds
    for number in range(proof.kills):
        flagged = number % 2 == 0
        if flagged:
            proof.intent["glm_engine_args"] = _other_flag(proof)
        book = "deploy_glm51.yml" if flagged else "roll.yml"
        after = chance.uniform(0.1, 1.0) * whole
        seen = measured.under_load(proof, functools.partial(_killed_and_again, proof, book, after))
        ended, again = seen.run
        what = f"{book} killed after {after:.0f} s" + (", when it had ended" if ended else "")
        states = proof.fleet.states()
        flags = {proof.fleet.flag(host, FLAGS[proof.intent["glm_engine"]]) for host in proof.fleet.names}
        wanted = proof.intent["glm_engine_args"]
        checks += [
            equal(f"{what}: exit status of the next run", 0, again.code),
            *(Check(f"{what}: {one.what}", one.expected, one.found, one.holds) for one in (
                *measured.nothing_lost(seen), *measured.capacity(proof, seen),
                *measured.ends_well(proof, states.values()),
                equal("flags of the hosts", {str(value) for value in wanted.values()} or flags, flags),
                equal("different files of the hosts", 1, len({json.dumps(one["files"]) for one in states.values()})),
                Check("seconds", "-", f"{seen.seconds:.0f}; out: {measured.out_of(proof, seen)}", True),
            )),
        ]  # fmt: skip
    return checks


def _killed_and_again(proof: Proof, book: str, after: float) -> tuple[bool, Any]:
    """Whether the run had ended before it was killed, and the run after it."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            ["ansible-playbook", book, "-i", "rehearsal", "-e", json.dumps(proof.intent)],
            cwd=ROOT, env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
        time.sleep(after)
        ended = process.poll() is not None
        if not ended:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        output.seek(0)
        tasks = [line for line in output.read().decode().splitlines() if line.strip()]
        print(f"killed {book} after {after:.1f} s, at: {' | '.join(tasks[-4:])}", flush=True)
    return ended, proof.play(book)
