# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make one container of a fleet unless there is one of its name, and bind an elastic IP to it.

What costs money is asked for once, and kept in the ledger before and after. Without an answer it is looked for by its
name; until it is found or proven never to have been made, nothing of that name is asked for again.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from typing import Any, Dict, List, NoReturn, Optional

from ansible_collections.glm.fleet.plugins.module_utils.cloud import api as _cloud_api
from ansible_collections.glm.fleet.plugins.module_utils.cloud import budget, ledger
from ansible_collections.glm.fleet.plugins.module_utils.cloud.api import ApiError, CloudError
from ansible_collections.glm.fleet.plugins.module_utils.cloud.gmi_cloud.fleet import (
    CONSOLE,
    Fleet,
    address_name,
    states_of,
)
from ansible_collections.glm.fleet.plugins.module_utils.cloud.gmi_cloud.record import ADDRESS, GOING, Row, status_of
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet

# As the vendor's schema has it.
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_. -]{0,253}[A-Za-z0-9])?")
COMING = frozenset({"", "unknown", "creating"})
# The environment variable from which the vendor's images take the public keys for ssh, one a line.
SSH_KEYS = "SSH_KEY"
RATE_LIMIT_TRIES = 3
# What was made without an answer is listed within seconds, or not at all.
LOOKS = 4
# A binding that is refused so often is given up.
REFUSALS = 3


class Present:
    """The state ``present``."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.params = fleet.params
        self.name: str = self.params["name"] or ""

    def present(self) -> None:
        """See that there is one container of this name, and that it has an elastic IP if one is wanted."""
        self.refuse_bad_options()
        if self.fleet.module.check_mode:
            self.tell()
        with self.fleet.alone("present"):
            self.fleet.look()
            life = self.found()
            self.refuse_cost(life)
            life = life or self.make()
            if self.params["wait"]:
                self.wait_until_running(life.id)
            address = self.bound(life.id) if self.params["elastic_ip_product"] else {}
        names = [self.name, *filter(None, [address.get("name")])]
        self.fleet.end(
            self.fleet.changed, [] if self.fleet.changed else names, names, container=self.fleet.summary_of(life),
            elastic_ip=address, ids=[own.id for own in self.fleet.own(self.name)],
        )  # fmt: skip

    def tell(self) -> None:
        """End a run in check mode."""
        self.fleet.look()
        life = self.found()
        bound = self.fleet.bound_to(life.id) if life else None
        wanted = [address_name(self.name)] if self.params["elastic_ip_product"] and not bound else []
        container = self.fleet.summary_of(life) if life else {}
        before = [self.name] if life else []
        self.refuse_cost(life)
        self.fleet.end(
            bool(wanted) or not life, before, [self.name, *wanted], container=container, elastic_ip={}, ids=[]
        )

    def refuse_bad_options(self) -> None:
        """Fail for what the API would refuse, or would not understand as it is meant."""
        if not NAME.fullmatch(self.name) or not self.name.startswith(self.fleet.prefix):
            self.fail(
                f"name: expected {self.fleet.prefix}… of at most 255 letters, digits, blanks and _.-, found "
                f"{self.name!r}; the name is what marks containers of the fleet.",
                "choose such a name.",
            )
        variables = [row["name"] for row in self.variables()]
        twice = sorted({name for name in variables if variables.count(name) > 1})
        if twice:
            self.fail(f"expected each variable of the environment once, found twice: {', '.join(twice)}.", "give one.")
        if self.params["elastic_ip_product"] and not self.params["wait"]:
            self.fail("elastic_ip_product: expected to wait, because only a container that runs gets one.", "set wait.")

    def found(self) -> Optional[ledger.Life]:
        """The container of this name, if there is one; fails where it is not ours, or another than was asked for."""
        lives = [life for life in self.fleet.own(self.name) if life.type != ADDRESS]
        ours = {life.id for life in lives}
        rows = [row for row in self.fleet.machines.values() if row.get("name") == self.name]
        self.refuse_unsettled(self.name)
        self.refuse_foreign("container", [row for row in rows if row["id"] not in ours])
        if len(lives) > 1:
            self.fail(
                f"expected one container of this name, found {states_of(self.fleet, lives)}.",
                "end those that are too much (state absent), by their ids.",
            )
        for life in lives:
            self.refuse_other(life)
            return life
        return None

    def refuse_foreign(self, what: str, rows: List[Row]) -> None:
        if rows:
            self.fail(
                f"expected no {what} of this name but ours, found {', '.join(row['id'] for row in rows)}, which the "
                "ledger of this fleet does not have.",
                f"choose another name, or end it in the console ({CONSOLE}) if nobody needs it.",
            )

    def refuse_unsettled(self, name: str) -> None:
        if self.fleet.unsettled(name):
            self.fail(
                f"{name} was asked for before, without an answer, so it may exist, and is not asked for again.",
                "run again in some minutes: once it is listed it is taken, and after half an hour of lists without it "
                f"another is made. Or look at {CONSOLE}.",
            )

    def refuse_other(self, life: ledger.Life) -> None:
        """Fail when what there is of this name is of another kind, which no request can change."""
        row = self.fleet.row_of(life)
        wanted = {
            "product": self.params["product"],
            "idc": self.params["idc"],
            "templateId": self.params["template_id"],
        }
        other = [
            f"{key} {row[key]} (wanted: {value})"
            for key, value in wanted.items()
            if value and row.get(key, value) != value
        ]
        if other:
            self.fail(
                f"expected the container as described, found {self.name} ({life.id}) with {', '.join(other)}.",
                "choose another name, or end this one first (state absent).",
            )

    def refuse_cost(self, life: Optional[ledger.Life]) -> None:
        """Fail when what is to be made could bring the fleet past one of its limits, or is of no known price."""
        address = address_name(self.name)
        wanted: List[budget.Running] = []
        if life is None:
            wanted.append(budget.Running("", self.params["product"] or self.name, self.params["price_usd_per_hour"]))
        has_address = (life and self.fleet.bound_to(life.id)) or any(
            own.type == ADDRESS for own in self.fleet.own(self.name)
        )
        if self.params["elastic_ip_product"] and not has_address:
            wanted.append(budget.Running("", address, self.params["elastic_ip_price_usd_per_hour"]))
        if not wanted:
            return
        there = [budget.Running(own.id, self.fleet.name_of(own), own.usd_per_hour) for own in self.fleet.open()]
        refusal = budget.hourly_refusal(self.params["max_hourly_usd"], there, wanted)
        if self.params["max_monthly_usd"] is not None and not refusal:
            # What runs is in the ledger, and so is what was asked for without an answer.
            events, wish = self.fleet.record.book.read(), budget.wish_of(wanted)
            found = budget.forecast(events, self.fleet.api.account, [], set(), wish, time.time())
            refusal = found.refusal(self.params["max_monthly_usd"], wish)
        if refusal:
            self.fail(
                f"{refusal} Nothing was made.",
                "make something cheaper, end others, raise the limit, or give the prices that the console shows "
                "(price_usd_per_hour, elastic_ip_price_usd_per_hour).",
            )

    # Making ----------------------------------------------------------------------------------------------------------

    def make(self) -> ledger.Life:
        """Ask for the container."""
        absent = [option for option in ("idc", "product") if not self.params[option]]
        if not (self.params["template_id"] or self.params["image"]):
            absent.append("template_id or image")
        if absent:
            self.fail(f"{self.name}: to make it, {', '.join(absent)} must be set.", f"set {', '.join(absent)}.")
        request = self.request(self.params["template_id"] or self.template())
        price = self.params["price_usd_per_hour"]
        return self.ask(self.name, self.params["product"], price, lambda: self.fleet.api.create_container(request))

    def request(self, template: str) -> Dict[str, Any]:
        """The body of the request."""
        optional = {
            "command": self.params["command"],
            "args": self.params["args"],
            "envs": self.variables(),
            "ports": [
                {
                    "containerPort": port["container_port"],
                    "protocol": port["protocol"].upper(),
                    **({"port": port["port"]} if port["port"] else {}),
                }
                for port in self.params["ports"]
            ],
            "sshKeyIdList": self.params["ssh_key_ids"],
        }
        asked = {key: self.params[key] for key in ("name", "idc", "product")}
        return {**asked, "templateId": template, **{key: value for key, value in optional.items() if value}}

    def variables(self) -> List[Dict[str, str]]:
        """The environment of the container."""
        given = [*self.params["env"].items(), *(self.params["secret_env"] or {}).items()]
        keys = "\n".join(self.params["ssh_public_keys"])
        return [
            {"name": str(name), "value": str(value)} for name, value in [*given, *([(SSH_KEYS, keys)] if keys else [])]
        ]

    def template(self) -> str:
        """The id of our template of the image, which is made once: it costs nothing, and stays."""
        image = self.params["image"]
        name = f"glm-{hashlib.sha256(image.encode()).hexdigest()[:12]}"

        def known() -> List[str]:
            rows = [row for row in self.fleet.api.list_templates() if row.get("name") == name]
            return [row["id"] for row in rows if row.get("path") in (None, image)]

        found = known()
        if found:
            return found[0]
        try:
            return self.fleet.api.create_template(name, image)
        except CloudError as error:
            made = known() if error.outcome_unknown else []
            if not made:
                self.fail(f"template {name} of {image}: {error}", "correct the cause, or give template_id.")
            return made[0]

    def ask(self, name: str, kind: str, price: Optional[float], make: Callable[[], str]) -> ledger.Life:
        """Ask once for what costs money, and keep what became of it."""
        moment = ledger.stamp(time.time())
        try:
            self.fleet.record.asked(name, moment, type=kind, region=self.params["idc"], usd_per_hour=price)
        except Unmet as error:
            self.fail(f"{name}: expected {error.expected}, found {error.found}; it was not asked for.", error.next_step)
        for attempt in range(1, RATE_LIMIT_TRIES + 1):
            try:
                identifier = make()
                self.fleet.changed = True
                self.fleet.record.launched(name, moment, [identifier])
                break
            except CloudError as error:
                # A 429 was refused before anything happened, so it alone may be asked again.
                if isinstance(error, _cloud_api.RateLimited) and attempt < RATE_LIMIT_TRIES:
                    time.sleep(self.params["wait_interval"] if error.retry_after is None else error.retry_after)
                    continue
                if not error.outcome_unknown:
                    self.fleet.record.refused(name, moment, str(error))
                    self.fail(f"{name} ({kind} in {self.params['idc']}): {error}", "correct the request and run again.")
                self.fleet.record.unknown(name, moment, str(error))
                identifier = self.looked_for(name, error)
                break
        for life in self.fleet.own(self.name):
            if life.id == identifier:
                return life
        self.fail(
            f"{name} ({identifier}) was made, but its ledger could not be written, so it is not known as ours.",
            f"end it in the console ({CONSOLE}), correct what the warning says, and run again.",
        )

    def looked_for(self, name: str, error: CloudError) -> str:
        """The id of what was asked for without an answer; fails, and leaves it open, when it does not turn up."""
        for number in range(LOOKS):
            if number:
                self.fleet.pause()
            try:
                self.fleet.look()
            except CloudError as trouble:
                self.fleet.module.warn(f"fleet {self.fleet.name}: looking for {name} after no answer: {trouble}")
                continue
            found = [life.id for life in self.fleet.own(self.name) if life.name == name]
            if found and not self.fleet.unsettled(name):
                self.fleet.changed = True
                return found[-1]
        self.fail(
            f"{name}: {error}",
            f"none named {name} has turned up, but one may still. Run again in some minutes: it is looked for first, "
            f"and not made twice. Or look at {CONSOLE}.",
        )

    # Waiting, and the elastic IP -------------------------------------------------------------------------------------

    def wait_until_running(self, identifier: str) -> None:
        """Look until it runs; fails when it cannot any more, or takes too long."""
        start, listed = time.monotonic(), False
        while True:
            self.fleet.look()
            row = self.fleet.machines.get(identifier, {})
            status = status_of(row)
            if status == "running":
                return
            waited = time.monotonic() - start
            # Terminating shows for a moment during a restart, too.
            if (status not in COMING and status != GOING) or waited > self.params["wait_timeout"]:
                reason = f" ({row['reason']})" if row.get("reason") else ""
                self.fail(
                    f"expected {self.name} ({identifier}) to run, found after {waited:.0f} s: "
                    f"{status or 'not listed'}{reason}. It may cost money.",
                    "look at its logs (glm.fleet.gmi_info with container_id); run again to go on waiting, or end it "
                    "(state absent).",
                )
            listed = listed or bool(row)
            self.refuse_ended(identifier, listed and not row, waited)
            self.fleet.report(f"waiting for {self.name} ({identifier}) to run, it is {status or 'not listed yet'}")
            self.fleet.pause()

    def refuse_ended(self, identifier: str, vanished: bool, waited: float) -> None:
        """Fail when what was listed is not there any more. One list may be wrong, so the API is asked for its id."""
        if vanished and not self.fleet.api.has_container(identifier):
            self.fail(
                f"expected {self.name} ({identifier}) to run, found after {waited:.0f} s that it is not there any "
                "more, though this run did not end it.",
                "run again to make another, if it is wanted after all.",
            )

    def bound(self, container: str) -> Dict[str, Any]:
        """The elastic IP that is bound to the container, whoever did that; it is allocated if there is none."""
        refusals, start, trouble = 0, time.monotonic(), "the list does not show it as bound"
        name = address_name(self.name)
        row = self.fleet.bound_to(container)
        address = None if row else self.address(name)
        while row is None and address:
            if refusals >= REFUSALS or time.monotonic() - start > self.params["wait_timeout"]:
                self.fail(
                    f"expected the elastic IP {name} ({address.id}) to be bound to {self.name}, found: {trouble}. It "
                    "costs money all the same.",
                    "run again, or end the container with its elastic IP (state absent).",
                )
            try:
                # To bind it twice does no harm: both are named by id.
                self.fleet.api.associate_elastic_ip(address.id, container)
                self.fleet.changed = True
            except CloudError as error:
                trouble = str(error)
                refused = isinstance(error, ApiError) and not isinstance(error, _cloud_api.RateLimited)
                refusals += refused and not error.outcome_unknown
            self.fleet.look()
            row = self.fleet.bound_to(container)
            if row is None:
                self.fleet.pause()
        return self.fleet.summary_of_address(row or {})

    def address(self, name: str) -> ledger.Life:
        """The elastic IP that the container gets: one that was allocated for it before, else a new one."""
        lives = [life for life in self.fleet.own(self.name) if life.type == ADDRESS]
        ours = {life.id for life in lives}
        rows = [row for row in self.fleet.addresses.values() if row.get("name") == name]
        self.refuse_unsettled(name)
        self.refuse_foreign("elastic IP", [row for row in rows if row["id"] not in ours])
        for life in lives:
            if not self.fleet.row_of(life).get("instanceID"):
                return life
        idc, product = self.params["idc"], self.params["elastic_ip_product"]
        if not idc:
            self.fail("to allocate an elastic IP, idc must be set.", "set idc.")
        price = self.params["elastic_ip_price_usd_per_hour"]
        return self.ask(name, ADDRESS, price, lambda: self.fleet.api.allocate_elastic_ip(name, idc, product))

    def fail(self, problem: str, next_step: str) -> NoReturn:
        """End the run."""
        self.fleet.fail("present", problem, next_step)
