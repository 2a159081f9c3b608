# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Lambda account as the guard of a run sees it: what is in it, what is ours, and how it ends."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean

from ansible_collections.glm.fleet.plugins.module_utils.cloud import host_keys, ledger, locks, run_alive
from ansible_collections.glm.fleet.plugins.module_utils.cloud.api import CloudError, Pacer, read_api_key
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import api as lambda_api
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import fleet as lambda_fleet
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud.record import PROVIDER, Record
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.give_back import Shown, say


def credential_of(arguments: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, str]:
    """What ``Account`` needs, from the arguments of lambda_instance and the environment it would run in.

    Raises CloudError when there is no key.
    """
    key = arguments.get("api_key") or next(filter(None, map(environment.get, lambda_api.KEY_ENVIRONMENT)), "")
    if not key and arguments.get("api_key_file"):
        key = read_api_key(str(arguments["api_key_file"]))
    if not key:
        raise CloudError("no API key")
    url = arguments.get("base_url") or environment.get("LAMBDA_API_URL") or lambda_api.DEFAULT_BASE_URL
    return {
        "provider": PROVIDER, "fleet": str(arguments.get("fleet") or "default"), "run": str(arguments["run"]),
        "api_key": str(key), "base_url": str(url), "host_keys_dir": str(arguments.get("host_keys_dir") or ""),
        "ca_path": str(arguments.get("ca_path") or ""),
        "unverified": "" if boolean(arguments.get("validate_certs", True)) else "yes",
    }  # fmt: skip


class Account:
    """One fleet and run on one account. ``credential``: see ``credential_of``."""

    def __init__(self, credential: Mapping[str, str]) -> None:
        pacer = Pacer(credential["api_key"], request_interval=1.0)
        self._api = lambda_api.LambdaApi(
            credential["api_key"], credential["base_url"], pacer=pacer,
            validate_certs=not credential["unverified"], ca_path=credential["ca_path"] or None,
        )  # fmt: skip
        self._fleet = credential["fleet"]
        self._run = credential["run"]
        # Under its own name, so that others see who asks for the end of what, and whether it is still at work.
        self._record = Record(self._fleet, self._api.account, run_alive.run_of(os.getpid()), say)
        # Instances of a failed run cost money, and that a store does not answer ends none of them.
        self._record.alone()
        folder = credential.get("host_keys_dir")
        self._host_keys = host_keys.Expected(Path(folder)) if folder else None
        self.title = f"fleet {self._fleet}"

    def read(self) -> list[Shown]:
        """Everything in the account; what it proves goes into the ledger."""
        rows = self._api.list_instances()
        self._record.look(rows)
        kept = {life.id for life in self._record.lives() if life.state == "kept"}
        return [
            Shown(
                id=row["id"], name=row.get("name") or "", there=lambda_fleet.exists(row),
                ours=self._is_ours(row) and row["id"] not in kept,
                untagged=lambda_fleet.FLEET_TAG not in lambda_api.tags_of(row),
                protected=lambda_fleet.is_protected(row),
            )
            for row in rows
        ]  # fmt: skip

    def look(self) -> dict[str, bool]:
        """Every instance of the account, and whether it is there to stay."""
        return {row["id"]: lambda_fleet.exists(row) for row in self._api.list_instances()}

    def end_request(self, ids: list[str]) -> set[str]:
        """Ask once that these end; which of them the answer names."""
        return self._record.end(self._api, ids)

    def lives(self) -> list[ledger.Life]:
        """What the run launched, or may have, what is not proven gone, and no later run has kept."""
        lives = [life for life in ledger.open_of(self._record.events()) if life.state != "kept"]
        return [life for life in lives if life.run == self._run and life.account == self._api.account]

    def at_work(self) -> contextlib.AbstractContextManager[None]:
        """Let nobody on this machine count or launch instances for the fleet meanwhile."""
        return locks.announce_end(self._api.base_url, self._fleet)

    def keep_ending(self, shown: Sequence[Shown], why: str) -> None:
        """Keep that the end of these is about to be asked for; their host keys are of no use any more."""
        for item in shown:
            self._record.ending([{"id": item.id, "name": item.name}], why)
            if self._host_keys:
                try:
                    self._host_keys.forget(item.id)
                except Unmet as error:
                    say(f"the host key of {item.id} was kept: {error}")

    def _is_ours(self, row: lambda_api.Instance) -> bool:
        tags = lambda_api.tags_of(row)
        return tags.get(lambda_fleet.RUN_TAG) == self._run and tags.get(lambda_fleet.FLEET_TAG) == self._fleet
