# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of engine_image: the lock file, and a long pull that outlives the connection."""

from __future__ import annotations

from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils.finding import unmet
from ansible_collections.glm.fleet.plugins.plugin_utils import report
from ansible_collections.glm.fleet.plugins.plugin_utils.actions import reconnect
from ansible_collections.glm.fleet.plugins.plugin_utils.actions.base import Failed, FleetAction
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import known
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import image as plan_image
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import lockfile
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import ImageBuild, ImageChosen, Plan

# Pushing an engine's layers to a registry that has none of them takes long, and the other hosts wait for it.
WAIT_FOR_PUSH_SECONDS = 7200


def _answer(image: ImageChosen) -> dict[str, Any]:
    return {"digest": image["digest"], "reference": image["reference"]}


class ActionModule(FleetAction):
    """Resolve the digest under the lock, then call the module until the pull is over."""

    LABEL = "image"
    _uname: str | None = None
    # The task's arguments, and the plan among them.
    _given: dict[str, Any]
    _plan: Plan

    def _outcome(self) -> dict[str, Any]:
        args = dict(self._task.args)
        plan: Any = args.get("plan") or {}
        self._given, self._plan = args, plan
        image = plan.get("image")
        if not image:
            raise self._failure(
                unmet(
                    "a serving plan with an image",
                    "none",
                    "run the role glm.fleet.plan first, and pass one of ansible_facts['glm_plans']",
                )
            )
        args["mirrors"] = [*(args.get("mirrors") or []), *(self._variable("docker_registry_mirrors") or [])]
        wanted, build = args.get("state") or "probed", image.get("build")
        return self._derived(image, build, wanted) if build else self._published(image, wanted)

    def _published(self, image: ImageChosen, wanted: str) -> dict[str, Any]:
        """Pull the image as its makers published it; ``wanted``: the state it is to be in."""
        digest, origin = self._digest(image)
        outcome: dict[str, Any] = {"changed": False}
        named = plan_image.named(image, lockfile.image_key(image["repository"], image["tag"]), digest)
        if wanted != "resolved":
            outcome = self._follow(self._about(image, wanted, digest), named["reference"])
        return {**outcome, **_answer(named), "resolved_by": origin["resolved_by"]}

    def _derived(self, image: ImageChosen, build: ImageBuild, wanted: str) -> dict[str, Any]:
        """Pull the published image, derive the plan's from it, and look at that one."""
        base: ImageChosen = {**plan_image.named(image, build["base"], None), "build": None}
        published = self._published(base, "resolved" if wanted == "resolved" else "present")
        if wanted == "resolved" or (self._task.check_mode and published["changed"]):
            return {**published, **_answer(image)}
        entry, changed = self._built(build, published["digest"])
        if entry is None:
            return {**published, **_answer(image), "changed": True}
        image = plan_image.named(image, entry["image"], entry.get("digest"))
        outcome = self._follow(self._about(image, wanted, image["digest"]), image["reference"])
        changed = bool(published["changed"] or changed or outcome["changed"])
        return {**outcome, **_answer(image), "changed": changed, "resolved_by": published["resolved_by"]}

    def _about(self, image: ImageChosen, wanted: str, digest: str | None = None) -> dict[str, Any]:
        """The module's arguments for an image in the place of the plan's."""
        return {**self._given, "plan": {**self._plan, "image": image}, "state": wanted, "digest": digest}

    def _lock_file(self) -> Any:
        return self._given.get("lock_file") or self._variable("glm_lock_file")

    def _built(self, build: ImageBuild, base: str) -> tuple[lockfile.BuildEntry | None, bool]:
        """The lock file's entry for the derived image and whether this call changed anything.

        None in check mode while nothing is resolved. A common registry's image is built under the lock: one host
        builds and pushes it, and all others wait, then pull.
        """
        path = self._lock_file()
        if not path:
            raise self._failure(unmet("a lock file to keep the list of added packages in", "none", "set glm_lock_file"))
        registry = self._given.get("registry") or ""
        key = lockfile.build_key(build["base"], build["packages"])
        with lockfile.locked(path, timeout=WAIT_FOR_PUSH_SECONDS if registry else 900) as lock:
            entry, resolved = self._resolved_build(build, base, lock.data["builds"].get(key))
            if entry is None:
                return None, True
            if registry and not entry.get("digest") and not self._task.check_mode:
                name = plan_image.derived_name(registry, build["base"], base, entry["requirements"])
                entry = {**entry, "image": name}
                entry["digest"] = self._build("push", build, base, entry)["digest"]
                resolved = True
            if resolved and not self._task.check_mode:
                lock.data["builds"][key] = entry
                lock.save()
        if entry.get("digest"):
            return entry, resolved
        return entry, bool(self._build("build", build, base, entry)["changed"] or resolved)

    def _resolved_build(
        self, build: ImageBuild, base: str, entry: lockfile.BuildEntry | None
    ) -> tuple[lockfile.BuildEntry | None, bool]:
        """The entry with a list for this kind of machine, and whether that had to be made."""
        if entry is not None and entry["base"] != base:
            raise self._failure(
                unmet(
                    f"{entry['image']} to be built from {build['base']} as the lock file has it ({base[:19]}…)",
                    f"that its list was made for {entry['base'][:19]}…",
                    "delete that entry of the lock file's builds, and deploy again",
                )
            )
        known = entry["requirements"] if entry else {}
        if entry is not None and (entry.get("digest") or self._machine() in known):
            return entry, False
        if self._task.check_mode:
            return None, True
        self._say(f"resolving {' '.join(build['packages'])} once for the fleet")
        found = self._build("resolve", build, base, None)
        requirements = {**known, found["machine"]: found["requirements"]}
        name = entry["image"] if entry else plan_image.derived_name("", build["base"], base, requirements)
        return {"image": name, "base": base, "requirements": requirements}, True

    def _build(self, phase: str, build: ImageBuild, base: str, entry: lockfile.BuildEntry | None) -> dict[str, Any]:
        """One phase of engine_image_build on the host."""
        reference = f"{build['base'].rpartition(':')[0]}@{base}"
        given: dict[str, Any] = {"phase": phase, "base": reference, "packages": build["packages"]}
        given.update(index_url=self._given.get("index_url") or "", work_dir=f"{self._plan['paths']['data']}/build")
        if entry is not None:
            self._say(f"{phase} of {entry['image']}")
            given.update(
                image=entry["image"],
                requirements=entry["requirements"][self._machine()],
                dockerfile=self._given.get("dockerfile") or "",
            )
        return self._succeeded(self._module("glm.fleet.engine_image_build", given))

    def _machine(self) -> str:
        if self._uname is None:
            self._uname = self._low_level_execute_command("uname -m", sudoable=False)["stdout"].strip()
        return self._uname

    def _digest(self, image: ImageChosen) -> tuple[str, dict[str, Any]]:
        """The digest and who named it. Raises Failed and LockFileError."""
        if self._given.get("digest"):
            return str(self._given["digest"]), {"resolved_by": "task"}
        if image.get("digest"):
            return str(image["digest"]), {"resolved_by": "plan"}
        path = self._lock_file()
        if not path:
            return self._resolve(image)
        key = lockfile.image_key(image["repository"], image["tag"])
        # The lock is kept while the registry is asked: one host asks, all others wait for its answer.
        with lockfile.locked(path) as lock:
            entry = lock.data["images"].get(key)
            if entry:
                return entry["digest"], {"resolved_by": "lock file"}
            digest, origin = self._resolve(image)
            known.require_image(key, digest, known.load())
            if not self._task.check_mode:
                lock.data["images"][key] = {"digest": digest, "resolved_at": report.now()}
                lock.save()
            return digest, origin

    def _resolve(self, image: ImageChosen) -> tuple[str, dict[str, Any]]:
        result = self._succeeded(self._asked(self._about(image, "resolved")))
        return str(result["digest"]), result

    def _follow(self, args: dict[str, Any], reference: str) -> dict[str, Any]:
        result = self._succeeded(self._asked(args))
        while result.get("pulling"):
            state = result["pulling"]
            done = f"{state['layers_done'] or 0} of {state['layers'] or '?'} layers, {(state['bytes'] or 0) / 1e9:.2f}"
            self._far = f"pulling {reference[:60]}…: {done} GB"
            self._show([f"{self._host}: {self._far} in {state['seconds']} s"])
            # The pull is the docker daemon's: it goes on while the host cannot be reached.
            result = self._succeeded(reconnect.ask(lambda: self._asked({**args, "follow": True}), self._say))
        self._far = ""
        return result

    def _succeeded(self, result: dict[str, Any]) -> dict[str, Any]:
        if result.get("failed") or result.get("unreachable"):
            raise Failed(self._named(result))
        return result

    def _asked(self, args: dict[str, Any]) -> dict[str, Any]:
        own = ("index_url", "registry", "dockerfile")
        known = {key: value for key, value in args.items() if value is not None and key not in own}
        return self._module("glm.fleet.engine_image", known)

    def _variable(self, name: str) -> Any:
        value = self._task_vars.get(name)
        return None if value is None else self._templar.template(value)
