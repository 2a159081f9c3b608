# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine's command, its environment, and where it reads its API key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Optional

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.build import CatalogError
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import files
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Choice
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.listen import listen, on_host_network
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Secret

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
    # In a container every address of it: docker publishes the port on listen.address only.
    host = intent.listen_address if on_host_network(intent) else "0.0.0.0"
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
    for name, folder in choice.engine.cache_env.items():
        found[name] = f"{cache}/{folder}"
    if intent.interface:
        found.update(dict.fromkeys(("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"), intent.interface))
    if intent.replicas > 1 and (intent.runtime == "venv" or choice.accelerator.vendor == "amd"):
        found[_VISIBLE_DEVICES[choice.accelerator.vendor]] = ",".join(str(index) for index in choice.indices)
    return dict(sorted(found.items()))


def secret(choice: Choice) -> Secret:
    """Where the engine reads its API key. Raises CatalogError for an engine that says neither way."""
    known = choice.engine.secret
    if known.name is not None:
        return {"kind": "env", "name": known.name}
    if known.option is None or known.container_path is None:
        raise CatalogError(f"catalog/engines/{choice.engine.name}/engine.yml: secret needs name, or option and path")
    venv = choice.intent.runtime == "venv"
    path = f"/run/glm-serve-{choice.intent.replica}/engine.yaml" if venv else known.container_path
    return {"kind": "config", "option": known.option, "container_path": path}
