# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring the number of a fleet's instances right: replace, end, launch, and wait until all are up."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Dict, List, Set, Tuple

from ansible_collections.glm.fleet.plugins.module_utils.cloud import ledger
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import api as lambda_api
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import fleet as _lambda_fleet
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud.fleet import exists, name_of
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud.launching import Launching
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud.members import Members
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet

# What the API says of an instance that it does not have.
_ABSENT = "not there any more"
# How an instance shows that somebody ended it.
_ENDED = frozenset({"terminating", "terminated", _ABSENT})


class Present:
    """The state ``present``."""

    def __init__(self, fleet: Members) -> None:
        self.fleet = fleet
        self.launching = Launching(fleet)
        self.ended: List[Dict[str, Any]] = []
        # What was counted while it was waited for: id -> name.
        self.met: Dict[str, str] = {}

    def present(self) -> None:
        """Terminate what is unhealthy or too much, launch what is missing, and wait until all are up."""
        if self.fleet.module.check_mode:
            members = self.fleet.members()
            self.tell_plan([name_of(item) for item in members], *self.planned(members))
        before = self.change()
        members = self.wait_until_up() if self.fleet.params["wait"] else self.settled()
        names = [name_of(item) for item in members] + sorted(self.fleet.unlisted().values())
        self.fleet.end(
            self.fleet.changed,
            members,
            launched=sorted(self.fleet.own.values(), key=_lambda_fleet.name_order),
            launched_ids=sorted(self.fleet.own),
            replaced=self.fleet.replaced,
            surplus=names[self.fleet.params["count"] :],
            terminated=self.fleet.terminated,
            ending=self.ended,
            unsettled=self.fleet.unsettled(),
            diff={"before": {"instances": before}, "after": {"instances": names}},
        )

    def planned(
        self, members: List[lambda_api.Instance]
    ) -> Tuple[List[Dict[str, Any]], List[lambda_api.Instance], List[str], List[lambda_api.Instance]]:
        """What would be replaced (with reasons), terminated, launched, and stays. Refuses what cannot be done."""
        victims = self.victims(members)
        bad = {instance["id"] for instance, _reason in victims}
        good = [item for item in members if item["id"] not in bad]
        missing = max(0, self.fleet.params["count"] - len(good) - len(self.fleet.unlisted()))
        names = self.launching.free_names(missing)
        if names:
            self.fleet.refuse_strays()
            self.launching.require_launch_options()
            self.launching.refuse_cost(len(names), bad)
            self.launching.refuse_budget(len(names), bad)
        surplus = self.too_many(good)
        self.fleet.refuse_protected(instance for instance, _reason in victims)
        ended = {item["id"] for item in surplus}
        entries = [self.fleet.entry(instance, reason) for instance, reason in victims]
        return entries, surplus, names, [item for item in good if item["id"] not in ended]

    def tell_plan(
        self,
        before: List[str],
        entries: List[Dict[str, Any]],
        surplus: List[lambda_api.Instance],
        names: List[str],
        staying: List[lambda_api.Instance],
    ) -> None:
        """End a run in check mode."""
        stay = [name_of(item) for item in staying]
        self.fleet.end(
            bool(entries or surplus or names),
            staying,
            launched=names,
            launched_ids=[],
            launch_price_usd_per_hour=self.launching.launch_price(len(names)),
            replaced=entries,
            surplus=stay[self.fleet.params["count"] :],
            terminated=[name_of(item) for item in surplus],
            unsettled=self.fleet.unsettled(),
            ending=[_lambda_fleet.summary_of(item) for item in surplus],
            diff={"before": {"instances": before}, "after": {"instances": [*stay, *names]}},
        )

    def change(self) -> List[str]:
        """Bring the number right, alone among the runs of this user for this fleet; returns who was there before."""
        with self.fleet.alone("launch"):
            members = self.fleet.members()
            self.launching.identity.find_lost()
            entries, surplus, names, _staying = self.planned(members)
            self.fleet.refuse_unconfirmed(surplus, all_of_them=False)
            for entry in entries:
                self.fleet.give_back(entry)
            if surplus:
                self.end_surplus(surplus)
            if names:
                self.launching.launch_missing()
            return [name_of(item) for item in members]

    def victims(self, members: List[lambda_api.Instance]) -> List[Tuple[lambda_api.Instance, str]]:
        """The instances to replace that are still there, with the reason."""
        reasons = {entry["id"]: entry["reason"] for entry in self.fleet.params["replace"]}
        return [(item, reasons[item["id"]]) for item in members if item["id"] in reasons]

    def too_many(self, members: List[lambda_api.Instance]) -> List[lambda_api.Instance]:
        """The instances beyond the desired number that are to end."""
        number = len(members) - self.fleet.params["count"]
        if self.fleet.params["surplus"] == "keep" or number <= 0:
            return []
        protected = {item["id"] for item in self.fleet.protected(members)}
        free = [item for item in members if item["id"] not in protected]
        unhealthy = [item for item in free if item.get("status") == "unhealthy"]
        others = [item for item in free if item.get("status") != "unhealthy"]
        return _lambda_fleet.in_order([*others, *unhealthy][-number:])

    def end_surplus(self, surplus: List[lambda_api.Instance]) -> None:
        self.fleet.terminate([item["id"] for item in surplus], f"beyond {self.fleet.params['count']}")
        self.fleet.terminated += [name_of(item) for item in surplus]
        self.ended += [_lambda_fleet.summary_of(item) for item in surplus]

    def settled(self) -> List[lambda_api.Instance]:
        """The members right after the launches, when they are not waited for."""
        members = self.fleet.members()
        self.fleet.refuse_strays()
        return members

    # Waiting, and replacing what does not come up ----------------------------------------------------------------

    def wait_until_up(self) -> List[lambda_api.Instance]:
        """Return the members once each is up; replaces what is not, as often as it may."""
        deadlines: Dict[str, float] = {}
        start = time.monotonic()
        looks_at_twins = 0
        while True:
            self.fleet.members()
            self.fleet.refuse_strays()
            self.fleet.give_back_twins()
            members, unlisted = self.fleet.counted(), self.fleet.unlisted()
            self.met.update((item["id"], name_of(item)) for item in members)
            now = time.monotonic()
            self.refuse_ended(now - start)
            broken = self.broken()
            waiting = [] if broken else self.not_up(members)
            limits = {
                key: deadlines.setdefault(key, now + self.fleet.params["wait_timeout"]) for key in self.awaited(waiting)
            }
            late = [item for item in waiting if now > limits[item["id"]]]
            lost = [name for key, name in unlisted.items() if now > limits[key]]
            missing = 0 if waiting or unlisted else max(0, self.fleet.params["count"] - len(members))
            if broken:
                self.replace_broken(broken, now - start)
            elif late or lost:
                self.replace_late(late, lost, now - start)
            elif missing:
                self.replace_missing(missing, len(members), now - start)
            elif not waiting and not unlisted and self.fleet.losing_twins():
                looks_at_twins += 1
                self.fleet.outlast_twins(looks_at_twins)
            elif not waiting and not unlisted:
                return members
            else:
                self.report(len(members), waiting, list(unlisted.values()))
                time.sleep(self.fleet.params["wait_interval"])

    def report(self, members: int, waiting: List[lambda_api.Instance], unlisted: List[str]) -> None:
        """Say how many of the members are up, and what is waited for."""
        for_what = "an address" if self.fleet.params["wait_for"] == "address" else "ssh"
        hanging = [_lambda_fleet.states_of(waiting)] if waiting else []
        hanging += [f"{name} (not listed yet)" for name in unlisted]
        up = members - len(waiting)
        self.fleet.report(f"{up} of {members + len(unlisted)} up, waiting for {for_what}: {'; '.join(hanging)}")

    def awaited(self, waiting: List[lambda_api.Instance]) -> List[str]:
        """The ids of what is waited for."""
        return [*(item["id"] for item in waiting), *self.fleet.unlisted()]

    def broken(self) -> List[Tuple[lambda_api.Instance, str]]:
        """What this run launched and is unhealthy, with the reason."""
        return [
            (item, f"{item.get('status')} while it was waited for")
            for item in self.fleet.known
            if item["id"] in self.fleet.own and (not exists(item) or item.get("status") == "unhealthy")
        ]

    def not_up(self, members: List[lambda_api.Instance]) -> List[lambda_api.Instance]:
        """The members that are still to come up."""
        return [item for item in members if item.get("status") != "unhealthy" and not self.is_up(item)]

    def is_up(self, instance: lambda_api.Instance) -> bool:
        address = instance.get("ip")
        if not address:
            return False
        if self.fleet.params["wait_for"] == "address":
            return True
        was_up = instance["id"] not in self.fleet.own and instance.get("status") == "active"
        return was_up or _lambda_fleet.answers_ssh(address, self.fleet.params["ssh_port"])

    def replace_broken(self, broken: List[Tuple[lambda_api.Instance, str]], seconds: float) -> None:
        """Terminate these and launch others, or fail when no more may be replaced."""
        if len(broken) > self.fleet.replacements_left:
            self.fleet.fail(
                "wait",
                f"expected new instances to come up, found after {seconds:.0f} s: "
                f"{_lambda_fleet.states_of(item for item, _reason in broken)}.",
                "run again to launch others for those that ended; name the ids of unhealthy ones in replace.",
            )
        self.fleet.replacements_left -= len(broken)
        for item, reason in broken:
            self.fleet.give_back(self.fleet.entry(item, reason))
        self.change()

    def replace_late(self, late: List[lambda_api.Instance], lost: List[str], seconds: float) -> None:
        """Terminate what did not come up in time, or fail when it may not be replaced."""
        what = "an address" if self.fleet.params["wait_for"] == "address" else "ssh that answers"
        if lost or any(item["id"] not in self.fleet.own for item in late) or len(late) > self.fleet.replacements_left:
            hanging = [_lambda_fleet.states_of(late)] if late else []
            hanging += [f"{name} was launched but is not listed" for name in lost]
            self.fleet.fail(
                "wait",
                f"expected every instance to have {what} after {seconds:.0f} s, found none on: {'; '.join(hanging)}.",
                "run again with the ids of those that hang in replace, or look at them in the console.",
            )
        reason = f"{what} expected within {self.fleet.params['wait_timeout']} s, found none"
        self.replace_broken([(item, reason) for item in late], seconds)

    def replace_missing(self, missing: int, number: int, seconds: float) -> None:
        """Launch others for instances that were there before this run and have gone meanwhile, or fail."""
        if missing > self.fleet.replacements_left:
            gone = [item for item in self.fleet.known if self.fleet.is_member(item) and not exists(item)]
            self.fleet.fail(
                "wait",
                f"expected {self.fleet.params['count']} instances, found {number}; others ended meanwhile: "
                f"{_lambda_fleet.states_of(gone) or 'they are no longer listed'}.",
                "run again to launch others for them.",
            )
        self.fleet.replacements_left -= missing
        self.change()

    def refuse_ended(self, seconds: float) -> None:
        """Fail when others ended what is waited for: somebody may have done that on purpose, and wants no other."""
        failing = self.failing()
        if not failing:
            return
        try:
            by_run = ended_in(self.fleet.record.book.read(), set(failing))
        except Unmet as error:
            self.fleet.fail("wait", f"expected {error.expected}, found {error.found}.", error.next_step)
        # The cloud preempts, and says so; this run ended none of them.
        elsewhere = [item for key, item in failing.items() if key not in by_run and item["status"] in _ENDED]
        said = [f"another run ended {name} ({key})" for key, name in sorted(by_run.items())]
        if elsewhere:
            states = _lambda_fleet.states_of(_lambda_fleet.in_order(elsewhere))
            said.append(f"{states}, by another machine's run, in the console, or by the cloud")
        if said:
            self.fleet.fail(
                "wait",
                f"expected nobody to end the fleet's instances meanwhile, found after {seconds:.0f} s that "
                f"{'; '.join(said)}; nothing was launched in their place.",
                "run again to launch others, if they are wanted after all.",
            )

    def failing(self) -> Dict[str, lambda_api.Instance]:
        """What was counted or launched here and is going, gone or unhealthy, though this run did not end it."""
        known = {item["id"]: item for item in self.fleet.known}
        own = self.launching.given_back() | {item["id"] for item in self.ended}
        alive = {key: name_of(item) for key, item in known.items() if exists(item)}
        found: Dict[str, lambda_api.Instance] = {}
        for key, name in {**self.met, **self.fleet.own}.items():
            # Of two under one name, a run elsewhere ends its own.
            twins = {other for other, its in {**alive, **self.fleet.own}.items() if its == name} - {key}
            if key in own or twins or (key not in known and key not in self.fleet.listed):
                continue
            item = known.get(key) or self.asked_by_id(key, name)
            if not exists(item) or item.get("status") in ("unhealthy", _ABSENT):
                found[key] = item
        return found

    def asked_by_id(self, key: str, name: str) -> lambda_api.Instance:
        """What the last list left out. One list may be wrong, so that the API is asked for it alone."""
        item = self.fleet.api.get_instance(key)
        if item is None:
            return {"id": key, "name": name, "status": _ABSENT}
        self.fleet.known.append(item)
        return item


def ended_in(events: Iterable[ledger.Event], ids: Set[str]) -> Dict[str, str]:
    """Those of the ids whose end somebody asked for, with their names; not those that only were seen to be going."""
    return {
        identifier: item["names"][0] if item["names"] else identifier
        for item in events
        for identifier in item["ids"]
        if identifier in ids and item["event"] == "ending" and item["why"] != ledger.GOING
    }
