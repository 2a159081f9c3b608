# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: engine_image
short_description: Pull the engine image of a plan to a host, by a digest that the whole fleet shares
version_added: 0.1.0
description:
  - Turns the image tag of a serving plan into a digest, pulls the image by that digest, and runs it once to check that
    it sees every GPU of the plan and knows the model.
  - The first host that needs a tag resolves it, through the registry mirrors of its Docker engine first, then at the
    registry. The digest is written to the lock file; later hosts and later runs use it. Never written in check mode.
  - An image that needs newer packages to know the model (C(image.build) of the plan) is derived from that one. What is
    added is resolved once for the fleet, and the lock file keeps the exact versions with their hashes. See O(registry).
  - A pull runs in the background on the host while the controller checks it every O(poll) seconds and prints a line, so
    it survives a lost connection and continues with the next run.
  - Has an action plugin of the same name, which holds the lock file and follows the pull.
author: glm.fleet contributors !UNKNOWN
options:
  plan:
    description:
      - A serving plan of the host. Uses its C(image), C(devices), C(accelerator), C(model), C(disk) and C(paths).
      - It is not changed; make a new plan once the lock file has the digest.
    type: dict
    required: true
  state:
    description:
      - V(resolved) only finds the digest.
      - V(present) also pulls the image and gives it its tag, for people who look at C(docker images).
      - V(probed) also runs it once with the devices of the plan. The result is kept on the host, so this happens again
        only when the image, the driver, the devices or the model change.
    type: str
    choices: [resolved, present, probed]
    default: probed
  digest:
    description: Use this digest (C(sha256:…)) instead of the one in the lock file or the registry.
    type: str
  lock_file:
    description:
      - Path of the lock file on the controller. The action plugin takes C(glm_lock_file) when this is not given, and
        without that uses no lock file.
    type: path
  mirrors:
    description:
      - Registry mirrors to try before those that the Docker engine of the host is configured with. The action plugin
        adds C(docker_registry_mirrors), so that check mode on a fresh host tries what a real run would.
    type: list
    elements: str
    default: []
  registry_timeout:
    description: Seconds that one request to a registry may take.
    type: int
    default: 20
  stall_timeout:
    description: Seconds without any sign of life from the Docker engine after which a pull counts as stuck.
    type: int
    default: 900
  index_url:
    description:
      - Package index for packages that an image lacks (C(image.build) of the plan). Empty means the one that
        the image is configured with.
    type: str
    default: ""
  registry:
    description:
      - Registry that built images are pushed to, such as C(registry.example.com/team). One host builds
        and pushes, all others pull. Docker on the hosts must be logged in there. Empty means that each host builds its
        own image, from the same locked base and packages.
    type: str
    default: ""
  dockerfile:
    description:
      - Text of the Dockerfile of an image that has to be built. It starts from the build argument C(BASE); its context
        holds C(requirements.txt) and the folder C(wheels). The role passes the collection's own.
    type: str
  poll:
    description: Seconds between two checks of a pull, and between two lines of progress.
    type: int
    default: 5
  probe_timeout:
    description: Seconds that the container of the probe may take.
    type: int
    default: 900
  follow:
    description: Only check the pull that an earlier call began. Set by the action plugin.
    type: bool
    default: false
extends_documentation_fragment:
  - glm.fleet.attributes
  - glm.fleet.attributes.action
attributes:
  check_mode:
    support: full
    details: Resolves the digest, since that only reads; pulls, probes and writes nothing.
  diff_mode:
    support: none
    details: An image has no diff.
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Fetch the engine image and check it with the GPUs of each replica
  glm.fleet.engine_image:
    plan: "{{ item }}"
  loop: "{{ ansible_facts['glm_plans'] }}"

- name: Only look up which digest a tag means
  glm.fleet.engine_image:
    plan:
      image:
        repository: vllm/vllm-openai
        tag: v0.32.0
    state: resolved
"""

RETURN = r"""
digest:
  description: Digest of the image.
  returned: success
  type: str
reference:
  description: The image by digest, as units use it.
  returned: success
  type: str
  sample: vllm/vllm-openai@sha256:0000000000000000000000000000000000000000000000000000000000000000
resolved_by:
  description: Where the digest comes from - C(plan), C(lock file) or the URL of a registry or mirror.
  returned: success
  type: str
probe:
  description: What the image showed inside a container with the devices of the plan.
  returned: when O(state=probed) and the image is there
  type: dict
pull:
  description: layers, layers_done, bytes, seconds of a pull made by this call.
  returned: when an image was pulled
  type: dict
"""

import hashlib
import json
import shutil
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.finding import QuotingError
from ansible_collections.glm.fleet.plugins.module_utils.host import probe, runtime
from ansible_collections.glm.fleet.plugins.module_utils.host.docker import (
    DockerError,
    Engine,
    docker_facts,
    image_folder,
)
from ansible_collections.glm.fleet.plugins.module_utils.host.facts import Gatherer
from ansible_collections.glm.fleet.plugins.module_utils.host.module import end
from ansible_collections.glm.fleet.plugins.module_utils.host.pull import PullJob
from ansible_collections.glm.fleet.plugins.module_utils.host.registry import DIGEST, RegistryError, resolve

LOOK_SECONDS = 0.5


class EngineImage:
    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.plan = module.params["plan"]
        try:
            self.repository = self.plan["image"]["repository"]
            self.tag = self.plan["image"]["tag"]
        except (KeyError, TypeError):
            raise QuotingError(
                "expected a plan with image.repository and image.tag; run the plan role first."
            ) from None
        self.digest = module.params["digest"]
        # Such an image is in no registry: it has a name, and an id of its own on each host.
        self.built_here = bool(self.plan["image"].get("build")) and not self.digest
        self.engine = Engine()

    @property
    def name(self) -> str:
        return f"{self.repository}:{self.tag}"

    @property
    def reference(self) -> str:
        return self.name if self.built_here else f"{self.repository}@{self.digest}"

    def run(self) -> dict[str, Any]:
        if self.module.params["state"] == "resolved":
            return self.resolve()
        if not self.built_here and not DIGEST.fullmatch(self.digest or ""):
            raise QuotingError(f"expected a digest sha256:<64 hex digits>, found {self.digest!r}.")
        result: dict[str, Any] = {"changed": False, "digest": self.digest, "reference": self.reference}
        try:
            result["changed"] = self.ensure_present(result)
        except DockerError as error:
            if not self.module.check_mode:
                raise QuotingError(f"{error}. Check `systemctl status docker` on the host.") from error
            # A fresh host has no Docker yet; a real run would install it and then pull.
            return {**result, "changed": True}
        if self.module.params["state"] == "probed" and not (self.module.check_mode and result["changed"]):
            result["probe"] = self.probed()
        return result

    def resolve(self) -> dict[str, Any]:
        facts, _problem = docker_facts()
        mirrors = list(dict.fromkeys([*self.module.params["mirrors"], *facts["mirrors"]]))
        try:
            found = resolve(self.repository, self.tag, mirrors, self.module.params["registry_timeout"])
        except RegistryError as error:
            advice = (
                "Tags are never guessed: choose a glm_engine_version (or glm_image_variant) whose tag exists; if it "
                "does exist, check the host's connection to the registry"
                if error.missing
                else "Check the host's connection to the registry, or set docker_registry_mirrors"
            )
            raise QuotingError(f"{error}. {advice}.", missing=error.missing) from error
        return {
            "changed": False,
            "digest": found.digest,
            "reference": f"{self.repository}@{found.digest}",
            "resolved_by": found.endpoint,
        }

    def ensure_present(self, result: dict[str, Any]) -> bool:
        """Pull and tag what is missing; True when something had to be done. Ends the module while a pull goes on."""
        image = self.engine.inspect_image(self.reference)
        if image is None and self.module.check_mode:
            return True
        if self.built_here:
            if image is None:
                raise DockerError(f"expected the image {self.name}, which was built on this host, found none")
            self.digest = image["Id"]
            return False
        if image is None or self.module.params["follow"]:
            self.pull(result)
            image = self.engine.inspect_image(self.reference)
            if image is None:
                raise DockerError(f"the pull of {self.reference} ended well but Docker does not have it")
        tagged = self.engine.inspect_image(self.name)
        if tagged is not None and tagged["Id"] == image["Id"]:
            return "pull" in result
        if not self.module.check_mode:
            self.engine.tag(self.reference, self.repository, self.tag)
        return True

    def pull(self, result: dict[str, Any]) -> None:
        job = PullJob(self.repository, self.digest)
        if not self.module.params["follow"] and not job.running():
            self.require_space()
            job.begin(self.module.params["stall_timeout"])
        deadline = time.monotonic() + self.module.params["poll"]
        while job.running() and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
        running = job.running()
        state = job.state()
        summary = {key: state.get(key) for key in ("layers", "layers_done", "bytes")}
        summary["seconds"] = round(time.time() - state.get("started", time.time()))
        if running:
            self.module.exit_json(**{**result, "changed": True, "pulling": summary})
        if state.get("error") or not state.get("finished"):
            reason = state.get("error") or "the process ended without an error message (killed, or out of memory)"
            raise QuotingError(
                f"pulling {self.reference} failed after {summary['seconds']} s, {summary['layers_done']} of "
                f"{summary['layers']} layers: {reason}. Complete layers are kept; run this again.",
                pull=summary,
            )
        result["pull"] = summary

    def require_space(self) -> None:
        """Refuse before the pull: Docker finds out only after downloading, with "no space left on device"."""
        needed = (self.plan.get("disk") or {}).get("image_bytes") or 0
        facts, _problem = docker_facts()
        root = image_folder(facts)
        free = shutil.disk_usage(root if root.exists() else "/").free
        if free < needed:
            raise QuotingError(
                f"expected {needed / 1e9:.1f} GB free for {self.name} in {root}, found {free / 1e9:.1f} GB. "
                "Free some space, or set docker_data_root to a larger disk."
            )

    def probed(self) -> dict[str, Any]:
        """Result of the probe, from the host's notes when nothing it depends on has changed since."""
        expected = {**probe.expected_of(self.plan), "limits": probe.limits_of(self.plan)}
        facts = Gatherer().gather(["gpu", "cdi"])
        inputs = {
            "digest": self.digest,
            "devices": [self.plan["devices"], self.plan.get("device_nodes"), self.plan.get("device_groups")],
            "driver": facts["driver"],
            "gpus": [gpu.get("uuid") for gpu in facts["gpus"]],
            "cdi": facts["cdi"]["specs"],
            "expected": expected,
            "options": [self.plan[name] for name in ("confinement", "mounts", "env", "runtime")],
            "scripts": [probe.SCRIPT, probe.LOAD, runtime.SCRIPT],
        }
        key = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
        notes = Path(self.plan["paths"]["data"]) / "state" / f"probe-{self.digest.partition(':')[2][:12]}.json"
        known = files.read_json(notes) or {}
        # The probe also puts an image's kernels there. They may be gone since, or another image's.
        mark = probe.kernels_mark(self.plan)
        if known.get("key") == key and (mark is None or files.read_text(mark) == self.digest):
            self._warn_of_untried(known["found"])
            return {**known["found"], "cached": True}
        if self.module.check_mode:
            return {"cached": False}
        if mark is not None:
            mark.unlink(missing_ok=True)
        try:
            options = probe.unit_arguments(self.plan)
            found = probe.run_probe(self.reference, options, expected, self.module.params["probe_timeout"])
        except probe.ProbeError as error:
            raise QuotingError(
                f"expected {self.name} to run with {', '.join(self.device_names())}, but {error}. Check "
                "that `docker run --rm --device` works with that device on the host."
            ) from error
        problems = probe.judge(found, expected)
        if problems:
            raise QuotingError(f"{self.name} cannot serve this plan: {'; '.join(problems)}.", probe=found)
        self._warn_of_untried(found)
        if mark is not None:
            files.write_text(mark, f"{self.digest}\n", files.READABLE)
        files.write_json(notes, {"key": key, "found": found}, files.READABLE)
        return {**found, "cached": False}

    def _warn_of_untried(self, found: dict[str, Any]) -> None:
        """In every run, because nothing proves it later but the start of the engine."""
        untried = probe.not_proven(found)
        if untried:
            self.module.warn(f"engine_image, verify: {self.name}: {untried}.")

    def device_names(self) -> list[str]:
        return [*self.plan["devices"], *self.plan.get("device_nodes", ())]


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "plan": {"type": "dict", "required": True},
            "state": {"type": "str", "choices": ["resolved", "present", "probed"], "default": "probed"},
            "digest": {"type": "str"},
            "lock_file": {"type": "path"},
            "mirrors": {"type": "list", "elements": "str", "default": []},
            "index_url": {"type": "str", "default": ""},
            "registry": {"type": "str", "default": ""},
            "dockerfile": {"type": "str"},
            "registry_timeout": {"type": "int", "default": 20},
            "stall_timeout": {"type": "int", "default": 900},
            "poll": {"type": "int", "default": 5},
            "probe_timeout": {"type": "int", "default": 900},
            "follow": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    end(module, "image", lambda: EngineImage(module).run())


if __name__ == "__main__":
    main()
