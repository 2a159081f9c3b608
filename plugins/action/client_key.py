# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Change the fleet's store of client keys. Documented in ``plugins/modules/client_key.py``."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils.finding import Refusal
from ansible_collections.glm.fleet.plugins.plugin_utils.actions.base import FleetAction
from ansible_collections.glm.fleet.plugins.plugin_utils.keys import records, store, strength
from ansible_collections.glm.fleet.plugins.plugin_utils.keys.records import Key, Keys
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import api_key


class ActionModule(FleetAction):
    """No connection. The key is in a file, and in nothing that is printed or returned."""

    LABEL = "keys"
    PLACE = "controller"
    ARGUMENTS = {
        "action": {"type": "str", "choices": ["add", "rotate", "revoke"], "required": True},
        "name": {"type": "str", "required": True},
        "limits": {"type": "dict"},
        "days": {"type": "float", "default": 0},
        "overlap_hours": {"type": "float", "default": 24},
        "state_dir": {"type": "path", "required": True},
        "api_key": {"type": "str", "required": True, "no_log": True},
        "api_key_file": {"type": "path", "required": True},
    }
    _requires_connection = False

    def _outcome(self) -> dict[str, Any]:
        args = self._args
        name, state = records.checked_name(args["name"]), Path(args["state_dir"]).expanduser()
        with store.changing(state) as stored:
            keys = records.with_fleet(stored, args["api_key"], store.made(Path(args["api_key_file"]).expanduser()))
            if args["action"] == "revoke":
                return self._revoke(state, keys, name)
            return self._make(state, keys, name)

    def _revoke(self, state: Path, keys: Keys, name: str) -> dict[str, Any]:
        """The plain key goes with it: nobody is to hand it out any more."""
        revoked = records.revoke(keys, name, records.now())
        if revoked != keys and not self._task.check_mode:
            store.write(state, revoked)
            store.plain_path(state, name).unlink(missing_ok=True)
        return {"changed": revoked != keys, "path": ""}

    def _make(self, state: Path, keys: Keys, name: str) -> dict[str, Any]:
        """A new key in its file. A run that ends between the two writes leaves the key before valid."""
        args, made, now = self._args, strength.new(), records.now()
        path = self._fleets_file() if name == records.FLEET else store.plain_path(state, name)
        expires = now + timedelta(days=args["days"]) if args["days"] else None
        if args["action"] == "add":
            limits = records.checked_limits(args["limits"])
            changed = records.add(keys, Key(name, records.digest(made), now, expires, limits=limits))
        else:
            limits = records.checked_limits(args["limits"])
            if args["limits"] is None:
                limits = dict(records.current(keys, name).limits)
            key = Key(name, records.digest(made), now, expires, limits=limits)
            changed = records.rotate(keys, key, timedelta(hours=args["overlap_hours"]))
        if self._task.check_mode:
            return {"changed": True, "path": ""}
        if name == records.FLEET:
            store.write(state, changed)
            store.write_plain(path, made)
        else:
            store.write_plain(path, made)
            store.write(state, changed)
        return {"changed": True, "path": str(path)}

    def _fleets_file(self) -> Path:
        """Where the fleet's own key is. Raises Refusal when a variable has it instead."""
        path = Path(self._args["api_key_file"]).expanduser()
        if self._args["action"] == "rotate" and api_key.read(path) != self._args["api_key"]:
            raise Refusal(
                "the fleet's own key is in glm_api_key, which this run cannot change",
                "set another there and push it: glm_keys_action=push",
            )
        return path
