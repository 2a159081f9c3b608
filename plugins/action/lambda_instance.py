# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of the modules that make instances: prints what they wait for, and names the run and its account.

It is also that of gmi_container and gmi_baremetal, see meta/runtime.yml.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils.cloud import run_alive
from ansible_collections.glm.fleet.plugins.module_utils.cloud.api import CloudError
from ansible_collections.glm.fleet.plugins.module_utils.finding import advised
from ansible_collections.glm.fleet.plugins.plugin_utils.actions.base import Failed, FleetAction
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud import give_back, providers
from ansible_collections.glm.fleet.plugins.plugin_utils.store import state


class ActionModule(FleetAction):
    """Run the module and read how far it is from a file that it writes."""

    LABEL = "launch"
    _supports_async = True
    _file: Optional[Path] = None

    def _outcome(self) -> dict[str, Any]:
        local = self._connection.transport == "local"
        store = state.current()
        if store is not None and not local:
            # The ledger would be the other host's alone.
            text = f"a task on the controller, whose ledger is in {store.place} (glm_state_store), found another host"
            raise self._failure(advised(f"expected {text}; nothing was changed", "run it on localhost"))
        arguments = dict(self._task.args)
        if self._launches():
            self._refuse_unguarded(local)
            if local:
                # Workers are children of ansible-playbook itself.
                arguments.setdefault("run", run_alive.run_of(os.getppid()))
        if self._task.async_val:
            answer: dict[str, Any] = self._execute_module(
                module_args=arguments, task_vars=self._task_vars, wrap_async=True
            )
            return answer
        if not local:
            return self._module()
        if self._launches():
            self._arm_guard(arguments)
        with tempfile.TemporaryDirectory() as folder:
            self._file = Path(folder) / "progress"
            return self._module(None, {**arguments, "progress_file": str(self._file)})

    def _launches(self) -> bool:
        return self._task.args.get("state", "present") == "present" and not self._task.check_mode

    def _refuse_unguarded(self, local: bool) -> None:
        """Where the guard is wanted, nothing is launched that the run does not see through."""
        if give_back.current is None:
            return
        if not local:
            raise self._unguarded("a launch from the controller, found another host", "launch on localhost")
        if self._task.async_val:
            raise self._unguarded("a launch that the run waits for, found async", "leave async out")

    def _arm_guard(self, arguments: dict[str, Any]) -> None:
        """Before anything is launched, give the process that cleans up after the run what it asks the account with."""
        launcher = providers.launching_with(self._task.action)
        if give_back.current is None or launcher is None:
            return
        environment = dict(os.environ)
        for given in self._task.environment or ():
            environment.update({name: str(value) for name, value in (self._templar.template(given) or {}).items()})
        try:
            credential = launcher.credential_of(arguments, environment)
        except CloudError as error:
            raise self._unguarded(
                f"the account's key, found: {error}",
                "set api_key, api_key_file or the environment variable that the documentation of this module names",
            ) from None
        if not give_back.current.send(account=credential):
            raise self._unguarded("the process that terminates what a failed run launched, found none", "run again")

    def _unguarded(self, problem: str, next_step: str) -> Failed:
        return self._failure(
            advised(f"expected, for glm_terminate_on_failure, {problem}; nothing was launched", next_step)
        )

    def _progress(self) -> str:
        try:
            return "" if self._file is None else self._file.read_text("utf-8")
        except OSError:
            return ""
