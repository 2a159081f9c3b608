# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: docker_daemon
short_description: Configure and run the Docker engine without interrupting serving containers
version_added: 0.1.0
description:
  - Owns C(daemon.json) as one dictionary. Keys that are already there are kept, O(settings) are merged over them,
    O(defaults) only fill in what is not set.
  - The new file is checked with C(dockerd --validate), together with the flags of the unit, before it replaces the old
    one. If the engine does not come back with it, the old file is put back and the engine started again.
  - Keys that the engine can change while it runs take effect with a reload. A restart is made only while no
    container runs, or with O(restart_allowed=true); otherwise the module changes nothing and names the containers.
  - Containers that C(docker ps) does not name, though the engine counts them or one of them has a task, are running
    containers, which no change may interrupt.
  - Keys that only O(defaults) name never cause a refusal. Where they need a restart that is not allowed, they stay as
    they are, RV(deferred) names them, and everything else is done.
  - A key of O(defaults) with which dockerd would not start again on this host (C(live-restore) on a member of a swarm)
    is left out, and RV(left_out) names it; in O(settings) it is refused.
  - Detects a running engine that does not follow the file, and fixes that too.
author: glm.fleet contributors !UNKNOWN
options:
  settings:
    description: Keys that must have these values. Mappings merge key by key; of lists, these entries come first.
    type: dict
    default: {}
  defaults:
    description:
      - Keys to fill in where neither the file nor O(settings) has them. Default C(log-opts) are left out when the file
        has another C(log-driver).
    type: dict
    default: {}
  path:
    description: The configuration file.
    type: path
    default: /etc/docker/daemon.json
  service:
    description: The systemd unit of the engine.
    type: str
    default: docker
  restart_allowed:
    description: Whether the engine may be restarted while containers run.
    type: bool
    default: false
  timeout:
    description: Seconds until the engine must answer after a start, restart or reload.
    type: int
    default: 90
extends_documentation_fragment:
  - glm.fleet.attributes
attributes:
  check_mode:
    support: full
    details: Says what would change, also on a host that has no Docker yet.
  diff_mode:
    support: full
    details: Shows the file before and after.
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Configure and start Docker
  glm.fleet.docker_daemon:
    settings:
      features:
        cdi: true
    defaults:
      live-restore: true
      log-driver: json-file
      log-opts:
        max-size: 100m
        max-file: "5"
"""

RETURN = r"""
action:
  description: What was done to the engine - V(none), V(started), V(reloaded) or V(restarted).
  returned: always
  type: str
keys:
  description: Keys of the file that changed or that the running engine did not follow.
  returned: always
  type: list
  elements: str
deferred:
  description: Keys of O(defaults) that were left as they are until dockerd may be restarted.
  returned: success
  type: list
  elements: str
  sample: [log-driver, log-opts]
left_out:
  description: Keys of O(defaults) that were left out, because dockerd would not start again with them on this host.
  returned: success
  type: list
  elements: str
  sample: [live-restore]
caution:
  description: What waits or was left out, why, and what to do; also printed as a warning that names the host.
  returned: when RV(deferred) or RV(left_out) is not empty
  type: str
config:
  description: The whole configuration as it is now.
  returned: always
  type: dict
version:
  description: Version of the engine, null when it does not run (check mode).
  returned: always
  type: str
phase:
  description: What failed.
  returned: failure
  type: str
  sample: docker
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any, Optional

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet, advised
from ansible_collections.glm.fleet.plugins.module_utils.host import docker
from ansible_collections.glm.fleet.plugins.module_utils.host.commands import run, state_of, systemctl, which
from ansible_collections.glm.fleet.plugins.module_utils.host.module import end

ENVIRONMENT_FILE = Path("/etc/default/docker")


def render(config: dict[str, Any]) -> str:
    return json.dumps(config, indent=2, sort_keys=True) + "\n" if config else ""


class Daemon:
    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.path = Path(module.params["path"])
        self.service = module.params["service"]
        self.facts, self.problem = docker.docker_facts()

    def run(self) -> dict[str, Any]:
        text, before = self.read()
        self.require_startable()
        defaults = self.module.params["defaults"]
        # Where the file has it already, it is not ours to take out.
        left_out = [key for key in docker.forbidden(defaults, self.facts) if key not in before]
        defaults = {key: value for key, value in defaults.items() if key not in left_out}
        after = docker.merge(before, self.module.params["settings"], defaults)
        file_keys = docker.changed_keys(before, after)
        stale = docker.not_in_effect(after, self.facts) if self.facts["running"] else []
        deferred = self.defer({*file_keys, *stale}, after)
        if deferred:
            after = docker.put_back(deferred, before, after)
            file_keys = docker.changed_keys(before, after)
        keys = sorted({*file_keys, *stale} - {*deferred})
        self.require_cdi(after)
        action = self.choose_action(keys, after)
        enable = self.facts["installed"] and not run(("systemctl", "is-enabled", "--quiet", self.service)).ok
        if self.facts["installed"]:
            self.validate(after)
        elif not self.module.check_mode:
            raise Unmet("dockerd on this host", "none", "install Docker with the role glm.fleet.docker")
        if not self.module.check_mode:
            if file_keys:
                self.write(render(after))
            if enable:
                advice = f"systemctl status {self.service} on the host"
                systemctl("enable", self.service, next_step=advice, timeout=self.module.params["timeout"])
            self.apply(action, after, deferred, text if file_keys else None)
        return {
            "changed": bool(file_keys or enable or action != "none"),
            "action": action,
            "keys": keys,
            "deferred": deferred,
            "config": after,
            "version": self.facts["version"],
            "diff": {"before": text, "after": render(after) if file_keys else text, "before_header": str(self.path)},
            "left_out": left_out,
            **({"caution": self.caution(deferred, left_out)} if deferred or left_out else {}),
        }

    def read(self) -> tuple[str, dict[str, Any]]:
        """Text and data of the file; ``("", {})`` when there is none."""
        try:
            text = self.path.read_text("utf-8")
            data = json.loads(text) if text.strip() else {}
            if not isinstance(data, dict):
                raise ValueError("not a JSON object")
        except FileNotFoundError:
            return "", {}
        except (OSError, ValueError) as error:
            raise Unmet(
                f"{self.path} to hold one JSON object", f"{error}. Nothing was changed", "fix or remove it on the host"
            ) from error
        return text, data

    def restart_refused(self) -> bool:
        """Whether a restart would interrupt containers and is not allowed."""
        return bool(self.facts["running"] and docker.may_run(self.facts)) and not self.module.params["restart_allowed"]

    def defer(self, keys: set[str], config: dict[str, Any]) -> list[str]:
        """Those of ``keys`` that need a restart that is not allowed, and that only the defaults set."""
        if not self.restart_refused():
            return []
        ours = {*self.module.params["defaults"]} - {*self.module.params["settings"]}
        return docker.needs_restart(sorted(keys & ours), self.facts, config)

    def require_startable(self) -> None:
        """Refuse what the user asked for and dockerd would not start with."""
        if docker.forbidden(self.module.params["settings"], self.facts):
            raise Unmet(
                "no live-restore on a member of a swarm, with which dockerd would not start again",
                "live-restore: true in the settings. Nothing was changed",
                "take it out of docker_daemon_settings, or let the host leave the swarm (docker swarm leave)",
            )

    def caution(self, deferred: list[str], left_out: list[str]) -> str:
        parts = [self.caution_of_deferred(deferred)] if deferred else []
        if left_out:
            parts.append(
                f"docker: {', '.join(left_out)} was left out of {self.path}, because this host is in a swarm, or has "
                "the state of one: dockerd would not start again with it. Containers end when dockerd does."
            )
        return " ".join(parts)

    def caution_of_deferred(self, deferred: list[str]) -> str:
        return advised(
            f"docker: {', '.join(deferred)} in {self.path} wait for a restart of dockerd, which would interrupt "
            f"running containers. Found {docker.may_run(self.facts)}. Serving works without this",
            "drain this host and stop them, or set docker_restart_allowed: true",
        )

    def choose_action(self, keys: list[str], config: dict[str, Any]) -> str:
        found = docker.may_run(self.facts)
        more = {"keys": keys, "containers": self.facts["containers"]}
        if "data-root" in keys and found:
            raise Unmet(
                "no running containers, as dockerd would lose them with its data-root, and they would keep their GPUs",
                f"{found}. Nothing was changed, and a permitted restart does not help",
                self.next_step("drain this host and stop them"),
                **more,
            )
        if not self.facts["running"]:
            if found and state_of(self.service) == "active":
                raise Unmet(
                    "a Docker that answers before it is configured",
                    f"one that runs and does not ({self.problem}), with containers. Nothing was changed",
                    f"journalctl --unit {self.service} on the host; drain it before you restart Docker",
                    **more,
                )
            return "started"
        restart = docker.needs_restart(keys, self.facts, config)
        if restart and self.restart_refused():
            raise Unmet(
                f"no running containers, as dockerd has to be restarted for {', '.join(restart)} to take effect",
                f"{found}. Nothing was changed",
                self.next_step("drain this host and stop them, or set docker_restart_allowed: true"),
                **more,
            )
        if restart:
            return "restarted"
        return "reloaded" if keys else "none"

    def next_step(self, advice: str) -> str:
        if self.facts["containers"] is not None:
            return advice
        return (
            f"find the container that docker ps hangs on (journalctl --unit {self.service} on the host); then {advice}"
        )

    def require_cdi(self, config: dict[str, Any]) -> None:
        if not self.facts["installed"] or not (config.get("features") or {}).get("cdi"):
            return
        version = self.facts["version"] or run(("dockerd", "--version")).stdout.partition("version ")[2].split(",")[0]
        if docker.major(version) < docker.MINIMUM_MAJOR:
            raise Unmet(
                f"Docker {docker.MINIMUM_MAJOR} or newer, which can give containers GPUs by CDI",
                f"{version or 'an unknown version'}. Nothing was changed",
                "upgrade Docker on the host, or use a newer image",
            )

    def validate(self, config: dict[str, Any]) -> None:
        """Let dockerd itself check the file, with the flags of its unit: a key in both places stops it."""
        show = run(("systemctl", "show", "--property=ExecStart", "--value", self.service)).stdout
        flags = docker.unit_flags(show, files.read_assignments(ENVIRONMENT_FILE))
        with tempfile.TemporaryDirectory() as folder:
            candidate = Path(folder) / "daemon.json"
            candidate.write_text(render(config) or "{}", "utf-8")
            done = run((which("dockerd") or "dockerd", "--validate", "--config-file", str(candidate), *flags))
        if not done.ok:
            raise Unmet(
                "a configuration that dockerd accepts",
                f"that dockerd refuses the configuration: {done.evidence(800)}. Nothing was changed",
                f"correct docker_daemon_settings or {self.path}; a key that is in the unit's flags "
                f"({' '.join(flags) or 'none'}) must not be in the file too",
                config=config,
            )

    def write(self, text: str) -> None:
        files.write_text(self.path, text, files.READABLE, move=self.module.atomic_move)

    def apply(self, action: str, config: dict[str, Any], deferred: list[str], old_text: Optional[str]) -> None:
        """Apply the file, except for ``deferred`` keys.

        ``old_text`` is what to put back if the engine fails, None for nothing.
        """
        if action == "none":
            return
        verb = {"started": "start", "restarted": "restart", "reloaded": "reload"}[action]
        run(("systemctl", "reset-failed", f"{self.service}.service", f"{self.service}.socket"))
        done = run(("systemctl", verb, self.service), self.module.params["timeout"])
        problem = None if done.ok else f"systemctl {verb} {self.service} ended with {done.rc}: {done.evidence()}"
        problem = problem or self.wait_for(config, deferred)
        if problem is None:
            return
        journal = run(("journalctl", "--unit", self.service, "--lines", "15", "--no-pager", "--output", "cat")).stdout
        restored = ""
        if old_text is not None:
            self.write(old_text) if old_text else self.path.unlink()
            run(("systemctl", "reset-failed", f"{self.service}.service", f"{self.service}.socket"))
            # What was only reloaded still runs, with its containers.
            back = "reload" if verb == "reload" else "restart"
            again = run(("systemctl", back, self.service), self.module.params["timeout"])
            outcome = {"reload": "reloaded", "restart": "started"}[back] if again.ok else "failed too"
            restored = f" The old {self.path} was put back; the engine then {outcome}."
        raise Unmet(
            f"dockerd to follow {self.path}",
            f"{problem}.{restored}",
            f"journalctl --unit {self.service} on the host; its last lines: {journal.strip()}",
            config=config,
        )

    def wait_for(self, config: dict[str, Any], deferred: list[str]) -> Optional[str]:
        """None when the engine answers and follows the file, else what is wrong at the deadline."""
        deadline = time.monotonic() + self.module.params["timeout"]
        while True:
            self.facts, problem = docker.docker_facts()
            stale = {*docker.not_in_effect(config, self.facts)} - {*deferred} if self.facts["running"] else set()
            if self.facts["running"] and not stale:
                return None
            if time.monotonic() >= deadline:
                return problem or (
                    f"Docker {self.facts['version']} runs but does not follow {', '.join(sorted(stale))}"
                    + (f"; CDI needs Docker {docker.MINIMUM_MAJOR} or newer" if "features" in stale else "")
                    if stale
                    else "the engine does not answer"
                )
            time.sleep(0.5)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "settings": {"type": "dict", "default": {}},
            "defaults": {"type": "dict", "default": {}},
            "path": {"type": "path", "default": "/etc/docker/daemon.json"},
            "service": {"type": "str", "default": "docker"},
            "restart_allowed": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 90},
        },
        supports_check_mode=True,
    )
    end(module, "docker", Daemon(module).run)


if __name__ == "__main__":
    main()
