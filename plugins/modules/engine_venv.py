#!/usr/bin/python
# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Host side of engine_venv: a virtual environment with an engine, made by uv from a list of exact packages."""

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_venv
short_description: Install an engine in a virtual environment, the same packages on every host
version_added: 0.1.0
description:
  - Resolves the engine's package to a list of exact versions with hashes once per fleet, on the first host that needs
    it, and stores the list beside O(lock_file). Every host and every later run installs exactly that list.
  - Fetches C(uv) by its hash, so nothing but Python 3.9 and systemd is needed on the host.
  - Installs in a transient unit, which continues when the connection is lost; the next run finds it and follows it.
  - A second run changes nothing and contacts no index.
options:
  package:
    description: The engine's package with its exact version.
    type: str
    required: true
  path:
    description: Folder of the virtual environment.
    type: path
    required: true
  python:
    description: Version of Python, C(major.minor).
    type: str
    required: true
  platform:
    description: Whose GPUs the packages are for. Part of the list's name, because builds differ.
    type: str
    default: nvidia
  lock_file:
    description: The fleet's lock file on the controller; the list of packages lies beside it.
    type: path
    required: true
  overrides:
    description:
      - Requirements that win over those of the packages themselves, for engines whose metadata rules out what a
        model needs.
    type: list
    elements: str
    default: []
  index_url:
    description: Package index.
    type: str
    default: https://pypi.org/simple
  extra_index_urls:
    description: Further indexes. A package that one of them has is taken from there.
    type: list
    elements: str
    default: []
  uv_wheels:
    description: For each machine (C(x86_64), C(aarch64)) the C(name) of uv's wheel and its C(sha256).
    type: dict
    required: true
  uv_url:
    description: Where to get uv's wheel, instead of from O(index_url).
    type: str
  environment:
    description: Further environment variables for uv, such as proxies or E(UV_PYTHON_PREFERENCE).
    type: dict
    default: {}
  timeout:
    description: Seconds that installing may take.
    type: int
    default: 3600
  progress_seconds:
    description: After so many seconds without a line of progress there is one.
    type: float
    default: 10
  phase:
    description: What one call on the host does. The action plugin sets it; playbooks leave it out.
    type: str
    choices: [look, resolve, start, status]
    default: look
  requirements:
    description: The list of packages. The action plugin sets it.
    type: str
extends_documentation_fragment:
  - glm.fleet.attributes
  - glm.fleet.attributes.action
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
author:
  - glm.fleet contributors (@glm-fleet)
"""

EXAMPLES = r"""
- name: Install vLLM on the host itself
  glm.fleet.engine_venv:
    package: vllm==0.32.0
    path: /opt/glm/engines/vllm-0.32.0
    python: "3.12"
    lock_file: "{{ inventory_dir }}/glm.lock.yml"
    uv_wheels: "{{ engine_venv_uv_wheels }}"
"""

RETURN = r"""
requirements:
  description: File on the controller with the list of packages.
  type: str
  returned: success
requirements_sha256:
  description: Fingerprint of the list that is installed.
  type: str
  returned: success
seconds:
  description: Seconds that installing took.
  type: float
  returned: when something was installed
"""

import contextlib
import hashlib
import html
import http.client
import io
import json
import os
import platform
import re
import shlex
import time
import urllib.error
import urllib.parse
import zipfile
from pathlib import Path
from typing import Any, Optional

from ansible.module_utils import urls
from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils import arguments, files, outside, unreachable
from ansible_collections.glm.fleet.plugins.module_utils.finding import QuotingError, Refusal, Unmet
from ansible_collections.glm.fleet.plugins.module_utils.host.module import end

RUN_DIR = Path("/run/glm-venv")
MARKER = ".glm.json"
# One status call waits this long on the host, which spares a connection every second.
STATUS_WAIT_SECONDS = 15.0
FETCH_SECONDS = 120
LOG_LINES = 15


class Venv:
    """One environment on this host."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params: dict[str, Any] = module.params
        self.path = Path(self.params["path"])
        self.work = self.path.parent / ".uv"
        place = hashlib.sha256(str(self.path).encode()).hexdigest()[:6]
        self.key = f"{self.path.name}-{place}"
        self.unit = f"glm-venv-{self.key}.service"
        self.log = self.work / f"{self.key}.log"

    # Phases ------------------------------------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        """Do the phase that the action asks for. Raises QuotingError with what to do."""
        phases = {"look": self.look, "resolve": self.resolve, "start": self.start, "status": self.status}
        try:
            return phases[self.params["phase"]]()
        except OSError as exc:
            raise QuotingError(f"{exc}. Check the disk below {self.path.parent}.") from exc

    def look(self) -> dict[str, Any]:
        """What is installed, and what kind of machine this is."""
        marker = self._marker()
        return {
            "changed": False,
            "machine": platform.machine(),
            "installed": marker.get("requirements_sha256", ""),
            "running": self._active(),
        }

    def resolve(self) -> dict[str, Any]:
        """The package and all it needs, as exact versions with hashes."""
        command = [str(self._uv()), "pip", "compile", "-", "--generate-hashes", "--no-header", "--no-annotate"]
        command += ["--quiet", "--python", self.params["python"]]
        if self.params["overrides"]:
            overrides = self.work / f"{self.key}.overrides.txt"
            files.write_text(overrides, "".join(f"{line}\n" for line in self.params["overrides"]), files.READABLE)
            command += ["--overrides", str(overrides)]
        code, out, err = self.module.run_command(
            command, data=f"{self.params['package']}\n", environ_update=self._environment()
        )
        if code != 0:
            raise QuotingError(
                f"uv cannot resolve {self.params['package']} for Python {self.params['python']}: "
                f"{_last_lines(err)}. Check engine_venv_index_url and the versions it has."
            )
        return {"changed": False, "requirements": out}

    def start(self) -> dict[str, Any]:
        """Start installing, or find it running already."""
        if self._active():
            return {"changed": True, "reattached": True}
        if self.path.exists() and any(self.path.iterdir()) and not (self.path / "pyvenv.cfg").exists():
            raise Refusal(f"{self.path} exists and is no virtual environment", "remove it")
        uv = self._uv()
        text = self.params["requirements"]
        requirements = self.work / f"{self.key}.txt"
        files.write_text(requirements, text, files.READABLE)
        script = self.work / f"{self.key}.sh"
        files.write_text(script, self._script(uv, requirements, _sha256(text)), files.READABLE)
        self.log.unlink(missing_ok=True)
        RUN_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)
        command = ["systemd-run", "--quiet", "--collect", "--unit", self.unit, "--property", "Type=exec"]
        command += ["--property", f"RuntimeMaxSec={self.params['timeout']}", "--property", "UMask=0022"]
        for name, value in self._environment().items():
            command += ["--setenv", f"{name}={value}"]
        code, _out, err = self.module.run_command([*command, "--", "/bin/sh", str(script)])
        if code != 0:
            raise QuotingError(f"systemd did not start {self.unit}: {err.strip()}. Look at `systemctl status` there.")
        return {"changed": True, "reattached": False}

    def status(self) -> dict[str, Any]:
        """Wait for the installation to end, at most STATUS_WAIT_SECONDS, and report how far it is."""
        deadline = time.monotonic() + min(STATUS_WAIT_SECONDS, self.params["progress_seconds"] / 2)
        active = self._active()
        while active and time.monotonic() < deadline:
            time.sleep(0.5)
            active = self._active()
        installed = self._marker().get("requirements_sha256", "")
        if not active and installed != _sha256(self.params["requirements"]):
            raise QuotingError(
                f"{self.unit} ended without a complete environment. Run again: it continues from what is there. "
                f"Its last lines:\n  {self._log_tail()}"
            )
        return {"changed": False, "running": active, "last_line": _last_lines(self._log_tail(), 1)}

    # Parts -------------------------------------------------------------------------------------------------------

    def _marker(self) -> dict[str, Any]:
        """The record that a complete environment carries. Without a Python of the wanted version it means nothing."""
        marker = files.read_json(self.path / MARKER) or {}
        usable = marker.get("python") == self.params["python"] and (self.path / "bin/python").exists()
        return dict(marker) if usable else {}

    def _script(self, uv: Path, requirements: Path, sha256: str) -> str:
        """Make the environment beside its place and move it there when it is complete: an engine may run from the old
        one. What an interrupted run left is taken up if it was to become the same.
        """
        marker = {"package": self.params["package"], "python": self.params["python"], "requirements_sha256": sha256}
        content = json.dumps(marker, sort_keys=True)
        place, new, old = (shlex.quote(f"{self.path}{suffix}") for suffix in ("", ".new", ".old"))
        wanted = f"{new}/{MARKER}.wanted"
        # Relocatable: scripts in bin find their Python beside them.
        venv = [str(uv), "venv", "--quiet", "--relocatable", "--python", self.params["python"]]
        sync = [str(uv), "pip", "sync", "--require-hashes", "--compile-bytecode", "--no-progress", "--python"]
        lines = [
            f"exec >>{shlex.quote(str(self.log))} 2>&1",
            "set -eux",
            f'keep=--clear; [ "$(cat {wanted} || true)" != {shlex.quote(content)} ] || keep=--allow-existing',
            f"{shlex.join(venv)} $keep {new}",
            f"printf '%s\\n' {shlex.quote(content)} >{wanted}",
            f"{shlex.join(sync)} {new}/bin/python {shlex.quote(str(requirements))}",
            f"mv {wanted} {new}/{MARKER}",
            f"rm -rf {old}; [ ! -e {place} ] || mv {place} {old}",
            f"mv {new} {place}",
            f"rm -rf {old}",
        ]
        return "\n".join(lines) + "\n"

    def _environment(self) -> dict[str, str]:
        environment = {
            # The cache lies beside the environments: one file system, so packages are linked and not copied.
            "UV_CACHE_DIR": str(self.work / "cache"),
            "UV_PYTHON_INSTALL_DIR": str(self.work / "python"),
            "UV_DEFAULT_INDEX": self.params["index_url"],
            "UV_NO_CONFIG": "1",
        }
        environment.update({**outside.proxies(), **outside.trust()})
        if self.params["extra_index_urls"]:
            environment["UV_INDEX"] = " ".join(self.params["extra_index_urls"])
        return {**environment, **{name: str(value) for name, value in self.params["environment"].items()}}

    def _active(self) -> bool:
        code, out, _err = self.module.run_command(["systemctl", "is-active", self.unit])
        return code == 0 or out.strip() in ("activating", "deactivating")

    def _log_tail(self) -> str:
        try:
            text = self.log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return "(it left no log)"
        return "\n  ".join(text.splitlines()[-LOG_LINES:])

    # uv ----------------------------------------------------------------------------------------------------------

    def _uv(self) -> Path:
        """uv itself, fetched by its hash if it is not there yet."""
        machine = platform.machine()
        wheel = self.params["uv_wheels"].get(machine)
        if not wheel:
            raise QuotingError(f"uv has no wheel for {machine} in engine_venv_uv_wheels. Add its name and sha256.")
        program = self.work / f"uv-{wheel['sha256'][:12]}"
        if program.exists():
            return program
        url = self.params["uv_url"] or self._wheel_url(wheel["name"])
        data = _fetch(url)
        found = hashlib.sha256(data).hexdigest()
        if found != wheel["sha256"]:
            raise Unmet(f"{url} with SHA-256 {wheel['sha256']}", found, "find out which is wrong")
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith(".data/scripts/uv"))
            content = archive.read(name)
        self.work.mkdir(mode=0o755, parents=True, exist_ok=True)
        new = program.with_suffix(f".{os.getpid()}")
        new.write_bytes(content)
        new.chmod(0o755)
        new.rename(program)
        return program

    def _wheel_url(self, name: str) -> str:
        """Where the index has a file (PEP 503): the link whose last part is its name."""
        page = f"{self.params['index_url'].rstrip('/')}/uv/"
        text = _fetch(page).decode("utf-8", "replace")
        for link in re.findall(r"""href\s*=\s*["']([^"']+)""", text):
            url = urllib.parse.urljoin(page, html.unescape(link)).partition("#")[0]
            if urllib.parse.unquote(url.rpartition("/")[2]) == name:
                return url
        raise QuotingError(f"{page} has no {name}. Set engine_venv_uv_url, or engine_venv_uv_wheels to what it has.")


def _fetch(url: str) -> bytes:
    try:
        answer = urls.open_url(url, headers={"Accept": "text/html, */*"}, http_agent="glm.fleet", timeout=FETCH_SECONDS)
        with contextlib.closing(answer):
            return bytes(answer.read())
    except (urllib.error.URLError, urls.ConnectionError, http.client.HTTPException, OSError, ValueError) as exc:
        found = exc if isinstance(exc, urllib.error.HTTPError) else unreachable.why(exc, url)
        raise QuotingError(
            f"{url} cannot be fetched: {found}. Check this host's connection to it, or set another index."
        ) from None


def _sha256(text: Optional[str]) -> str:
    return hashlib.sha256((text or "").encode()).hexdigest()


def _last_lines(text: str, count: int = 5) -> str:
    return " ".join(" ".join(text.split("\n")[-count - 1 :]).split())


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(argument_spec=arguments.ENGINE_VENV, supports_check_mode=True)
    # The engine runs as a user of its own and has to read all of this, whatever root's umask is.
    os.umask(0o022)
    end(module, module.params["phase"], Venv(module).run, labelled=False)


if __name__ == "__main__":
    main()
