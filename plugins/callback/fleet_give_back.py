# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Callback plugin: give back what a failed deploy launched and what never served."""

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
  - Ansible ends a run in which a whole batch failed at once, so no later play could do this.
  - Instances that were there before the run are never touched, nor are those of a run in check mode. A run that is
    interrupted gives back nothing.
requirements:
  - Enabled with C(callbacks_enabled = glm.fleet.fleet_give_back) in C(ansible.cfg); the one of a checkout does. A
    deploy with C(glm_terminate_on_failure) refuses to begin without it.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from ansible import context
from ansible.plugins.callback import CallbackBase

TERMINATE = Path(__file__).resolve().parents[2] / "playbooks" / "terminate.yml"
# A deploy announces with this fact, whose value is the fleet's name, that it wants to be cleaned up after.
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
        self._fleet: str | None = None
        self._launched: dict[str, str] = {}
        self._served: set[str] = set()

    def v2_runner_on_ok(self, result: Any) -> None:
        """The deploy announces itself, instances are launched, a host is verified."""
        values = _values(result)
        self._fleet = (values.get("ansible_facts") or {}).get(ARMED, self._fleet)
        self._note_launches(result)
        if _action(result).endswith("endpoint_check") and not values.get("skipped"):
            self._served.add(str(_host(result).vars.get("lambda_id")))

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """A launch that failed may have made some of its instances."""
        self._note_launches(result)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """The run is over: give back what it launched in vain."""
        failed = any(stats.failures.values()) or any(stats.dark.values())
        if self._fleet is None or not failed or context.CLIARGS.get("check"):
            return
        vain = {key: name for key, name in self._launched.items() if key not in self._served}
        if not vain:
            return
        names = ", ".join(sorted(vain.values()))
        self._display.display(f"\nglm_terminate_on_failure: giving back what was launched and never served: {names}")
        # Through the display, which keeps the order of lines and writes the log.
        done = subprocess.run(
            _command(self._fleet, sorted(vain)), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        self._display.display(done.stdout + done.stderr)
        if done.returncode != 0:
            self._display.error(
                f"fleet {self._fleet}, give back: {TERMINATE.name} failed, see above; {names} may go on costing money. "
                f"Next: terminate them with {TERMINATE.name}, or in the console."
            )

    def _note_launches(self, result: Any) -> None:
        values = _values(result)
        if not _action(result).endswith("lambda_instance"):
            return
        names = {item.get("id"): item.get("name") for item in values.get("instances") or []}
        for identifier in values.get("launched_ids") or []:
            self._launched[identifier] = names.get(identifier) or identifier
        for entry in values.get("replaced") or []:
            self._launched.pop(entry["instance"]["id"], None)


def _command(fleet: str, ids: list[str]) -> list[str]:
    command = [sys.executable, "-m", "ansible", "playbook", str(TERMINATE)]
    for option, flag in CARRIED:
        for value in context.CLIARGS.get(option) or ():
            command += [flag, value]
    for file in context.CLIARGS.get("vault_password_files") or ():
        command += ["--vault-password-file", file]
    own = {"glm_fleet_name": fleet, "glm_terminate_only": ids, "glm_confirm": True}
    return [*command, "-e", json.dumps(own)]


def _action(result: Any) -> str:
    # ansible-core 2.18 has the underscored names only.
    return str((getattr(result, "task", None) or result._task).action)


def _host(result: Any) -> Any:
    return getattr(result, "host", None) or result._host


def _values(result: Any) -> dict[str, Any]:
    values = getattr(result, "result", None)
    return values if isinstance(values, dict) else result._result
