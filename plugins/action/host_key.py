# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait for ssh and pin the host key, from the controller; see the documentation of the module of the same name."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

try:
    import paramiko

    from ansible_collections.glm.fleet.plugins.plugin_utils.actions import host_keys
except ImportError as error:
    PARAMIKO_ERROR: ImportError | None = error
else:
    PARAMIKO_ERROR = None

ARGUMENT_VARIABLES = ("ansible_ssh_args", "ansible_ssh_common_args", "ansible_ssh_extra_args")
LOCAL_CONNECTIONS = ("local", "ansible.builtin.local")


class ActionModule(ActionBase):
    """Pin the key of one host; makes no connection through ansible."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        self.task_vars = task_vars or {}
        _checked, args = self.validate_argument_spec(
            argument_spec={
                "known_hosts_file": {"type": "path"},
                "alias": {"type": "str"},
                "timeout": {"type": "int", "default": 900},
            }
        )
        if PARAMIKO_ERROR is not None:
            raise AnsibleActionFail(
                f"controller, ssh: expected the Python package paramiko, but {PARAMIKO_ERROR}. Install it where "
                "ansible runs: pip install paramiko."
            )
        arguments = [word for name in ARGUMENT_VARIABLES for word in shlex.split(str(self._variable(name) or ""))]
        options = host_keys.read_options(arguments)
        known_hosts = args["known_hosts_file"] or options.known_hosts_file
        alias = args["alias"] or options.alias
        if not known_hosts or not alias or self._variable("ansible_connection") in LOCAL_CONNECTIONS:
            return {"changed": False, "msg": "no known_hosts file of its own: the user's ssh configuration rules"}
        return self._pin(Path(known_hosts).expanduser(), alias, args["timeout"], arguments if options.jump else None)

    def _pin(self, path: Path, alias: str, timeout: int, jump: list[str] | None) -> dict[str, Any]:
        address = self._variable("ansible_host")
        if not address or self._address_is_only_the_name():
            raise AnsibleActionFail(
                f"{self._host()}, ssh: expected an address, but the host never got one (ansible_host is not set). "
                "Look at the instance in the cloud's console; it may still be booting, or its launch may have failed. "
                "Then run this again with a fresh inventory (--flush-cache)."
            )
        port = int(self._variable("ansible_port") or 22)
        kinds: list[str] = []

        def fetch() -> host_keys.HostKey:
            if jump is None:
                return host_keys.scan(str(address), port, kinds)
            return host_keys.scan_with_ssh(str(address), port, jump, kinds)

        started = time.monotonic()
        try:
            kinds += [key.kind for key in host_keys.pinned(path, alias)]
            key = host_keys.wait_for_key(fetch, f"{address} port {port}", timeout)
            changed = host_keys.pin(path, alias, key)
        except paramiko.ssh_exception.IncompatiblePeer:
            known = host_keys.pinned(path, alias)
            text = host_keys.changed_text(alias, known, f"no {' or '.join(kinds)} key at all", path)
            raise AnsibleActionFail(f"{self._host()} ({address}), ssh: {text}") from None
        except host_keys.HostKeyChanged as error:
            raise AnsibleActionFail(f"{self._host()} ({address}), ssh: {error}") from None
        except OSError as error:
            raise AnsibleActionFail(
                f"{self._host()}, ssh: expected to keep host keys in {path}, found that it cannot be read or written: "
                f"{error.strerror or error}. Next: make that file and its folder yours, or set known_hosts_file in the "
                "inventory to one that is."
            ) from None
        except host_keys.HostKeyError as error:
            raise AnsibleActionFail(
                f"{self._host()} ({address}), ssh: {error}. Check that the instance is running, that its firewall lets "
                "this machine reach that port, and that the address is right; raise the task's timeout for a host that "
                "boots slowly."
            ) from None
        return {
            "changed": changed,
            "alias": alias,
            "fingerprint": key.fingerprint,
            "waited_seconds": round(time.monotonic() - started, 1),
        }

    def _address_is_only_the_name(self) -> bool:
        """ansible puts the inventory name into ansible_host of a task; the host's own variables tell the truth."""
        own = (self.task_vars.get("hostvars") or {}).get(self._host()) or {}
        return "ansible_host" not in own

    def _variable(self, name: str) -> Any:
        value = self.task_vars.get(name)
        return None if value is None else self._templar.template(value)

    def _host(self) -> str:
        return str(self.task_vars.get("inventory_hostname", "?"))
