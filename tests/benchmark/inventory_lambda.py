"""Measure what a large Lambda fleet adds to ``ansible-inventory --list``.

Run from the root of a checkout: ``.venv/bin/python tests/benchmark/inventory_lambda.py [--instances 5000] [--runs 5]``.
A loopback server gives the same answer each time. The variants are run in turn, round after round, so that a busy
machine slows all of them alike; the table shows medians of wall time and of processor time, which a busy machine
distorts less.

Variants: an inventory without instances; bare hosts (same names and groups, not one variable, from a plugin that does
nothing else), which is what core itself takes to list that many hosts; ours with its built-in groups; the same without
what the neutral variables say in the cloud's words, too; the same groups as in the first of these
made with ``constructed``. ``--limit-seconds`` makes the run fail when ours costs more than that above the empty one.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.playbooks.lambda_api.fake_cloud import B200, GH200, Answer, FakeCloud, data, make_instance, serve

CONSTRUCTED = """
builtin_groups: []
groups:
  lambda: true
  glm_fleet: "'glm-fleet' in lambda_tags"
  lambda_no_address: ansible_host is undefined
keyed_groups:
  - {prefix: lambda_region, key: lambda_region}
  - {prefix: lambda_type, key: lambda_instance_type}
  - {prefix: lambda_accelerator, key: lambda_accelerator}
  - {prefix: lambda_status, key: lambda_status}
  - {prefix: lambda_tag, key: lambda_tags}
"""

BARE_PLUGIN = '''
from __future__ import annotations

DOCUMENTATION = """
name: bare
short_description: Hosts and groups without variables
description: The floor that core sets.
options:
  plugin: {description: Marks the file., required: true}
"""
import os

from ansible.plugins.inventory import BaseInventoryPlugin


class InventoryModule(BaseInventoryPlugin):
    NAME = "bare"

    def verify_file(self, path):
        return path.endswith("bare.yml")

    def parse(self, inventory, loader, path, cache=True):
        super().parse(inventory, loader, path, cache)
        groups = [f"group_{number}" for number in range(7)]
        for group in groups:
            inventory.add_group(group)
        for number in range(int(os.environ["BARE_HOSTS"])):
            inventory.add_host(f"node-{number}")
            for group in groups:
                inventory.add_child(group, f"node-{number}")
'''


def fleet(size: int) -> Answer:
    """``size`` instances of two types in three regions, as the answer to the listing."""
    return data(
        [
            make_instance(
                number,
                instance_type=GH200 if number % 5 == 0 else B200,
                region={"name": ("us-east-1", "us-south-2", "europe-central-1")[number % 3], "description": ""},
                status="booting" if number % 50 == 0 else "active",
            )
            for number in range(size)
        ]
    )


def write_variants(folder: Path, url: str) -> dict[str, Path]:
    """The inventory of each variant, by the name the table shows."""
    common = f"plugin: glm.fleet.lambda_cloud\napi_key: benchmark\nrequest_interval: 0\nbase_url: {url}"
    texts = {
        "empty": f"{common}/empty\n",
        "bare hosts": "plugin: bare\n",
        "built-in groups": f"{common}/full\n",
        "not repeated": f"{common}/full\nrepeated_hostvars: false\n",
        "constructed groups": f"{common}/full\n{CONSTRUCTED}",
    }
    files = {}
    for position, (name, text) in enumerate(texts.items()):
        file = folder / f"{position}.bare.yml" if name == "bare hosts" else folder / f"{position}.lambda.yml"
        file.write_text(text, encoding="utf-8")
        files[name] = file
    (folder / "bare.py").write_text(BARE_PLUGIN, encoding="utf-8")
    return files


class Sample(NamedTuple):
    """Seconds of one run, or their medians over several."""

    wall: float
    processor: float


def processor_seconds() -> float:
    """Processor time of all finished children so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(inventory: Path, environment: dict[str, str]) -> tuple[Sample, int]:
    """One whole run, and the number of hosts it listed."""
    command = [str(Path(sys.executable).parent / "ansible-inventory"), "-i", str(inventory), "--list"]
    start, used = time.perf_counter(), processor_seconds()
    output = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True).stdout
    sample = Sample(time.perf_counter() - start, processor_seconds() - used)
    listed = json.loads(output)
    return sample, len({host for group in listed.values() for host in group.get("hosts", ())})


def main() -> int:
    """Measure, print the table, and return the exit status."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--instances", type=int, default=5000)
    options.add_argument("--runs", type=int, default=5)
    options.add_argument("--limit-seconds", type=float)
    chosen = options.parse_args()
    with serve() as cloud, tempfile.TemporaryDirectory() as folder:
        medians = measure_all(cloud, Path(folder), chosen.instances, chosen.runs)
    empty = medians["empty"]
    ours = medians["built-in groups"].wall - empty.wall
    print(f"\n{chosen.instances} instances, {chosen.runs} whole runs of ansible-inventory --list, medians in seconds")
    print(f"{'variant':<20} {'wall':>7} {'beyond empty':>13} {'times ours':>11} {'processor':>10} {'beyond empty':>13}")
    for name, sample in medians.items():
        beyond = sample.wall - empty.wall
        print(
            f"{name:<20} {sample.wall:>7.2f} {beyond:>13.2f} {beyond / ours:>11.2f} "
            f"{sample.processor:>10.2f} {sample.processor - empty.processor:>13.2f}"
        )
    if chosen.limit_seconds is not None and ours > chosen.limit_seconds:
        print(f"The fleet costs {ours:.2f} s beyond an empty inventory; the limit is {chosen.limit_seconds:g} s.")
        return 1
    return 0


def measure_all(cloud: FakeCloud, folder: Path, size: int, runs: int) -> dict[str, Sample]:
    """The medians of each variant; fails if one lists another number of hosts than it should."""
    full, empty = fleet(size), data([])
    cloud.handler = lambda request: full if request.path.startswith("/full") else empty
    variants = write_variants(folder, cloud.url)
    environment = {
        **os.environ,
        "BARE_HOSTS": str(size),
        "ANSIBLE_INVENTORY_PLUGINS": str(folder),
        "ANSIBLE_INVENTORY_ENABLED": "glm.fleet.lambda_cloud,bare",
    }
    samples: dict[str, list[Sample]] = {name: [] for name in variants}
    for _round in range(runs):
        for name, file in variants.items():
            sample, hosts = measure(file, environment)
            expected = 0 if name == "empty" else size
            if hosts != expected:
                raise SystemExit(f"{name}: expected {expected} hosts, found {hosts}")
            samples[name].append(sample)
    return {name: Sample(*map(statistics.median, zip(*values))) for name, values in samples.items()}


if __name__ == "__main__":
    sys.exit(main())
