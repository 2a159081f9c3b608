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
from ansible_collections.glm.fleet.plugins.module_utils.finding import advised
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import files as plan_files
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import image as plan_image
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import tls
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.command import ENGINE_ADDRESS
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import quoting
from ansible_collections.glm.fleet.plugins.plugin_utils.serving.quoting import UnitError

DOCKER = "/usr/bin/docker"
PYTHON = "/usr/bin/python3"
GUARD = "/usr/local/lib/glm/serve_guard.py"
# Beside the guard: who the processes of a replica may talk to.
FILTER = "/usr/local/lib/glm/serve_filter.py"

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

# docker and systemd read environment files differently, so they must not be taken for each other.
_SECRET_SUFFIX = {
    "container": {"env": ".secret.env", "config": ".secret.yaml"},
    "venv": {"env": ".secret.conf", "config": ".secret.yaml"},
}

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
        return _ENV_FILES[plan["runtime"]["kind"]]({secret["name"]: api_key})
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
    start_pre/start/start_post/stop/stop_post to argument lists; times are whole seconds; ``serving_unit`` is an entry
    of that module's ``replicas``; ``after``, ``wants``, ``assert_paths``, ``mount_points``,
    ``writable_directories`` are lists of str.

    Raises UnitError when the plan lacks something or holds a value no unit can carry.
    """
    try:
        return _replica(plan, groups or {})
    except KeyError as exc:
        raise UnitError(f"the serving plan has no {exc.args[0]!r}; make it again with glm.fleet.serving_plan") from exc


def _replica(plan: Plan, groups: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    name = f"glm-serve-{int(plan['replica'])}"
    files = _files(plan, name)
    start = int(plan["timeouts"]["start_seconds"])
    stop = int(plan["timeouts"]["stop_seconds"])
    daemons = list(_VENDOR_DAEMONS[plan["accelerator"]["vendor"]])
    snapshot = snapshot_in(plan["paths"]["hf_home"], plan)
    return {
        "name": name,
        "unit": f"{name}.service",
        "slice": _slice(plan),
        "replica": int(plan["replica"]),
        "runtime": plan["runtime"]["kind"],
        "description": quoting.systemd_value(
            f"{plan['served_model_name']} on {plan['engine']['name']} {plan['engine']['version']}"
            f" (replica {int(plan['replica'])})"
        ),
        "documentation": quoting.systemd_value(_documentation(plan)),
        "after": [*_RUNTIME_DAEMONS[plan["runtime"]["kind"]], "network-online.target", *daemons],
        "wants": ["network-online.target", *daemons],
        "assert_paths": [quoting.systemd_value(snapshot)] if snapshot else [],
        "files": files,
        "serving_unit": {
            "unit": f"{name}.service",
            "files": _stamped(plan, files),
            "address": ENGINE_ADDRESS,
            "port": int(plan["listen"]["engine_port"]),
            "gpus": [int(index) for index in plan["accelerator"]["indices"]],
        },
        "start_seconds": start,
        "stop_seconds": stop + _STOP_SLACK_SECONDS,
        "restart_seconds": _RESTART_SECONDS,
        # A status that counts as a clean stop must still count as a crash when no stop was requested (137 and SIGKILL
        # are also what the kernel's out-of-memory killer leaves behind).
        "success_exit_status": " ".join(str(status) for status in plan["stop"]["success_exit_status"]),
        # Long enough for two whole starts, so the third within it is refused.
        "start_limit_seconds": 2 * (start + stop + _STOP_SLACK_SECONDS + _RESTART_SECONDS) + 600,
        "endpoint": tls.url(plan),
        "probe_address": probe_address(plan["listen"]["address"]),
        **_RUNTIMES[plan["runtime"]["kind"]](plan, name, files, groups),
    }


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
        "writable_directories": [mount["source"] for mount in plan["mounts"] if not mount["read_only"]],
        "exec": {
            "start_pre": _prestart(plan, files, ["--container", name]),
            "start": _among_nodes(plan, _docker_run(plan, name, files, groups)),
            "start_post": _ready(plan, files),
            "stop": [DOCKER, "stop", "-t", str(stop), name],
            "stop_post": [PYTHON, "-I", GUARD, "poststop", "--container", name],
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
    argv += [*_confined(plan), "--ulimit", "memlock=-1", "--ulimit", "stack=67108864"]
    # The client already writes to the journal; a second copy in docker's own files would only fill the disk.
    argv += ["--log-driver", "none"]
    for device in [*plan["devices"], *plan["device_nodes"]]:
        argv += ["--device", device]
    for gid in _group_ids(plan, groups):
        argv += ["--group-add", gid]
    for mount in plan["mounts"]:
        argv += ["--mount", _bind(mount["source"], mount["target"], mount["read_only"])]
    argv += ["--env-file", files["env"]]
    if plan["node"]["count"] > 1 and not plan["node"]["interface"]:
        # Without a value: the guard, which finds the interface, has it in its environment.
        argv += ["--env", "NCCL_SOCKET_IFNAME", "--env", "GLOO_SOCKET_IFNAME"]
    secret = plan["secret"]
    if secret["kind"] == "env":
        argv += ["--env-file", files["secret"]]
    else:
        if not any(secret["container_path"] in str(word) for word in plan["command"]):
            raise UnitError(f"the command never reads {secret['container_path']}, so no API key would be required")
        argv += ["--mount", _bind(files["secret"], secret["container_path"], True)]
    return [*argv, image["reference"], *[str(word) for word in plan["command"]]]


def _confined(plan: Plan) -> list[str]:
    """What the container may do: no more than the plan says, whatever the image's authors expected."""
    limits = plan["confinement"]
    if limits is None:
        raise UnitError("the plan does not say what its container may do")
    argv = ["--user", limits["user"], "--security-opt", "no-new-privileges", "--cap-drop", "ALL"]
    for name in limits["capabilities"]:
        argv += ["--cap-add", name]
    argv += ["--pids-limit", str(int(limits["processes"])), "--read-only"]
    for folder in limits["writable"]:
        # Engines compile code into temporary files and load it.
        argv += ["--tmpfs", f"{folder}:rw,exec,nosuid,nodev"]
    # Its own shared memory: what a killed engine leaves there goes with it, and other replicas cannot read it.
    return [*argv, "--ipc", "private", "--shm-size", f"{int(limits['shared_memory_gib'])}g"]


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


def _bind(source: str, target: str, read_only: bool) -> str:
    """A bind mount. ``--mount``, not ``--volume``: a source that is missing is an error and not a new empty folder."""
    for path in (source, target):
        if "," in path or '"' in path or not path.startswith("/"):
            raise UnitError(f"{path!r} cannot be mounted: it must be absolute, without commas and quotes")
    return f"type=bind,source={source},target={target}" + (",readonly" if read_only else "")


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
        },
    }


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
    kind, suffixes = plan["secret"]["kind"], _SECRET_SUFFIX[plan["runtime"]["kind"]]
    if kind not in suffixes:
        raise UnitError(f"the plan keeps its secret in {kind!r}; known are {' and '.join(suffixes)}")
    return {
        "unit": f"/etc/systemd/system/{name}.service",
        "env": f"{config}.env",
        "secret": config + suffixes[kind],
        "guard": GUARD,
        "engine_key": engine_key_file(plan),
        "admin_key": f"{plan['paths']['config']}/admin.key",
        "filter": FILTER,
    }


def engine_key_file(plan: Plan) -> str:
    """Where the host keeps the one key that its engines know."""
    return f"{plan['paths']['config']}/engine.key"


def _among_nodes(plan: Plan, command: Sequence[str]) -> list[str]:
    """The command itself, or under the guard that starts and ends all ranks of a replica together."""
    node = plan["node"]
    if node["count"] < 2:
        return list(command)
    if not node["head_address"]:
        raise UnitError("a replica over several hosts needs the first one's address; plan it with its hosts' inventory")
    if len(node["addresses"]) != node["count"]:
        raise UnitError("a replica over several hosts lets in those only, so the plan needs all their addresses")
    argv = [PYTHON, "-I", GUARD, "node", "--rank", str(int(node["rank"])), "--count", str(int(node["count"]))]
    # Engines count upwards from the plan's port.
    argv += ["--head", node["head_address"], "--port", str(int(node["port"]) - 1)]
    argv += ["--stop", str(int(plan["timeouts"]["stop_seconds"]))]
    argv += [] if node["interface"] else ["--find-interface"]
    return [*argv, "--", *command]


def _prestart(plan: Plan, files: Mapping[str, str], more: Sequence[str] = ()) -> list[str]:
    argv = [PYTHON, "-I", GUARD, "prestart", *more, *_filter(plan)]
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
    """The systemd slice of everything that belongs to the replica, its container included."""
    return f"glm-serve-{int(plan['replica'])}.slice"


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
    argv = [PYTHON, "-I", GUARD, "ready", "--address", ENGINE_ADDRESS]
    argv += ["--port", str(int(plan["listen"]["engine_port"])), "--model", plan["served_model_name"]]
    argv += ["--secret", files["secret"], "--wait", str(max(wait, 1))]
    if plan["runtime"]["kind"] == "container":
        argv += ["--container", f"glm-serve-{int(plan['replica'])}", *_filter(plan)]
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
    if not plan["model"]["revision"]:
        missing.append(f"the commit of model {plan['model']['repository']}")
    return missing
