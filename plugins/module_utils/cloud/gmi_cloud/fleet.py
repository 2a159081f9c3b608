# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machines and elastic IPs of one fleet as a run has seen them, and how a run ends. Knows no desired state.

Ours is what the ledger of the fleet says was made for it, and what still has a name of the fleet.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial
from typing import Any, ContextManager, Dict, List, NoReturn, Optional

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils.cloud import ledger, locks
from ansible_collections.glm.fleet.plugins.module_utils.cloud import module as _module
from ansible_collections.glm.fleet.plugins.module_utils.cloud.api import text_of
from ansible_collections.glm.fleet.plugins.module_utils.cloud.gmi_cloud import api as gmi_api
from ansible_collections.glm.fleet.plugins.module_utils.cloud.gmi_cloud.record import (
    ADDRESS,
    ENDED,
    Record,
    Row,
    status_of,
)
from ansible_collections.glm.fleet.plugins.module_utils.cloud.gmi_cloud.spellings import known
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet, advised

CONSOLE = "https://console.gmicloud.ai"


class Fleet:
    """One fleet, as of the last look at the account: its containers, or with ``nodes`` all bare-metal nodes there."""

    def __init__(self, module: AnsibleModule, api: gmi_api.GmiApi, nodes: bool = False) -> None:
        self.module = module
        self.params = module.params
        self.api = api
        self.nodes = nodes
        self.name: str = self.params["fleet"]
        self.prefix = f"glm-{self.name}-"
        self.record = Record(self.name, api.account, self.params.get("run"), module.warn)
        self.changed = False
        self.machines: Dict[str, Row] = {}
        self.addresses: Dict[str, Row] = {}

    def look(self) -> None:
        """List all that the account has, and keep what that proves. Raises CloudError; fails without a ledger."""
        try:
            self.record.check(self.module.check_mode)
            if not self.record.book.shared:
                self.record.book.read()
        except Unmet as error:
            # Without it nothing is known as ours, which must not look like nothing.
            _module.fail(self.module, f"fleet {self.name}", "ledger", error.args[0], "", changed=self.changed)
        # Under one name for each fact, and without the user data that the API sends along.
        nodes: List[Row] = [dict(known(row)) for row in self.api.list_baremetals()] if self.nodes else []
        containers = [] if self.nodes else self.api.list_containers()
        addresses = self._listed_addresses()
        if not self.module.check_mode:
            self.record.look(None if self.nodes else containers, addresses, nodes if self.nodes else None)
        self.machines = {row["id"]: row for row in [*containers, *nodes] if status_of(row) not in ENDED}
        self.addresses = {row["id"]: row for row in addresses if status_of(row) not in ENDED}

    def _listed_addresses(self) -> List[Row]:
        """The elastic IPs; none where the account has no such collection, unless the ledger knows better."""
        try:
            return self.api.list_elastic_ips(identified=True)
        except gmi_api.NotServed:
            if any(life.type == ADDRESS for life in self.open()):
                raise
            return []

    def open(self) -> List[ledger.Life]:
        """What was asked for and is not proven gone, elastic IPs too; of another key's only what this one lists."""
        there = {*self.machines, *self.addresses}
        lives = [life for life in self.record.all_lives() if not life.until]
        return [life for life in lives if life.account == self.record.account or life.id in there]

    def own(self, name: Optional[str] = None) -> List[ledger.Life]:
        """Those that an answer named, or a list; with ``name``, a container of this name and its elastic IP."""
        lives = [life for life in self.open() if life.id and life.ours and self.name_of(life).startswith(self.prefix)]
        names = {True: address_name(name), False: name} if name else {}
        return [life for life in lives if not name or self.name_of(life) == names[life.type == ADDRESS]]

    def unsettled(self, name: Optional[str] = None) -> List[ledger.Life]:
        """Those whose request had no answer, and no list has settled what became of it."""
        return [life for life in self.open() if not life.id and name in (None, life.name)]

    def row_of(self, life: ledger.Life) -> Row:
        """What the last list says of it; nothing where it is not listed."""
        return (self.addresses if life.type == ADDRESS else self.machines).get(life.id, {})

    def bound_to(self, container: str) -> Optional[Row]:
        """The elastic IP that is bound to it, if there is one."""
        return next((row for row in self.addresses.values() if row.get("instanceID") == container), None)

    def name_of(self, life: ledger.Life) -> str:
        """Its name as it is now."""
        return str(self.row_of(life).get("name") or life.name)

    def alone(self, phase: str) -> ContextManager[None]:
        """Keep other runs of this user for the fleet away meanwhile; fails when they take too long."""
        return locks.alone(self.api.base_url, self.name, self.params["wait_timeout"], partial(self.fail, phase))

    def report(self, progress: str) -> None:
        """Say what is waited for."""
        _module.report(self.module, progress)

    def pause(self) -> None:
        """Wait for the next look."""
        time.sleep(self.params["wait_interval"])

    def end(self, changed: bool, before: Iterable[str], after: Iterable[str], **more: Any) -> NoReturn:
        """End the run; what it must not touch, or cannot know, is said."""
        unsettled = self.unsettled()
        if unsettled:
            self.module.warn(
                f"fleet {self.name}: asked for without an answer: {ledger.described(unsettled, time.time())}"
            )
        renamed = [
            life for life in self.open() if life.id and life.ours and not self.name_of(life).startswith(self.prefix)
        ]
        if renamed:
            self.module.warn(
                f"fleet {self.name}: made for it, but not named {self.prefix}… any more, so left alone: "
                f"{states_of(self, renamed)}"
            )
        self.module.exit_json(
            changed=changed,
            unsettled=sorted(life.name for life in unsettled),
            diff={"before": {"names": sorted(before)}, "after": {"names": sorted(after)}},
            **more,
        )
        raise AssertionError("exit_json returned")

    def fail(self, phase: str, problem: str, next_step: str) -> NoReturn:
        """End the run; says what of the fleet is left and what it costs, as far as the ledger knows."""
        left = ledger.described(self.open(), time.time())
        had = f" By its ledger the fleet has: {left}." if left else " By its ledger the fleet has nothing."
        if self.nodes:
            # They are known by the ids that were given.
            had = ""
        _module.fail(
            self.module, f"fleet {self.name}", phase, f"{advised(problem, '')}{had}", next_step, changed=self.changed,
            unsettled=sorted(life.name for life in self.unsettled()),
        )  # fmt: skip

    def summary_of(self, life: ledger.Life) -> Dict[str, Any]:
        """What is returned of a container; nothing else leaves the module (the API's answer holds tokens in clear)."""
        row = self.row_of(life)
        bound = self.bound_to(life.id)
        return {
            "id": life.id,
            "name": self.name_of(life),
            "status": status_of(row) or "not listed",
            "reason": text_of(row.get("reason")),
            "idc": text_of(row.get("idc")) or life.region,
            "product": text_of(row.get("product")) or life.type,
            "template_id": text_of(row.get("templateId")),
            "created": text_of(row.get("createdAt")) or life.since,
            "ip": text_of(bound.get("ipAddress")) if bound else None,
            "price_usd_per_hour": life.usd_per_hour,
        }

    @staticmethod
    def summary_of_address(row: Row) -> Dict[str, Any]:
        """The same of an elastic IP."""
        return {
            "id": text_of(row.get("id")),
            "name": text_of(row.get("name")),
            "status": status_of(row) or "not listed",
            "idc": text_of(row.get("idc")),
            "ip": text_of(row.get("ipAddress")),
            "container_id": text_of(row.get("instanceID")),
        }


def address_name(container: str) -> str:
    """How the elastic IP that is allocated for a container is called."""
    return f"{container}-ip"


def states_of(fleet: Fleet, lives: Iterable[ledger.Life]) -> str:
    """Name, id and status of each."""
    return "; ".join(
        f"{fleet.name_of(life)} ({life.id}) is {status_of(fleet.row_of(life)) or 'not listed'}" for life in lives
    )
