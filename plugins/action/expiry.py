# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Extend the time of hosts that a run has dealt with. Documented in ``plugins/modules/expiry.py``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from ansible_collections.glm.fleet.plugins.module_utils.cloud import ledger
from ansible_collections.glm.fleet.plugins.plugin_utils.actions.base import FleetAction
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud import targets


class _Book(NamedTuple):
    """The ledger of a fleet. ``lives``: what was launched from here and is not proven gone, by id."""

    file: ledger.Ledger
    events: list[ledger.Event]
    lives: dict[str, ledger.Life]


class ActionModule(FleetAction):
    """One event in the ledger for each host that expires."""

    LABEL = "expiry"
    PLACE = "controller"
    ARGUMENTS = {
        "hosts": {"type": "list", "elements": "str", "required": True},
        "hours": {"type": "float", "required": True},
    }
    _requires_connection = False

    def _outcome(self) -> dict[str, Any]:
        hours = self._args["hours"]
        until = time.time() + hours * 3600 if hours else 0.0
        hostvars = self._task_vars.get("hostvars") or {}
        books: dict[tuple[str, str], _Book] = {}
        extended = []
        until_of: dict[str, str] = {}
        for host in self._args["hosts"]:
            variables: Mapping[str, Any] = hostvars.get(host, {})
            tags = variables.get("glm_host_tags") or {}
            if not tags.get(ledger.EXPIRES_TAG):
                continue
            # A launch is in the ledger of the fleet that it tags its instance with.
            key = (str(variables.get("glm_host_provider") or ""), str(tags.get(targets.FLEET_TAG) or ""))
            if key not in books:
                books[key] = _read(*key)
            identifier, tag = str(variables.get("glm_host_id") or ""), str(tags[ledger.EXPIRES_TAG])
            latest = _latest(tag, identifier, books[key])
            if hours and self._extend(host, identifier, latest, until, books[key]):
                extended.append(host)
                latest = until
            if latest:
                until_of[host] = ledger.stamp(latest)
        return {"changed": bool(extended), "extended": extended, "until": until_of}

    def _extend(self, host: str, identifier: str, latest: float, until: float, book: _Book) -> bool:
        """Write it into the fleet's ledger, unless it expires later anyway; whether it was, or would be, written."""
        life = book.lives.get(identifier)
        if life is None:
            self._show([f"{host}: expiry: not extended, because no ledger on this controller has {identifier}"])
            return False
        if life.state == "ending":
            self._show([f"{host}: expiry: not extended, because its end was asked for"])
            return False
        if latest >= until:
            self._show([f"{host}: expiry: {ledger.stamp(latest)}, as before"])
            return False
        if not self._task.check_mode:
            # A run that goes on may still give it back: only its end makes of what was launched what is kept.
            kind: ledger.Kind = "launched" if life.state == "launched" else "kept"
            kept = {"fleet": life.fleet, "account": life.account, "run": life.run, "why": "its time was extended"}
            more: dict[str, Any] = {"names": [life.name], "ids": [identifier], "expires": ledger.stamp(until)}
            book.file.append(ledger.event(kind, launch=life.launch, **kept, **more))
        would = "would be extended to " if self._task.check_mode else ""
        self._show([f"{host}: expiry: {would}{ledger.stamp(until)} ({self._args['hours']:g} hours from now)"])
        return True


def _latest(tag: str, identifier: str, book: _Book) -> float:
    """When its time is over as far as is known here, in seconds since 1970; 0 where no moment is known."""
    known = [ledger.moment(tag), ledger.extended_to(book.events, identifier)]
    return max((moment for moment in known if moment is not None), default=0.0)


def _read(provider: str, fleet: str) -> _Book:
    book = ledger.Ledger(provider, fleet)
    events = book.read()
    return _Book(book, events, {life.id: life for life in ledger.open_of(events) if not life.adopted})
