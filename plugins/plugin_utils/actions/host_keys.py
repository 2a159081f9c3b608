# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Learn the ssh host key of a new machine once, and notice when it changes.

A key that is fetched (``scan``, or ``scan_with_ssh`` through a jump host) is pinned under an alias, the cloud's id of
the instance, in the fleet's own known_hosts. Addresses are reused by clouds; ids are not. An instance that was launched
with a key made here has to show that one.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import logging
import os
import shlex
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.cloud.host_keys import KIND, Expected
from ansible_collections.glm.fleet.plugins.module_utils.finding import QuotingError, Unmet, advised

try:
    import paramiko
except ImportError:
    # The action plugin looks first, and says what to install.
    paramiko = None  # type: ignore[assignment]

# Without a handler Python prints paramiko's own account of every refused connection to the terminal.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

RETRY_SECONDS = 3.0
CONNECT_SECONDS = 10.0
# An ssh server that is up before cloud-init has written its key shows the image's for a while.
CLOUD_INIT_SECONDS = 60.0
_RSA = ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa")
_PROXIES = ("proxyjump", "proxycommand")


class HostKeyError(QuotingError):
    """No key; the text says what was expected, found and tried."""


class HostKeyChanged(HostKeyError):
    """Another key than the pinned one; the text has both fingerprints and the way out."""


@dataclass(frozen=True)
class HostKey:
    """A public host key: its OpenSSH type and the raw blob."""

    kind: str
    blob: bytes

    @property
    def fingerprint(self) -> str:
        """As ``ssh-keygen -l`` prints it."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")

    def line(self, alias: str) -> str:
        return f"{alias} {self.kind} {base64.b64encode(self.blob).decode()}"


@dataclass(frozen=True)
class SshClient:
    """How ansible calls ssh for one host: the client, its arguments and the address (or the name ssh knows it by)."""

    executable: str
    arguments: list[str]
    address: str

    def options(self, *more: str) -> dict[str, str]:
        """What ssh would use, as ``ssh -G`` prints it: lower-case names, configuration files and tokens resolved.

        Of an option that is given twice the first value counts. Raises HostKeyError with what ssh did not understand.
        """
        command = [self.executable, *self.arguments, *more, "-G", self.address]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=CONNECT_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise HostKeyError(f"expected the ssh client, found {error}") from None
        if done.returncode != 0:
            found = done.stderr.strip()[-300:] or f"it ended with {done.returncode}"
            raise HostKeyError(f"expected ssh to accept its configuration and arguments, found {found}")
        lines = [line.partition(" ") for line in done.stdout.splitlines()]
        return {name: value for name, _blank, value in reversed(lines)}

    def own_known_hosts(self) -> tuple[str | None, str | None]:
        """UserKnownHostsFile and HostKeyAlias of the arguments alone: the user's files are the user's."""
        given = self.options("-F", "none", "-o", "UserKnownHostsFile=none")
        file = given["userknownhostsfile"]
        return (None if file == "none" else file), given.get("hostkeyalias")


def jump_of(options: Mapping[str, str]) -> str | None:
    """The jump host or proxy command in ssh's options, None when ssh connects by itself."""
    return next((options[name] for name in _PROXIES if options.get(name, "none") != "none"), None)


def scan(address: str, port: int, kinds: Iterable[str] = ()) -> HostKey:
    """The key that the ssh server at ``address:port`` presents; nothing is authenticated.

    ``kinds`` restricts the types to ask for, so that a pinned key is compared with one of its own type. Raises OSError
    or paramiko.SSHException (IncompatiblePeer when the server has no key of those types).
    """
    with socket.create_connection((address, port), timeout=CONNECT_SECONDS) as connection:
        transport = paramiko.Transport(connection)
        try:
            transport.banner_timeout = CONNECT_SECONDS
            wanted = [name for kind in kinds for name in (_RSA if kind == "ssh-rsa" else (kind,))]
            if wanted:
                options = transport.get_security_options()
                options.key_types = [name for name in wanted if name in options.key_types]
            # Later than the banner's own deadline, whose error says more.
            transport.start_client(timeout=CONNECT_SECONDS * 2)
            key = transport.get_remote_server_key()
            return HostKey(key.get_name(), key.asbytes())
        finally:
            transport.close()


def scan_with_ssh(client: SshClient, kinds: Iterable[str] = ()) -> HostKey:
    """The same through the ssh client, for a host behind a jump host.

    ssh writes the key down before it authenticates, so the expected "permission denied" does not matter. Raises OSError
    with what ssh said when it got no key.
    """
    wanted = [name for kind in kinds for name in (_RSA if kind == "ssh-rsa" else (kind,))]
    with tempfile.TemporaryDirectory() as folder:
        known = Path(folder) / "known_hosts"
        own = {
            "StrictHostKeyChecking": "accept-new",
            "UserKnownHostsFile": str(known),
            "GlobalKnownHostsFile": os.devnull,
            "HostKeyAlias": "scanned",
            "HashKnownHosts": "no",
            "BatchMode": "yes",
            "PreferredAuthentications": "none",
            "ConnectTimeout": str(int(CONNECT_SECONDS)),
            "ControlMaster": "no",
            "ControlPath": "none",
            "ClearAllForwardings": "yes",
            "RemoteCommand": "none",
        }
        if wanted:
            own["HostKeyAlgorithms"] = ",".join(wanted)
        # ssh takes the first value it sees of an option: ours go before the user's.
        options = [part for name, value in own.items() for part in ("-o", f"{name}={value}")]
        code, said = _run_alone([client.executable, *options, *client.arguments, client.address, "true"])
        keys = pinned(known, "scanned")
        if not keys:
            raise OSError(f"ssh got no host key: {said.strip()[-300:] or f'it ended with {code}'}")
        return keys[0]


def _run_alone(command: list[str]) -> tuple[int, str]:
    """The exit status and stderr of a command that has no terminal to ask at; nothing that it started stays behind.

    ssh ends its ProxyCommand by SIGHUP, which a proxy that was started under nohup ignores. So the whole process group
    is ended here, and stderr is a file: waiting for the end of a pipe would be waiting for that proxy.
    """
    with tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr, start_new_session=True
        )
        try:
            code = process.wait(CONNECT_SECONDS * 6)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait()
        stderr.seek(0)
        return code, stderr.read().decode("utf-8", "replace")


def wait_for_key(fetch: Callable[[], HostKey], where: str, timeout: float) -> HostKey:
    """Call ``fetch`` until it gives a key. Raises HostKeyError at the deadline, with the reasons of the tries.

    An IncompatiblePeer is passed on at once: the server is up and has no key of the pinned type.
    """
    started = time.monotonic()
    tries: dict[str, int] = {}
    while True:
        try:
            return fetch()
        except paramiko.ssh_exception.IncompatiblePeer:
            raise
        except (OSError, EOFError, paramiko.SSHException, subprocess.TimeoutExpired) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            tries[reason] = tries.get(reason, 0) + 1
        if time.monotonic() - started + RETRY_SECONDS > timeout:
            seen = "; ".join(f"{reason} ({count}x)" for reason, count in tries.items())
            raise HostKeyError(f"expected an ssh server at {where} within {timeout:g} s, found {seen}")
        time.sleep(RETRY_SECONDS)


def agree(
    shown: Callable[[list[str]], HostKey], path: Path, alias: str, kept: Expected, patience: float
) -> tuple[HostKey, bool]:
    """Pin what the host shows if it is what it has to be; returns that key, and whether it was pinned just now.

    ``shown`` gives the host's key of one of these types. ``kept`` has the keys that instances were launched with; where
    none is pinned yet, cloud-init gets ``patience`` seconds to write it. Raises HostKeyChanged for another key, and
    Unmet or OSError where no key can be looked up.
    """
    known, expected = pinned(path, alias), _launched_with(kept, alias)
    # The first answer may take as long as the host takes to boot.
    key, found = _seen(shown, known, expected)
    deadline = time.monotonic() + (0 if known else patience)
    while expected and key != expected:
        if time.monotonic() + RETRY_SECONDS > deadline:
            raise HostKeyChanged(_other_text(alias, expected, found, kept))
        time.sleep(RETRY_SECONDS)
        key, found = _seen(shown, known, expected)
    if key is None:
        raise HostKeyChanged(changed_text(alias, known, found, path))
    return key, pin(path, alias, key)


def _seen(
    shown: Callable[[list[str]], HostKey], known: list[HostKey], expected: HostKey | None
) -> tuple[HostKey | None, str]:
    """The host's key and how messages call it; None when it has none of the type that is wanted."""
    kinds = [expected.kind] if expected else [key.kind for key in known]
    try:
        key = shown(kinds)
    except paramiko.ssh_exception.IncompatiblePeer:
        return None, f"no {' or '.join(kinds)} key at all"
    return key, f"{key.fingerprint} ({key.kind})" if expected else key.fingerprint


def _launched_with(kept: Expected, alias: str) -> HostKey | None:
    """The key that the instance was launched with, None for one that was launched without. Raises Unmet."""
    text = kept.of(alias)
    if not text:
        return None
    try:
        kind, blob = text.split()
        if kind != KIND:
            raise ValueError(kind)
        return HostKey(kind, base64.b64decode(blob, validate=True))
    except ValueError:
        raise Unmet(
            f"the public host key of {alias} in {kept.path(alias)}",
            "something else",
            "put the key there that the instance was launched with, or remove the file to pin what the host shows",
        ) from None


def _other_text(alias: str, expected: HostKey, found: str, kept: Expected) -> str:
    """The message for a key that is not the one that the instance was launched with."""
    return advised(
        f"expected the host key that {alias} was launched with, {expected.fingerprint} ({expected.kind}), "
        f"found {found}. Nothing was pinned. Something between this machine and the host may answer in its place",
        "compare with the host's own in the cloud's console (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub). If the "
        "host really has the other key, because it was reinstalled or its image's cloud-init does not take host keys, "
        "remove the expected one and run this again, to pin what it shows then: "
        f"rm {shlex.quote(str(kept.path(alias)))}",
    )


def pinned(path: Path, alias: str) -> list[HostKey]:
    """Keys that the known_hosts file has for ``alias``; an absent file has none."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except FileNotFoundError:
        return []
    keys = []
    for line in lines:
        fields = line.split()
        if len(fields) >= 3 and not line.startswith(("#", "@")) and _named(fields[0], alias):
            with contextlib.suppress(ValueError):
                keys.append(HostKey(fields[1], base64.b64decode(fields[2], validate=True)))
    return keys


def _named(names: str, alias: str) -> bool:
    """Is ``alias`` among the names of a line? ``HashKnownHosts`` leaves one name, salted and hashed."""
    if names.startswith("|1|"):
        # A damaged salt is no alias: ValueError of base64, AssertionError of paramiko for its length.
        with contextlib.suppress(ValueError, AssertionError):
            return bool(paramiko.HostKeys.hash_host(alias, names) == names)
        return False
    return alias in names.split(",")


def pin(path: Path, alias: str, key: HostKey) -> bool:
    """Remember ``key`` for ``alias``; False when it is pinned already.

    Raises HostKeyChanged when another key is pinned. The file is 0600, replaced in one step, and locked meanwhile,
    since every host of a run is pinned by a process of its own.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _locked(path):
        known = pinned(path, alias)
        if key in known:
            return False
        if known:
            raise HostKeyChanged(changed_text(alias, known, key.fingerprint, path))
        text = path.read_text("utf-8") if path.exists() else ""
        if text and not text.endswith("\n"):
            text += "\n"
        files.write_text(path, f"{text}{key.line(alias)}\n")
    return True


def changed_text(alias: str, known: list[HostKey], found: str, path: Path) -> str:
    """The message for a key that is not the pinned one."""
    expected = ", ".join(f"{key.fingerprint} ({key.kind})" for key in known)
    return (
        f"the host key of {alias} has changed: expected {expected}, found {found}. Either this is another machine "
        "than at first contact, or it was reinstalled. If that is expected, remove the old key and run this again: "
        f"ssh-keygen -R {shlex.quote(alias)} -f {shlex.quote(str(path))}"
    )


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.with_name(f".{path.name}.lock").open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
