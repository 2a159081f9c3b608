# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Turn a serving plan into the data of one systemd unit: argument lists, paths, limits, environment and secret files.

Nothing here decides an engine flag; the plan does. What is decided here is how a container, or an engine on the host
itself, is run under systemd.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils import address
from ansible_collections.glm.fleet.plugins.module_utils.door.gateway import FRONTS
from ansible_collections.glm.fleet.plugins.module_utils.finding import QuotingError, advised
from ansible_collections.glm.fleet.plugins.module_utils.host import container
from ansible_collections.glm.fleet.plugins.module_utils.serving import walls
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import files as plan_files
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import image as plan_image
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import repositories
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.command import ENGINE_ADDRESS
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import guard, quoting, shipped
from ansible_collections.glm.fleet.plugins.plugin_utils.serving.quoting import UnitError

DOCKER = "/usr/bin/docker"
PYTHON = "/usr/bin/python3"

# Between two phases of a stop systemd waits this much longer than docker does, so docker is the one that kills.
_STOP_SLACK_SECONDS = 30
# The guard gives up this much before systemd would, so that the journal gets a reason and not only "timeout".
_READY_SLACK_SECONDS = 15
_RESTART_SECONDS = 10
_DEVICE_WAIT_SECONDS = 300


_VENDOR_DAEMONS = {
    "nvidia": ("nvidia-persistenced.service", "nvidia-fabricmanager.service", "nvidia-cdi-refresh.service"),
    "amd": (),
}


_RUNTIME_DAEMONS = {"container": ("docker.service",), "venv": ()}

_SECRET_SUFFIX = {"env": ".secret.env", "config": ".secret.yaml"}

# What a shell does in the container before it becomes the engine.
READ_KEY = 'set -a; . {}; set +a; exec "$@"'

# What the module engine_venv leaves in a complete environment: a fingerprint of its packages.
VENV_MARKER = ".glm.json"
# Whose rights an engine has that runs without a container. The role engine_venv makes it.
ENGINE_USER = "glm"
# Classes of device files, by the names in /proc/devices (systemd.resource-control(5), DeviceAllow=).
_DEVICE_CLASSES = {"nvidia": ("char-nvidia*",), "amd": ("char-kfd", "char-drm")}
_FABRIC_CLASSES = ("char-infiniband*", "/dev/infiniband/rdma_cm")
_NVIDIA_NODES = ("/dev/nvidiactl", "/dev/nvidia-uvm")
# Engines compile kernels while they start: compilers of the host, and NVIDIA's where it is installed.
_SEARCH_PATH = "/usr/local/cuda/bin:/opt/rocm/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def env_file(plan: Plan) -> str:
    """The replica's environment in the form that its runtime reads."""
    return _ENV_FILES[plan["runtime"]["kind"]](plan["env"])


_ENV_FILES = {"container": quoting.docker_env, "venv": quoting.systemd_env}


def secret_file(plan: Plan, api_key: str, admin_key: str = "") -> str:
    """The content of the replica's 0600 secret file: one environment line, or lines of the engine's YAML.

    ``admin_key`` is for engines whose plan has an option for it. Raises UnitError for a key that cannot be sent.
    """
    secret = plan["secret"]
    admin_option = secret["admin_option"] if secret["kind"] == "config" else None
    for key in [api_key, *([admin_key] if admin_option else [])]:
        if not key or any(ord(char) < 0x21 or ord(char) > 0x7E for char in key):
            raise UnitError("an API key must be one word of printable ASCII: it travels in an HTTP header")
    if secret["kind"] == "env":
        # Quoted for systemd, which is how a shell reads it as well.
        return quoting.systemd_env({secret["name"]: api_key})
    # JSON strings are YAML strings, whatever the key contains. The guard takes the key of the last line.
    lines = {**({admin_option: admin_key} if admin_option else {}), secret["option"]: api_key}
    return "".join(f"{option}: {json.dumps(key)}\n" for option, key in lines.items())


def probe_address(listens: str) -> str:
    """Where the host itself reaches an endpoint bound to ``listens`` (the wildcards mean every address)."""
    try:
        return address.from_itself(listens)
    except ValueError as exc:
        raise UnitError(f"listen.address is {listens!r}, which is not an IP address") from exc


def replica(plan: Plan, groups: Mapping[str, Sequence[str]] | None = None) -> dict[str, Any]:
    """Everything the templates ``glm-serve.service`` and the role ``serve`` need to know about one replica.

    ``groups`` is the host's group database as ``ansible.builtin.getent`` returns it; needed where the plan names
    ``device_groups``, whose numbers differ from host to host.

    Shapes: ``name``, ``unit``, ``runtime``, ``documentation``, ``user`` are str; ``files`` maps
    unit/env/secret/guard/engine_key/admin_key to absolute paths on the host; ``exec`` maps
    start_pre/start/start_post/answered/stop/stop_post to argument lists; ``drain`` and ``admit`` are such lists, too,
    or None where there is no door; times are whole seconds; ``serving_unit`` is an entry
    of that module's ``replicas``; ``after``, ``wants``, ``assert_paths``, ``mount_points``,
    ``writable_directories`` are lists of str.

    Raises UnitError when the plan lacks something or holds a value no unit can carry.
    """
    try:
        return _replica(plan, groups or {})
    except QuotingError as exc:
        raise UnitError(str(exc)) from None
    except KeyError as exc:
        raise UnitError(f"the serving plan has no {exc.args[0]!r}; make it again with glm.fleet.serving_plan") from exc


def _replica(plan: Plan, groups: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    name = name_of(plan)
    files = _files(plan, name)
    start = int(plan["timeouts"]["start_seconds"])
    stop = int(plan["timeouts"]["stop_seconds"])
    # An engine that cuts answers off has the door waited for.
    drains = plan["stop"]["drains"]
    grace = stop + (0 if drains else int(plan["timeouts"]["drain_seconds"])) + _STOP_SLACK_SECONDS
    daemons = list(_VENDOR_DAEMONS[plan["accelerator"]["vendor"]])
    hf_home = plan["paths"]["hf_home"]
    commits = [(repository, commit) for repository, _asked, commit in repositories.of_plan(plan) if commit]
    return {
        "name": name,
        "unit": unit_of(plan),
        "slice": _slice(plan),
        "replica": int(plan["replica"]),
        "runtime": plan["runtime"]["kind"],
        "description": quoting.systemd_value(
            f"{plan['served_model_name']} on {plan['engine']['name']} {plan['engine']['version']}"
            f" (replica {int(plan['replica'])})"
        ),
        "documentation": quoting.systemd_value(_documentation(plan)),
        # Stopped in the reverse order: the door and the gateway pass on what the engine still ends at a shutdown.
        "after": [*_RUNTIME_DAEMONS[plan["runtime"]["kind"]], "network-online.target", *FRONTS, *daemons],
        "wants": ["network-online.target", *daemons],
        "assert_paths": [quoting.systemd_value(plan_files.snapshot(hf_home, *one)) for one in commits],
        "files": files,
        "serving_unit": {
            "unit": unit_of(plan),
            "files": _stamped(plan, files),
            "address": ENGINE_ADDRESS,
            "port": int(plan["listen"]["engine_port"]),
            "stop_seconds": grace,
            "gpus": [int(index) for index in plan["accelerator"]["indices"]],
            "weights": [plan_files.record(hf_home, *one) for one in commits],
        },
        "start_seconds": start,
        "stop_seconds": grace,
        "restart_seconds": _RESTART_SECONDS,
        # A status that counts as a clean stop must still count as a crash when no stop was requested (137 and SIGKILL
        # are also what the kernel's out-of-memory killer leaves behind).
        "success_exit_status": " ".join(str(status) for status in plan["stop"]["success_exit_status"]),
        # Long enough for two whole starts, so the third within it is refused.
        "start_limit_seconds": 2 * (start + grace + _RESTART_SECONDS) + 600,
        "drain": _at_the_door(plan, "drain", grace) if not plan["node"]["rank"] else None,
        "admit": _at_the_door(plan, "admit") if not plan["node"]["rank"] else None,
        **_RUNTIMES[plan["runtime"]["kind"]](plan, name, files, groups),
    }


def _at_the_door(plan: Plan, what: str, grace: int = 0) -> list[str]:
    """What a unit says to the front door of its host; its mark ends by itself when the engine is gone for sure."""
    argv = [PYTHON, "-I", "-B", shipped.folder_of("door_drain"), what, "--replica", str(int(plan["replica"]))]
    argv += ["--of-unit"]
    if grace:
        argv += ["--seconds", str(2 * grace)]
        argv += [] if plan["stop"]["drains"] else ["--wait", str(int(plan["timeouts"]["drain_seconds"]))]
    return argv


def _documentation(plan: Plan) -> str:
    """The engine's documentation; nothing for an engine that this release no longer knows."""
    engine = catalog.load().engines.get(plan["engine"]["name"])
    return engine.documentation if engine else ""


def _container(plan: Plan, name: str, files: Mapping[str, str], groups: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """What differs by runtime, for a container."""
    stop = int(plan["timeouts"]["stop_seconds"])
    return {
        "user": "root",
        "mount_points": [quoting.systemd_word(mount["source"]) for mount in plan["mounts"]],
        # What else is mounted is the user's, and stays as it is.
        "writable_directories": [plan["paths"]["cache"]],
        "exec": {
            "start_pre": _prestart(plan, files, ["--container", name]),
            "start": _among_nodes(plan, _docker_run(plan, name, files, groups), ["--container", name]),
            "start_post": _ready(plan, files),
            "answered": _guard(plan, "answered"),
            "stop": [DOCKER, "stop", "-t", str(stop), name],
            "stop_post": [*_guard(plan, "poststop"), "--container", name],
        },
    }


def _docker_run(plan: Plan, name: str, files: Mapping[str, str], groups: Mapping[str, Sequence[str]]) -> list[str]:
    """The ``docker run`` of the replica: what its container sees of the host."""
    image = plan["image"]
    if image is None:
        raise UnitError("the plan has no image to make a container of")
    # --init: as process 1 SGLang's own SIGKILL is ignored, and a failed start would end with status 0.
    argv = [DOCKER, "run", "--rm", "--init", "--name", name, "--pull=never", *_network(plan)]
    argv += ["--cgroup-parent", _slice(plan)]
    if plan["confinement"] is None:
        raise UnitError("the plan does not say what its container may do")
    argv += container.confined(plan["confinement"])
    # The client already writes to the journal; a second copy in docker's own files would only fill the disk.
    argv += ["--log-driver", "none"]
    argv += container.devices([*plan["devices"], *plan["device_nodes"]], _group_ids(plan, groups))
    for mount in plan["mounts"]:
        argv += container.bind(mount["source"], mount["target"], mount["read_only"])
    argv += ["--env-file", files["env"]]
    if plan["node"]["count"] > 1 and not plan["node"]["interface"]:
        # Without a value: the guard, which finds the interface, has it in its environment.
        argv += ["--env", "NCCL_SOCKET_IFNAME", "--env", "GLOO_SOCKET_IFNAME"]
    secret = plan["secret"]
    if secret["container_path"] is None:
        raise UnitError("the plan does not say where its container reads the API key")
    argv += container.bind(files["secret"], secret["container_path"], True)
    # `docker inspect` shows a container's environment. So a shell reads the key, and becomes the engine.
    argv += ["--entrypoint", "/bin/sh"] if secret["kind"] == "env" else []
    return [*argv, image["reference"], *_in_container(plan)]


def _in_container(plan: Plan) -> list[str]:
    """The words after the image in the ``docker run`` of the replica."""
    secret, command = plan["secret"], [str(word) for word in plan["command"]]
    if secret["kind"] == "env":
        return ["-c", READ_KEY.format(secret["container_path"]), "glm", *secret["program"], *command]
    if not any(secret["container_path"] in word for word in command):
        raise UnitError(f"the command never reads {secret['container_path']}, so no API key would be required")
    return command


def engine_words(plan: Plan) -> list[str]:
    """The words that the replica's engine is started with: those of its container, or the end of its command line."""
    if plan["runtime"]["kind"] == "container":
        return _in_container(plan)
    name = name_of(plan)
    return _credential(plan, name, _files(plan, name))[1]


def _network(plan: Plan) -> list[str]:
    """The bridge unless the plan needs more: torch's TCPStore, ZMQ and NCCL bind every address they see."""
    network, listen = plan["runtime"]["network"], plan["listen"]
    if network == "host":
        return ["--network", "host"]
    ports = f"{int(listen['engine_port'])}:{int(listen['container_port'])}"
    return ["--network", network, "--publish", f"{ENGINE_ADDRESS}:{ports}"]


def _group_ids(plan: Plan, groups: Mapping[str, Sequence[str]]) -> list[str]:
    """Numbers of the plan's ``device_groups`` on this host: inside an image the names have other numbers, or none."""
    missing = [name for name in plan["device_groups"] if not groups.get(name)]
    if missing:
        raise UnitError(
            advised(
                f"the host has no group {' and no group '.join(missing)}, which should own its GPUs' device files",
                "install the driver's udev rules (role gpu_base), or look at ls -l /dev/kfd /dev/dri",
            )
        )
    return [str(groups[name][1]) for name in plan["device_groups"]]


def _venv(plan: Plan, name: str, files: Mapping[str, str], groups: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """What differs by runtime, for an engine on the host itself: what may it see, read and write."""
    _group_ids(plan, groups)  # a group that is not there would end the start with 216/GROUP
    runtime, paths, several = plan["runtime"], plan["paths"], plan["node"]["count"] > 1
    if runtime["kind"] != "venv":
        raise UnitError("the plan is for a container, not for a virtual environment")
    classes = _DEVICE_CLASSES[plan["accelerator"]["vendor"]] + (_FABRIC_CLASSES if several else ())
    credential, command = _credential(plan, name, files)
    environment = {
        "HOME": paths["cache"],
        "PATH": f"{runtime['path']}/bin:{_SEARCH_PATH}",
        "VIRTUAL_ENV": runtime["path"],
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return {
        "user": ENGINE_USER,
        "supplementary_groups": list(plan["device_groups"]),
        "device_allow": [f"{device} rw" for device in classes],
        "environment": quoting.systemd_environment(environment),
        "credential": credential,
        "environment_secret": files["secret"] if plan["secret"]["kind"] == "env" else None,
        "mount_points": [quoting.systemd_word(path) for path in (paths["hf_home"], paths["cache"], runtime["path"])],
        "writable_directories": [paths["cache"]],
        "exec": {
            "start_pre": _prestart(plan, files),
            "start": _among_nodes(plan, command),
            "start_post": _ready(plan, files),
            "answered": _guard(plan, "answered"),
            "stop_post": _guard(plan, "poststop"),
        },
    }


def _guard(plan: Plan, verb: str) -> list[str]:
    return [PYTHON, "-I", guard.PROGRAM, verb, "--unit", unit_of(plan)]


def _credential(plan: Plan, name: str, files: Mapping[str, str]) -> tuple[str | None, list[str]]:
    """The unit's credential (``name:path``) and the command that reads it where systemd puts it (systemd.exec(5))."""
    secret, command = plan["secret"], [str(word) for word in plan["command"]]
    if secret["kind"] == "env":
        return None, command
    planned = secret["container_path"]
    if not any(planned in word for word in command):
        raise UnitError(f"the command never reads {planned}, so no API key would be required")
    credential = planned.rpartition("/")[2]
    place = f"/run/credentials/{name}.service/{credential}"
    return f"{credential}:{files['secret']}", [word.replace(planned, place) for word in command]


_RUNTIMES = {"container": _container, "venv": _venv}


def _files(plan: Plan, name: str) -> dict[str, str]:
    config = f"{plan['paths']['config']}/{name.removeprefix('glm-')}"
    kind = plan["secret"]["kind"]
    if kind not in _SECRET_SUFFIX:
        raise UnitError(f"the plan keeps its secret in {kind!r}; known are {' and '.join(_SECRET_SUFFIX)}")
    return {
        "unit": f"/etc/systemd/system/{name}.service",
        "env": f"{config}.env",
        "secret": config + _SECRET_SUFFIX[kind],
        "guard": guard.PROGRAM,
        "engine_key": engine_key_file(plan),
        "admin_key": _admin_key_file(plan),
    }


def engine_key_file(plan: Plan) -> str:
    """Where the host keeps the one key that its engines know."""
    return f"{plan['paths']['config']}/engine.key"


def _admin_key_file(plan: Plan) -> str:
    return f"{plan['paths']['config']}/admin.key"


def key_files(plan: Plan) -> tuple[str, str]:
    """Where the host keeps its keys for its own engines: that of requests and that of administrators."""
    return engine_key_file(plan), _admin_key_file(plan)


def _among_nodes(plan: Plan, command: Sequence[str], more: Sequence[str] = ()) -> list[str]:
    """The command itself, or under the guard that starts and ends all ranks of a replica together."""
    node = plan["node"]
    if node["count"] < 2:
        return list(command)
    if not node["head_address"]:
        raise UnitError("a replica over several hosts needs the first one's address; plan it with its hosts' inventory")
    if len(node["addresses"]) != node["count"]:
        raise UnitError("a replica over several hosts lets in those only, so the plan needs all their addresses")
    argv = [PYTHON, "-I", guard.PROGRAM, "node", *more, *_filter(plan)]
    argv += ["--rank", str(int(node["rank"])), "--count", str(int(node["count"]))]
    argv += ["--own", node["addresses"][node["rank"]]]
    # Engines count upwards from the plan's port.
    argv += ["--head", node["head_address"], "--port", str(int(node["port"]) - 1)]
    argv += ["--stop", str(int(plan["timeouts"]["stop_seconds"]))]
    argv += [] if node["interface"] else ["--find-interface"]
    return [*argv, "--", *command]


def _prestart(plan: Plan, files: Mapping[str, str], more: Sequence[str] = ()) -> list[str]:
    argv = [PYTHON, "-I", guard.PROGRAM, "prestart", *more, "--unit", unit_of(plan), *_filter(plan)]
    argv += ["--address", ENGINE_ADDRESS, "--port", str(int(plan["listen"]["engine_port"]))]
    if plan["runtime"]["kind"] == "container":
        for device in plan["devices"]:
            argv += ["--device", device]
    for node in _awaited_nodes(plan):
        argv += ["--node", node]
    argv += ["--gpus", str(_highest_gpu(plan)), "--wait", str(_DEVICE_WAIT_SECONDS)]
    for file in _stamped(plan, files):
        argv += ["--stamp", file]
    return argv


def _slice(plan: Plan) -> str:
    return walls.slice_of(int(plan["replica"]))


def name_of(plan: Plan) -> str:
    """The name of the replica, which its container has."""
    return walls.name_of(int(plan["replica"]))


def unit_of(plan: Plan) -> str:
    """The name of the replica's unit."""
    return walls.unit_of(int(plan["replica"]))


def secret_path(plan: Plan) -> str:
    """Where the host keeps the replica's secret file."""
    return _files(plan, name_of(plan))["secret"]


def _filter(plan: Plan) -> list[str]:
    """Who the replica may talk to, for the guard: its own host, and its other hosts."""
    argv = ["--slice", _slice(plan)]
    for peer in plan["node"]["addresses"]:
        argv += ["--peer", peer]
    return argv


def _stamped(plan: Plan, files: Mapping[str, str]) -> list[str]:
    """The files a replica is made from: a change in one of them restarts it. On bare metal its packages, too."""
    packages = [f"{plan['runtime']['path']}/{VENV_MARKER}"] if plan["runtime"]["kind"] == "venv" else []
    return [files["unit"], files["env"], files["secret"], *packages]


def _awaited_nodes(plan: Plan) -> list[str]:
    """Device files to wait for. A CDI spec names NVIDIA's; without containers two of the driver's stand in."""
    if plan["runtime"]["kind"] == "venv" and plan["accelerator"]["vendor"] == "nvidia":
        return list(_NVIDIA_NODES)
    return list(plan["device_nodes"])


def _highest_gpu(plan: Plan) -> int:
    """How many GPUs the host must have for this replica's to be among them."""
    return 1 + max(int(index) for index in plan["accelerator"]["indices"])


def _ready(plan: Plan, files: Mapping[str, str]) -> list[str]:
    """The proof that the engine serves; none on a host whose endpoint is another's."""
    if plan["node"]["rank"]:
        return []
    wait = int(plan["timeouts"]["start_seconds"]) - _READY_SLACK_SECONDS
    argv = [PYTHON, "-I", guard.PROGRAM, "ready", "--address", ENGINE_ADDRESS]
    argv += ["--port", str(int(plan["listen"]["engine_port"])), "--model", plan["served_model_name"]]
    argv += ["--secret", files["secret"], "--wait", str(max(wait, 1)), *_filter(plan)]
    if plan["runtime"]["kind"] == "container":
        argv += ["--container", name_of(plan)]
    return argv


def snapshot_in(hf_home: str, plan: Plan) -> str | None:
    """Where the locked snapshot lies below an HF_HOME; None while the revision is not known."""
    revision = plan["model"]["revision"]
    return plan_files.snapshot(hf_home, plan["model"]["repository"], revision) if revision else None


def unlocked(plan: Plan) -> list[str]:
    """What the lock file has not pinned yet, in words; empty when the plan may be served."""
    missing, image = [], plan["image"]
    if image and not plan_image.locked(image):
        missing.append(f"the digest of image {image['repository']}:{image['tag']}")
    missing += [f"the commit of model {name}" for name, _asked, commit in repositories.of_plan(plan) if not commit]
    return missing
