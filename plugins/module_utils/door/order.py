# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Order the certificate of a door or a gateway where one is due (ACME, http-01), and give it to the running HAProxy.

certbot asks the authority and keeps the account and the keys; its own server answers the authority on loopback,
behind port 80 of the host. A failed order leaves the certificate that is there. The roles and a timer of the host do
the same: as a program, it takes the file of the order and exits 1 when a certificate is due that did not come.

This module util is PRIVATE to the collection. Standard library, Python 3.9 or newer.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.door import owned, staged
from ansible_collections.glm.fleet.plugins.module_utils.door.master import Master
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet, printable
from ansible_collections.glm.fleet.plugins.module_utils.host import commands

# Renewed when less than this share of its life is left: a third of 90 days, or of one day.
RENEW_SHARE = 1 / 3
# After a failed order: an authority admits five in an hour for a name.
FIRST_WAIT, LONGEST_WAIT = 300, 12 * 3600
_DOUBLED = 10  # times, which is beyond the longest wait
_ORDER_SECONDS = 240
_RELOAD_SECONDS = 60
_PROBLEM = re.compile(r"Domain:\s*(\S+)\s+Type:\s*(\S+)\s+Detail:\s*(.+?)(?=\n\s*\n|\n\s*Domain:|\Z)", re.DOTALL)
_MASKED = "AttributeError: can't set attribute"
_LOGGED = re.compile(r"^acme\.\w+\.\w+: (.+)$", re.MULTILINE)
# What certbot says whatever happened.
_NOISE = re.compile(
    r"^(Saving debug log|Ask for help|Account registered|Requesting a cert|Hint:|Some challenges|Please see)"
)


# What an order has besides its names, its folder and the door's place, and what is noted of one that failed.
_TEXTS = ("directory", "email", "authorities", "answers", "address", "unit", "socket")
_NOTED: Mapping[str, Any] = {"times": int, "at": (int, float), "why": str, "next": str}
_WRITTEN_BY = "run deploy.yml, which writes it"


@dataclass(frozen=True)
class Order:
    """What is ordered, from whom, and for which front: a door or a gateway.

    ``authorities`` is a file of certificates that the directory's own must be signed by, empty for those that the host
    trusts; ``answers`` is the address and port of this host where certbot answers the authority; ``address`` is where
    the names should lead, empty where that is not known; ``folder`` keeps account, keys and certificates of all fronts
    of the host, which order one after the other: they have one port to answer at.
    """

    names: tuple[str, ...]
    directory: str
    email: str
    authorities: str
    answers: str
    address: str
    folder: Path
    place: staged.Place
    unit: str
    socket: str

    @property
    def name(self) -> str:
        """What certbot calls the certificate: as the unit is called that shows it."""
        return self.unit.partition(".")[0]

    @property
    def front(self) -> str:
        """Whose it is, in words."""
        return self.name.replace("glm-", "")

    @property
    def lineage(self) -> Path:
        """Where certbot keeps the newest certificate and its key."""
        return self.folder / "config" / "live" / self.name

    @property
    def failed(self) -> Path:
        """Where a failure is noted."""
        return self.folder / f"{self.name}-failed.json"


def of(given: Mapping[str, Any]) -> Order:
    """An order from options, or from JSON. Raises Unmet for what is none."""
    if not isinstance(given, Mapping):
        raise Unmet("an order", type(given).__name__)
    names, place = given.get("names"), given.get("place")
    absent = [name for name in (*_TEXTS, "folder") if not isinstance(given.get(name), str)]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        absent.append("names")
    if not isinstance(place, Mapping):
        absent.append("place")
    else:
        absent += [f"place: {name}" for name in staged.PLACE if not isinstance(place.get(name), str)]
    if absent:
        raise Unmet("an order that is whole", f"one without a value for {', '.join(absent)}")
    texts = {name: given[name] for name in _TEXTS}
    return Order(
        names=tuple(given["names"]), folder=Path(given["folder"]), place=staged.place_of(given["place"]), **texts
    )


def why_due(order: Order, now: float) -> str:
    """Why a certificate has to be ordered, in words; empty when the one that was ordered serves."""
    held = _held(order)
    if held is None:
        return "none was ordered yet"
    found = re.search(r"^server = (\S+)$", _text(order.folder / "config/renewal" / f"{order.name}.conf"), re.MULTILINE)
    if found and found.group(1) != order.directory:
        return f"the one that was ordered is of {found.group(1)}"
    if set(held.names) != set(order.names):
        return f"the one that was ordered is for {', '.join(held.names)}"
    if now >= held.ends:
        return f"it expired on {_day(held.ends)}"
    if held.ends - now < (held.ends - held.begins) * RENEW_SHARE:
        return f"it ends on {_day(held.ends)}"
    return ""


def brought(
    order: Order,
    checks: bool = False,
    reload: Optional[Callable[[], None]] = None,
    stands: Callable[[], bool] = lambda: True,
) -> dict[str, Any]:
    """Order what is due, and have the door show what was ordered.

    Returns ``changed``, ``reason`` (why one was due), ``ends`` (seconds since 1970), and ``caution`` where none came
    but the one that is there still serves. Raises Unmet where none serves. ``checks`` asks nobody, changes nothing.
    The door gets nothing of an order that no longer ``stands`` when it came.
    """
    try:
        return _brought(order, checks, reload or (lambda: _reloaded(order.unit)), stands)
    except OSError as exc:
        place = f" ({exc.filename})" if exc.filename else ""
        advice = "make room on the host, or fix that there, and run again"
        raise Unmet("to read and write the files of the order", f"{exc.strerror or exc}{place}", advice) from exc


def _brought(order: Order, checks: bool, reload: Callable[[], None], stands: Callable[[], bool]) -> dict[str, Any]:
    if checks:
        reason = why_due(order, time.time())
        return {"changed": bool(reason or _not_shown(order)), "reason": reason, "ends": _ends(order)}
    order.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _alone(order.folder):
        reason, problem = why_due(order, time.time()), None
        if reason:
            try:
                _require_patience(order, time.time())
                _ask(order)
            except Unmet as error:
                problem = error
        if problem and not _serves(order, time.time()):
            raise problem
        changed = _shown(order, reload, stands)
        result: dict[str, Any] = {"changed": changed, "reason": reason, "ends": _ends(order)}
        if problem:
            result["caution"] = (
                f"{order.front}, certificate: {problem} The one that is there serves until {_day(_ends(order))}."
            )
        return result


def _serves(order: Order, now: float) -> bool:
    """Whether the certificate that was ordered is one that clients accept for the names."""
    held = _held(order)
    return held is not None and set(order.names) <= set(held.names) and now < held.ends


def _ends(order: Order) -> float:
    held = _held(order)
    return held.ends if held else 0.0


def _held(order: Order) -> Optional[staged.Held]:
    """The certificate that was ordered; None where none was. Raises Unmet."""
    return staged.held(_text(order.lineage / "fullchain.pem"))


def _text(path: Path) -> str:
    """What is in a file of certbot's, empty where there is none. Raises Unmet: what cannot be read may serve."""
    return (files.text_of(path) or "").strip()


def _wanted(order: Order) -> Optional[staged.Files]:
    """The door's files with what was ordered; None where nothing was."""
    chain, key = (_text(order.lineage / name) for name in ("fullchain.pem", "privkey.pem"))
    return staged.Files(order.place, certificate=f"{chain}\n{key}\n") if chain and key else None


def _not_shown(order: Order) -> bool:
    """Whether the door has another certificate than the one that was ordered."""
    wanted = _wanted(order)
    return wanted is not None and bool(wanted.different(owned.group_of(order.place.group)))


def _shown(order: Order, reload: Callable[[], None], stands: Callable[[], bool]) -> bool:
    """Give the door what was ordered, once HAProxy accepted it; whether it had another. Raises Unmet."""
    # A deploy may replace the configuration, or withdraw the order, between reading and writing.
    with owned.alone(order.place.config.parent):
        if not stands():
            return False
        wanted = _wanted(order)
        changed = wanted is not None and bool(wanted.different(owned.group_of(order.place.group)))
        if wanted is not None and changed:
            wanted.check()
            wanted.write()
    # Also after a run that was interrupted before this. A door that does not run reads its files when it starts.
    # One that is there and does not say what it serves is no reason to believe that it shows this certificate.
    if Master(Path(order.socket), unit=order.unit).listens() and staged.unserved(order.socket, order.place.config):
        reload()
        staged.wait_until_served(order.socket, order.place.config, order.unit, _RELOAD_SECONDS)
        changed = True
    return changed


def _reloaded(unit: str) -> None:
    commands.systemctl("reload", unit, next_step=f"journalctl -u {unit} on the host")


def _ask(order: Order) -> None:
    """Have certbot order the certificate. Raises Unmet with what the authority said, and notes the failure."""
    host, _colon, port = order.answers.rpartition(":")
    folders = [word for name in ("config", "work", "logs") for word in (f"--{name}-dir", str(order.folder / name))]
    account = ["--email", order.email] if order.email else ["--register-unsafely-without-email"]
    command = [
        "certbot", "certonly", "--non-interactive", "--agree-tos", *account, "--server", order.directory,
        "--standalone", "--preferred-challenges", "http", "--http-01-address", host, "--http-01-port", port,
        "--cert-name", order.name, *(word for name in order.names for word in ("-d", name)), "--key-type", "ecdsa",
        "--force-renewal", "--renew-with-new-domains", "--no-directory-hooks", "--max-log-backups", "20", *folders,
    ]  # fmt: skip
    trusted = {"REQUESTS_CA_BUNDLE": order.authorities} if order.authorities else {}
    done = commands.run(command, timeout=_ORDER_SECONDS, env=trusted)
    # One that does not serve once it is there would be ordered again each time, up to the authority's limit.
    left = why_due(order, time.time()) if done.ok else ""
    if done.missing:
        raise Unmet("certbot on the host", done.evidence(), f"run deploy.yml --tags {order.front}, which installs it")
    if done.ok and not left:
        order.failed.unlink(missing_ok=True)
        return
    if done.ok:
        found, advice = f"one that is due at once: {left}", "look at the clock of the host and at glm_tls_names"
    else:
        found, advice = worded(order, f"{done.stdout}\n{done.stderr}")
    failed = _failures(order, time.time())
    noted = {
        "order": _subject(order),
        "times": failed.get("times", 0) + 1,
        "at": time.time(),
        "why": found,
        "next": advice,
    }
    files.write_json(order.failed, noted)
    raise Unmet(_expected(order), found, _later(order, noted))


def worded(order: Order, said: str) -> tuple[str, str]:
    """What certbot and the authority said of a failed order, in one clause, and what to do about it."""
    problems = [(name, kind, " ".join(detail.split())) for name, kind, detail in _PROBLEM.findall(said)]
    if problems:
        text = "; ".join(f"the authority could not check {name} ({kind}): {detail}" for name, kind, detail in problems)
        leads = "; ".join(_leads(name) for name in dict.fromkeys(name for name, _kind, _detail in problems))
        here = f" ({order.address})" if order.address else ""
        advice = f"have the names lead to this host{here}, and open port 80 to the authority: it asks there"
        return printable(f"that {text}; {leads}", 900), advice
    lines = [line.strip() for line in said.splitlines() if line.strip() and not _NOISE.match(line.strip())]
    text = lines[-1] if lines else "no reason from certbot"
    # Under Python 3.11, the certbot of Debian 12 fails over what the authority said; its log has it.
    logged = _LOGGED.findall(files.read_text(order.folder / "logs/letsencrypt.log")) if _MASKED in text else []
    text = logged[-1] if logged else text
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return printable(
            f"that the directory's certificate is not trusted: {text}", 600
        ), "set glm_tls_ca to a file with its authority"
    if re.search(r"ConnectionError|Max retries|timed? ?out|^ValueError: Requesting ", text):
        advice = "see that the host reaches the directory (glm_acme_directory), then run again"
        return printable(f"that the directory does not answer: {text}", 600), advice
    return printable(text, 600), f"read {order.folder}/logs/letsencrypt.log on the host"


def _leads(name: str) -> str:
    """Where a name leads, as this host sees it."""
    try:
        found = sorted({str(entry[4][0]) for entry in socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)})
    except OSError:
        return f"from here {name} leads nowhere"
    return f"from here {name} leads to {', '.join(found)}"


def _expected(order: Order) -> str:
    return f"a certificate of {order.directory} for {', '.join(order.names)}"


def _subject(order: Order) -> list[str]:
    """What a failure is remembered for."""
    return [order.directory, *order.names]


def _failures(order: Order, now: float) -> dict[str, Any]:
    """The last failure of this order, empty where there is none. Raises Unmet when that cannot be read.

    One in the future was noted by a wrong clock, and one of another form not by ``_ask``.
    """
    try:
        noted = json.loads(_text(order.failed) or "{}")
    except ValueError:
        return {}
    if not isinstance(noted, dict) or noted.get("order") != _subject(order):
        return {}
    whole = all(isinstance(noted.get(name), kind) for name, kind in _NOTED.items())
    return noted if whole and noted["at"] <= now else {}


def _again_at(noted: Mapping[str, Any]) -> float:
    """When the authority may be asked again after a failure."""
    return float(noted["at"]) + min(FIRST_WAIT * 2.0 ** min(int(noted["times"]) - 1, _DOUBLED), LONGEST_WAIT)


def _require_patience(order: Order, now: float) -> None:
    """Raise Unmet while it is too early to ask again after a failure: authorities count those, and stop answering."""
    noted = _failures(order, now)
    if noted and now < _again_at(noted):
        ago = f"{(now - float(noted['at'])) / 60:.0f} min ago: {noted['why']}"
        raise Unmet(_expected(order), f"that an order failed {ago}", _later(order, noted))


def _later(order: Order, noted: Mapping[str, Any]) -> str:
    at_once = f"remove {order.failed} on the host to ask at once"
    return f"{noted['next']}. The authority is asked again after {_day(_again_at(noted))}; {at_once}"


def _day(when: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(when))


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Nobody else orders meanwhile, of the deploy and the timer."""
    with (folder / "lock").open("w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _parsed(text: str, file: Path) -> Order:
    """The order that is written. Raises Unmet."""
    try:
        return of(json.loads(text))
    except ValueError as exc:
        raise Unmet(f"an order in {file}", f"{exc}", _WRITTEN_BY) from exc
    except Unmet as error:
        raise Unmet(f"{error.expected} in {file}", error.found, _WRITTEN_BY) from error


def main() -> int:
    """As a program of the timer: ``<file of the order>``."""
    file = Path(sys.argv[1])

    def read() -> Optional[str]:
        return files.text_of(file, next_step=f"look at the file, or {_WRITTEN_BY}")

    try:
        text = read()
        if text is None:
            sys.stdout.write("certificate: none is ordered any more\n")
            return 0
        result = brought(_parsed(text, file), stands=lambda: read() == text)
        stood = read() == text
    except Unmet as error:
        sys.stderr.write(f"certificate: {error}\n")
        return 1
    if "caution" in result:
        sys.stderr.write(f"{result['caution']}\n")
        return 1
    if not stood:
        sys.stdout.write("certificate: the order changed meanwhile; the next run follows what it is now\n")
        return 0
    said = f"replaced, because {result['reason'] or 'another was shown'}" if result["changed"] else "current"
    sys.stdout.write(f"certificate: {said}; it ends on {_day(result['ends'])}\n")
    return 0
