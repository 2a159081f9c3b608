# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of ``door_files``: what a host shows is judged here, and what it needs is issued."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils import arguments
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.plugin_utils.actions.base import Failed, FleetAction
from ansible_collections.glm.fleet.plugins.plugin_utils.tls import authority, certificate
from ansible_collections.glm.fleet.plugins.plugin_utils.tls.certificate import Pair


class ActionModule(FleetAction):
    """Look at the host's certificate, and send its files with another one where it needs one."""

    LABEL = "door"
    ARGUMENTS = arguments.DOOR_FILES

    def _outcome(self) -> dict[str, Any]:
        pair, reason, shown = self._chosen()
        # In check mode there may be no authority yet that could issue one.
        done = self._asked(step="write", content=pair.together if pair and reason else None)
        written = done.pop("certificates")
        held = certificate.first(shown if self._task.check_mode else written)
        ends = f"{held.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}" if held else ""
        return {**done, "changed": bool(done["changed"] or reason), "reason": reason, "ends": ends}

    def _chosen(self) -> tuple[Pair | None, str, str]:
        """The pair that the host needs, why, and the certificates that it has."""
        if self._args["origin"] == "none":
            return None, "", ""
        names = [name for name in dict.fromkeys(self._args["names"]) if name]
        if not names:
            advice = "set glm_tls_names to the names and addresses by which clients reach the host"
            raise Unmet("names for the certificate", "none", advice)
        shown = self._asked(step="read")["certificates"]
        pair, reason = self._ORIGINS[self._args["origin"]](self, shown, names, datetime.now(timezone.utc))
        return pair, reason, shown

    def _asked(self, **more: Any) -> dict[str, Any]:
        """The module's answer on the host. Raises Failed."""
        given = {name: self._args[name] for name in ("place", "config", "usage", "unit", "listen")}
        answer = self._module("glm.fleet.door_files", {**given, **more})
        if answer.get("failed") or answer.get("unreachable"):
            raise Failed(self._named(answer))
        return answer

    def _of_the_fleet(self, shown: str, names: list[str], now: datetime) -> tuple[Pair | None, str]:
        """A certificate of the fleet's authority, if the host needs one, and why."""
        if not self._args["authority"]:
            raise Unmet("the folder of the fleet's authority", "none", "give the task authority")
        folder = Path(self._args["authority"]).expanduser()
        if self._task.check_mode:
            signer = authority.read(folder)
            if signer is None:
                return None, "the fleet has no authority yet"
        else:
            signer = authority.read_or_make(folder, self._args["fleet"], now)
        reason = authority.why_due(shown, signer, names, now)
        return (authority.issue(signer, names, now) if reason else None), reason

    def _of_ones_own(self, shown: str, names: list[str], now: datetime) -> tuple[Pair | None, str]:
        """The certificate of the user's own, and why the host needs it."""
        if not (self._args["certificate"] and self._args["key"]):
            advice = "set glm_tls_certificate and glm_tls_key to files on the controller, or glm_tls to fleet"
            raise Unmet("a certificate and its key", "not both", advice)
        pair = certificate.read_own(*(Path(self._args[name]).expanduser() for name in ("certificate", "key")))
        certificate.check(pair, names[:1], now)
        same = certificate.chain(shown) == certificate.chain(pair.chain)
        return pair, "" if same else "its certificate is another one than glm_tls_certificate"

    def _until_ordered(self, shown: str, names: list[str], now: datetime) -> tuple[Pair | None, str]:
        """A certificate of the fleet's to begin with: the door must listen before an authority can ask it."""
        return (None, "") if certificate.first(shown) else self._of_the_fleet(shown, names, now)

    _ORIGINS = {"fleet": _of_the_fleet, "own": _of_ones_own, "acme": _until_ordered}
