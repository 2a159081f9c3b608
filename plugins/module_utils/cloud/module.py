# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules of all clouds share: the options of the connection, the client made from them, and how they fail."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Generic, NoReturn, Tuple, Type, TypeVar

from ansible.module_utils.basic import AnsibleModule, env_fallback, missing_required_lib

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.cloud import api as _cloud_api
from ansible_collections.glm.fleet.plugins.module_utils.finding import advised

Client = TypeVar("Client", bound=_cloud_api.CloudClient)


def report(module: AnsibleModule, progress: str) -> None:
    """Write what is waited for and how far it is, for the action to print."""
    if module.params["progress_file"]:
        with contextlib.suppress(OSError):
            files.write_text(Path(module.params["progress_file"]), progress)


@dataclass(frozen=True)
class Cloud(Generic[Client]):
    """How the modules of a cloud reach it. ``key_page``: where keys are made, in words."""

    client: Type[Client]
    base_url: str
    key_environment: Tuple[str, ...]
    url_environment: str
    key_page: str
    request_interval: float

    def arguments(self) -> Dict[str, Dict[str, Any]]:
        """The options of the connection, as in the cloud's documentation fragment."""
        return {
            "api_key": {"type": "str", "no_log": True, "fallback": (env_fallback, list(self.key_environment))},
            "api_key_file": {"type": "path", "no_log": False},
            "base_url": {"type": "str", "default": self.base_url, "fallback": (env_fallback, [self.url_environment])},
            "request_timeout": {"type": "float", "default": 30},
            "total_timeout": {"type": "float", "default": 300},
            "retries": {"type": "int", "default": 5},
            "validate_certs": {"type": "bool", "default": True},
            "ca_path": {"type": "path"},
            "request_interval": {"type": "float", "default": self.request_interval},
        }

    def connect(self, module: AnsibleModule, subject: str, **more: Any) -> Client:
        """The client for the account that the options describe; ``subject`` is what a failure is about.

        ``more``: what only this cloud's client takes.
        """
        if _cloud_api.REQUESTS_IMPORT_ERROR is not None:
            module.fail_json(msg=missing_required_lib("requests"), exception=str(_cloud_api.REQUESTS_IMPORT_ERROR))
        params = module.params
        key = params["api_key"]
        try:
            if not key and params["api_key_file"]:
                key = _cloud_api.read_api_key(params["api_key_file"])
                module.no_log_values.add(key)
            if not key:
                module.fail_json(
                    msg=f"{subject}, connect: no API key. Set the environment variable {self.key_environment[0]}, or "
                    f"api_key or api_key_file; keys are made at {self.key_page}"
                )
            return self.client(
                key,
                params["base_url"],
                # Of the modules only one launches.
                pacer=_cloud_api.Pacer(key, params["request_interval"], params.get("launch_interval", 0.0)),
                retries=params["retries"],
                timeout=params["request_timeout"],
                budget=params["total_timeout"],
                validate_certs=params["validate_certs"],
                ca_path=params["ca_path"],
                **more,
            )
        except (_cloud_api.CloudError, ValueError) as error:
            module.fail_json(msg=f"{subject}, connect: {error}")
            raise AssertionError("fail_json returned") from error


def fail(module: AnsibleModule, subject: str, phase: str, problem: str, next_step: str, **more: Any) -> NoReturn:
    """End the module in the collection's form: what, when, what was found, what to do."""
    module.fail_json(msg=advised(f"{subject}, {phase}: {problem}", next_step), **more)
    raise AssertionError("fail_json returned")
