# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Callback plugin: terminate what a failed deploy launched and what never served, and say what runs leave."""

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet_give_back
type: aggregate
short_description: Terminates the instances that a failed deploy launched and that never served
version_added: 0.1.0
author: glm.fleet contributors (!UNKNOWN)
description:
  - With C(glm_terminate_on_failure=true), the instances that a deploy launched and did not verify are terminated when
    it fails. A second process does it, started with the run, so that it is done also for a run that is interrupted or
    killed. It repeats until the account was read and shows nothing of the run, for up to a day, and logs to
    C(<glm_state_dir>/give_back.log). It gets the account's key from the run by a pipe, so that inventories, vaults and
    passwords are not asked for again.
  - Ours is what the answers to the run's own launches named, by the ledger in C(~/.local/state/glm-fleet/ledger), and
    what carries the tag C(glm-run) of the run. Instances that were there before the run are never touched.
  - A run that launches and is interrupted says what it leaves running, and what that costs. Each run says at its start
    what runs that did not come to their end have left.
requirements:
  - Enabled with C(callbacks_enabled = glm.fleet.fleet_give_back) in C(ansible.cfg); the one of a checkout does. A
    deploy with C(glm_terminate_on_failure) refuses to begin without it.
"""

import atexit
import contextlib
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

from ansible import context
from ansible.plugins.callback import CallbackBase

from ansible_collections.glm.fleet.plugins.module_utils.cloud import ledger, run_alive
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.plugin_utils import task_result
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud import give_back, left, providers
from ansible_collections.glm.fleet.plugins.plugin_utils.store import state

# A deploy sets this fact to be cleaned up after: the fleet, and the log of the process that does it. ``follow``: how
# many seconds a run that failed waits for that.
ARMED = "__deploy_give_back"


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Collect what is launched and what is verified, and act when the run is over."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "glm.fleet.fleet_give_back"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._process = os.getpid()
        self._run = run_alive.run_of(self._process)
        self._guard: give_back.Guard | None = None
        # Ids of instances that this run counted in a launch, and of those that serve.
        self._counted: set[str] = set()
        self._served: set[str] = set()
        self._launches = False
        self._knows_state = False
        self._follow_seconds = give_back.FOLLOW_SECONDS

    def v2_playbook_on_start(self, playbook: Any) -> None:
        """Say what earlier runs left, as far as this machine's ledgers are all that there is."""
        self._say_what_was_left(shared=False)

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        """From here on instances may exist that no result has named."""
        if not self._launches and providers.makes(str(task.action)) and not task.check_mode:
            self._launches = True
            atexit.register(self._interrupted)

    def v2_runner_on_ok(self, result: Any) -> None:
        """The store of the state is known, the deploy asks for it, instances are launched, a host is verified."""
        action = task_result.action(result)
        if action.endswith("check_variables"):
            self._find_state(task_result.values(result).get("state_store"))
        if action.endswith("set_fact"):
            self._arm((task_result.values(result).get("ansible_facts") or {}).get(ARMED))
        self._count(result)
        # A host that no inventory of a cloud lists has no id, and nothing that could be ended.
        identifier = task_result.host(result).vars.get("glm_host_id")
        if identifier and action.endswith("endpoint_check") and not task_result.values(result).get("skipped"):
            self._serve(str(identifier))

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """A launch that failed may have made some of its instances."""
        self._count(result)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """The run is over: terminate what it launched and what never served."""
        failed = any(stats.failures.values()) or any(stats.dark.values())
        if self._guard and failed:
            self._give_back(self._guard)
        elif failed:
            self._say_what_is_left()
        if self._guard:
            self._guard.send(done=True)
        self._keep(self._served if self._guard and failed else self._served | self._counted)
        atexit.unregister(self._interrupted)

    def _give_back(self, guard: give_back.Guard) -> None:
        if not self._launches:
            return
        self._display.display("\nglm_terminate_on_failure: terminating what this run launched")
        guard.send(failed=True)
        # Through the display, which keeps the order of lines and writes the log.
        if guard.follow(self._display.display, self._follow_seconds):
            return
        self._say_what_is_left()

    def _find_state(self, store: Any) -> None:
        """The variables of the run are known: where the state is, for this process and for the guard."""
        if self._knows_state:
            return
        self._knows_state = True
        if store:
            state.use(**store)
            state.preload()
        # Another machine may have ended what this one's file has.
        self._say_what_was_left(shared=True)

    def _say_what_was_left(self, shared: bool) -> None:
        for place, lives in left.of_dead_runs(left.read(self._display.warning, shared)).items():
            self._display.warning(left.at_the_start(lives, place, time.time()))

    def _arm(self, armed: Any) -> None:
        if not isinstance(armed, dict) or self._guard or context.CLIARGS.get("check"):
            return
        self._follow_seconds = float(armed.get("follow", give_back.FOLLOW_SECONDS))
        try:
            self._guard = give_back.current = give_back.Guard(self._run, Path(str(armed["log"])).expanduser())
        except OSError as error:
            # The action that launches refuses to, then.
            give_back.current = give_back.Missing()
            self._display.warning(
                f"fleet {armed['fleet']}, terminate: the process that terminates what this run launches cannot be "
                f"started: {error}."
            )

    def _count(self, result: Any) -> None:
        if providers.makes(task_result.action(result)) and _state(result) == "present":
            values = task_result.values(result)
            self._counted.update(str(item.get("id")) for item in values.get("instances") or ())
            self._counted.update(map(str, values.get("ids") or ()))

    def _serve(self, identifier: str) -> None:
        """The host serves: the guard must not end its instance."""
        if self._guard and identifier not in self._served:
            self._guard.send(served=[identifier])
        self._served.add(identifier)

    def _keep(self, ids: set[str]) -> None:
        """The run came to its end, so the next does not have to say what it left running."""
        if not ids:
            return
        try:
            left.keep(self._books(), ids, self._run)
        except Unmet as error:
            self._display.warning(str(error))

    def _interrupted(self) -> None:
        """The run ends without its statistics: buy nothing more, and say what there is."""
        # Workers are forked from the run and have its handlers, too.
        if os.getpid() != self._process:
            return
        _stop_workers()
        self._say_what_is_left()

    def _say_what_is_left(self) -> None:
        inventory = " -i ".join(context.CLIARGS.get("inventory") or ["<its inventory>"])
        log = str(self._guard.log) if self._guard and self._guard.there else None
        for place, lives in self._left().items():
            self._display.error(left.at_the_end(lives, place, time.time(), inventory, log))

    def _left(self) -> dict[left.Place, list[ledger.Life]]:
        lives = left.of_run(self._books(), self._run)
        return {
            place: there for place, found in lives.items() if (there := [x for x in found if x.id not in self._served])
        }

    def _books(self) -> left.Books:
        return left.read(self._display.warning)


def _stop_workers(seconds: float = 5.0) -> None:
    """A worker that missed the signal would hold the run, and its module go on launching."""
    workers = multiprocessing.active_children()
    for process in (worker.pid for worker in workers if worker.pid):
        with contextlib.suppress(OSError):
            # Those of later ansible-core lead a group with their module.
            (os.killpg if os.getpgid(process) == process else os.kill)(process, signal.SIGTERM)
    deadline = time.monotonic() + seconds
    for worker in workers:
        worker.join(max(0.0, deadline - time.monotonic()))


def _state(result: Any) -> str:
    """What a task asked for: what is terminated is in its result, too."""
    return str(task_result.task(result).args.get("state", "present"))
