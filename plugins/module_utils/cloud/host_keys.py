# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ssh host keys of instances that are launched: made here, their public halves kept until the instance is gone.

This module util is PRIVATE to the collection. A folder on the controller has ``<id>.pub`` for each instance. Between
the request and the answer nobody knows the id, so the key waits as ``<name>@<moment>.launching``. The tags of the
instance have both, so the key of a launch without an answer, or of a run that was killed, is found later.
One that no instance has a day later is dropped.
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time
import urllib.parse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet

KIND = "ssh-ed25519"
LOST_SECONDS = 86400.0


@dataclass(frozen=True)
class Pair:
    """An ed25519 key: ``private`` as OpenSSH writes it, ``public`` as one line without a comment."""

    private: str
    public: str

    @property
    def secrets(self) -> list[str]:
        """Every line of the private half, since an answer that quotes it may quote a part."""
        return [line for line in self.private.splitlines() if not line.startswith("-----")]


def make() -> Pair:
    """A new pair. Raises Unmet where ssh-keygen does not make one."""
    with tempfile.TemporaryDirectory(prefix="glm-host-key-") as folder:
        path = Path(folder) / "key"
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
            found = done.stderr.strip()[-300:] or f"that it ended with {done.returncode}"
        except OSError as error:
            found = f"that it cannot be run: {error.strerror}"
        if not path.exists():
            raise Unmet(
                "ssh-keygen to make the host key of a new instance",
                found,
                "install the OpenSSH client where ansible runs, or set glm_launch_host_keys to false",
            )
        kind, blob = path.with_suffix(".pub").read_text("ascii").split()[:2]
        return Pair(path.read_text("ascii"), f"{kind} {blob}")


class Expected:
    """The folder of expected public keys. Its methods raise Unmet where it cannot be read or written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def announce(self, name: str, moment: str, public: str) -> None:
        """Keep the key of an instance that is about to be asked for."""
        try:
            files.write_text(self._waiting(name, moment), f"{public}\n", durable=True)
        except OSError as error:
            raise self._unusable(error) from None

    def withdraw(self, name: str, moment: str) -> None:
        """The launch was refused: no instance has this key."""
        with contextlib.suppress(OSError):
            self._waiting(name, moment).unlink()

    def drop_lost(self, there: Iterable[tuple[str, str]]) -> None:
        """Drop keys that have waited for a day, except those of ``there``: name and moment of every listed instance.

        What was launched is listed within half an hour, or never. The next run tries again to remove what it could not.
        """
        kept = {self._waiting(name, moment) for name, moment in there}
        for path in self.folder.glob("*.launching"):
            with contextlib.suppress(OSError):
                if path not in kept and time.time() - path.stat().st_mtime > LOST_SECONDS:
                    path.unlink()

    def assign(self, name: str, moment: str, instance_id: str) -> None:
        """The instance of that name and moment has this id. Does nothing where no key waits for it."""
        try:
            self._waiting(name, moment).replace(self.path(instance_id))
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._unusable(error) from None

    def forget(self, instance_id: str) -> None:
        """The instance is gone."""
        try:
            self.path(instance_id).unlink()
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._unusable(error) from None

    def of(self, instance_id: str) -> str:
        """The public key that the instance must show; empty for one that was launched without."""
        try:
            return self.path(instance_id).read_text("utf-8").strip()
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as error:
            raise self._unusable(error) from None

    def path(self, instance_id: str) -> Path:
        """Where the key of an instance is kept."""
        return self.folder / f"{_plain(instance_id)}.pub"

    def _waiting(self, name: str, moment: str) -> Path:
        return self.folder / f"{_plain(name)}@{_plain(moment)}.launching"

    def _unusable(self, error: Exception) -> Unmet:
        return Unmet(
            f"to keep the host keys of instances in {self.folder}",
            f"that it cannot be read or written: {getattr(error, 'strerror', None) or error}",
            "make yourself the owner of that folder, or set glm_state_dir to another",
        )


def _plain(text: str) -> str:
    """Text of others as part of a file name."""
    return urllib.parse.quote(text, safe="")
