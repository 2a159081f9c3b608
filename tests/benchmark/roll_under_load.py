"""Prove on rehearsed hosts that a fleet is one endpoint: what clients of its gateways lose when hosts change or end.

    make roll-proof                                                    # everything, with 20 streams for each host
    make roll-proof ARGS="--only kill-host,affinity --streams 6 --keep"

It brings up a rehearsal with three hosts and two gateways and keeps streams, tool calls and long prompts going through
both while a scenario runs. An answer counts only when its stream ends with stop, length or tool_calls. Each scenario
prints what was expected and what was found. The exit status is 1 when a bound does not hold, and when nothing was
answered. Scenarios build on one another, in the order of the list. ``overhead`` needs no hosts, but wrk and an idle
machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / ".collections")]

from tests.benchmark import door_latency
from tests.benchmark.fleet import ends, rolls, turns
from tests.benchmark.fleet.hosts import Fleet
from tests.benchmark.fleet.measured import Check, Proof
from tests.integration.rehearsal import STATE, command

HOSTS, GATEWAYS = 3, 2
# What the fleet was deployed with last.
INTENT = STATE / "state" / "proof.json"
P50_MS, P99_MS = 0.6, 5.0


def overhead(_proof: Proof | None = None) -> list[Check]:
    """What door and gateway together add to the engine."""
    checks = []
    for connections, found in door_latency.overhead(seconds=4, rounds=3).items():
        over, bare = found["gateway, TLS"], found["two bare, TLS"]
        for what, bound, ours, theirs in (
            ("median", P50_MS, over.p50, bare.p50), ("99 of 100", P99_MS, over.p99, bare.p99),
        ):  # fmt: skip
            shown = f"{ours:.2f} ms; two HAProxies that only pass on {theirs:.2f} ms"
            checks.append(Check(f"{connections} connections, {what}", f"at most {bound} ms", shown, ours <= bound))
    return checks


SCENARIOS: dict[str, Callable[[Proof], list[Check]]] = {
    "roll-flag": rolls.roll_flag,
    "roll-image": rolls.roll_image,
    "roll": rolls.roll,
    "bad-flag": rolls.bad_flag,
    "bad-image": rolls.bad_image,
    "garbage": rolls.garbage,
    "hang": rolls.hang,
    "kill-host": ends.kill_host,
    "cut-host": ends.cut_host,
    "kill-gateway": ends.kill_gateway,
    "kill-controller": rolls.kill_controller,
    "affinity": turns.affinity,
    "overhead": overhead,
}
NAMES = ", ".join(SCENARIOS)
WITHOUT_HOSTS = {"overhead"}


def report(name: str, checks: list[Check], seconds: float) -> bool:
    """Print what was expected and found; whether all of it holds."""
    print(f"\n{name} ({seconds:.0f} s)")
    for check in checks:
        print(f"  {'ok    ' if check.holds else 'FAILED'} {check.what}: expected {check.expected}, found {check.found}")
    sys.stdout.flush()
    return bool(checks) and all(check.holds for check in checks)


def prove(names: list[str], proof: Proof | None) -> list[str]:
    """Run the scenarios; those that failed."""
    failed = []
    for name in names:
        print(f"\n== {name}: {SCENARIOS[name].__doc__}", flush=True)
        begun = time.monotonic()
        try:
            checks = SCENARIOS[name](proof)  # type: ignore[arg-type]  # those without hosts do not read it
            if proof is not None:
                INTENT.write_text(json.dumps(proof.intent), "utf-8")
        except Exception:  # the others are run all the same
            traceback.print_exc()
            checks = [Check("the scenario", "to end", traceback.format_exc(limit=0).strip(), False)]
        if not report(name, checks, time.monotonic() - begun):
            failed.append(name)
    return failed


def scenarios(text: str) -> list[str]:
    """The names in a list with commas, in the order of the scenarios."""
    names = text.split(",")
    if unknown := sorted(set(names) - set(SCENARIOS)):
        raise argparse.ArgumentTypeError(f"unknown {', '.join(unknown)}; known: {NAMES}")
    return [name for name in SCENARIOS if name in names]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=scenarios, default=list(SCENARIOS), metavar="NAME,...", help=NAMES)
    parser.add_argument("--engine", choices=sorted(rolls.FLAGS), default="vllm")
    parser.add_argument("--streams", type=int, default=20, help="clients for each host (20)")
    parser.add_argument("--tokens", type=int, default=150, help="of an answer (150)")
    parser.add_argument("--pause", type=float, default=0.5, help="seconds between the requests of a client (0.5)")
    parser.add_argument("--kills", type=int, default=2, help="how often kill-controller kills one (2)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments of kill-controller")
    parser.add_argument(
        "--roll-seconds", type=float, default=0, help="what a roll takes, for kill-controller (measured)"
    )
    parser.add_argument("--keep", action="store_true", help="leave the rehearsal running")
    parser.add_argument("--running", action="store_true", help="use the one that an earlier run with --keep left")
    given = parser.parse_args(argv)
    proof = None
    try:
        if set(given.only) - WITHOUT_HOSTS:
            # A yes to other arguments on more hosts than the canary.
            intent = {
                "glm_engine": given.engine,
                "glm_launch_count": HOSTS,
                "glm_gateways": GATEWAYS,
                "glm_confirm": True,
            }
            if given.running:
                intent.update(json.loads(INTENT.read_text("utf-8")))
            else:
                more = f"ARGS=-e glm_gateways={GATEWAYS}"
                begun = command("make", "rehearse", f"ENGINE={given.engine}", f"COUNT={HOSTS}", more)
                if begun.code:
                    return begun.code
            fleet = Fleet()
            proof = Proof(
                fleet, intent, given.streams, given.tokens, given.pause, given.kills, given.seed, given.roll_seconds,
                fleet.names[:GATEWAYS],
            )  # fmt: skip
        failed = prove(given.only, proof)
    finally:
        if not given.keep and set(given.only) - WITHOUT_HOSTS:
            command("make", "rehearse-down")
    held = len(given.only) - len(failed)
    print(f"\n{held} of {len(given.only)} scenarios hold; failed: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
