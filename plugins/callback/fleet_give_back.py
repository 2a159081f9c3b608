# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Callback plugin: terminate what a failed deploy launched and what never served."""

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet_give_back
type: aggregate
short_description: Terminates the instances that a failed deploy launched and that never served
version_added: 0.1.0
author: glm.fleet contributors (!UNKNOWN)
description:
  - With C(glm_terminate_on_failure=true), a deploy that launched instances and fails runs C(terminate.yml) at its end
    for those of them that were not verified, with the inventory and the extra vars of the deploy itself.
  - Ansible ends a run in which a whole batch failed at once, so no later play could do this. A run that is
    interrupted or killed has no end; a second process, started with it, then does the same and writes what it
    did to C(<glm_state_dir>/give_back.log).
  - Instances that were there before the run are never touched, nor are those of a run in check mode.
requirements:
  - Enabled with C(callbacks_enabled = glm.fleet.fleet_give_back) in C(ansible.cfg); the one of a checkout does. A
    deploy with C(glm_terminate_on_failure) refuses to begin without it.
"""

import sys
from pathlib import Path
from typing import Any

from ansible import context
from ansible.plugins.callback import CallbackBase

from ansible_collections.glm.fleet.plugins.module_utils.finding import advised
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud import give_back, providers

TERMINATE = Path(__file__).resolve().parents[2] / "playbooks" / "terminate.yml"
# A deploy sets this fact to be cleaned up after: the fleet, the run (a tag of what it launches)
# and the log for what happens after the run has gone.
ARMED = "__deploy_give_back"
# Options of ansible-playbook that decide which account is asked, and with which key.
CARRIED = (("inventory", "-i"), ("extra_vars", "-e"), ("vault_ids", "--vault-id"))


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Collect what is launched and what is verified, and act when the run is over."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "glm.fleet.fleet_give_back"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._armed: dict[str, str] | None = None
        self._guard: give_back.Guard | None = None
        self._state = give_back.State()

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        """From here on instances may exist that no result has named."""
        if self._armed and providers.launches(str(task.action)) and not task.check_mode:
            self._state.unsettled = True
            self._report()

    def v2_runner_on_ok(self, result: Any) -> None:
        """The deploy asks for it, instances are launched, a host is verified."""
        values = _values(result)
        self._arm((values.get("ansible_facts") or {}).get(ARMED))
        self._note_launches(result)
        if _action(result).endswith("endpoint_check") and not values.get("skipped"):
            self._state.served.append(str(_host(result).vars.get("glm_host_id")))
            self._report()

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """A launch that failed may have made some of its instances."""
        self._note_launches(result)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """The run is over: terminate what it launched and what never served."""
        failed = any(stats.failures.values()) or any(stats.dark.values())
        if self._armed and failed:
            self._terminate(self._armed)
        self._state.done = True
        self._report()

    def _terminate(self, armed: dict[str, str]) -> None:
        wanted = self._state.wanted(armed["run"])
        if wanted is None:
            return
        names = self._state.names()
        self._display.display(f"\nglm_terminate_on_failure: terminating what was launched and never served: {names}")
        # Through the display, which keeps the order of lines and writes the log.
        if not give_back.end(_command(armed["fleet"]), wanted, self._display.display):
            self._display.error(
                advised(
                    f"fleet {armed['fleet']}, terminate: {TERMINATE.name} failed, see above; {names} may still cost "
                    "money",
                    f"terminate them with {TERMINATE.name}, or in the console",
                )
            )

    def _arm(self, armed: Any) -> None:
        if not isinstance(armed, dict) or self._armed or context.CLIARGS.get("check"):
            return
        self._armed = {key: str(value) for key, value in armed.items()}
        try:
            log = Path(self._armed["log"]).expanduser()
            self._guard = give_back.Guard(_command(self._armed["fleet"]), self._armed["run"], log)
        except OSError as error:
            self._display.warning(
                f"fleet {self._armed['fleet']}, terminate: the process that cleans up when this one is killed cannot "
                f"be started: {error}. When the run fails in the ordinary way, everything is terminated."
            )

    def _report(self) -> None:
        if self._guard:
            self._guard.report(self._state)

    def _note_launches(self, result: Any) -> None:
        values = _values(result)
        # A module that crashed names nothing; then what the run's tag marks is terminated.
        if not providers.launches(_action(result)) or "launched_ids" not in values:
            return
        names = {item.get("id"): item.get("name") for item in values.get("instances") or []}
        for identifier in values["launched_ids"]:
            self._state.launched[str(identifier)] = str(names.get(identifier) or identifier)
        for entry in values.get("replaced") or []:
            self._state.launched.pop(entry["instance"]["id"], None)
        self._state.unsettled = False
        self._report()


def _command(fleet: str) -> list[str]:
    """terminate.yml for this fleet, without confirmation, as the deploy was called."""
    command = [sys.executable, "-m", "ansible", "playbook", str(TERMINATE)]
    for option, flag in CARRIED:
        for value in context.CLIARGS.get(option) or ():
            command += [flag, value]
    for file in context.CLIARGS.get("vault_password_files") or ():
        command += ["--vault-password-file", file]
    return [*command, "-e", f"glm_fleet_name={fleet}", "-e", "glm_confirm=yes"]


def _action(result: Any) -> str:
    # ansible-core 2.18 has the underscored names only.
    return str((getattr(result, "task", None) or result._task).action)


def _host(result: Any) -> Any:
    return getattr(result, "host", None) or result._host


def _values(result: Any) -> dict[str, Any]:
    values = getattr(result, "result", None)
    return values if isinstance(values, dict) else result._result
