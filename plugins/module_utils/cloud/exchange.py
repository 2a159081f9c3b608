# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One HTTP request and its whole answer: by a deadline, whatever the other side does, and of a bounded size.

The time-outs of ``requests`` are for each read: a server that sends a byte now and then, or a name server that is
silent, would hold a run for hours. So the exchange runs in a thread of its own that is not waited for any longer.
"""

from __future__ import annotations

import contextlib
import json
import math
import queue
import socket
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Dict, List, NamedTuple, NoReturn, Optional, Union

if TYPE_CHECKING:
    import requests

# Fifty thousand instances; nothing that these APIs list is larger.
MOST_BYTES = 64 * 1024 * 1024
CHUNK_BYTES = 64 * 1024
MOST_DIGITS = 18


class TooLate(Exception):
    """The whole answer was not there by the deadline; what was asked for may still happen."""


class TooLarge(Exception):
    """The answer is larger than any answer of these APIs."""


class Received(NamedTuple):
    """A whole answer."""

    status_code: int
    headers: Mapping[str, str]
    content: bytes
    # How many bytes came before the content, of which only the end was wanted.
    left_out: int = 0


def exchange(
    session: requests.Session,
    method: str,
    url: str,
    body: Optional[Dict[str, Any]],
    silence: float,
    seconds: float,
    verify: Union[bool, str],
    last: Optional[int] = None,
) -> Received:
    """Send a request once and return its answer.

    ``silence``: seconds without a byte, ``seconds`` for all of it; ``verify``: whom to trust, as requests takes it.
    ``last``: text is wanted, and of it no more than so many bytes, the last.
    Raises TooLate, TooLarge, and what requests raises.
    """
    box: queue.SimpleQueue[Union[Received, BaseException]] = queue.SimpleQueue()
    begun: List[requests.Response] = []

    def work() -> None:
        try:
            # Given here, because an environment variable would replace what a session says of certificates.
            response = session.request(
                method, url, json=body, timeout=silence, verify=verify, allow_redirects=False, stream=True,
                headers=None if last is None else {"Accept": "text/plain"},
            )  # fmt: skip
            begun.append(response)
            box.put(_received(response, last))
        except BaseException as error:
            box.put(error)

    threading.Thread(target=work, daemon=True, name="glm.fleet exchange").start()
    try:
        found = box.get(timeout=seconds)
    except queue.Empty:
        _hang_up(begun)
        raise TooLate from None
    if isinstance(found, BaseException):
        raise found
    return found


def _received(response: requests.Response, last: Optional[int]) -> Received:
    with response:
        content, left_out = bytearray(), 0
        for chunk in response.iter_content(CHUNK_BYTES):
            content += chunk
            # An error is wanted whole.
            if last is not None and response.status_code == 200 and len(content) > last:
                left_out += len(content) - last
                del content[:-last]
            if len(content) > MOST_BYTES:
                raise TooLarge
        return Received(response.status_code, response.headers, bytes(content), left_out)


def _hang_up(begun: List[requests.Response]) -> None:
    """End the reading of an answer that comes too late; one that did not begin ends by itself, or with the process."""
    for response in begun:
        sock = getattr(response.raw.connection, "sock", None)
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


def decoded(content: bytes) -> Any:
    """The JSON in a body. Raises ValueError also for what no API means: deep nesting, numbers without end."""
    try:
        return json.loads(content, parse_int=_whole, parse_float=_finite, parse_constant=_refused)
    except RecursionError:
        raise ValueError("objects in objects, deeper than any answer") from None


def all_printable(content: bytes) -> bool:
    """Whether every text in a body of valid JSON is plain ASCII, seen at once instead of in each of its texts.

    JSON forbids control characters in texts, so only an escape can stand for one.
    """
    # A zero byte shows UTF-16 or UTF-32, which json reads, too.
    return content.isascii() and not any(sign in content for sign in (b"\\", b"\x7f", b"\0"))


def _whole(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"a number too large: {text[:40]}")
    return number


def _refused(word: str) -> NoReturn:
    raise ValueError(f"no JSON: {word}")
