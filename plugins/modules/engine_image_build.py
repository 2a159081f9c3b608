#!/usr/bin/python
# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Host side of a derived engine image: what it adds, building it, pushing it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_image_build
short_description: Build an engine image with newer packages, from a locked base and a locked list
version_added: 0.1.0
description:
  - Some releases of an engine know a model, but their image holds packages that do not. This module adds the packages
    in an image derived from the published one, so that nothing is ever installed when a container starts.
  - What is added is resolved once, inside the base image, to exact versions with hashes. The build itself has no
    network and installs exactly that list.
  - The action plugin of M(glm.fleet.engine_image) calls this module where a plan asks for a build, and keeps the list
    in the lock file. It is rarely called otherwise.
author: glm.fleet contributors !UNKNOWN
options:
  phase:
    description:
      - V(resolve) only finds out what has to be added.
      - V(build) builds the image unless the host has it.
      - V(push) also pushes it and finds its digest.
    type: str
    choices: [resolve, build, push]
    required: true
  base:
    description: The base image by digest. It must be on the host.
    type: str
    required: true
  packages:
    description: Requirements to add, with exact versions.
    type: list
    elements: str
    required: true
  requirements:
    description: Exact requirements with hashes, as V(resolve) returned them.
    type: list
    elements: str
    default: []
  image:
    description: Name and tag of the derived image.
    type: str
  dockerfile:
    description:
      - Text of the Dockerfile. Its build argument C(BASE) is the base; the build context holds C(requirements.txt) and
        the folder C(wheels).
    type: str
  index_url:
    description: Package index. Empty means the one the image is configured with.
    type: str
    default: ""
  work_dir:
    description: Folder in which the build context is made and removed again.
    type: path
    default: /var/lib/glm/build
  timeout:
    description: Seconds that each step may take.
    type: int
    default: 1800
extends_documentation_fragment:
  - glm.fleet.attributes
attributes:
  check_mode:
    support: full
    details: Reports whether the image would be built; V(resolve) only reads.
  diff_mode:
    support: none
    details: An image has no diff.
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Find out what a newer transformers needs
  glm.fleet.engine_image_build:
    phase: resolve
    base: vllm/vllm-openai@sha256:0000000000000000000000000000000000000000000000000000000000000000
    packages: [transformers==5.4.0]
"""

RETURN = r"""
requirements:
  description: Exact requirements with hashes.
  returned: O(phase=resolve)
  type: list
  elements: str
  sample: ["transformers==5.4.0 --hash=sha256:9fbe50602d2a4e6d0aa8a35a605433dd5a4e3ab1e3fd94b0b5a3a3f0c7c5b4b1"]
machine:
  description: The machine that the hashes are for, as C(uname -m) says.
  returned: success
  type: str
  sample: x86_64
digest:
  description: Digest of the image in its registry.
  returned: O(phase=push)
  type: str
seconds:
  description: How long building took.
  returned: when the image was built
  type: float
"""

import hashlib
import json
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils import outside
from ansible_collections.glm.fleet.plugins.module_utils.finding import QuotingError, Refusal, Unmet, printable
from ansible_collections.glm.fleet.plugins.module_utils.host.commands import CommandResult, run
from ansible_collections.glm.fleet.plugins.module_utils.host.docker import Engine
from ansible_collections.glm.fleet.plugins.module_utils.host.module import end

LABEL = "glm.fleet.requirements"
ARGUMENTS = {
    "phase": {"type": "str", "choices": ["resolve", "build", "push"], "required": True},
    "base": {"type": "str", "required": True},
    "packages": {"type": "list", "elements": "str", "required": True},
    "requirements": {"type": "list", "elements": "str", "default": []},
    "image": {"type": "str"},
    "dockerfile": {"type": "str"},
    "index_url": {"type": "str", "default": ""},
    "work_dir": {"type": "path", "default": "/var/lib/glm/build"},
    "timeout": {"type": "int", "default": 1800},
}


def requirements_of(report: str) -> list[str]:
    """Exact requirements with hashes from the text of pip's installation report (pip.pypa.io, version 1).

    Raises Refusal for a package that has no hash, such as one from a version control system.
    """
    found = []
    for item in json.loads(report)["install"]:
        name, version = item["metadata"]["name"], item["metadata"]["version"]
        archive = item["download_info"].get("archive_info") or {}
        hashes = archive.get("hashes") or dict([str(archive["hash"]).split("=", 1)] if archive.get("hash") else [])
        if "sha256" not in hashes:
            url = item["download_info"].get("url")
            raise Refusal(
                f"expected a sha256 for {name} {version} ({url}), the index gives none", "use an index that does"
            )
        found.append(f"{name.lower()}=={version} --hash=sha256:{hashes['sha256']}")
    return sorted(found)


def said(done: CommandResult) -> str:
    """Why pip failed, without its five messages about retries."""
    broken = re.search(r"connection broken by '(.*)': /", done.stderr)
    errors = [line for line in done.stderr.splitlines() if "ERROR:" in line]
    return printable(" | ".join([*([broken.group(1)] if broken else []), *errors])) or done.evidence(900)


def checksum(requirements: list[str]) -> str:
    """What a built image is known by: its label."""
    return hashlib.sha256("\n".join(requirements).encode()).hexdigest()


class Build:
    """One call of the module."""

    def __init__(self, module: AnsibleModule) -> None:
        self.params = module.params
        self.check_mode = module.check_mode
        self.engine = Engine()

    def run(self) -> dict[str, Any]:
        """The phase that the action asks for. Raises QuotingError."""
        phases = {"resolve": self.resolve, "build": self.build, "push": self.push}
        try:
            return {"machine": os.uname().machine, **phases[self.params["phase"]]()}
        except OSError as error:
            raise QuotingError(str(error)) from error

    def resolve(self) -> dict[str, Any]:
        """What has to be added to the base."""
        argv = ["-m", "pip", "install", "--dry-run", "--quiet", "--no-cache-dir", "--report", "-"]
        done = self.in_base([*argv, *self.params["packages"]])
        start = done.stdout.find("{")
        if not done.ok or start < 0:
            raise Unmet(
                f"pip in {self.params['base']} to resolve {' '.join(self.params['packages'])}",
                said(done),
                "check the host's connection to the package index (engine_image_index_url)",
            )
        return {"changed": False, "requirements": requirements_of(done.stdout[start:])}

    def build(self) -> dict[str, Any]:
        """Build the image unless it is there with the same requirements."""
        label = checksum(self.params["requirements"])
        known = self.engine.inspect_image(self.params["image"])
        if known is not None and ((known.get("Config") or {}).get("Labels") or {}).get(LABEL) == label:
            return {"changed": False}
        if self.check_mode:
            return {"changed": True}
        begun = time.monotonic()
        folder = Path(self.params["work_dir"]) / label[:12]
        shutil.rmtree(folder, ignore_errors=True)
        try:
            (folder / "wheels").mkdir(parents=True)
            (folder / "requirements.txt").write_text("\n".join([*self.params["requirements"], ""]), "utf-8")
            (folder / "Dockerfile").write_text(self.params["dockerfile"], "utf-8")
            self.fetch(folder)
            argv = ["docker", "build", "--network", "none", "--label", f"{LABEL}={label}"]
            argv += ["--build-arg", f"BASE={self.params['base']}"]
            self.step([*argv, "--tag", self.params["image"], str(folder)], f"to build {self.params['image']}")
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return {"changed": True, "seconds": round(time.monotonic() - begun, 1)}

    def fetch(self, folder: Path) -> None:
        """Fetch the wheels, each checked against its hash."""
        argv = ["-m", "pip", "download", "--quiet", "--no-cache-dir", "--no-deps", "--require-hashes"]
        argv += ["--only-binary", ":all:", "--dest", "/work/wheels", "--requirement", "/work/requirements.txt"]
        done = self.in_base(argv, "--volume", f"{folder}:/work")
        if not done.ok:
            raise Unmet(
                f"to fetch the {len(self.params['requirements'])} packages that the lock file names",
                said(done),
                "check the host's connection to the package index (engine_image_index_url)",
            )

    def push(self) -> dict[str, Any]:
        """Build, push, and return the digest that the registry gave."""
        result = self.build()
        if self.check_mode:
            return result
        image = self.params["image"]
        self.step(["docker", "push", "--quiet", image], f"to push {image} (is the host logged in to the registry?)")
        repository = image.rpartition(":")[0]
        names = (self.engine.inspect_image(image) or {}).get("RepoDigests") or []
        digests = [name.partition("@")[2] for name in names if name.partition("@")[0] == repository]
        if not digests:
            raise Unmet(f"a digest of {image} after the push", names, "run again")
        return {**result, "digest": digests[0]}

    def in_base(self, arguments: list[str], *options: str) -> CommandResult:
        """Run the base image's Python, with the network of the host."""
        argv = ["docker", "run", "--rm", "--network", "host", *options, "--entrypoint", "python3"]
        # A distribution's mark on its Python, which is for people at a prompt.
        argv += ["--env", "PIP_BREAK_SYSTEM_PACKAGES=1"]
        env = {**outside.proxies(), **outside.trust()}
        if outside.trust():
            argv += ["--volume", f"{outside.TRUSTED}:{outside.TRUSTED}:ro"]
        if self.params["index_url"]:
            env["PIP_INDEX_URL"] = self.params["index_url"]
        for name in env:
            # By name only: an address may hold a password, and arguments are there for all to read.
            argv += ["--env", name]
        return run([*argv, self.params["base"], *arguments], self.params["timeout"], env)

    def step(self, argv: list[str], what: str) -> None:
        done = run(argv, self.params["timeout"])
        if not done.ok:
            raise Unmet(what, done.evidence(900), "look at that, then run again")


def main() -> None:
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        required_if=[("phase", phase, ("requirements", "image", "dockerfile")) for phase in ("build", "push")],
        supports_check_mode=True,
    )
    end(module, "image", Build(module).run)


if __name__ == "__main__":
    main()
