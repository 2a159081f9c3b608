# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the Lambda modules share: the account that they reach, how they run, and resources that are known by name."""

from __future__ import annotations

import time
from fnmatch import fnmatchcase
from typing import Any, Callable, Dict, List, NoReturn, Optional, Type

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils.cloud import api as _cloud_api
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import api as lambda_api
from ansible_collections.glm.fleet.plugins.module_utils.cloud.module import Cloud, fail

LAMBDA = Cloud(
    client=lambda_api.LambdaApi,
    base_url=lambda_api.DEFAULT_BASE_URL,
    key_environment=lambda_api.KEY_ENVIRONMENT,
    url_environment="LAMBDA_API_URL",
    key_page=lambda_api.API_KEY_PAGE,
    # "generally limited to one request per second" (API description, 1.10.0)
    request_interval=1,
)
# As in the documentation fragments glm.fleet.lambda_auth and cloud_connection.
AUTH_ARGUMENTS = LAMBDA.arguments()


class Resource:
    """Something of the account, known by its name. Subclasses have a method for each choice of the option ``state``."""

    def __init__(self, module: AnsibleModule, api: lambda_api.LambdaApi) -> None:
        self.module = module
        self.api = api
        self.params = module.params
        self.name: str = module.params["name"]

    @staticmethod
    def subject(params: Dict[str, Any]) -> str:
        """What a failure is about."""
        raise NotImplementedError

    def find(self) -> Any:
        """What there is of the name; None, or nothing in it, where there is none."""
        raise NotImplementedError

    def fail(self, phase: str, problem: str, next_step: str) -> NoReturn:
        """End the module."""
        fail(self.module, self.subject(self.params), phase, problem, next_step)

    def delete_when_released(self, delete: Callable[[], None], in_use_code: str) -> Optional[lambda_api.LambdaError]:
        """Delete what may be in use for a while after its last user ended. Returns the error if it is still there."""
        start = time.monotonic()
        while True:
            try:
                delete()
                return None
            except lambda_api.LambdaError as error:
                waited = time.monotonic() - start + self.params["wait_interval"]
                in_use = isinstance(error, _cloud_api.ApiError) and error.code == in_use_code
                if not in_use or waited > self.params["wait_timeout"]:
                    return None if error.outcome_unknown and self.find() is None else error
            time.sleep(self.params["wait_interval"])


def bring(kind: Type[Resource], arguments: Dict[str, Dict[str, Any]], **options: Any) -> None:
    """Run a module that brings a resource to the desired state."""
    run(kind.subject, arguments, lambda module, api: getattr(kind(module, api), module.params["state"])(), **options)


def run(
    subject: Callable[[Dict[str, Any]], str],
    arguments: Dict[str, Dict[str, Any]],
    act: Callable[[AnsibleModule, lambda_api.LambdaApi], None],
    **options: Any,
) -> None:
    """Run a module: ``act`` ends it; an error of the API that it did not expect becomes its failure."""
    module = AnsibleModule(argument_spec={**AUTH_ARGUMENTS, **arguments}, supports_check_mode=True, **options)
    name = subject(module.params)
    api = LAMBDA.connect(module, name)
    try:
        act(module, api)
    except lambda_api.LambdaError as error:
        fail(module, name, module.params.get("state") or "read", str(error), "correct the cause and run again.")


def matches(name: str, patterns: List[str]) -> bool:
    """Whether a name fits one of the shell patterns; no patterns accept any."""
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)
