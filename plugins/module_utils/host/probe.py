# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask an engine image, from inside a container with the plan's devices, whether it can serve the plan at all.

This module util is PRIVATE to the collection. It answers two things that otherwise show after an hour of downloads: a
container that does not see every GPU, and an image whose transformers does not know the model.
"""

from __future__ import annotations

import grp
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils import versions
from ansible_collections.glm.fleet.plugins.module_utils.host import runtime
from ansible_collections.glm.fleet.plugins.module_utils.host.commands import run
from ansible_collections.glm.fleet.plugins.module_utils.host.gpu import read_cdi

# Runs inside the container, with the model's type, the script of _host_runtime and its kind as arguments.
SCRIPT = r"""
import glob, json, os, subprocess, sys
found = {"gpus": None, "nvidia_smi": "", "runtime": None, "transformers": None, "known": None, "import_error": None}
# AMD: one render node for each GPU; /dev/kfd must open, which takes the host's numeric groups.
found["render_nodes"] = len(glob.glob("/dev/dri/renderD*"))
found["kfd"] = os.access("/dev/kfd", os.R_OK | os.W_OK)
try:
    smi = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=120)
    lines = [line for line in smi.stdout.splitlines() if line.startswith("GPU ")]
    found["gpus"] = len(lines)
    found["nvidia_smi"] = (smi.stdout + smi.stderr).strip()[-600:]
except Exception as error:
    found["nvidia_smi"] = str(error)
try:
    asked = subprocess.run([sys.executable, "-c", *sys.argv[2:]], capture_output=True, text=True, timeout=240)
    if asked.returncode:
        found["runtime"] = {"problem": f"ended with {asked.returncode}: {asked.stderr.strip()[-600:]}"}
    else:
        found["runtime"] = json.loads(asked.stdout.splitlines()[-1])
except Exception as error:
    found["runtime"] = {"problem": str(error)[-600:]}
try:
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
    found["transformers"] = transformers.__version__
    found["known"] = sys.argv[1] in CONFIG_MAPPING_NAMES
except Exception as error:
    found["import_error"] = f"{type(error).__name__}: {error}"[-600:]
print("GLM-PROBE " + json.dumps(found))
"""


class ProbeError(Exception):
    """The container could not be run, or did not print its answer."""


def has_devices(plan: Mapping[str, Any], root: Path = Path("/")) -> bool:
    """Whether this machine, which need not be the plan's, has devices of the plan's names."""
    known = {device for spec in read_cdi(root)[0] for device in spec["devices"]}
    nodes = [root / str(node).lstrip("/") for node in plan.get("device_nodes", ())]
    return known.issuperset(plan["devices"]) and all(node.exists() for node in nodes)


def device_arguments(plan: Mapping[str, Any]) -> list[str]:
    """Arguments by which ``docker run`` gives a container the plan's devices, and no more rights than they need.

    Raises ProbeError for a missing group.
    """
    argv: list[str] = []
    for device in (*plan["devices"], *plan.get("device_nodes", ())):
        argv += ["--device", device]
    for group in plan.get("device_groups", ()):
        try:
            # By number: the image may have another number for the name, or not know it.
            argv += ["--group-add", str(grp.getgrnam(group).gr_gid)]
        except KeyError:
            raise ProbeError(f"the host has no group {group}, which owns the GPUs' device nodes") from None
    argv += ["--security-opt", "no-new-privileges", "--cap-drop", "ALL"]
    for name in plan["confinement"]["capabilities"]:
        argv += ["--cap-add", name]
    return argv


def expected_of(plan: Mapping[str, Any]) -> dict[str, Any]:
    """What ``judge`` has to expect of an image that serves a plan."""
    accelerator = plan["accelerator"]
    # A replica that shares the host sees its own GPUs by name; AMD's device nodes are those of all.
    named = accelerator.get("indices") if plan["devices"] else None
    return {
        "gpus": len(named) if named else accelerator["count"],
        "vendor": accelerator.get("vendor", "nvidia"),
        "model_type": plan["model"]["model_type"],
        "min_transformers": plan["image"].get("min_transformers"),
    }


def run_probe(reference: str, devices: Sequence[str], expected: Mapping[str, Any], timeout: float) -> dict[str, Any]:
    """Run SCRIPT once in ``reference`` and return what it found.

    ``devices``: see device_arguments. ``expected``: see expected_of. ``timeout``: seconds.

    Raises ProbeError with docker's own words.
    """
    name = "glm-probe-" + re.sub(r"[^0-9a-f]", "", reference.rpartition(":")[2])[:12]
    run(("docker", "rm", "--force", name), 60)
    argv = ["docker", "run", "--rm", "--name", name, "--network", "none", *devices]
    argv += ["--entrypoint", "python3", reference, "-c", SCRIPT, expected["model_type"]]
    argv += [runtime.SCRIPT, runtime.KINDS[expected["vendor"]]]
    done = run(argv, timeout)
    for line in done.stdout.splitlines():
        if line.startswith("GLM-PROBE "):
            found: dict[str, Any] = json.loads(line.partition(" ")[2])
            return found
    if done.timed_out:
        run(("docker", "rm", "--force", name), 60)
    raise ProbeError(f"docker run ended with {done.rc}: {done.evidence(800)}")


def judge(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """What is wrong, one sentence each with expected and found; empty when the image can serve the plan.

    ``expected``: ``{gpus, model_type, min_transformers, vendor}``.
    """
    problems = []
    if expected["vendor"] == "nvidia" and found["gpus"] != expected["gpus"]:
        problems.append(
            f"expected {expected['gpus']} GPUs inside the container, found {found['gpus'] or 0} "
            f"(nvidia-smi -L: {found['nvidia_smi'].replace(chr(10), ' | ') or 'nothing'}); look at the CDI spec and "
            "the driver"
        )
    if expected["vendor"] == "amd" and (found["render_nodes"] != expected["gpus"] or not found["kfd"]):
        problems.append(
            f"expected {expected['gpus']} render nodes and a usable /dev/kfd inside the container, found "
            f"{found['render_nodes']} and {'a usable' if found['kfd'] else 'no usable'} /dev/kfd; look at the driver "
            "and at the groups of /dev/kfd and /dev/dri/renderD*"
        )
    # Without its devices it cannot: one cause, one sentence.
    if not problems:
        problems += runtime.problems(found["runtime"], expected["vendor"], expected["gpus"])
    if found["import_error"]:
        problems.append(f"transformers cannot be imported in the image: {found['import_error']}")
    elif not found["known"]:
        problems.append(
            f"transformers {found['transformers']} in the image does not know model_type {expected['model_type']}"
            + (f"; it needs {expected['min_transformers']} or newer" if expected["min_transformers"] else "")
            + "; choose a newer glm_engine_version"
        )
    elif expected["min_transformers"] and versions.older(found["transformers"] or "", expected["min_transformers"]):
        problems.append(
            f"expected transformers {expected['min_transformers']} or newer in the image, "
            f"found {found['transformers']}; choose a newer glm_engine_version"
        )
    return problems
