"""Measure what a converged host costs when it is prepared again: base, Docker and NVIDIA, on real hosts over ssh.

Run from the root of a checkout: ``.venv/bin/python tests/benchmark/hosts_converged.py [--hosts 10] [--runs 3]``.
The hosts boot systemd in podman and have the packages of a vendor's repository that each of them serves. Both variants
are converged first, then run in turn, round after round. The plain one is what is commonly written
(``hosts/plain.yml``). The run fails when ours takes more tasks per host than ``--limit-tasks``: 25 of the roles, and
one of the play that gives them their plan.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
VARIANTS = ("plain", "ours")


class Run(NamedTuple):
    """One run of a playbook: wall time in seconds, and of the recap the largest numbers of any host."""

    seconds: float
    tasks: int
    changed: int


def environment() -> dict[str, str]:
    return {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"),
        "ANSIBLE_INJECT_FACT_VARS": "false",
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
        "ANSIBLE_FORKS": "10",
        "MOLECULE_PROJECT_DIRECTORY": str(ROOT),
    }


def play(inventory: Path, playbook: Path) -> Run:
    """Run a playbook; ends the benchmark when it fails."""
    begun = time.monotonic()
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(inventory), str(playbook)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    seconds = time.monotonic() - begun
    if done.returncode:
        sys.exit(f"{playbook.name} failed:\n{done.stdout[-4000:]}{done.stderr[-2000:]}")
    rows = re.findall(r"ok=(\d+) +changed=(\d+) .*?skipped=(\d+)", done.stdout)
    tasks = max(int(ok) + int(skipped) for ok, _changed, skipped in rows)
    return Run(seconds, tasks, max(int(changed) for _ok, changed, _skipped in rows))


def simulator(*arguments: str) -> str:
    command = [sys.executable, "-m", "simulator", "hosts", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=os.environ).stdout


def boot(folder: Path, count: int) -> Path:
    """Boot the hosts; returns the inventory."""
    key = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    hosts = {}
    for number in range(count):
        name = f"bench-{number}"
        given = ("--image", "gpu-base", "--name", name, "--ssh-key", f"{key}.pub", "--accelerators", "B200:8:180")
        address = json.loads(simulator("create", *given))["ip"]
        hosts[name] = {"ansible_host": address}
    login = {
        "ansible_user": "ubuntu",
        "ansible_ssh_private_key_file": str(key),
        "ansible_ssh_common_args": "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null",
        "ansible_pipelining": True,
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    inventory = folder / "hosts.yml"
    groups = {"bare": {"hosts": {}}}
    inventory.write_text(json.dumps({"all": {"vars": login, "hosts": hosts, "children": groups}}), encoding="utf-8")
    return inventory


def measure(inventory: Path, runs: int) -> dict[str, list[Run]]:
    books = {name: ROOT / "tests/benchmark/hosts" / f"{name}.yml" for name in VARIANTS}
    print(f"preparing: {play(inventory, ROOT / 'molecule/nvidia/prepare.yml').seconds:.0f} s", flush=True)
    for name in reversed(VARIANTS):
        print(f"first run, {name}: {play(inventory, books[name]).seconds:.0f} s", flush=True)
    found: dict[str, list[Run]] = {name: [] for name in VARIANTS}
    for _round in range(runs):
        for name in VARIANTS:
            found[name].append(play(inventory, books[name]))
        # A run that is ended early has said what it measured.
        print("round: " + ", ".join(f"{name} {done[-1].seconds:.1f} s" for name, done in found.items()), flush=True)
    return found


def show(found: dict[str, list[Run]], hosts: int) -> None:
    base = statistics.median(run.seconds for run in found["plain"])
    print(f"\n{hosts} converged hosts, median of {len(found['plain'])} runs in turn\n")
    print(f"{'variant':10} {'tasks per host':>14} {'changed':>8} {'seconds':>8} {'ratio':>6}")
    for name, runs in found.items():
        seconds = statistics.median(run.seconds for run in runs)
        changed = max(run.changed for run in runs)
        print(f"{name:10} {runs[0].tasks:14} {changed:8} {seconds:8.1f} {seconds / base:6.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=10)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--limit-tasks", type=int, default=26)
    arguments = parser.parse_args()
    # Whoever ends the benchmark gets the hosts removed too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    with tempfile.TemporaryDirectory(prefix="glm-benchmark-") as name:
        os.environ["GLM_REHEARSAL_DIR"] = str(Path(name) / "rehearsal")
        try:
            found = measure(boot(Path(name), arguments.hosts), arguments.runs)
        finally:
            simulator("destroy", "--all")
    show(found, arguments.hosts)
    tasks = max(run.tasks for run in found["ours"])
    if any(run.changed for run in found["ours"]):
        sys.exit("a converged host was changed")
    if tasks > arguments.limit_tasks:
        sys.exit(f"{tasks} tasks per host, the budget is {arguments.limit_tasks}")


if __name__ == "__main__":
    main()
