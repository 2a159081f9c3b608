# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The instances of one fleet as a run has seen and changed them, and how a run ends. Knows no desired state.

An instance that is unhealthy, or was launched twice, is terminated here, and what was found is kept.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Dict, List, NoReturn, Optional, Set, cast

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.cloud import ending, host_keys, ledger, locks
from ansible_collections.glm.fleet.plugins.module_utils.cloud import module as _module
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import api as lambda_api
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import fleet as _lambda_fleet
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud.fleet import FLEET_TAG, exists
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud.record import Record
from ansible_collections.glm.fleet.plugins.module_utils.cloud.record import is_late
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet, advised

# A launch whose answer was lost shows up in the listing within seconds, or not at all.
RECONCILE_LOOKS = 4
LIFT = (
    "tags cannot be changed after the launch: to end them all the same, name them in unprotect (glm_unprotect), here "
    "{names}."
)


class Members:
    """The instances of one fleet, as of the last look at the account, and what this run did to them."""

    def __init__(self, module: AnsibleModule, api: lambda_api.LambdaApi) -> None:
        self.module = module
        self.params = module.params
        self.api = api
        self.name = self.params["fleet"]
        self.role = self.params["role"]
        self.prefix = self.params["name_prefix"] or "-".join(filter(None, ["glm", self.name, self.role]))
        folder = self.params["host_keys_dir"]
        self.host_keys = host_keys.Expected(Path(folder)) if folder else None
        self.record = Record(self.name, api.account, self.params["run"], module.warn)
        self.changed = False
        # What this run launched and did not terminate: id -> name.
        self.own: Dict[str, str] = {}
        self.listed: Set[str] = set()
        self.replaced: List[Dict[str, Any]] = []
        self.replacements_left: int = self.params["replacements"]
        self.terminated: List[str] = []
        self.known: List[lambda_api.Instance] = []
        self.looked = False

    def members(self) -> List[lambda_api.Instance]:
        """Ask for the fleet's existing instances, by name, and remember the whole answer in ``known``."""
        if not self.looked:
            self.require_ledger()
        self.known = self.api.list_instances()
        self.looked = True
        self.listed.update(item["id"] for item in self.known)
        if not self.module.check_mode:
            self.record.look(self.known)
        return self.known_members()

    def require_ledger(self) -> None:
        """Fail before anything is done where the ledger of several machines cannot be read."""
        try:
            self.record.check(self.module.check_mode)
        except Unmet as error:
            problem = f"expected {error.expected}, found {error.found}; nothing was changed."
            # Not by our own: what is left running cannot be said without it.
            _module.fail(self.module, f"fleet {self.name}", "ledger", problem, error.next_step, changed=self.changed)

    def known_members(self) -> List[lambda_api.Instance]:
        """The fleet's existing instances of the role, as of the last look."""
        return _lambda_fleet.in_order(item for item in self.known if exists(item) and self.is_member(item))

    def is_member(self, instance: lambda_api.Instance) -> bool:
        tags = lambda_api.tags_of(instance)
        return tags.get(FLEET_TAG) == self.name and self.role in (None, tags.get(_lambda_fleet.ROLE_TAG))

    def expires(self, now: float) -> Optional[float]:
        """When what is launched now may be ended; None: never."""
        hours = self.params["max_hours"]
        return None if hours is None else now + hours * 3600

    def endable(self) -> List[lambda_api.Instance]:
        """What may be ended: the members, and what the ledger proves to be our own launch although its tag is missing.

        That includes what the API named when it was launched and no list has shown yet.
        """
        self.members()
        return self.known_endable()

    def known_endable(self) -> List[lambda_api.Instance]:
        """The same, as of the last look."""
        ours = {life.id: life for life in self.record.lives() if life.ours and life.id and not life.until}
        listed = {item["id"] for item in self.known}
        untagged = [
            item
            for item in self.known
            if exists(item) and item["id"] in ours and FLEET_TAG not in lambda_api.tags_of(item)
        ]
        late = [
            _as_instance(life)
            for key, life in ours.items()
            if key not in listed and not is_late(life) and life.why != ledger.GOING
        ]
        members = self.known_members()
        return _lambda_fleet.in_order([*members, *(item for item in [*untagged, *late] if self._has_role(item))])

    def unsettled(self) -> List[str]:
        """Names of launches without an answer, by the ledger; no list has settled what became of them."""
        return sorted({life.name for life in self.record.lives() if not life.id and not life.until})

    def _has_role(self, instance: lambda_api.Instance) -> bool:
        """Without tags only the name says the role."""
        return not self.role or bool(re.fullmatch(re.escape(self.prefix) + r"-[0-9]+", instance.get("name") or ""))

    def unlisted(self) -> Dict[str, str]:
        """What this run launched and no listing has shown yet: id -> name."""
        return {key: name for key, name in self.own.items() if key not in self.listed}

    def untagged(self) -> Dict[str, str]:
        """What this run launched and the API lists without the fleet's tags: id -> name."""
        lost = [item["id"] for item in self.known if exists(item) and not self.is_member(item)]
        return {key: name for key, name in self.own.items() if key in lost}

    def other_fleets(self) -> Dict[str, int]:
        """How many existing instances each other fleet has, as of the last look at the account."""
        values = [lambda_api.tags_of(item).get(FLEET_TAG) for item in self.known if exists(item)]
        return dict(sorted(Counter(value for value in values if value not in (None, self.name)).items()))

    @contextlib.contextmanager
    def alone(self, phase: str) -> Iterator[None]:
        """Keep other runs of this user for the fleet away meanwhile; fails when they take too long."""
        with locks.alone(self.api.base_url, self.name, self.params["wait_timeout"], partial(self.fail, phase)):
            if phase == "launch" and locks.end_announced(self.api.base_url, self.name):
                self.fail(
                    phase,
                    "expected nobody who terminates this fleet, found another run, or the process that terminates "
                    "what a failed run launched. Nothing was counted or launched.",
                    "wait until it has ended (the latter logs to give_back.log), then run again if still wanted.",
                )
            yield

    def lifted(self) -> Set[str]:
        """The ids of members whose protection the option ``unprotect`` lifts; fails for what names none."""
        given, members = self.params["unprotect"] or [], self.known_members()
        found = {item["id"] for item in members if {item["id"], item.get("name")} & set(given)}
        names = {value for item in members for value in (item["id"], item.get("name"))}
        unmatched = [entry for entry in given if entry not in names]
        if unmatched:
            self.fail(
                "terminate",
                f"unprotect: expected names or ids of this fleet's instances, found {', '.join(unmatched)}; nothing "
                "was terminated.",
                "correct the name.",
            )
        return found

    def protected(self, instances: Iterable[lambda_api.Instance]) -> List[lambda_api.Instance]:
        """Those that must not be ended."""
        chosen = [item for item in instances if _lambda_fleet.is_protected(item)]
        lifted = self.lifted() if chosen or self.params["unprotect"] else set()
        return [item for item in chosen if item["id"] not in lifted]

    def refuse_protected(self, instances: Iterable[lambda_api.Instance]) -> None:
        """Fail when one of them must not be ended."""
        found = self.protected(instances)
        if found:
            names = ", ".join(_lambda_fleet.name_of(item) for item in found)
            self.fail(
                "terminate",
                f"expected instances without the tag {_lambda_fleet.PROTECT_TAG}, found it on {names}; nothing was "
                "terminated.",
                LIFT.format(names=names),
            )

    def refuse_unconfirmed(self, chosen: Iterable[lambda_api.Instance], all_of_them: bool) -> None:
        """Fail unless these are the instances that were shown and confirmed; ``all_of_them``: and no others."""
        if self.params["confirmed"] is None:
            return
        ids, confirmed = {item["id"] for item in chosen}, set(self.params["confirmed"])
        changes = [("joined", ids - confirmed), ("left", confirmed - ids if all_of_them else set())]
        named = {item["id"]: f"{_lambda_fleet.name_of(item)} ({item['id']})" for item in self.known}
        said = [
            f"{word}: {', '.join(sorted(named.get(identifier, identifier) for identifier in found))}"
            for word, found in changes
            if found
        ]
        if said:
            self.fail(
                "terminate",
                f"the fleet changed since you were asked: {'; '.join(said)}. Nothing was terminated.",
                "run again, and look at what it names.",
            )

    def report(self, progress: str) -> None:
        """Say what is waited for and how far it is."""
        _module.report(self.module, progress)

    def end(
        self,
        changed: bool,
        members: List[lambda_api.Instance],
        priced: Optional[Iterable[lambda_api.Instance]] = None,
        **more: Any,
    ) -> None:
        """End the run with these members; the price is that of ``priced``, by default the members."""
        self.module.exit_json(
            changed=changed,
            instances=[_lambda_fleet.summary_of(item) for item in members],
            price_usd_per_hour=_lambda_fleet.price_of(members if priced is None else priced),
            cost_usd_so_far=_lambda_fleet.cost_of(members),
            other_fleets=self.other_fleets(),
            **more,
        )

    def fail(self, phase: str, problem: str, next_step: str) -> NoReturn:
        """End the run; says what is left running and what it costs, as far as the API can be asked."""
        fresh = True
        try:
            members = self.endable()
        except lambda_api.LambdaError:
            fresh, members = False, self.known_endable()
        unsettled = self.unsettled()
        doubtful = bool(unsettled or self.unlisted() or self.untagged())
        left = _lambda_fleet.bill(members if self.looked else None, fresh, doubtful)
        for state, own in (("not listed", self.unlisted()), (f"without the tag {FLEET_TAG}", self.untagged())):
            if own:
                left += f" Launched but {state}: {', '.join(f'{name} ({key})' for key, name in own.items())}."
        if unsettled:
            left += f" Launched without an answer, so they may exist: {', '.join(unsettled)}."
        self.module.fail_json(
            msg=advised(f"fleet {self.name}, {phase}: {advised(problem, '')} {left}", next_step),
            changed=self.changed,
            instances=[_lambda_fleet.summary_of(item) for item in members],
            price_usd_per_hour=_lambda_fleet.price_of(members),
            launched=sorted(self.own.values()),
            launched_ids=sorted(self.own),
            replaced=self.replaced,
            terminated=self.terminated,
        )
        raise AssertionError("fail_json returned")

    def refuse_strays(self) -> None:
        """Fail when an instance has a name but no tag of this fleet: counted by tag, it would be launched again."""
        pattern = re.compile(re.escape(self.prefix) + r"-[0-9]+")
        strays = [
            item
            for item in self.known
            if exists(item) and pattern.fullmatch(item.get("name") or "") and FLEET_TAG not in lambda_api.tags_of(item)
        ]
        if strays:
            self.fail(
                "launch",
                f"expected instances with this fleet's names to carry the tag {FLEET_TAG}, found none on: "
                f"{_lambda_fleet.states_of(strays)}. Either the API dropped the tag or somebody else named them so.",
                "terminate them in the console if they are not needed, or set another name_prefix.",
            )

    # Ending, by id ---------------------------------------------------------------------------------------------------

    def end_request(self, ids: List[str]) -> Set[str]:
        """Ask once that these end; which of them the answer names."""
        return self.record.end(self.api, ids)

    def look(self) -> Dict[str, bool]:
        """Every instance of the account, and whether it is there to stay."""
        self.members()
        return {item["id"]: exists(item) for item in self.known}

    def terminate(self, ids: List[str], why: str) -> None:
        """End these instances and no others; fails, and names them, when the account still shows one in the end."""
        there = {item["id"]: item for item in [*self.known_endable(), *self.known]}
        self.record.ending((there[key] for key in ids if key in there), why)
        attempt = ending.Ending(
            self,
            ids,
            self.params["wait_timeout"],
            self.params["wait_interval"],
            lambda done, left: self.report(
                f"{done} of {len(ids)} terminated, waiting for "
                f"{_lambda_fleet.states_of(item for item in self.known if item['id'] in left)}"
            ),
            time.sleep,
            time.monotonic,
        )
        outcome = attempt.run(self.params["wait"])
        ended = [*outcome.gone, *outcome.accepted]
        self.changed = self.changed or bool(ended)
        self._forget_host_keys(ended)
        if outcome.left:
            states = _lambda_fleet.states_of(item for item in self.known if item["id"] in outcome.left)
            reasons = " ".join(dict.fromkeys(outcome.left.values()))
            self.fail(
                "terminate",
                f"{advised(reasons, '')} Expected to be gone, found: {states or ', '.join(outcome.left)}.",
                "run again; ending an instance twice does no harm.",
            )

    def _forget_host_keys(self, ids: List[str]) -> None:
        if self.host_keys is None:
            return
        for identifier in ids:
            try:
                self.host_keys.forget(identifier)
            except Unmet as error:
                self.module.warn(f"fleet {self.name}, terminate: the host key of {identifier} was kept: {error}")

    # Two runs on two machines may launch under one name; then all but one of these instances go. ---------------------

    def losing_twins(self) -> Dict[str, str]:
        """What shares its name with something that this run launched and has to go: its id -> the id that stays.

        Names are free when they are chosen, so a run elsewhere chose the same one at that moment. All runs keep the
        lowest id.
        """
        ids: Dict[str, List[str]] = {name: [] for name in self.own.values()}
        for item in self.known_members():
            twins = ids.get(item.get("name") or "")
            if twins is not None:
                twins.append(item["id"])
        return {twin: min(twins) for twins in ids.values() for twin in twins if twin != min(twins)}

    def counted(self) -> List[lambda_api.Instance]:
        """The members that stay when all runs are through."""
        losing = self.losing_twins()
        return [item for item in self.known_members() if item["id"] not in losing]

    def give_back_twins(self) -> None:
        """Terminate what this run launched and a run elsewhere keeps another for."""
        for twin, keeper in self.losing_twins().items():
            if twin in self.own:
                self.give_back_own(twin, keeper)

    def give_back_own(self, own: str, other: str) -> None:
        item = next(item for item in self.known if item["id"] == own)
        self.give_back(self.entry(item, f"another run launched {other} under the same name"))

    def outlast_twins(self, looks: int) -> None:
        """Let a run elsewhere terminate its twins; when it has ended without having seen ours, terminate ours."""
        if looks < RECONCILE_LOOKS:
            time.sleep(self.params["wait_interval"])
            return
        for twin, keeper in self.losing_twins().items():
            if keeper in self.own:
                self.give_back_own(keeper, twin)
                # That run may have done the same at this moment; then both have to be launched again.
                self.replacements_left += 1

    @staticmethod
    def entry(instance: lambda_api.Instance, reason: str) -> Dict[str, Any]:
        """What is reported and kept about an instance that is terminated."""
        moment = _lambda_fleet.stamp(time.time())
        return {"instance": _lambda_fleet.summary_of(instance), "reason": reason, "time": moment}

    def give_back(self, entry: Dict[str, Any]) -> None:
        """Keep the evidence, then terminate the instance unless it is going away already."""
        instance = entry["instance"]
        if self.params["evidence_dir"]:
            given = [item.get("evidence") for item in self.params["replace"] if item["id"] == instance["id"]]
            entry["evidence"] = self.keep_evidence({**entry, "found": given[0]} if given and given[0] else entry)
        self.replaced.append(entry)
        if instance["status"] in lambda_api.GONE:
            self._forget_host_keys([instance["id"]])
        else:
            self.terminate([instance["id"]], entry["reason"])
        self.own.pop(instance["id"], None)
        # Without waiting there was no second look.
        self.known = [item for item in self.known if item["id"] != instance["id"]]

    def keep_evidence(self, entry: Dict[str, Any]) -> str:
        instance = entry["instance"]
        plain = re.sub(r"[^A-Za-z0-9._-]", "_", instance["name"]) or "instance"
        path = Path(self.params["evidence_dir"]) / f"{plain}-{instance['id'][:8]}.json"
        try:
            files.write_json(path, entry)
        except OSError as error:
            self.fail(
                "evidence",
                f"{path} cannot be written: {error.strerror}; {instance['name']} ({instance['id']}) was kept.",
                "set evidence_dir to a folder that can be written.",
            )
        return str(path)


def _as_instance(life: ledger.Life) -> lambda_api.Instance:
    """What was launched and is not listed yet, as far as it is known."""
    cents = None if life.usd_per_hour is None else round(life.usd_per_hour * 100)
    kind: Dict[str, Any] = {"name": life.type, **({} if cents is None else {"price_cents_per_hour": cents})}
    return cast(
        lambda_api.Instance,
        {
            "id": life.id,
            "name": life.name,
            "status": "not listed yet",
            "region": {"name": life.region},
            "instance_type": kind,
            "tags": [{"key": _lambda_fleet.PROTECT_TAG, "value": "yes"}] if life.protected else [],
        },
    )
