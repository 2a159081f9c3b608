# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of engine_venv: one list of packages for the fleet, kept where the lock file is, and progress lines.

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
from ansible_collections.glm.fleet.plugins.plugin_utils.store import state

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
        text = self._found(path)
        if text is not None or self._task.check_mode:
            return text, False
        with lockfile.locked(self._args["lock_file"]):
            # Another host of this run may have resolved it while this one waited.
            text = self._found(path)
            if text is not None:
                return text, False
            self._say(f"resolving {self._args['package']} once for the fleet")
            packages = self._on_host("resolve")["requirements"]
            return self._kept(
                path,
                f"# Packages of an engine as glm.fleet first resolved them, for every host of the fleet.\n"
                f"# Belongs in version control, beside the lock file. To resolve again, delete this file and deploy.\n"
                f"{_REQUEST}{self._request()}\n{packages}",
            ), True

    def _found(self, path: Path) -> str | None:
        """The list of the fleet: in the store of its state, where it has one, else beside the lock file."""
        store = state.current()
        content = store.read(self._name(path)) if store else None
        if store and content is not None:
            return self._obeyed(content.decode("utf-8"), store.address(self._name(path)))
        if not path.exists():
            return None
        text = self._obeyed(path.read_text(encoding="utf-8"), path)
        # A fleet that had its list before it had a store brings it along.
        return text if self._task.check_mode else self._kept(path, text)

    def _kept(self, path: Path, text: str) -> str:
        """Keep the list; what holds then. In a store, what another machine has written there first."""
        store = state.current()
        if store is None:
            if not path.exists():
                files.write_text(path, text, files.READABLE)
            return text
        name = self._name(path)
        store.change(name, lambda there: text.encode() if there is None else None)
        return self._obeyed((store.read(name) or b"").decode("utf-8"), store.address(name))

    def _name(self, path: Path) -> str:
        """The object's name: that of the lock file there, whatever it is called here."""
        return lockfile.NAME.removesuffix(".yml") + path.name.removeprefix(Path(self._args["lock_file"]).stem)

    def _obeyed(self, text: str, where: Path | str) -> str:
        """The list, if it was made for what is asked for now. Raises Failed."""
        made_for = next((line[len(_REQUEST) :] for line in text.splitlines() if line.startswith(_REQUEST)), "")
        if made_for != self._request():
            raise Failed(
                {
                    "msg": unmet(
                        f"{where} to be made for {self._request()}",
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
