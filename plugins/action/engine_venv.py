# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of engine_venv: one list of packages for the fleet, kept beside the lock file, and progress lines.

Documented in ``plugins/modules/engine_venv.py``.
"""

from __future__ import annotations

import hashlib
import re
import time
from pathlib import Path
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils import arguments, files
from ansible_collections.glm.fleet.plugins.module_utils.finding import unmet
from ansible_collections.glm.fleet.plugins.plugin_utils.actions.base import Failed
from ansible_collections.glm.fleet.plugins.plugin_utils.actions.remote_job import RemoteJobAction
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import lockfile

_REQUEST = "# Request: "


class ActionModule(RemoteJobAction):
    """Resolve once per fleet, install on the host, watch, report."""

    MODULE = "glm.fleet.engine_venv"
    LABEL = "engine_venv"
    ARGUMENTS = arguments.ENGINE_VENV
    INTERNAL = ("phase", "requirements")

    def _outcome(self) -> dict[str, Any]:
        found = self._on_host("look")
        path = self._list_path(found["machine"])
        text, resolved = self._requirements(path)
        if text is None:
            return {"changed": True, "msg": f"would resolve {self._args['package']} into {path} and install it"}
        answer = {"requirements": str(path), "requirements_sha256": hashlib.sha256(text.encode()).hexdigest()}
        if found["installed"] == answer["requirements_sha256"] and not found["running"]:
            return {**answer, "changed": resolved, "msg": f"{self._args['package']}, installed earlier"}
        if self._task.check_mode:
            return {**answer, "changed": True, "msg": f"would install {self._args['package']}"}
        begun = time.monotonic()
        started = self._on_host("start", requirements=text)
        if started["reattached"]:
            self._say("an earlier run is still installing, watching it")
        self._watch(text, begun)
        return {**answer, "changed": True, "seconds": round(time.monotonic() - begun, 1)}

    # The list of packages ----------------------------------------------------------------------------------------

    def _list_path(self, machine: str) -> Path:
        lock = Path(self._args["lock_file"]).expanduser()
        package = re.sub(r"[^A-Za-z0-9.]+", "-", self._args["package"])
        kind = f"{self._args['platform']}-{machine}-py{self._args['python']}"
        return lock.with_name(f"{lock.stem}.{package}.{kind}.txt")

    def _request(self) -> str:
        return " ".join([self._args["package"], *(f"override:{line}" for line in self._args["overrides"])])

    def _requirements(self, path: Path) -> tuple[str | None, bool]:
        """The fleet's list and whether this call made it; None in check mode while there is none."""
        if path.exists():
            return self._obeyed(path), False
        if self._task.check_mode:
            return None, False
        with lockfile.locked(self._args["lock_file"]):
            # Another host of this run may have resolved it while this one waited.
            if path.exists():
                return self._obeyed(path), False
            self._say(f"resolving {self._args['package']} once for the fleet")
            packages = self._on_host("resolve")["requirements"]
            text = (
                f"# Packages of an engine as glm.fleet first resolved them, for every host of the fleet.\n"
                f"# Belongs in version control, beside the lock file. To resolve again, delete this file and deploy.\n"
                f"{_REQUEST}{self._request()}\n{packages}"
            )
            files.write_text(path, text, files.READABLE)
            return text, True

    def _obeyed(self, path: Path) -> str:
        text = path.read_text(encoding="utf-8")
        made_for = next((line[len(_REQUEST) :] for line in text.splitlines() if line.startswith(_REQUEST)), "")
        if made_for != self._request():
            raise Failed(
                {
                    "msg": unmet(
                        f"{path} to be made for {self._request()}",
                        made_for or "no request in it",
                        "restore the overrides, or delete that file so that it is resolved again",
                    ),
                    "phase": "resolve",
                }
            )
        return text

    def _watch(self, text: str, begun: float) -> None:
        """Follow the installation to its end."""
        while True:
            outcome = self._status(requirements=text)
            if not outcome["running"]:
                return
            self._say_if_due(f"installing for {time.monotonic() - begun:.0f} s: {outcome['last_line'][:120]}")
