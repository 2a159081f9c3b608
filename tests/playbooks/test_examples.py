"""The fleets of examples/, run as they lie there against the simulated cloud."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.playbooks.fleet import ROOT, Fleet

pytestmark = pytest.mark.one_core

EXAMPLES = sorted(path.parent for path in ROOT.glob("examples/*/fleet.lambda.yml"))


def run(fleet: Fleet, example: Path, playbook: str, *words: str) -> tuple[int, str]:
    extra = ["glm_launch_interval=0", f"glm_state_dir={fleet.folder / 'state'}", *words]
    command = ["ansible-playbook", f"glm.fleet.{playbook}", "-i", str(example / "fleet.lambda.yml")]
    done = subprocess.run(
        [*command, *(word for given in extra for word in ("-e", given))], cwd=ROOT, env=fleet.environment(),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_there_are_three_fleets() -> None:
    assert [path.name for path in EXAMPLES] == ["one_host", "two_node_replicas", "two_regions"]
    readme = (ROOT / "examples/README.md").read_text(encoding="utf-8")
    assert all(f"[{path.name}]({path.name})" in readme for path in EXAMPLES)


@pytest.mark.parametrize("name", [path.name for path in EXAMPLES])
def test_an_example_is_launched_planned_and_terminated_as_it_lies_there(fleet: Fleet, name: str) -> None:
    example = fleet.folder / name
    shutil.copytree(ROOT / "examples" / name, example)
    wanted: dict[str, Any] = yaml.safe_load((example / "group_vars/all.yml").read_text(encoding="utf-8"))
    [kind] = wanted["glm_launch_instance_types"]
    # Too few in the first region for the largest example.
    fleet.cloud.control("PUT", "/capacity", {kind: {"us-east-1": 6, "us-west-1": None}})

    code, output = run(fleet, example, "launch", "glm_launch=true")
    assert code == 0, output
    instances = fleet.cloud.state()["instances"]
    assert len(fleet.alive()) == len(instances) == wanted["glm_launch_count"]
    # The inventory lists what carries the fleet's tag.
    assert output.count(f"fleet {wanted['glm_fleet_name']}: {wanted['glm_launch_count']} instance(s)") == 1, output
    regions = {item["region"] for item in instances}
    assert len(regions) == (2 if name == "two_regions" else 1), regions

    code, output = run(fleet, example, "plan")
    assert code == 0, output
    hosts = re.findall(r"^localhost .*ok=|^(\S+) +: ok=\d+ .*failed=0", output, re.M)
    assert len([host for host in hosts if host]) == wanted["glm_launch_count"]
    assert wanted["glm_model"].lower() in output
    if wanted.get("glm_nodes"):
        assert f"--nnodes {wanted['glm_nodes']}" in " ".join(output.split())

    code, output = run(fleet, example, "terminate", "glm_confirm=yes")
    assert code == 0, output
    assert fleet.alive() == []


@pytest.mark.parametrize("name", [path.name for path in EXAMPLES])
def test_an_example_launches_nothing_unasked(fleet: Fleet, name: str) -> None:
    code, output = run(fleet, ROOT / "examples" / name, "launch")
    assert code == 0, output
    assert fleet.alive() == []
    assert "nothing is launched" in " ".join(output.split())
