"""Plan many random intents: each is planned, or refused with what to do next; anything else is a fault.

Run from the root of a checkout: ``make intents``, or ``.venv/bin/python tests/benchmark/plan_intents.py --count 5000
--seed 7``. Processes share the work; the figures are the same for the same seed and count. Exit status 1 with a fault.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import os
import sys
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / ".collections")]

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from tests.unit.planner import intents

CHUNK = 1000


def chunk(seed: int, number: int, count: int) -> tuple[collections.Counter[str], list[str]]:
    """Figures of one part of the work, and its faults as text."""
    figures, raised = intents.plan_all(catalog.load(), f"{seed}/{number}", count)
    faults = ["".join(traceback.format_exception(error)[-2:]) + f"  of {intent}" for intent, error in raised]
    return figures, faults


def main() -> int:
    """Run as a program; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    sizes = [CHUNK] * (asked.count // CHUNK) + ([asked.count % CHUNK] if asked.count % CHUNK else [])
    began = time.monotonic()
    figures: collections.Counter[str] = collections.Counter()
    faults: list[str] = []
    with concurrent.futures.ProcessPoolExecutor(asked.processes) as pool:
        for part, found in pool.map(chunk, [asked.seed] * len(sizes), range(len(sizes)), sizes):
            figures += part
            faults += found
    seconds = time.monotonic() - began
    print(
        f"{asked.count:,} intents (seed {asked.seed}) in {seconds:.0f} s: {figures['planned']:,} planned, "
        f"{figures['refused']:,} refused with a next step, {len(faults):,} faults"
    )
    for fault in faults[:5]:
        print(f"\n{fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
