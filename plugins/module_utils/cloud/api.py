# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the clients of all cloud APIs share: one session, the pace, what is repeated, typed errors.

Requests keep to the pace of one key across all processes of one user. What is safe to repeat is repeated: reading, and
what names by id the state to reach, such as deleting. A request that makes something never is, because only the caller
can find out what became of it.
"""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import json
import math
import os
import stat
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

from ansible_collections.glm.fleet.plugins.module_utils import unreachable
from ansible_collections.glm.fleet.plugins.module_utils.address import in_clear, is_loopback
from ansible_collections.glm.fleet.plugins.module_utils.cloud import ledger
from ansible_collections.glm.fleet.plugins.module_utils.cloud.exchange import (
    MOST_BYTES,
    Received,
    TooLarge,
    TooLate,
    all_printable,
    decoded,
    exchange,
)
from ansible_collections.glm.fleet.plugins.module_utils.finding import (
    QuotingError,
    advised,
    printable,
    printable_in,
    unmet,
)
from ansible_collections.glm.fleet.plugins.module_utils.versions import COLLECTION

try:
    import fcntl

    import requests
except ImportError as _error:
    REQUESTS_IMPORT_ERROR: Optional[ImportError] = _error
else:
    REQUESTS_IMPORT_ERROR = None

USER_AGENT = f"glm.fleet/{COLLECTION}"

# A server that asks for more patience than this is treated as one that does not answer.
RETRY_AFTER_CAP = 60.0
BACKOFF_CAP = 30.0
# Longer waits are said, where somebody listens.
SAID_SECONDS = 4.0
# A stored pace further ahead than this comes from a clock that was changed, not from a queue.
PACE_HORIZON = 600.0


class CloudError(QuotingError):
    """Any failure to get what was asked. ``outcome_unknown``: a change that was asked for may still have happened."""

    outcome_unknown = False


class TransportError(CloudError):
    """No answer: connection refused or lost, time-out, DNS or TLS failure."""

    outcome_unknown = True


class BadAnswer(CloudError):
    """An answer that is not the API's: half a body, no JSON, a web page, a redirect."""

    outcome_unknown = True


class ApiError(CloudError):
    """The API answered with an error.

    Attributes: ``status`` (HTTP), ``code`` (the API's own, to branch on), ``message``, ``suggestion`` (the API's, may
    be empty). ``advice`` is ours, where the API makes no suggestion.
    """

    def __init__(self, what: str, status: int, code: str, message: str, suggestion: str = "", advice: str = "") -> None:
        self.status = status
        self.code = code
        self.message = message
        self.suggestion = suggestion
        self.outcome_unknown = status >= 500 or status == 408 or code.startswith("provider/")
        parts = [f"{what}: HTTP {status} {code or '(no code)'}: {message or '(no message)'}"]
        if suggestion:
            parts.append(f"Suggestion from the API: {suggestion}")
        elif advice:
            parts = [advised(" ".join(parts), advice)]
        super().__init__(" ".join(parts))

    @property
    def absent(self) -> bool:
        """Whether what the request named by id is not there."""
        return self.status == 404 or self.code.endswith(("/object-does-not-exist", "/not-found"))


class AuthError(ApiError):
    """The key is missing, wrong, expired, deleted or not allowed to do this."""


class RateLimited(ApiError):
    """HTTP 429. ``retry_after``: seconds the server asked for, or ``None``."""

    retry_after: Optional[float] = None


class FinalAnswer(BadAnswer):
    """Not the API's answer, and asking again would not change it."""

    outcome_unknown = False


def parse_retry_after(value: Optional[str], now: float) -> Optional[float]:
    """Seconds to wait according to a ``Retry-After`` header (seconds or an HTTP date); ``None`` when unusable."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - now
        except (TypeError, ValueError, OverflowError):
            return None
    if math.isnan(seconds):
        return None
    return min(max(seconds, 0.0), RETRY_AFTER_CAP)


def read_api_key(path: str) -> str:
    """The key in a file: its only line, or the value of a line ``api_key = ...``.

    Raises ``CloudError`` when the file cannot be read, also by others than its owner, or holds no key.
    """
    file = Path(path).expanduser()
    try:
        status = file.stat()
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        found = getattr(error, "strerror", None) or error
        raise CloudError(f"The API key file {file} cannot be read: {found}") from None
    mode = stat.S_IMODE(status.st_mode)
    # A pipe, such as the shell's <(...), is nobody else's.
    if stat.S_ISREG(status.st_mode) and mode & 0o077:
        raise CloudError(
            unmet(f"the API key file {file} to be its owner's only", f"mode {mode:04o}", f"chmod 600 {file}")
        )
    lines = [line for line in lines if line and not line.startswith("#")]
    for line in lines:
        name, separator, value = line.partition("=")
        if separator and name.strip() == "api_key" and value.strip():
            return value.strip().strip("\"'")
    if len(lines) == 1 and not any(sign in lines[0] for sign in " =:"):
        return lines[0]
    raise CloudError(
        f"The API key file {file} holds no key. Expected one line with the key alone, or a line 'api_key = <key>'."
    )


class Pacer:
    """Hands out time slots so that all processes of one user that share a key stay inside the limits.

    The next free slots are kept in a small file under ``directory``, named by a hash of the key. A slot is reserved
    under a lock and waited for outside it, so a launch that waits does not hold up reads. Where the file cannot be
    used (a read-only home), the pace is kept within this process only.
    """

    def __init__(
        self,
        api_key: str,
        request_interval: float,
        launch_interval: float = 0.0,
        directory: Optional[Path] = None,
    ) -> None:
        self._intervals = {"request": request_interval, "launch": launch_interval}
        self._slots: Dict[str, float] = {}
        name = hashlib.sha256(b"glm.fleet pace " + api_key.encode()).hexdigest()[:16]
        self._file = (directory or Path("~/.cache/glm-fleet/pace").expanduser()) / name

    def reserve(self, kind: str) -> float:
        """Reserve the next slot of ``kind`` (``request`` or ``launch``) and return the seconds until it begins."""
        interval = self._intervals[kind]
        if interval <= 0:
            return 0.0
        with self._shared_slots() as slots:
            now = time.time()
            slot = max(now, slots.get(kind, 0.0))
            if slot > now + PACE_HORIZON:
                slot = now
            slots[kind] = slot + interval
        return slot - now

    def began_late(self, kind: str) -> None:
        """Count the interval of ``kind`` from now, because its slot was used later than it began."""
        interval = self._intervals[kind]
        if interval > 0:
            with self._shared_slots() as slots:
                slots[kind] = max(slots.get(kind, 0.0), time.time() + interval)

    @contextlib.contextmanager
    def _shared_slots(self) -> Iterator[Dict[str, float]]:
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            yield self._slots
            return
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            slots = {**self._slots, **_slots_from(file.read())}
            yield slots
            self._slots = {}
            try:
                file.seek(0)
                file.truncate()
                file.write(json.dumps(slots).encode())
            except OSError:
                self._slots = slots


def _slots_from(text: bytes) -> Dict[str, float]:
    """The stored slots; a file that another version or a full disk left damaged counts as empty."""
    try:
        stored = json.loads(text)
    except ValueError:
        return {}
    if not isinstance(stored, dict):
        return {}
    return {key: float(value) for key, value in stored.items() if isinstance(value, (int, float))}


class CloudClient:
    """One account of a cloud over HTTP and JSON. Subclasses name the API's path and take its answers apart.

    ``timeout`` bounds each silence, ``budget`` a whole call with its waits and repeats (seconds). ``retries`` is how
    often a safe request is repeated. ``say`` gets a line before a longer wait. ``ca_path`` is a file of the only
    authorities to trust.
    Raises ``CloudError`` subclasses only; ``ValueError`` for a bad address or key.
    """

    prefix = ""

    def __init__(
        self,
        api_key: str,
        base_url: str,
        pacer: Pacer,
        retries: int = 5,
        timeout: float = 30.0,
        budget: float = 300.0,
        sleep: Callable[[float], None] = time.sleep,
        headers: Optional[Mapping[str, str]] = None,
        say: Callable[[str], None] = lambda _text: None,
        validate_certs: bool = True,
        ca_path: Optional[str] = None,
    ) -> None:
        parts = urllib.parse.urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"base_url must be an http(s) address, found {base_url!r}")
        if in_clear(base_url):
            raise ValueError(
                unmet(
                    "base_url to be an https address, because the API key would cross the network in clear",
                    repr(base_url),
                    "set an https address; plain http is for this machine's loopback only",
                )
            )
        if any(ord(sign) < 33 or ord(sign) > 126 for sign in api_key):
            raise ValueError("The API key holds blanks or characters that cannot be sent. Copy it again.")
        for option, value, least in (
            ("request_timeout", timeout, 0.001),
            ("total_timeout", budget, 0.001),
            ("retries", retries, 0),
        ):
            if not least <= value < math.inf:
                raise ValueError(
                    f"{option}: expected {'a number of seconds' if least else 'how many, 0 or more'}, found {value!r}"
                )
        if ca_path and not Path(ca_path).is_file():
            raise ValueError(f"ca_path: there is no file {ca_path}")
        self._verify = (ca_path or True) if validate_certs else False
        self.base_url = base_url.rstrip("/")
        self.account = ledger.account_of(self.base_url, api_key)
        self._pacer = pacer
        self._retries = retries
        self._timeout = timeout
        self._budget = budget
        self._sleep = sleep
        self._say = say
        self._session = requests.Session()
        self._session.headers.update({"User-Agent": USER_AGENT, "Accept": "application/json", **(headers or {})})

        def add_bearer(request: requests.PreparedRequest) -> requests.PreparedRequest:
            request.headers["Authorization"] = f"Bearer {api_key}"
            return request

        # As ``auth`` rather than a header, because an entry in ~/.netrc would replace the header.
        self._session.auth = add_bearer
        # A proxy meant for the outside cannot reach this machine's loopback.
        self._session.trust_env = not is_loopback(parts.hostname)

    def _content(self, what: str, response: Received, answer: Any) -> Any:
        """What a good answer (HTTP 200, ``answer`` is its JSON or None) holds; raises BadAnswer when it is not that."""
        raise NotImplementedError

    def _failure(self, what: str, response: Received, answer: Any) -> CloudError:
        """The typed error of an answer that is neither good, a redirect, nor 429 or 403 from something in between."""
        raise NotImplementedError

    def _url(self, path: str) -> str:
        return f"{self.base_url}{self.prefix}{path}"

    def _read(self, path: str) -> Any:
        return self._repeated("GET", path)

    def _read_text(self, path: str, last: int) -> Received:
        """What is text and no JSON: the ``last`` bytes of it."""
        answer: Received = self._repeated("GET", path, last=last)
        return answer

    def _repeated(
        self, method: str, path: str, body: Optional[Dict[str, Any]] = None, last: Optional[int] = None
    ) -> Any:
        """Send what can be sent twice without harm until it is answered, within ``retries`` and ``budget``."""
        deadline = time.monotonic() + self._budget
        attempt = 0
        while True:
            attempt += 1
            try:
                return self._send(method, path, body, ("request",), deadline, last)
            except CloudError as error:
                if not _worth_repeating(error):
                    raise
                wait = _wait_before_repeat(error, attempt)
                late = time.monotonic() + wait >= deadline
                if attempt > self._retries or late:
                    why = f", total_timeout is {self._budget:g} s" if late and attempt <= self._retries else ""
                    error.args = (f"{error} (gave up after {attempt} attempt{'s' if attempt > 1 else ''}{why})",)
                    raise
                self._wait(wait, str(error))

    def _wait(self, seconds: float, why: str) -> None:
        if seconds > SAID_SECONDS:
            self._say(f"{why} Waiting {seconds:.0f} s.")
        self._sleep(seconds)

    def _change(
        self, path: str, body: Optional[Dict[str, Any]], pace: tuple[str, ...] = ("request",), method: str = "POST"
    ) -> Any:
        """Send once; what became of it without an answer only the caller can find out."""
        return self._send(method, path, body, pace, time.monotonic() + self._budget)

    def _send(
        self, method: str, path: str, body: Optional[Dict[str, Any]], pace: tuple[str, ...], deadline: float,
        last: Optional[int] = None,
    ) -> Any:  # fmt: skip
        url = self._url(path)
        what = f"{method} {url}"
        for kind in pace:
            wait = self._pacer.reserve(kind)
            if time.monotonic() + wait > deadline:
                raise CloudError(f"{what}: other requests with this key are queued for longer than {self._budget:g} s.")
            if wait > 0:
                self._wait(wait, f"{what}: other requests with this key go first.")
        # A launch that has its turn still waits for a request's: the next launch keeps its distance from that.
        for kind in pace[:-1]:
            self._pacer.began_late(kind)
        left = max(0.1, deadline - time.monotonic())
        try:
            response = exchange(self._session, method, url, body, min(self._timeout, left), left, self._verify, last)
        except TooLate:
            raise TransportError(f"{what}: no whole answer within the {self._budget:g} s of total_timeout.") from None
        except TooLarge:
            too_large = FinalAnswer(f"{what}: the answer is larger than {MOST_BYTES >> 20} MiB; that is not the API's.")
            # Something answered, and what it did before is not known.
            too_large.outcome_unknown = True
            raise too_large from None
        except requests.exceptions.ChunkedEncodingError:
            raise BadAnswer(f"{what}: the connection broke before the whole answer arrived.") from None
        except requests.exceptions.RequestException as error:
            found = f"{unreachable.why(error, url)}. {unreachable.check(error, url, 'base_url')}"
            # ansible prints every cause: those of the libraries say the same in their own words.
            raise TransportError(f"{what}: no answer: {found}") from None
        if last is not None and response.status_code == 200:
            return response
        return self._taken_apart(what, response)

    def _taken_apart(self, what: str, response: Received) -> Any:
        status = response.status_code
        if 300 <= status < 400:
            target = response.headers.get("Location", "(no Location header)")
            raise FinalAnswer(
                f"{what}: HTTP {status}, redirected to {target}. The key is not sent to another address: "
                "if that address is right, set base_url to it."
            )
        try:
            answer = decoded(response.content)
            # Names and messages of others reach terminals and files from here.
            if not all_printable(response.content):
                answer = printable_in(answer)
        except (ValueError, RecursionError):
            answer = None
        if status == 200:
            return self._content(what, response, answer)
        if 200 < status < 300:
            raise BadAnswer(f"{what}: HTTP {status}, which the API does not answer with: {excerpt(response)}")
        if not isinstance(answer, dict) and status == 403:
            raise FinalAnswer(
                f"{what}: HTTP 403 from something in front of the API (no JSON): {excerpt(response)} "
                f"The request carried User-Agent {USER_AGENT}. "
                "Check for a proxy, a VPN or a blocked address, then try again."
            )
        error = self._failure(what, response, answer)
        if isinstance(error, RateLimited):
            asked = response.headers.get("Retry-After")
            error.retry_after = parse_retry_after(asked, time.time())
            error.args = (f"{error} {_asked_wait(asked, error.retry_after)}",)
        raise error


def _asked_wait(asked: Optional[str], usable: Optional[float]) -> str:
    """What a 429 says of the time to wait."""
    if asked is None:
        return "The API does not say how long to wait (no Retry-After)."
    said = f"The API asks to wait (Retry-After: {printable(asked, 40)}"
    if usable is None:
        return f"{said}, which is neither seconds nor a date)."
    return f"{said}; no longer than {RETRY_AFTER_CAP:g} s is waited)." if usable >= RETRY_AFTER_CAP else f"{said})."


def _wait_before_repeat(error: CloudError, attempt: int) -> float:
    if isinstance(error, RateLimited) and error.retry_after is not None:
        return error.retry_after
    backoff: float = min(2.0 ** (attempt - 1), BACKOFF_CAP)
    return backoff


def _worth_repeating(error: CloudError) -> bool:
    if isinstance(error, ApiError):
        return isinstance(error, RateLimited) or error.outcome_unknown
    if isinstance(error, FinalAnswer):
        return False
    return isinstance(error, (TransportError, BadAnswer))


def text_of(value: object) -> Optional[str]:
    """A text that is not empty: APIs leave out, null or empty optional fields."""
    return value if isinstance(value, str) and value else None


def usable_rows(what: str, rows: Any, *keys: str) -> List[Dict[str, Any]]:
    """A list whose entries have text under each of ``keys``; whatever else they hold may be new or missing."""
    if not isinstance(rows, list):
        raise BadAnswer(f"{what}: expected a list, found {kind_of(rows)}.")
    for position, row in enumerate(rows):
        usable = isinstance(row, dict)
        if not usable or not all(isinstance(row.get(key), str) and row[key] for key in keys):
            missing = " and ".join(keys) if usable else "fields"
            raise BadAnswer(
                f"{what}: entry {position} of {len(rows)} has no usable {missing}; the answer is not taken apart, "
                "because a partial list could hide hosts or what they cost."
            )
    return rows


def not_the_apis(what: str, response: Received) -> BadAnswer:
    """The error of a good status with a body that cannot be used. JSON is not quoted: an account's has its tokens."""
    if response.content.lstrip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n")[:1] in (b"{", b"["):
        return BadAnswer(f"{what}: HTTP 200, but the body ({len(response.content)} bytes) is not the API's JSON.")
    return BadAnswer(f"{what}: HTTP 200, but the body is not the API's JSON: {excerpt(response)}")


def excerpt(response: Received) -> str:
    """The beginning of a body, on one line, to show what answered."""
    text = " ".join(response.content[:400].decode("utf-8", "replace").split())
    return repr(text[:160]) if text else "(empty)"


def kind_of(value: Any) -> str:
    """What a JSON value is, in a word, for messages; Ansible's own kinds of text and lists count as Python's."""
    plain = (kind.__name__ for kind in type(value).__mro__ if kind.__module__ == "builtins")
    return "nothing" if value is None else next(plain)
