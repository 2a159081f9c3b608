# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait for ssh and pin the host key, from the controller; see the documentation of the module of the same name."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Any

from ansible.plugins.loader import lookup_loader

from ansible_collections.glm.fleet.plugins.module_utils.cloud.host_keys import Expected
from ansible_collections.glm.fleet.plugins.module_utils.finding import advised, unmet
from ansible_collections.glm.fleet.plugins.plugin_utils.actions.base import FleetAction

try:
    import paramiko as _paramiko  # noqa: F401  host_keys can be imported without it

    from ansible_collections.glm.fleet.plugins.plugin_utils.actions import host_keys
except ImportError as error:
    PARAMIKO_ERROR: ImportError | None = error
else:
    PARAMIKO_ERROR = None


class ActionModule(FleetAction):
    """Pin the key of one host; makes no connection through ansible."""

    LABEL = "ssh"
    ARGUMENTS = {
        "known_hosts_file": {"type": "path"},
        "alias": {"type": "str"},
        "expected_dir": {"type": "path"},
        "timeout": {"type": "int", "default": 900},
    }
    _requires_connection = False

    def _outcome(self) -> dict[str, Any]:
        if PARAMIKO_ERROR is not None:
            text = f"expected the Python package paramiko, but {PARAMIKO_ERROR}. Install it where ansible runs: pip"
            raise self._failure(f"{text} install paramiko.", "controller")
        known_hosts, alias = self._args["known_hosts_file"], self._args["alias"]
        client = self._ssh_client()
        if client is not None and not (known_hosts and alias):
            own = client.own_known_hosts()
            known_hosts, alias = known_hosts or own[0], alias or own[1]
        if client is None or not known_hosts or not alias:
            return {"changed": False, "msg": "no known_hosts file of its own: the user's ssh configuration applies"}
        return self._pin(Path(known_hosts).expanduser(), alias, self._expected_dir(), client)

    def _expected_dir(self) -> Path:
        """Where the launch keeps the keys of instances, if the task does not say it."""
        if self._args["expected_dir"]:
            return Path(self._args["expected_dir"])
        setting = lookup_loader.get("glm.fleet.setting", loader=self._loader, templar=self._templar)
        return Path(setting.run(["glm_state_dir"], self._task_vars)[0]).expanduser() / "host_keys"

    def _ssh_client(self) -> host_keys.SshClient | None:
        """ssh as the connection plugin calls it, from variables, ansible.cfg and environment; None for other ways."""
        if self._connection.transport != "ssh":
            return None
        option = self._connection.get_option
        # In the plugin's order, since ssh takes the first value it sees.
        arguments = shlex.split(option("ssh_args") or "")
        for name, value in (("Port", option("port")), ("User", option("remote_user"))):
            arguments += ["-o", f"{name}={value}"] if value else []
        for name in ("ssh_common_args", "ssh_extra_args"):
            arguments += shlex.split(option(name) or "")
        return host_keys.SshClient(option("ssh_executable"), arguments, str(option("host")))

    def _pin(self, path: Path, alias: str, expected_dir: Path, client: host_keys.SshClient) -> dict[str, Any]:
        self._require_address()
        options = client.options()
        address, port, jump = options["hostname"], int(options["port"]), host_keys.jump_of(options)
        timeout = self._args["timeout"]

        def shown(kinds: list[str]) -> host_keys.HostKey:
            def fetch() -> host_keys.HostKey:
                return host_keys.scan_with_ssh(client, kinds) if jump else host_keys.scan(address, port, kinds)

            return host_keys.wait_for_key(fetch, f"{address} port {port}", timeout)

        named = f"{self._host} ({address})"
        started = time.monotonic()
        kept = Expected(expected_dir)
        try:
            key, changed = host_keys.agree(shown, path, alias, kept, min(timeout, host_keys.CLOUD_INIT_SECONDS))
        except host_keys.HostKeyChanged as error:
            raise self._failure(str(error), named) from None
        except OSError as error:
            raise self._failure(
                unmet(
                    f"to keep host keys in {path}",
                    f"that it cannot be read or written: {error.strerror or error}",
                    "make yourself the owner of that file and its folder, or set known_hosts_file in the inventory to "
                    "another",
                )
            ) from None
        except host_keys.HostKeyError as error:
            raise self._failure(advised(str(error), _way_out(jump)), named) from None
        return {
            "changed": changed,
            "alias": alias,
            "fingerprint": key.fingerprint,
            "known_before": bool(kept.of(alias)),
            "waited_seconds": round(time.monotonic() - started, 1),
        }

    def _require_address(self) -> None:
        """ansible puts the inventory name into ansible_host of a task; the host's own variables have the address."""
        own = (self._task_vars.get("hostvars") or {}).get(self._host) or {}
        if "ansible_host" not in own:
            raise self._failure(
                "expected an address, but the host never got one (ansible_host is not set). Look at the instance in "
                "the cloud's console; it may still be booting, or its launch may have failed. Then run this again with "
                "a fresh inventory (--flush-cache)."
            )


def _way_out(jump: str | None) -> str:
    """What to check when no ssh server answered."""
    check = (
        "check that the instance is running, that its firewall lets this machine reach that port, and that the address "
        "is right; raise the task's timeout for a host that boots slowly. "
    )
    if jump:
        return f"{check}ssh goes through {jump}: check that this machine may log in there without a prompt."
    return (
        f"{check}If this machine reaches the host only through a jump host, name that one to ssh: ProxyJump in "
        "~/.ssh/config, or -J in ansible_ssh_common_args."
    )
