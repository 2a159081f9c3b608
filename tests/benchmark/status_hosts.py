"""Measure what ``status.yml`` costs over a fleet, against ``ansible -m ping`` of the same hosts in the same run.

Run from the root of a checkout: ``.venv/bin/python tests/benchmark/status_hosts.py [--hosts 10] [--runs 5]``.
The hosts are stand-ins that answer at once, and of a look after the second between its two readings, as hosts with
processors of their own do; so what is measured is the controller. With ``--inventory rehearsal`` (or another) the hosts
are real, and so are their connections. Both commands are run in turn, round after round. Processor time is shown beside
wall time: a busy machine distorts it less. ``--limit-ratio`` makes the run fail when status takes more processor time
than so many pings.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / ".collections")]

from tests.benchmark.plan_hosts import Sample, median, processor_seconds
from tests.unit.verify.test_fleet_status import host

# Stands for a host's Python, to which ansible gives modules on stdin.
HOST = """#!/bin/sh
if grep -q host_status; then sleep 1; cat {answer}; else echo '{{"ping": "pong", "changed": false}}'; fi
"""


def stand_ins(folder: Path, hosts: int) -> Path:
    """An inventory of hosts that answer at once."""
    (folder / "answer.json").write_text(json.dumps({"changed": False, **host()}), encoding="utf-8")
    python = folder / "host"
    python.write_text(HOST.format(answer=folder / "answer.json"), encoding="utf-8")
    python.chmod(0o755)
    login = {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": str(python)}
    names: dict[str, dict[str, str]] = {f"gpu-{number}": {} for number in range(hosts)}
    variables = {**login, "glm_accelerator": "B200", "glm_accelerator_count": 8, "glm_tls": "fleet"}
    inventory = folder / "hosts.json"
    group = {"hosts": names, "vars": variables}
    inventory.write_text(json.dumps({"all": {"children": {"glm_fleet": group}}}), encoding="utf-8")
    return inventory


def run(*command: str) -> tuple[Sample, subprocess.CompletedProcess[str]]:
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_PIPELINING": "1"}
    begun, used = time.monotonic(), processor_seconds()
    words = [str(Path(sys.executable).parent / command[0]), *command[1:]]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return Sample(time.monotonic() - begun, processor_seconds() - used), done


def measure(inventory: str, folder: Path, runs: int) -> tuple[int, dict[str, list[Sample]]]:
    """How many hosts there were, and the samples of each command."""
    file = folder / "state/status.json"
    commands = {
        "ansible -m ping": ("ansible", "-m", "ping", "-i", inventory, "glm_fleet"),
        "status.yml": ("ansible-playbook", "status.yml", "-i", inventory, "-e", f"glm_state_dir={file.parent}"),
    }
    found: dict[str, list[Sample]] = {name: [] for name in commands}
    hosts = 0
    for _round in range(runs):
        for name, command in commands.items():
            file.unlink(missing_ok=True)
            sample, done = run(*command)
            found[name].append(sample)
            if name == "status.yml":
                # Hosts that are not well fail the run; that one was not read is no measurement.
                rows = json.loads(file.read_text("utf-8"))["hosts"] if file.exists() else []
                hosts = len(rows)
                if not rows or not all(row["replicas"] for row in rows):
                    sys.exit(f"not every host was read:\n{done.stdout[-3000:]}{done.stderr[-2000:]}")
            elif done.returncode:
                sys.exit(f"not every host answered:\n{done.stdout[-3000:]}{done.stderr[-2000:]}")
    return hosts, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=10)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--inventory", help="measure on these hosts instead")
    parser.add_argument("--limit-ratio", type=float)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="glm-benchmark-") as name:
        inventory = arguments.inventory or str(stand_ins(Path(name), arguments.hosts))
        hosts, found = measure(inventory, Path(name), arguments.runs)
    base, ours = (median(samples) for samples in found.values())
    print(f"{hosts} hosts, median of {arguments.runs} runs in turn, load {os.getloadavg()[0]:.1f}\n")
    print(f"{'command':16} {'wall s':>8} {'processor s':>12} {'ratio':>6}")
    for command, sample in zip(found, (base, ours), strict=True):
        print(f"{command:16} {sample.wall:8.1f} {sample.processor:12.2f} {sample.processor / base.processor:6.2f}")
    if arguments.limit_ratio is not None and ours.processor > arguments.limit_ratio * base.processor:
        sys.exit(f"the budget is {arguments.limit_ratio:g} times a ping")


if __name__ == "__main__":
    main()
