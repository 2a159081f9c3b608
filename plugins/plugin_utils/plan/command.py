# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How an engine is started: command, environment, API key, where it listens, and devices that its container gets."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Optional

from ansible_collections.glm.fleet.plugins.module_utils import address
from ansible_collections.glm.fleet.plugins.module_utils.serving import walls
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import platforms
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.build import CatalogError
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import files, flags
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Choice, Intent, PlanError
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Confinement, Listen, Secret

# Where the host reaches its engines. Clients come through the front door.
ENGINE_ADDRESS = "127.0.0.1"
CONTAINER_PORT = 8000
_VISIBLE_DEVICES = {"nvidia": "CUDA_VISIBLE_DEVICES", "amd": "HIP_VISIBLE_DEVICES"}


def command(choice: Choice, revision: Optional[str], served: str, arguments: Sequence[str]) -> list[str]:
    """The argument list: program, model, name, address and key, then ``arguments``."""
    engine, options, intent = choice.engine, choice.engine.options, choice.intent
    model = files.snapshot(files.inside(choice)[0], choice.repository, revision) if revision else choice.repository
    words = list(engine.command)
    if intent.runtime == "venv":
        program, *rest = engine.package.command
        words = [f"{files.venv_path(choice)}/{program}", *rest]
    words += [*([options.model] if options.model else []), model]
    words += [options.served_model_name, served]
    # In a container every address of it: docker publishes the port on 127.0.0.1 of the host only.
    host = ENGINE_ADDRESS if on_host_network(intent) else "0.0.0.0"
    words += [options.host, host, options.port, str(listen(intent)["container_port"])]
    key = secret(choice)
    if key["kind"] == "config":
        words += ["--config", key["container_path"]]
    return [*words, *arguments]


def environment(choice: Choice, env: Mapping[str, str]) -> dict[str, str]:
    """``env`` of recipe and engine, with caches, network interface and GPUs of the replica."""
    intent = choice.intent
    hf_home, cache = files.inside(choice)
    found = {"HF_HOME": hf_home, **env}
    folders = dict(choice.engine.cache_env)
    if intent.runtime == "container":
        folders |= platforms.container_of(choice.accelerator.vendor, choice.known.root).cache_env
    for name, folder in folders.items():
        found[name] = f"{cache}/{folder}"
    if intent.interface:
        found.update(dict.fromkeys(("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"), intent.interface))
    if intent.node_addresses:
        # The engine would take the address with the default route, which the others may not reach.
        found[choice.engine.multi_node.address_env] = intent.node_addresses[intent.node_rank]
    if choice.count < intent.accelerator_count and (intent.runtime == "venv" or choice.accelerator.vendor == "amd"):
        found[_VISIBLE_DEVICES[choice.accelerator.vendor]] = ",".join(str(index) for index in choice.indices)
    return dict(sorted(found.items()))


def secret(choice: Choice) -> Secret:
    """Where the engine reads its API key. Raises CatalogError for an engine that says neither way."""
    known = choice.engine.secret
    venv = choice.intent.runtime == "venv"
    if known.container_path is None:
        raise CatalogError(f"catalog/engines/{choice.engine.name}/engine.yml: secret needs container_path")
    if known.name is not None:
        return {
            "kind": "env",
            "name": known.name,
            "container_path": None if venv else known.container_path,
            "program": [] if venv else list(choice.engine.entrypoint),
        }
    if known.option is None:
        raise CatalogError(f"catalog/engines/{choice.engine.name}/engine.yml: secret needs name or option")
    path = f"/run/{walls.name_of(choice.intent.replica)}/engine.yaml" if venv else known.container_path
    return {
        "kind": "config",
        "option": known.option,
        "admin_option": known.admin_option if _has(choice, known.admin_option) else None,
        "container_path": path,
    }


def secret_notes(choice: Choice) -> list[str]:
    """What a reader should know of a version whose one key is the administrator's, too."""
    option = choice.engine.secret.admin_option
    if option is None or _has(choice, option):
        return []
    return [
        f"{choice.engine.name} {choice.version} has no --{option}: its one key, which stays on the host, also "
        "administers it. Clients reach none of that through the front door."
    ]


def _has(choice: Choice, option: Optional[str]) -> bool:
    table = flags.load(choice.engine.name, choice.version, choice.known.root / "engines")
    return option is not None and flags.spelled(option) in table.options


def listen_address(bind: str, private_address: Optional[str], public_address: Optional[str] = None) -> str:
    """The address an endpoint is published on. ``bind`` is a word, or a private or loopback address.

    A host whose public address is an IPv6 one is published on all of both kinds. Only the word ``public`` publishes; an
    address that would do the same is refused, whoever it is from. Raises PlanError then, when there is no private
    address, and for a text that is no address.
    """
    known = {"loopback": "127.0.0.1", "public": "::" if ":" in (public_address or "") else "0.0.0.0"}
    if bind in known:
        return known[bind]
    if bind != "private":
        return _not_public(bind)
    if not private_address:
        raise PlanError("the endpoint is to be bound to the private address, but the inventory has none", _WAYS_OUT)
    problem = address.public_because(private_address)
    if problem:
        raise PlanError(
            f"glm_bind is private, but the host's private address, {private_address}, is {problem}", _WAYS_OUT
        )
    return str(ipaddress.ip_address(private_address))


_WAYS_OUT = (
    "set glm_private_address to the host's address in its private network, or glm_bind to loopback, or to the word "
    "public (every address, for all who reach the host)"
)


def _not_public(bind: str) -> str:
    """``bind`` as an address, if it is private or loopback."""
    try:
        parsed = ipaddress.ip_address(bind)
    except ValueError:
        raise PlanError(
            f"{bind!r} is neither private, loopback, public nor an IP address", "set glm_bind to one of these"
        ) from None
    problem = address.public_because(bind)
    if problem not in ("", address.LOOPBACK):
        raise PlanError(
            f"glm_bind is {bind}, which is {problem}; only the word public publishes an endpoint", _WAYS_OUT
        )
    return str(parsed)


def on_host_network(intent: Intent) -> bool:
    """Engines on several hosts open ports to each other that cannot be named beforehand."""
    return intent.runtime == "venv" or intent.nodes > 1


def listen(intent: Intent) -> Listen:
    """The ``listen`` of a plan."""
    engine_port = intent.engine_port + intent.replica
    return {
        "address": intent.listen_address,
        "port": intent.listen_port + intent.replica,
        "scheme": "http" if intent.tls == "none" else "https",
        "engine_port": engine_port,
        "container_port": engine_port if on_host_network(intent) else CONTAINER_PORT,
    }


@dataclass(frozen=True)
class Passed:
    """CDI names (NVIDIA), or device files with the groups that own them (AMD)."""

    cdi: list[str] = field(default_factory=list)
    nodes: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)


def passed(choice: Choice) -> Passed:
    """The devices of the replica's container."""
    if choice.accelerator.vendor == "nvidia":
        names = ["all"] if choice.count == choice.intent.accelerator_count else [str(index) for index in choice.indices]
        return Passed(cdi=[f"nvidia.com/gpu={name}" for name in names])
    return Passed(nodes=["/dev/kfd", "/dev/dri"], groups=["video", "render"])


def confinement(choice: Choice) -> Optional[Confinement]:
    """What the replica's container may do."""
    if choice.intent.runtime != "container":
        return None
    known = choice.engine.container
    return Confinement(
        user=known.user,
        capabilities=sorted(platforms.container_of(choice.accelerator.vendor, choice.known.root).capabilities),
        writable=list(known.writable),
        processes=known.processes,
        shared_memory_gib=known.shared_memory_gib_per_gpu * choice.count,
        imports=list(known.imports),
    )
