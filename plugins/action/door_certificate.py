# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of ``door_certificate``: what a host shows is judged here, and what it needs is issued."""

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
    """Look at the host's certificate, and send another one where it needs one."""

    LABEL = "door"
    ARGUMENTS = arguments.DOOR_CERTIFICATE

    def _outcome(self) -> dict[str, Any]:
        names = [name for name in dict.fromkeys(self._args["names"]) if name]
        if not names:
            advice = "set glm_tls_names to the names and addresses by which clients reach the host"
            raise Unmet("names for the certificate", "none", advice)
        shown = self._asked()["certificates"]
        now = datetime.now(timezone.utc)
        pair, reason = self._ORIGINS[self._args["origin"]](self, shown, names, now)
        if reason and not self._task.check_mode:
            self._asked(content=pair.together if pair else "")
        now_shown = pair.chain if pair and reason and not self._task.check_mode else shown
        held = certificate.first(now_shown)
        ends = f"{held.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}" if held else ""
        sha256 = certificate.sha256(now_shown) if held else ""
        return {"changed": bool(reason), "reason": reason, "ends": ends, "sha256": sha256}

    def _asked(self, **more: Any) -> dict[str, Any]:
        """The module's answer on the host. Raises Failed."""
        given = {name: self._args[name] for name in ("path", "names", "group")}
        answer = self._module("glm.fleet.door_certificate", {**given, **more})
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

    _ORIGINS = {"fleet": _of_the_fleet, "own": _of_ones_own}
