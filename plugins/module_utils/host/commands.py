# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a command on a managed host with a deadline and keep what it said.

This module util is PRIVATE to the collection. ``run`` does not raise because a command is missing, slow or broken: host
facts must describe a broken host, not die on it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Optional

from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet, printable

# Tools of a driver or of sbin are often missing from the PATH of a non-login ssh session; those of ROCm are in none.
EXTRA_PATH = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin", "/opt/rocm/bin")


@dataclass(frozen=True)
class CommandResult:
    """What a command left behind: ``rc`` is 127 when it does not exist and 124 when its deadline passed."""

    argv: tuple[str, ...]
    rc: int
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        return self.rc == 0

    @property
    def missing(self) -> bool:
        return self.rc == 127

    @property
    def timed_out(self) -> bool:
        return self.rc == 124

    @property
    def command(self) -> str:
        return " ".join(self.argv)

    def evidence(self, limit: int = 400) -> str:
        """The last words of the command, stderr first: what a person needs to see in an error message."""
        text = printable((self.stderr.strip() or self.stdout.strip()).replace("\n", " | "))
        return text if len(text) <= limit else "…" + text[-limit:]


def search_path() -> str:
    """PATH of this process followed by the system folders it may lack."""
    own = [entry for entry in os.environ.get("PATH", "").split(":") if entry]
    return ":".join(own + [entry for entry in EXTRA_PATH if entry not in own])


def which(name: str) -> Optional[str]:
    """Absolute path of a program, or None."""
    return shutil.which(name, path=search_path())


def run(argv: Sequence[str], timeout: float = 30, env: Optional[Mapping[str, str]] = None) -> CommandResult:
    """Run ``argv`` (no shell) for at most ``timeout`` seconds, in the C locale so that output can be parsed."""
    command = tuple(argv)
    program = which(command[0]) if "/" not in command[0] else command[0]
    if program is None:
        return CommandResult(command, 127, "", f"{command[0]}: not found")
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "LANGUAGE": "C", "PATH": search_path(), **(env or {})}
    try:
        done = subprocess.run(
            (program, *command[1:]),
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=timeout,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired as expired:
        said = (expired.stderr or b"").decode("utf-8", "replace")
        return CommandResult(command, 124, "", f"no answer within {timeout:g} s {said}".strip())
    except OSError as error:
        return CommandResult(command, 127, "", f"{command[0]}: {error}")
    return CommandResult(
        command, done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")
    )


def state_of(unit: str) -> str:
    """What systemd says of a unit, one that is not installed is inactive; empty when it says nothing."""
    done = run(["systemctl", "show", "--property=ActiveState", "--value", unit])
    return done.stdout.strip() if done.ok else ""


def systemctl(*words: str, next_step: str, timeout: float = 120) -> None:
    """Have systemd do something. Raises Unmet when it does not."""
    done = run(["systemctl", *words], timeout)
    if not done.ok:
        raise Unmet(f"systemd to take {done.command}", f"that it failed with {done.rc}: {done.evidence()}", next_step)
