# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Turn a serving plan into the data of one systemd unit: argument lists, paths, limits.

Nothing here decides an engine flag; the plan does. What is decided here is how a container is run under systemd, and
how text survives systemd's quoting (systemd.service(5), "COMMAND LINES") and docker's ``--env-file`` (which has none).
"""
from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

DOCKER = "/usr/bin/docker"
PYTHON = "/usr/bin/python3"
GUARD = "/usr/local/lib/glm/serve_guard.py"

# Between two phases of a stop systemd waits this much longer than docker does, so docker is the one that kills.
_STOP_SLACK_SECONDS = 30
# The guard gives up this much before systemd would, so that the journal gets a reason and not only "timeout".
_READY_SLACK_SECONDS = 15
_RESTART_SECONDS = 10
_DEVICE_WAIT_SECONDS = 300

_PLAIN_WORD = re.compile(r"[A-Za-z0-9_@%$+=:,./-]+")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}

_VENDOR_DAEMONS = {
    "nvidia": ("nvidia-persistenced.service", "nvidia-fabricmanager.service", "nvidia-cdi-refresh.service"),
    "amd": (),
}


_SECRET_SUFFIX = {"env": ".secret.env", "config": ".secret.yaml"}


class UnitError(ValueError):
    """The plan cannot be written as a unit; the text says which value and why."""


def systemd_word(word: str) -> str:
    """Quote one argument for an ``Exec*=`` line so that systemd passes exactly ``word`` on.

    Raises UnitError for what no unit file can hold: NUL bytes and text that is not UTF-8.
    """
    try:
        word.encode("utf-8")
    except UnicodeEncodeError as exc:
        raise UnitError(f"the argument {word!r} is not valid UTF-8, which systemd requires") from exc
    if "\0" in word:
        raise UnitError(f"the argument {word!r} contains a NUL byte")
    doubled = word.replace("%", "%%").replace("$", "$$")
    if _PLAIN_WORD.fullmatch(doubled):
        return doubled
    return '"' + "".join(_escape(char) for char in doubled) + '"'


def _escape(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if ord(char) < 0x20 or ord(char) == 0x7F:
        return f"\\x{ord(char):02x}"
    return char


def systemd_exec(argv: Sequence[Any]) -> str:
    """Render an argument list as the value of ``Exec*=``, each long option and its value on a line of their own."""
    if not argv:
        raise UnitError("an empty command cannot be run")
    lines: list[list[str]] = [[]]
    for word in argv:
        text = str(word)
        value_is_there = len(lines) > 1 and len(lines[-1]) > 1 and lines[-1][0].startswith("--")
        if (lines[0] and text.startswith("--")) or value_is_there:
            lines.append([])
        lines[-1].append(text)
    return " \\\n    ".join(" ".join(systemd_word(word) for word in line) for line in lines)


def systemd_value(text: str) -> str:
    """Escape a value that is not a command line (a description, a path): ``%`` doubled, one line only."""
    if "\n" in text or "\0" in text:
        raise UnitError(f"{text!r} does not fit on one line of a unit file")
    return text.replace("%", "%%")


def docker_env(env: Mapping[str, Any]) -> str:
    """Lines for ``docker run --env-file``: ``NAME=value`` taken literally, so a line break cannot be carried."""
    lines = []
    for name, value in sorted(env.items()):
        text = str(value)
        if not _ENV_NAME.fullmatch(name):
            raise UnitError(f"{name!r} is not a name for an environment variable")
        if "\n" in text or "\r" in text or "\0" in text:
            raise UnitError(f"the value of {name} contains a line break, which docker --env-file cannot carry")
        lines.append(f"{name}={text}\n")
    return "".join(lines)


def secret_file(plan: Mapping[str, Any], api_key: str) -> str:
    """The content of the replica's 0600 secret file: one environment line, or one line of the engine's YAML."""
    if not api_key or any(ord(char) < 0x21 or ord(char) > 0x7E for char in api_key):
        raise UnitError("the API key must be one word of printable ASCII: it travels in an HTTP header")
    secret = plan["secret"]
    if secret["kind"] == "env":
        return docker_env({secret["name"]: api_key})
    # JSON strings are YAML strings, whatever the key contains.
    return f"{secret['option']}: {json.dumps(api_key)}\n"


def url_host(address: str) -> str:
    """An address as it stands in URLs and in ``docker --publish``: IPv6 in brackets."""
    return f"[{address}]" if _is_ipv6(address) else address


def _is_ipv6(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).version == 6
    except ValueError as exc:
        raise UnitError(f"listen.address is {address!r}, which is not an IP address") from exc


def probe_address(address: str) -> str:
    """Where the host itself reaches an endpoint bound to ``address`` (the wildcards mean every address)."""
    if ipaddress.ip_address(address).is_unspecified:
        return "::1" if _is_ipv6(address) else "127.0.0.1"
    return address


def replica(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Everything ``templates/glm-serve.service.j2`` and the role ``serve`` need to know about one replica.

    Shapes: ``name`` and ``unit`` are str; ``files`` maps unit/env/secret to absolute paths on the host; ``exec`` maps
    start_pre/start/start_post/stop/stop_post to argument lists; times are whole seconds; ``after``, ``wants``,
    ``assert_paths``, ``mount_points``, ``writable_directories`` are lists of str.

    Raises UnitError when the plan lacks something or holds a value no unit can carry.
    """
    try:
        return _replica(plan)
    except KeyError as exc:
        raise UnitError(f"the serving plan has no {exc.args[0]!r}; make it again with glm.fleet.serving_plan") from exc


def _replica(plan: Mapping[str, Any]) -> dict[str, Any]:
    name = f"glm-serve-{int(plan['replica'])}"
    files = _files(plan, name)
    start = int(plan["timeouts"]["start_seconds"])
    stop = int(plan["timeouts"]["stop_seconds"])
    killed = [str(status) for status in plan["stop"]["success_exit_status"]]
    daemons = list(_VENDOR_DAEMONS[plan["accelerator"]["vendor"]])
    snapshot = _host_snapshot(plan)
    return {
        "name": name,
        "unit": f"{name}.service",
        "description": systemd_value(
            f"{plan['served_model_name']} on {plan['engine']['name']} {plan['engine']['version']}"
            f" (replica {int(plan['replica'])})"
        ),
        "after": ["docker.service", "network-online.target", *daemons],
        "wants": ["network-online.target", *daemons],
        "assert_paths": [systemd_value(snapshot)] if snapshot else [],
        "mount_points": [systemd_word(mount["source"]) for mount in plan["mounts"]],
        "writable_directories": [m["source"] for m in plan["mounts"] if not m["read_only"]],
        "files": files,
        "exec": {
            "start_pre": _prestart(plan, name, files),
            "start": _docker_run(plan, name, files),
            "start_post": _ready(plan, files, start),
            "stop": [DOCKER, "stop", "-t", str(stop), name],
            "stop_post": [PYTHON, "-I", GUARD, "poststop", "--container", name],
        },
        "start_seconds": start,
        "stop_seconds": stop + _STOP_SLACK_SECONDS,
        "restart_seconds": _RESTART_SECONDS,
        "success_exit_status": " ".join(killed),
        # A status that counts as a clean stop must still count as a crash when nobody asked for a stop
        # (137 is also what the kernel's out-of-memory killer leaves behind).
        "restart_force_exit_status": " ".join(killed),
        # Long enough for two whole starts, so the third within it is refused.
        "start_limit_seconds": 2 * (start + stop + _STOP_SLACK_SECONDS + _RESTART_SECONDS) + 600,
        "endpoint": f"http://{url_host(plan['listen']['address'])}:{int(plan['listen']['port'])}/v1",
        "probe_address": probe_address(plan["listen"]["address"]),
    }


def _files(plan: Mapping[str, Any], name: str) -> dict[str, str]:
    config = f"{plan['paths']['config']}/{name.removeprefix('glm-')}"
    kind = plan["secret"]["kind"]
    if kind not in _SECRET_SUFFIX:
        raise UnitError(f"the plan keeps its secret in {kind!r}; known are {' and '.join(_SECRET_SUFFIX)}")
    return {
        "unit": f"/etc/systemd/system/{name}.service",
        "env": f"{config}.env",
        "secret": config + _SECRET_SUFFIX[kind],
        "guard": GUARD,
    }


def _docker_run(plan: Mapping[str, Any], name: str, files: Mapping[str, str]) -> list[str]:
    listen = plan["listen"]
    # --init: as process 1 SGLang's own SIGKILL is ignored, and a failed start would end with status 0.
    argv = [DOCKER, "run", "--rm", "--init", "--name", name, "--pull=never"]
    # Not the host's network: torch's TCPStore, ZMQ and NCCL bind every address they see.
    argv += ["--network", "bridge"]
    argv += ["--publish", f"{url_host(listen['address'])}:{int(listen['port'])}:{int(listen['container_port'])}"]
    argv += ["--ipc=host", "--ulimit", "memlock=-1", "--ulimit", "stack=67108864"]
    # The client already writes to the journal; a second copy in docker's own files would only fill the disk.
    argv += ["--log-driver", "none", "--security-opt", "no-new-privileges"]
    for device in plan["devices"]:
        argv += ["--device", device]
    for mount in plan["mounts"]:
        argv += ["--mount", _bind(mount["source"], mount["target"], mount["read_only"])]
    argv += ["--env-file", files["env"]]
    secret = plan["secret"]
    if secret["kind"] == "env":
        argv += ["--env-file", files["secret"]]
    else:
        if not any(secret["container_path"] in str(word) for word in plan["command"]):
            raise UnitError(f"the command never reads {secret['container_path']}, so no API key would be asked for")
        argv += ["--mount", _bind(files["secret"], secret["container_path"], True)]
    return [*argv, plan["image"]["reference"], *[str(word) for word in plan["command"]]]


def _bind(source: str, target: str, read_only: bool) -> str:
    """A bind mount. ``--mount``, not ``--volume``: a source that is missing is an error and not a new empty folder."""
    for path in (source, target):
        if "," in path or '"' in path or not path.startswith("/"):
            raise UnitError(f"{path!r} cannot be mounted: it must be absolute, without commas and quotes")
    return f"type=bind,source={source},target={target}" + (",readonly" if read_only else "")


def _prestart(plan: Mapping[str, Any], name: str, files: Mapping[str, str]) -> list[str]:
    argv = [PYTHON, "-I", GUARD, "prestart", "--container", name]
    argv += ["--address", plan["listen"]["address"], "--port", str(int(plan["listen"]["port"]))]
    for device in plan["devices"]:
        argv += ["--device", device]
    argv += ["--gpus", str(int(plan["accelerator"]["count"])), "--wait", str(_DEVICE_WAIT_SECONDS)]
    for file in ("unit", "env", "secret"):
        argv += ["--stamp", files[file]]
    return argv


def _ready(plan: Mapping[str, Any], files: Mapping[str, str], start_seconds: int) -> list[str]:
    argv = [PYTHON, "-I", GUARD, "ready", "--address", probe_address(plan["listen"]["address"])]
    argv += ["--port", str(int(plan["listen"]["port"])), "--model", plan["served_model_name"]]
    argv += ["--secret", files["secret"], "--wait", str(max(start_seconds - _READY_SLACK_SECONDS, 1))]
    return argv


def _host_snapshot(plan: Mapping[str, Any]) -> str | None:
    """Where the locked snapshot lies on the host; None while the revision is not known."""
    revision = plan["model"]["revision"]
    if not revision:
        return None
    folder = "models--" + plan["model"]["repository"].replace("/", "--")
    return f"{plan['paths']['hf_home']}/hub/{folder}/snapshots/{revision}"


def unlocked(plan: Mapping[str, Any]) -> list[str]:
    """What the lock file has not pinned yet, in words; empty when the plan may be served."""
    missing = []
    if not plan["image"]["digest"]:
        missing.append(f"the digest of image {plan['image']['repository']}:{plan['image']['tag']}")
    if not plan["model"]["revision"]:
        missing.append(f"the commit of model {plan['model']['repository']}")
    return missing
