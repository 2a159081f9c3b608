"""Measure what planning adds to a run of ``plan.yml`` over a large fleet of three kinds of hosts.

Run from the root of a checkout: ``.venv/bin/python tests/benchmark/plan_hosts.py [--hosts 1000] [--runs 3]``.
The other variant is the same playbook with the same arguments, whose action does nothing but return a plan made
beforehand: that is what ansible itself takes to template the arguments, to start a process for each host, and to carry
the answers. Both are run in turn, round after round. Processor time is shown beside wall time: a busy machine distorts
it less. ``--limit-ms`` makes the run fail when planning costs more processor time than that per host.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
KINDS = (("B200", "lambda_b200"), ("H200", "lambda_h200"), ("MI300X", "own_mi300x"))
CANNED = """
import json
from pathlib import Path
from ansible.plugins.action import ActionBase

PLANS = json.loads(Path({plans!r}).read_text())


class ActionModule(ActionBase):
    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        plan = PLANS[self._task.args["accelerator"]]
        return {{"changed": False, "ansible_facts": {{"glm_plans": [plan]}}}}
"""


class Sample(NamedTuple):
    """Seconds of one run."""

    wall: float
    processor: float


def write_inventory(folder: Path, hosts: int) -> Path:
    groups = {
        group: {
            "hosts": {f"{group}-{number}": {} for number in range(index, hosts, len(KINDS))},
            "vars": {"glm_accelerator": accelerator, "glm_accelerator_count": 8},
        }
        for index, (accelerator, group) in enumerate(KINDS)
    }
    path = folder / "hosts.json"
    variables = {"ansible_connection": "local", "glm_state_dir": str(folder / "state")}
    path.write_text(json.dumps({"all": {"vars": variables, "children": {"glm_fleet": {"children": groups}}}}))
    return path


def canned_collection(folder: Path) -> Path:
    """A path of collections in which only the planning action is another one."""
    copy = folder / "canned/ansible_collections/glm/fleet"
    copy.mkdir(parents=True)
    for entry in ROOT.iterdir():
        if entry.name == "plugins":
            shutil.copytree(entry, copy / "plugins")
        elif not entry.name.startswith("."):
            (copy / entry.name).symlink_to(entry)
    reported = json.loads((folder / "state/reports/plan.json").read_text(encoding="utf-8"))
    plans = {plan["accelerator"]["name"]: plan for plan in _plans(reported)}
    (folder / "plans.json").write_text(json.dumps(plans))
    (copy / "plugins/action/serving_plan.py").write_text(CANNED.format(plans=str(folder / "plans.json")))
    return folder / "canned"


def _plans(reported: object) -> list[dict]:
    """Every plan in the report, however it is nested."""
    if isinstance(reported, dict):
        if {"accelerator", "command"} <= set(reported):
            return [reported]
        reported = list(reported.values())
    return [plan for item in reported for plan in _plans(item)] if isinstance(reported, list) else []


def processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run(collections: Path, inventory: Path) -> Sample:
    """One run; ends the benchmark when it fails."""
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(collections), "ANSIBLE_FORKS": "10"}
    begun, used = time.monotonic(), processor_seconds()
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "glm.fleet.plan", "-i", str(inventory)]
    done = subprocess.run(command, cwd=inventory.parent, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"plan.yml failed:\n{done.stdout[-3000:]}{done.stderr[-2000:]}")
    return Sample(time.monotonic() - begun, processor_seconds() - used)


def median(samples: list[Sample]) -> Sample:
    return Sample(
        statistics.median(sample.wall for sample in samples), statistics.median(sample.processor for sample in samples)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--limit-ms", type=float)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="glm-benchmark-") as name:
        folder = Path(name)
        run(ROOT / ".collections", write_inventory(folder, len(KINDS)))
        paths = {"ansible alone": canned_collection(folder), "with planning": ROOT / ".collections"}
        inventory = write_inventory(folder, arguments.hosts)
        found: dict[str, list[Sample]] = {variant: [] for variant in paths}
        for _round in range(arguments.runs):
            for variant, path in paths.items():
                found[variant].append(run(path, inventory))
    base, ours = (median(found[variant]) for variant in paths)
    each = Sample(*((a - b) / arguments.hosts * 1000 for a, b in zip(ours, base, strict=True)))
    print(f"{arguments.hosts} hosts of {len(KINDS)} kinds, median of {arguments.runs} runs in turn\n")
    print(f"{'variant':16} {'wall s':>8} {'processor s':>12} {'ratio':>6}")
    for variant, sample in zip(paths, (base, ours), strict=True):
        print(f"{variant:16} {sample.wall:8.1f} {sample.processor:12.1f} {sample.processor / base.processor:6.2f}")
    print(f"\nplanning costs {each.wall:.2f} ms per host, {each.processor:.2f} ms of processor time")
    if arguments.limit_ms is not None and each.processor > arguments.limit_ms:
        sys.exit(f"the budget is {arguments.limit_ms:g} ms per host")


if __name__ == "__main__":
    main()
