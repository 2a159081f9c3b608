# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""End a run whose reader has gone, as in ``status.yml | head``.

ansible-core's thread that takes the results of tasks ends at the first line that it cannot print, and the run would
wait for results forever.
"""

from __future__ import annotations

import os
import select
import signal
import threading


def interrupt_when_closed(descriptor: int) -> threading.Event:
    """Interrupt this process, as Ctrl-C does, once nobody reads a descriptor any more: its pipe or terminal closed.

    The event is set then. Python loses an interrupt that comes while it forks, as ansible-core does for each task:
    whoever begins the next one must look.
    """
    closed = threading.Event()
    threading.Thread(target=_watch, args=(descriptor, closed), daemon=True).start()
    return closed


def _watch(descriptor: int, closed: threading.Event) -> None:
    poll = select.poll()
    # Nothing is asked for: the kernel tells without that the other end closed. A file has no other end.
    poll.register(descriptor, 0)
    poll.poll()
    _to_nowhere(descriptor)
    closed.set()
    os.kill(os.getpid(), signal.SIGINT)


def _to_nowhere(descriptor: int) -> None:
    """What is still printed there, and on standard error where that is the same pipe, fails no more."""
    both = os.path.samestat(os.fstat(2), os.fstat(descriptor))
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for one in {descriptor, *([2] if both else [])}:
        os.dup2(nowhere, one)
    os.close(nowhere)
