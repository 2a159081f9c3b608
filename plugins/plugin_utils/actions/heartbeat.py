# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A sign of life while an action has nothing to say of its own: a module at work, a lock, a host that is away."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from ansible_collections.glm.fleet.plugins.module_utils.weights.store import human_bytes

# Nobody should have to wonder for longer whether a run still goes on.
SECONDS = 10.0


def line(host: str, what: str, phase: str, far: str, seconds: float, budget: float | None) -> str:
    """What every wait for a host prints: who, the phase, how ``far`` it is, and the time of what there is for it."""
    detail = f" ({far})" if far else ""
    return f"[{host}] {what}: {phase}{detail}, {seconds:.0f} {'s' if budget is None else f'of {budget:.0f} s'}"


def share(done_words: str, done: int, total: int, rate: float) -> str:
    """How far a transfer is: ``fetched 312.4 GB of 756.2 GB, 41 %, 1.1 GB/s, about 7 min left``.

    ``rate`` is in bytes per second; 0 is not known.
    """
    far = f"{done_words} {human_bytes(done)} of {human_bytes(total)}, {100 * done // max(1, total)} %"
    speed = f", {human_bytes(rate)}/s" if rate > 0 else ""
    left = f", about {_duration((total - done) / rate)} left" if rate > 0 and done < total else ""
    return f"{far}{speed}{left}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


@contextlib.contextmanager
def beating(silence: float, last_heard: Callable[[], float], say: Callable[[float], None]) -> Iterator[None]:
    """Within, call ``say`` with the seconds since the beginning whenever nothing was heard for ``silence`` seconds.

    ``last_heard`` gives that moment by time.monotonic(); ``say`` is called in a thread of its own.
    """
    started = time.monotonic()
    ended = threading.Event()

    def beat() -> None:
        spoken = started
        while not ended.wait(max(0.0, max(spoken, last_heard()) + silence - time.monotonic())):
            now = time.monotonic()
            if now - max(spoken, last_heard()) >= silence:
                spoken = now
                say(now - started)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
