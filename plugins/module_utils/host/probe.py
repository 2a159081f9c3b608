# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask an engine image, from inside a container with the plan's devices, whether it can serve the plan at all.

This module util is PRIVATE to the collection. It answers what otherwise shows after an hour of downloads: a container
that does not see every GPU, an image whose transformers does not know the model, and an engine that cannot be loaded,
or cannot compile kernels, under the limits that its unit will set.
"""

from __future__ import annotations

import grp
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils import versions
from ansible_collections.glm.fleet.plugins.module_utils.host import container, runtime
from ansible_collections.glm.fleet.plugins.module_utils.host.commands import run
from ansible_collections.glm.fleet.plugins.module_utils.host.gpu import read_cdi

# Runs inside the container, with the model's type, the script of runtime.py and its kind as arguments; under a unit's
# limits also with LOAD, the folders that must be writable, and the modules that must load, the last two as JSON.
SCRIPT = r"""
import glob, json, mmap, os, subprocess, sys, tempfile
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
    asked = subprocess.run([sys.executable, "-c", *sys.argv[2:4]], capture_output=True, text=True, timeout=240)
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

def unwritable(folder):
    # Why code cannot be written to a folder and loaded from there, as compilers of kernels do; nothing if it can.
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(mmap.PAGESIZE))
            file.flush()
            mmap.mmap(file.fileno(), mmap.PAGESIZE, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC).close()
    except OSError as error:
        return f"{folder}: {error.strerror}"

def confined(folders):
    with open("/proc/self/status") as file:
        said = dict(line.split(":", 1) for line in file)
    names = ("CapEff", "CapPrm", "CapBnd", "NoNewPrivs", "Seccomp")
    return {
        "status": {name: said[name].strip() for name in names},
        "unwritable": [problem for problem in map(unwritable, folders) if problem],
        "root": os.access("/", os.W_OK) or os.access(os.path.dirname(os.__file__), os.W_OK),
    }

def loaded(script, modules):
    # What LOAD found, in a process of its own: libraries may end it, or hang. It uses the first GPU only where the
    # other script had a context there: an engine that serves may leave no memory for one.
    devices = (found["runtime"] or {}).get("devices") or [None]
    words = ["-c", script, "compile" if devices[0] == 0 else "load", *modules]
    # The order in which runtime.py asked.
    environment = {**os.environ, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    try:
        asked = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, timeout=480)
    except subprocess.TimeoutExpired:
        return {"problem": "it took longer than 480 s"}
    lines = [line for line in asked.stdout.splitlines() if line.startswith("GLM-LOADED ")]
    if asked.returncode or not lines:
        return {"problem": f"ended with {asked.returncode}: {asked.stderr.strip()[-900:]}"}
    return json.loads(lines[-1].partition(" ")[2])

if len(sys.argv) > 4:
    found["confined"] = confined(json.loads(sys.argv[5]))
    found["loaded"] = loaded(sys.argv[4], json.loads(sys.argv[6]))
print("GLM-PROBE " + json.dumps(found))
"""

# Loads modules of the engine and, if its first argument is "compile", compiles a kernel as torch.compile and Triton do.
# AITER (ROCm) builds kernels into AITER_JIT_DIR and looks for all of them there once that is set, so those that came
# with the image are put beside them.
LOAD = r"""
import glob, importlib, importlib.util, json, os, shutil, sys

def seed():
    target, spec = os.environ.get("AITER_JIT_DIR"), importlib.util.find_spec("aiter")
    if not target or spec is None or not spec.submodule_search_locations:
        return 0
    os.makedirs(target, exist_ok=True)
    kernels = glob.glob(os.path.join(spec.submodule_search_locations[0], "jit", "*.so"))
    for kernel in kernels:
        place = os.path.join(target, os.path.basename(kernel))
        shutil.copy2(kernel, place + ".new")
        os.replace(place + ".new", place)
    return len(kernels)

found = {"seeded": seed(), "compiled": None}
for module in sys.argv[2:]:
    importlib.import_module(module)
if sys.argv[1] == "compile":
    # Whatever the vendor's library sees, a torch that sees no GPU ends here.
    import torch
    kernel = torch.compile(lambda values: (values * 2 + 1).relu())
    found["compiled"] = float(kernel(torch.ones(4096, device="cuda")).sum())
print("GLM-LOADED " + json.dumps(found))
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
    return [*_devices(plan), *container.rights(plan["confinement"])]


def unit_arguments(plan: Mapping[str, Any]) -> list[str]:
    """The same with the network, every limit, folder and variable that the plan's unit gives its container.

    Without the weights, which are not there yet. Raises ProbeError for a missing group.
    """
    argv = [*network(plan), *_devices(plan), *container.confined(plan["confinement"])]
    for mount in plan["mounts"]:
        if not mount["read_only"]:
            argv += container.bind(mount["source"], mount["target"], False)
    for name, value in plan["env"].items():
        argv += ["--env", f"{name}={value}"]
    return argv


def network(plan: Mapping[str, Any]) -> list[str]:
    """The network of the unit: a Docker without a bridge is found before the weights are fetched."""
    return ["--network", plan["runtime"]["network"]]


def limited_arguments(plans: Sequence[Mapping[str, Any]]) -> list[str]:
    """The devices of all plans of a host, under the limits of the first one's unit; without folders of the host.

    Raises ProbeError for a missing group.
    """
    names = {name: list(dict.fromkeys(one for plan in plans for one in plan.get(name, ()))) for name in _GIVEN}
    return [*_devices(names), *container.confined(plans[0]["confinement"])]


_GIVEN = ("devices", "device_nodes", "device_groups")


def _devices(plan: Mapping[str, Any]) -> list[str]:
    numbers = []
    for group in plan.get("device_groups", ()):
        try:
            # By number: the image may have another number for the name, or not know it.
            numbers.append(str(grp.getgrnam(group).gr_gid))
        except KeyError:
            raise ProbeError(f"the host has no group {group}, which owns the GPUs' device nodes") from None
    return container.devices([*plan["devices"], *plan.get("device_nodes", ())], numbers)


def kernels_mark(plan: Mapping[str, Any]) -> Optional[Path]:
    """The file on the host that says which image the kernels in AITER's folder came with; None where it has none."""
    folder = plan["env"].get("AITER_JIT_DIR", "")
    for mount in plan["mounts"]:
        if not mount["read_only"] and folder.startswith(f"{mount['target']}/"):
            return Path(mount["source"], folder[len(mount["target"]) + 1 :], ".glm-image")
    return None


def limits_of(plan: Mapping[str, Any]) -> dict[str, Any]:
    """What ``run_probe`` and ``judge`` have to try of a container under ``unit_arguments``."""
    caches = [mount["target"] for mount in plan["mounts"] if not mount["read_only"]]
    folders = [value for value in plan["env"].values() if any(value.startswith(f"{cache}/") for cache in caches)]
    limits = plan["confinement"]
    return {
        "folders": sorted({*limits["writable"], *caches, *folders}),
        "imports": list(limits["imports"]),
        "capabilities": len(limits["capabilities"]),
    }


def expected_of(plan: Mapping[str, Any]) -> dict[str, Any]:
    """What ``judge`` has to expect of an image that serves a plan, without ``limits``."""
    accelerator = plan["accelerator"]
    # A replica that shares the host sees its own GPUs by name; AMD's device nodes are those of all.
    named = accelerator.get("indices") if plan["devices"] else None
    return {
        "gpus": len(named) if named else accelerator["count"],
        "vendor": accelerator.get("vendor", "nvidia"),
        "model_type": plan["model"]["model_type"],
        "min_transformers": plan["image"].get("min_transformers"),
        "limits": None,
    }


def run_probe(reference: str, options: Sequence[str], expected: Mapping[str, Any], timeout: float) -> dict[str, Any]:
    """Run SCRIPT once in ``reference`` and return what it found.

    ``options``: see network, device_arguments and unit_arguments. ``expected``: see expected_of. ``timeout``: seconds.

    Raises ProbeError with docker's own words.
    """
    name = "glm-probe-" + re.sub(r"[^0-9a-f]", "", reference.rpartition(":")[2])[:12]
    given = [SCRIPT, expected["model_type"], runtime.SCRIPT, runtime.KINDS[expected["vendor"]]]
    limits = expected["limits"]
    if limits:
        given += [LOAD, json.dumps(limits["folders"]), json.dumps(limits["imports"])]
    return run_program(name, [*options], reference, given, "GLM-PROBE", timeout)


def run_program(
    name: str, options: Sequence[str], reference: str, program: Sequence[str], mark: str, timeout: float
) -> dict[str, Any]:
    """Run a program in Python (source, arguments) once in a container; the JSON of its line that begins with ``mark``.

    Raises ProbeError with docker's own words where there is no such line.
    """
    remove = ("docker", "rm", "--force", name)
    run(remove, 60)
    argv = ["docker", "run", "--rm", "--name", name, *options, "--entrypoint", "python3", reference, "-c", *program]
    done = run(argv, timeout)
    for line in done.stdout.splitlines():
        if line.startswith(f"{mark} "):
            found: dict[str, Any] = json.loads(line.partition(" ")[2])
            return found
    if done.timed_out:
        run(remove, 60)
    raise ProbeError(f"docker run ended with {done.rc}: {done.evidence(800)}")


def judge(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """What is wrong, one sentence each with expected and found; empty when the image can serve the plan.

    ``expected``: ``{gpus, model_type, min_transformers, vendor, limits}``.
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
    if expected["limits"]:
        problems += _limit_problems(found, expected["limits"])
    return problems


def not_proven(found: Mapping[str, Any]) -> str:
    """What was left untried, and why, in a sentence; empty when nothing was."""
    devices = (found["runtime"] or {}).get("devices")
    if devices and devices[0] == 0:
        return ""
    why = "GPU 0 may be in use" if devices else "the container has no library of the GPUs' vendor (CUDA, HIP)"
    return (
        f"no kernel was compiled under the limits of the unit, because {why}: that is not proven. The start of the "
        "engine shows it"
    )


def _limit_problems(found: Mapping[str, Any], limits: Mapping[str, Any]) -> list[str]:
    """What is wrong with the container's limits, or with the engine under them."""
    seen, loaded, problems = found["confined"], found["loaded"], []
    status = seen["status"]
    kept = max(bin(int(status[name], 16)).count("1") for name in ("CapEff", "CapPrm", "CapBnd"))
    if kept > limits["capabilities"] or status["NoNewPrivs"] != "1" or status["Seccomp"] != "2" or seen["root"]:
        problems.append(
            f"expected a container with {limits['capabilities']} capabilities, no new privileges, Docker's seccomp "
            f"filter and an image that cannot be written, found {status}{' and a writable image' * seen['root']}; look "
            "at docker info (Security Options) and at /etc/docker/daemon.json"
        )
    if seen["unwritable"]:
        problems.append(
            f"the engine cannot write and load code where it keeps it: {'; '.join(seen['unwritable'])}; look at owner "
            "and mount options (noexec) of glm_data_dir, and at confinement in the plan"
        )
    if loaded.get("problem"):
        problems.append(
            f"{' and '.join(limits['imports'])} cannot be loaded, or compile nothing, under the limits of the unit: "
            f"{loaded['problem']}; choose another glm_engine_version"
        )
    return problems
