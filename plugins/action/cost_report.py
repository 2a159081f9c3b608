# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read accounts and ledgers, and show what they cost. Documented in ``plugins/modules/cost_report.py``."""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.cloud import api as _cloud_api
from ansible_collections.glm.fleet.plugins.module_utils.cloud import ledger
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet, advised
from ansible_collections.glm.fleet.plugins.plugin_utils.actions.base import FleetAction
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud import answers, cost, holdings, providers, reap
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.provider import Provider


def _answer_of(variables: Mapping[str, Any]) -> Optional[reap.Said]:
    """What a host said, registered by read_requests.yml; None for one that did not answer."""
    result, units = variables.get("__reap_said") or {}, variables.get("__reap_units") or {}
    if result.get("rc") == 0:
        return reap.said_in(str(result.get("stdout") or ""))
    answered = result.get("rc") is not None and units.get("matched") == 0
    # A folder that find could not look into has no units in its answer either.
    unseen = units.get("failed") or units.get("unreachable") or units.get("skipped_paths")
    return reap.NOTHING_SERVED if answered and not unseen else None


class ActionModule(FleetAction):
    """One question to each account, one file, one table."""

    LABEL = "cost"
    PLACE = "controller"
    ARGUMENTS = {
        "fleet": {"type": "str", "required": True},
        "state_dir": {"type": "path", "required": True},
        "usd_per_month": {"type": "float"},
        "expired": {"type": "str", "choices": ["fail", "reap"], "default": "fail"},
        "unrecorded": {"type": "bool", "default": False},
        "asked": {"type": "list", "elements": "str", "default": []},
        "hard": {"type": "bool", "default": False},
    }
    _requires_connection = False

    def _outcome(self) -> dict[str, Any]:
        now = time.time()
        clouds = self._clouds()
        seen = holdings.each_once(one for cloud in clouds for one in self._seen(cloud))
        names = {cloud.name for cloud in clouds}
        books = [self._book(book) for book in ledger.ledgers() if book.provider in names]
        reaping = self._args["expired"] == "reap"
        said = self._said()
        active = {key: one["active"] for key, one in said.items()}
        wanted = cost.Wanted(self._args["fleet"], self._args["usd_per_month"], self._tokens(now), not reaping, active)
        found = cost.report(seen, books, wanted, now)
        path = Path(self._args["state_dir"]).expanduser() / "cost.json"
        self._show(["", *cost.lines(found)])
        if not self._task.check_mode:
            self._keep(path, found)
        if found["problems"]:
            raise self._failure(
                advised("; ".join(found["problems"]), "correct this; what could be read is above"), report=found
            )
        elsewhere = {item.id: one.name for one in seen for item in one.held if one.name}
        decision = reap.decide(
            found["items"], self._args["unrecorded"], reap.at_work(books), elsewhere, said, self._args["hard"]
        )
        if reaping:
            self._show([f"kept: {line}" for line in [*decision["protected"], *decision["doubtful"]]])
            self._show(
                [f"past its time: {one['described']}" for one in decision["past"]] or ["Nothing is to be ended."]
            )
        return {"changed": False, "report": found, "path": str(path), **decision}

    def _said(self) -> dict[str, reap.Said]:
        """By id, what the hosts that were asked have answered; one that did not has said nothing."""
        hostvars = self._task_vars.get("hostvars") or {}
        found = []
        for host in self._args["asked"]:
            variables = hostvars.get(host) or {}
            said = _answer_of(variables)
            if variables.get("glm_host_id") and said:
                addresses = [variables.get(f"glm_host_{kind}_address") for kind in ("private", "public")]
                found.append((str(variables["glm_host_id"]), [str(one) for one in addresses if one], said))
        return reap.by_id(found)

    def _clouds(self) -> list[Provider]:
        """The clouds of the inventory; without any, those that there is a key for."""
        groups, sources = self._task_vars.get("groups") or {}, self._task_vars.get("ansible_inventory_sources") or []
        found = providers.read_from(groups, sources)
        found = found or [cloud for cloud in providers.REGISTERED if self._has_key(cloud)]
        if not found:
            known = " or ".join(f"-i {cloud.name}" for cloud in providers.REGISTERED)
            raise self._failure(
                advised("expected the inventory of a cloud, or its API key, found none", f"add {known}")
            )
        return found

    def _seen(self, cloud: Provider) -> list[holdings.Seen]:
        """The account that the key of this run opens, without a name, and those that the inventory asks with others."""
        known = [one for (name, _path), accounts in answers.ASKED.items() if name == cloud.name for one in accounts]
        asked = [
            holdings.Access(one.api_key, one.base_url, one.more.get("organization", ""), self._keeps(), one.label)
            for one in known
        ]
        try:
            own = self._access(cloud)
        except _cloud_api.CloudError as error:
            unreadable = holdings.Seen(cloud.name, unread={"the account": str(error)})
            return [unreadable, *(self._read(cloud, one) for one in asked)]
        same = next((one for one in asked if own.may_be(one)), own)
        others = [one for one in asked if one is not same]
        # Without a key of its own, a run reads what the inventory has keys for.
        named = own._replace(organization=own.organization or same.organization)
        first = [named] if own.api_key or not others else []
        return [self._read(cloud, one) for one in (*first, *others)]

    def _read(self, cloud: Provider, access: holdings.Access) -> holdings.Seen:
        """What an account holds; when nothing can be read, that it was not."""
        try:
            if not access.api_key:
                names = " or ".join(cloud.reader.key_environment)
                raise ValueError(f"no API key: set the environment variable {names}, or {cloud.name}_api_key")
            self._far = f"reading {access.name or 'the account'} of {cloud.title}"
            return cloud.reader.read(access).named(access.name)
        except (_cloud_api.CloudError, ValueError) as error:
            return holdings.Seen(cloud.name, unread={access.name or "the account": str(error)})

    def _access(self, cloud: Provider) -> holdings.Access:
        """How this run, and the modules in it, reach a cloud. Raises CloudError for a file that holds no key."""
        address = self._setting(cloud, "api_url") or cloud.reader.base_url
        return holdings.Access(self._key(cloud), address, self._setting(cloud, "organization_id"), self._keeps())

    def _keeps(self) -> bool:
        return not self._task.check_mode

    def _has_key(self, cloud: Provider) -> bool:
        """Whether there is meant to be a key: a file that cannot be read is a problem of its account."""
        try:
            return bool(self._key(cloud))
        except _cloud_api.CloudError:
            return True

    def _key(self, cloud: Provider) -> str:
        found = [self._variable(f"{cloud.name}_api_key"), *map(os.environ.get, cloud.reader.key_environment)]
        file = self._setting(cloud, "api_key_file")
        return next(filter(None, found), None) or (_cloud_api.read_api_key(file) if file else "")

    def _setting(self, cloud: Provider, name: str) -> str:
        """A variable of the run, else one of the environment."""
        word = f"{cloud.name}_{name}"
        return self._variable(word) or os.environ.get(word.upper(), "")

    def _variable(self, name: str) -> str:
        value = self._task_vars.get(name)
        return "" if value is None else str(self._templar.template(value)).strip()

    @staticmethod
    def _book(book: ledger.Ledger) -> cost.Book:
        try:
            return cost.Book(book.provider, book.fleet, book.read())
        except Unmet as error:
            return cost.Book(book.provider, book.fleet, problem=str(error))

    def _tokens(self, now: float) -> Optional[cost.Tokens]:
        """What the fleet's clients used this month, where keys.yml has counted it."""
        path = Path(self._args["state_dir"]).expanduser() / "usage" / f"{ledger.stamp(now)[:7]}.csv"
        try:
            counted, text = path.stat().st_mtime, path.read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            return None
        return cost.Tokens(cost.tokens_in(csv.DictReader(io.StringIO(text))), counted)

    def _keep(self, path: Path, found: cost.CostReport) -> None:
        try:
            files.write_json(path, found)
        except OSError as error:
            text = advised(f"{path} cannot be written: {error.strerror}", "set glm_state_dir to a folder that can")
            raise self._failure(text, report=found) from None
