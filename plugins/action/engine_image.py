# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

"""Controller side of engine_image: the lock file, and patience with a long pull."""

import time
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.glm.fleet.plugins.plugin_utils import lockfile, patience

display = Display()


class ActionModule(ActionBase):
    """Resolve the digest under the lock, then call the module until the pull is over."""

    TRANSFERS_FILES = False
    _requires_connection = True
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        self.task_vars = task_vars or {}
        args = dict(self._task.args)
        plan = args.get("plan") or (self.task_vars.get("ansible_facts") or {}).get("glm_plan")
        if not isinstance(plan, dict) or not plan.get("image"):
            raise AnsibleActionFail(
                f"{self._host()}, image: expected a serving plan in ansible_facts['glm_plan'], found none. Run the "
                "role glm.fleet.plan first."
            )
        self._refuse_incomplete(plan["image"])
        args["plan"] = plan
        args["mirrors"] = [*(args.get("mirrors") or []), *(self._variable("docker_registry_mirrors") or [])]
        digest, origin = self._digest(args, plan)
        if digest is None:
            return {**origin, "failed": True}
        wanted = self._task.args.get("state", "probed")
        outcome = {"changed": False}
        if wanted != "resolved":
            reference = f"{plan['image']['repository']}@{digest}"
            outcome = self._follow({**args, "digest": digest, "state": wanted}, reference)
            if outcome.get("failed"):
                return outcome
        image = {**plan["image"], "digest": digest, "reference": f"{plan['image']['repository']}@{digest}"}
        outcome.update(
            digest=digest,
            reference=image["reference"],
            resolved_by=origin["resolved_by"],
            ansible_facts={"glm_plan": {**plan, "image": image}},
        )
        return outcome

    def _refuse_incomplete(self, image: dict[str, Any]) -> None:
        """Stop before tens of gigabytes are pulled that could not serve the model."""
        build = image.get("build")
        if build:
            raise AnsibleActionFail(
                f"{self._host()}, image: expected an image that knows the model as it comes, found {build['base']}, "
                f"which lacks {' '.join(build['packages'])}, and this role does not build images. Next: leave "
                "glm_engine_version empty for a release that needs nothing, or set glm_runtime to venv, which installs "
                "what is lacking."
            )

    def _digest(self, args: dict[str, Any], plan: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """The digest and who named it; or None and the module's failure."""
        if args.get("digest"):
            return args["digest"], {"resolved_by": "task"}
        if plan["image"].get("digest"):
            return plan["image"]["digest"], {"resolved_by": "plan"}
        path = args.get("lock_file") or self._variable("glm_lock_file")
        if not path:
            return self._resolve(args)
        key = lockfile.image_key(plan["image"]["repository"], plan["image"]["tag"])
        try:
            # The lock is kept while the registry is asked: one host asks, all others wait for its answer.
            with lockfile.locked(path) as lock:
                known = lock.data["images"].get(key)
                if known:
                    return known["digest"], {"resolved_by": "lock file"}
                digest, origin = self._resolve(args)
                if digest and not self._task.check_mode:
                    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                    lock.data["images"][key] = {"digest": digest, "resolved_at": now}
                    lock.save()
                return digest, origin
        except lockfile.LockFileError as error:
            raise AnsibleActionFail(f"{self._host()}, image: {error}") from None

    def _resolve(self, args: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
        result = self._module({**args, "state": "resolved"})
        return (None if result.get("failed") else result["digest"]), result

    def _follow(self, args: dict[str, Any], reference: str) -> dict[str, Any]:
        result = self._module(args)
        while result.get("pulling"):
            state = result["pulling"]
            display.display(
                f"{self._host()}: pulling {reference[:60]}…: {state['layers_done'] or 0} of {state['layers'] or '?'} "
                f"layers, {(state['bytes'] or 0) / 1e9:.2f} GB in {state['seconds']} s"
            )
            # The pull is the docker daemon's: it goes on while the host cannot be reached.
            result = patience.ask(lambda: self._module({**args, "follow": True}), self._say)
        return result

    def _say(self, text: str) -> None:
        display.display(f"{self._host()}: image: {text}")

    def _module(self, args: dict[str, Any]) -> dict[str, Any]:
        known = {key: value for key, value in args.items() if value is not None}
        result: dict[str, Any] = self._execute_module(
            module_name="glm.fleet.engine_image", module_args=known, task_vars=self.task_vars
        )
        if result.get("failed"):
            result["msg"] = f"{self._host()}, {result.get('msg', 'image: failed without a message')}"
        return result

    def _variable(self, name: str) -> Any:
        value = self.task_vars.get(name)
        return None if value is None else self._templar.template(value)

    def _host(self) -> str:
        return str(self.task_vars.get("inventory_hostname", "?"))
