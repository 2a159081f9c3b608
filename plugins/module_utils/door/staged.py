# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration, the certificate and the Lua filter of a front door: HAProxy checks them together before any of
them takes its place, and the running one says which it serves.

This module util is PRIVATE to the collection. Standard library, Python 3.9 or newer; HAProxy 2.4 or newer.
"""

from __future__ import annotations

import hashlib
import re
import ssl
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.door import owned
from ansible_collections.glm.fleet.plugins.module_utils.door.master import Master
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet, printable
from ansible_collections.glm.fleet.plugins.module_utils.host import commands

# Stands in the text of a configuration for the key that engines know, which never leaves the host.
ENGINE_KEY = "@engine-key@"
# Lines of a configuration that depend on all the files: when the certificate ends, and the checksum of everything.
_ENDS = re.compile(r"^(\s*setenv GLM_CERTIFICATE_ENDS )(\S+)$", re.MULTILINE)
_MARK = re.compile(r"^(\s*description )(\S+)$", re.MULTILINE)
# Only these leave the host, and never the key beside them.
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----\n?")
_OTHER_CERTIFICATE = "give the host another certificate: docs/door.md says how for each glm_tls"
_OTHER_RELEASE = "deploy with the release that the host had, and report this with the version of HAProxy"
_CHECK_SECONDS = 60
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Place:
    """Where a door's files are on its host. ``group`` is the one that may read them; a gateway has no engines' key."""

    program: str
    config: Path
    usage: Path
    certificate: Path
    group: str
    engine_key: Optional[Path] = None


# What each of them has.
PLACE = tuple(part.name for part in fields(Place) if part.default is MISSING)


@dataclass(frozen=True)
class Held:
    """A certificate: DNS names and addresses that it is for, and its time as seconds since 1970."""

    names: tuple[str, ...]
    begins: float
    ends: float


def certificates(pem: str) -> str:
    """The certificates of a PEM text without its key; empty where there is none."""
    return "".join(_CERTIFICATE.findall(pem))


def held(pem: str) -> Optional[Held]:
    """The first certificate of a PEM text, None where there is none that can be read."""
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(certificates(pem))
        file.flush()
        try:
            # The one reader of certificates in the standard library that does not want to trust them first.
            shown = ssl._ssl._test_decode_cert(file.name)  # type: ignore[attr-defined]
        except ssl.SSLError:
            return None
    return Held(
        tuple(value for _kind, value in shown.get("subjectAltName", ())),
        ssl.cert_time_to_seconds(shown["notBefore"]),
        ssl.cert_time_to_seconds(shown["notAfter"]),
    )


def marked(config: str, usage: str, pem: str) -> str:
    """A configuration with the checksum of it, of the Lua filter and of the certificates, and when they end."""
    shown = held(pem)
    text = _ENDS.sub(rf"\g<1>{int(shown.ends) if shown else 0}", config)
    whole = "\0".join([_MARK.sub(r"\1", text, count=1), usage, certificates(pem)])
    return _MARK.sub(rf"\g<1>{hashlib.sha256(whole.encode()).hexdigest()}", text, count=1)


def certificate_ends(config: str) -> Optional[float]:
    """When the certificate of a configuration ends, as seconds since 1970; 0 for not known, None without TLS."""
    found = _ENDS.search(config)
    return float(found.group(2)) if found else None


def wanted_mark(config: Path) -> Optional[str]:
    """The checksum that a configuration has of itself; None where there is no file yet. Raises Unmet."""
    found = _MARK.search(files.text_of(config) or "")
    return found.group(2) if found else None


def unserved(socket: str, config: Path) -> str:
    """Why a door is not known to serve a configuration; empty when it just said that it does. Raises Unmet."""
    wanted = wanted_mark(config)
    if wanted is None:
        return f"no checksum in {config}"
    try:
        served = Master(Path(socket), patience=0).description()
    except Unmet as error:
        return f"that it does not say what it serves: {error.found} ({socket})"
    return "" if served == wanted else f"that it serves {served[:12] or 'one without a checksum'}, not {wanted[:12]}"


def wait_until_served(
    socket: str, config: Path, unit: str, seconds: float, other: Callable[[], str] = lambda: ""
) -> None:
    """Return when the running door serves a configuration, and ``other`` has no reason to wait either. Raises Unmet."""
    deadline = time.monotonic() + seconds
    while seen := unserved(socket, config) or other():
        if time.monotonic() >= deadline:
            state = commands.run(["systemctl", "is-active", unit]).stdout.strip() or "of an unknown state"
            expected = f"{unit} to serve {config} within {seconds:g} s"
            raise Unmet(expected, f"{seen}; the unit is {state}", f"journalctl -u {unit} on the host says why")
        time.sleep(_POLL_SECONDS)


class Files:
    """A door's files as they should be. ``config`` and ``certificate`` are None where they stay as they are."""

    def __init__(
        self, place: Place, config: Optional[str] = None, usage: Optional[str] = None, certificate: Optional[str] = None
    ) -> None:
        self._place = place
        pem = _text(place.certificate) if certificate is None else certificate
        lua = _text(place.usage) if usage is None else usage
        self._key = _text(place.engine_key).strip() if place.engine_key else ""
        if config is not None and place.engine_key and not re.fullmatch(r"[\w-]+", self._key):
            advice = "deploy the host (role glm.fleet.serve), which makes it"
            raise Unmet(f"the key that engines know in {place.engine_key}", "none", advice)
        text = _text(place.config) if config is None else config.replace(ENGINE_KEY, self._key)
        # HAProxy refuses a map without its file.
        maps = [place.config.parent / owned.DRAIN_MAP]
        self._absent = [path for path in maps if str(path) in text and not path.exists()]
        self.wanted: Mapping[Path, str] = {
            place.usage: lua,
            place.certificate: pem,
            place.config: marked(text, lua, pem),
        }

    def different(self, group: int) -> list[Path]:
        """Those that the host does not have so, or not for this group alone. Raises OSError."""
        found = [path for path, text in self.wanted.items() if text and not owned.holds(path, text, group)]
        return [*self._absent, *found]

    def check(self) -> None:
        """Have HAProxy check all of them together, before any takes its place. Raises Unmet with what HAProxy said."""
        with tempfile.TemporaryDirectory(dir=self._place.config.parent, prefix=".checked-") as name:
            folder = Path(name)
            staged = {path: folder / path.name for path in self.wanted}
            for path in self._absent:
                staged[path] = folder / path.name
                files.write_text(staged[path], "")
            for path, text in self.wanted.items():
                for other, copy in staged.items():
                    text = text.replace(str(other), str(copy)) if path == self._place.config else text
                files.write_text(staged[path], text)
            done = commands.run([self._place.program, "-c", "-f", str(staged[self._place.config])], _CHECK_SECONDS)
            if not done.ok:
                raise Unmet(
                    f"HAProxy to accept {self._place.config} with its certificate",
                    f"{self._quoted(done, folder)}; the running door and its files were not changed",
                    _OTHER_CERTIFICATE if self._place.certificate.name in done.stderr else _OTHER_RELEASE,
                )

    def write(self) -> None:
        """Replace those that are different, each in one step, the configuration last. Raises Unmet, OSError."""
        group = owned.group_of(self._place.group)
        for path in self.different(group):
            owned.write(path, self.wanted.get(path, ""), group)

    def _quoted(self, done: commands.CommandResult, folder: Path) -> str:
        """What HAProxy said is wrong, with the names that the files will have, and no key."""
        said = (done.stderr or done.stdout).replace(f"{folder}/", f"{self._place.config.parent}/")
        lines = [re.sub(r"^\[\w+\]\s+\(\d+\) : ", "", line) for line in said.splitlines()]
        errors = [line for line, whole in zip(lines, said.splitlines()) if whole.startswith("[ALERT]")] or lines
        # What ends the list says only that there were errors.
        named = [line for line in errors if not re.search(r"Error\(s\) found|Fatal errors found", line)] or errors
        text = (
            "; ".join(line.strip().removesuffix(".") for line in named if line.strip())
            or f"that it ended with {done.rc}"
        )
        return printable(self.without_key(text), 600)

    def without_key(self, text: str) -> str:
        """A text for people: without the key that engines know."""
        return text.replace(self._key, ENGINE_KEY) if self._key else text


def _text(path: Path) -> str:
    """The whole text of a file; empty where there is none. Raises Unmet."""
    return files.text_of(path) or ""


def place_of(given: Mapping[str, Any]) -> Place:
    """A place from options, or from JSON."""
    return Place(
        program=str(given["program"]),
        config=Path(given["config"]),
        usage=Path(given["usage"]),
        certificate=Path(given["certificate"]),
        group=str(given["group"]),
        engine_key=Path(given["engine_key"]) if given.get("engine_key") else None,
    )
