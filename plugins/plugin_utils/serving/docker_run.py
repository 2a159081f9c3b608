# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ``docker run`` of one replica: what its container sees of the host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ansible_collections.glm.fleet.plugins.module_utils import address
from ansible_collections.glm.fleet.plugins.module_utils.finding import advised
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan
from ansible_collections.glm.fleet.plugins.plugin_utils.serving.quoting import UnitError

DOCKER = "/usr/bin/docker"


def docker_run(plan: Plan, name: str, files: Mapping[str, str], groups: Mapping[str, Sequence[str]]) -> list[str]:
    """The argument list; ``files`` and ``groups`` as in replica.py. Raises UnitError."""
    image = plan["image"]
    if image is None:
        raise UnitError("the plan has no image to make a container of")
    # --init: as process 1 SGLang's own SIGKILL is ignored, and a failed start would end with status 0.
    argv = [DOCKER, "run", "--rm", "--init", "--name", name, "--pull=never", *_network(plan)]
    argv += ["--ipc=host", "--ulimit", "memlock=-1", "--ulimit", "stack=67108864"]
    # The client already writes to the journal; a second copy in docker's own files would only fill the disk.
    argv += ["--log-driver", "none", "--security-opt", "no-new-privileges"]
    for option in plan["security_options"]:
        argv += ["--security-opt", option]
    for device in [*plan["devices"], *plan["device_nodes"]]:
        argv += ["--device", device]
    for gid in group_ids(plan, groups):
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


def _network(plan: Plan) -> list[str]:
    """The bridge unless the plan needs more: torch's TCPStore, ZMQ and NCCL bind every address they see."""
    network, listen = plan["runtime"]["network"], plan["listen"]
    if network == "host":
        return ["--network", "host"]
    port = f"{int(listen['port'])}:{int(listen['container_port'])}"
    return ["--network", network, "--publish", f"{address.bracketed(listen['address'])}:{port}"]


def group_ids(plan: Plan, groups: Mapping[str, Sequence[str]]) -> list[str]:
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
