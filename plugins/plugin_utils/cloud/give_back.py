# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Terminate what a run launched and what never served, also when the run itself is gone, until the account shows none.

A run that is interrupted or killed gets no chance to clean up, and what it launched still costs money. So a second
process, the guard, is started with it. The run says on a pipe, one JSON object a line, which accounts it launches
on and with which key, what serves, and how it ended. When the run fails, or is gone without notice, the guard acts. It
asks the cloud itself, so it needs no inventory, no password and no prompt, and no argument of it holds a key.

Ours is what the answers to our own launches named, by the ledger, and what carries the tag of the run. A name is no
proof.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional, Protocol, TextIO, Union

from ansible_collections.glm.fleet.plugins.module_utils.cloud import ending, ledger, run_alive
from ansible_collections.glm.fleet.plugins.module_utils.finding import printable

# How long it goes on in all, and how long the run waits for it to be through.
HOURS = 24.0
FOLLOW_SECONDS = 120.0
PAUSES = (2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0)
# Between two looks whether a silent run is still there.
LOOK_SECONDS = 1.0
# For one attempt to end instances, repeats and looks at the account included.
ATTEMPT_SECONDS = 120.0
# Started with the paths of the run: what lies beside this file must not be taken for modules of the standard library.
_PROGRAM = """
import json, sys, types
root, sys.path[:] = json.loads(sys.argv[1])
sys.modules["ansible_collections"] = package = types.ModuleType("ansible_collections")
package.__path__ = [root]
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud import guard
guard.main()
"""


@dataclass(frozen=True)
class Shown:
    """An instance as its account shows it.

    ``there``: it stays unless somebody ends it. ``ours``: it carries the tags of this fleet and run. ``untagged``: no
    fleet's. ``protected``: by a tag, so that it is not ended.
    """

    id: str
    name: str
    there: bool
    ours: bool
    untagged: bool
    protected: bool


class Account(ending.Account, Protocol):
    """What the guard needs of a cloud's account, for one fleet and run. Methods raise CloudError or Unmet."""

    title: str

    def read(self) -> list[Shown]:
        """Everything in the account; what it proves goes into the ledger."""

    def lives(self) -> list[ledger.Life]:
        """What the run launched, or may have, and what is not proven gone."""

    def keep_ending(self, shown: Sequence[Shown], why: str) -> None:
        """Keep that the end of these is about to be asked for."""

    def at_work(self) -> contextlib.AbstractContextManager[None]:
        """Let nobody count or launch instances for the fleet meanwhile."""


@dataclass
class State:
    """What the run has said so far."""

    run: str = ""
    accounts: list[dict[str, str]] = field(default_factory=list)
    served: set[str] = field(default_factory=set)
    failed: bool = False
    done: bool = False

    def take(self, line: str) -> None:
        """Take one line; a run may die while it writes one."""
        with contextlib.suppress(ValueError, TypeError):
            said = json.loads(line)
            if not isinstance(said, dict):
                return
            self.run = said.get("run", self.run)
            if "account" in said and said["account"] not in self.accounts:
                self.accounts.append(said["account"])
            self.served.update(said.get("served", ()))
            self.failed = self.failed or bool(said.get("failed"))
            self.done = self.done or bool(said.get("done"))


class Guard:
    """The guard, seen from the run and its workers."""

    def __init__(self, run: str, log: Path) -> None:
        """Start it. Raises OSError when that is not possible."""
        self.log = log
        self._run_process = os.getpid()
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "a", encoding="utf-8") as output:
            self._shown = output.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, json.dumps([str(_collections()), sys.path])],
                stdin=subprocess.PIPE, stdout=output, stderr=output, text=True,
                # Neither Ctrl-C nor a closed terminal is meant for it.
                start_new_session=True,
            )  # fmt: skip
        self.send(run=run)

    def send(self, **said: Any) -> bool:
        """Say something; False when the guard is gone."""
        if not self._process.stdin:
            return False
        try:
            # One write, so that lines of workers do not mix.
            os.write(self._process.stdin.fileno(), json.dumps(said).encode() + b"\n")
        except OSError:
            return False
        return True

    @property
    def there(self) -> bool:
        """Whether it still listens, or acts."""
        return self._process.poll() is None

    def follow(self, show: Callable[[str], object], seconds: float = FOLLOW_SECONDS) -> bool:
        """Show what it logs until it is through; whether that was so in time."""
        deadline = time.monotonic() + seconds
        while True:
            over = not self.there
            self._show_log(show)
            if over or time.monotonic() > deadline:
                return over and self._process.returncode == 0
            time.sleep(0.2)

    def _show_log(self, show: Callable[[str], object]) -> None:
        with self.log.open("rb") as file:
            file.seek(self._shown)
            whole = file.read().rpartition(b"\n")[0]
        if whole:
            self._shown += len(whole) + 1
            show(printable(whole.decode("utf-8", "replace"), newlines=True))


class Missing:
    """The guard of a run that should have one and could not start it."""

    def send(self, **_said: Any) -> bool:
        """Nobody hears it."""
        return False


# The guard of this run, if it should have one. Workers are forked from the run, so they have it, too.
current: Union[Guard, Missing, None] = None


def heard(stream: TextIO, run_gone: Callable[[str], bool], state: State) -> State:
    """Listen until the run has ended, or is gone. Its orphaned workers may hold the pipe for long, and do not count."""
    for line in _lines(stream, lambda: run_gone(state.run)):
        state.take(line)
        if state.failed or state.done:
            break
    return state


def _lines(stream: TextIO, over: Callable[[], bool]) -> Iterator[str]:
    """Whole lines, until the stream ends or ``over`` says so while nothing comes."""
    rest = b""
    while True:
        if not select.select([stream], [], [], LOOK_SECONDS)[0]:
            if over():
                return
            continue
        part = os.read(stream.fileno(), 65536)
        if not part:
            return
        *whole, rest = (rest + part).split(b"\n")
        yield from (line.decode("utf-8", "replace") for line in whole)


class Returning:
    """Returns what one run launched on one account."""

    def __init__(
        self,
        account: Account,
        served: set[str],
        say: Callable[[str], object],
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.account = account
        self.served = served
        self.say = say
        self.sleep = sleep
        self.clock = clock
        self.due = clock()
        self._rounds = 0
        self._said: object = None

    def step(self, begun: float, hours: float) -> Optional[bool]:
        """One attempt, of those for so many hours; None when there has to be another, which is due then."""
        deadline = begun + hours * 3600
        stays = ""
        try:
            which, left, stays = self.once()
        except Exception as error:
            # Whatever it is, the instances cost money, and the next attempt may go well.
            which, left = ["?"], f"the account could not be asked: {error or type(error).__name__}"
        if not which:
            but = f" but {stays}" if stays else ""
            self.say(f"{self.account.title}: the account was read and shows nothing of this run{but}")
            return not stays
        if self.clock() >= deadline:
            self.say(f"{self.account.title}: given up after {hours:g} hours; {left}")
            return False
        # The same at another price is nothing new.
        if which != self._said:
            self.say(f"{self.account.title}: {left}")
        self._said = which
        pause = PAUSES[min(self._rounds, len(PAUSES) - 1)]
        self.due = self.clock() + min(pause, max(0.0, deadline - self.clock()))
        self._rounds += 1
        return None

    def once(self) -> tuple[list[str], str, str]:
        """End what is ours and did not serve. What is left then, the same for people, and what stays as protected."""
        # What was open is ended by id at least once, whatever a list then shows or does not.
        before = [life for life in self._lives() if life.why != ledger.GOING]
        shown = self.account.read()
        lives = [*before, *self._lives()]
        by_id = {item.id: item for item in shown}
        ours = ({item.id for item in shown if item.ours} | {life.id for life in lives if life.ours}) - self.served
        # What is not listed yet may be late, and is ended by id all the same.
        gone_by = {item.id for item in shown if not item.there}
        protected = {item.id for item in shown if item.protected} | {life.id for life in lives if life.protected}
        ids = sorted(ours - gone_by - protected)
        if ids:
            self._end(ids, by_id, lives)
            self.account.read()
        return (*self._left(protected, by_id), self._protected((ours - gone_by) & protected, lives, by_id))

    def _protected(self, ids: set[str], lives: Sequence[ledger.Life], by_id: Mapping[str, Shown]) -> str:
        """What of the run stays because of its tag, for people; empty when nothing does."""
        if not ids:
            return ""
        known = {life.id: life for life in lives if life.id in ids}
        nameless = [f"{by_id[key].name} ({key})" for key in sorted(ids - set(known))]
        named = "; ".join(filter(None, [ledger.described(known.values(), self.clock()), *nameless]))
        return f"what its tag protects, which costs money until you end it (glm_unprotect): {named}"

    def _lives(self) -> list[ledger.Life]:
        return [life for life in self.account.lives() if life.id not in self.served]

    def _end(self, ids: list[str], by_id: Mapping[str, Shown], lives: Sequence[ledger.Life]) -> None:
        names = {life.id: life.name for life in lives} | {key: item.name for key, item in by_id.items()}
        known = [by_id.get(key) or Shown(key, names.get(key, key), True, True, True, False) for key in ids]
        what = ", ".join(f"{names.get(key) or key} ({key})" for key in ids)
        self.say(f"{self.account.title}: terminating what was launched and never served: {what}")
        self.account.keep_ending(known, "the run that launched it failed or is gone")
        attempt = ending.Ending(
            self.account, ids, ATTEMPT_SECONDS, 2.0, lambda _done, _left: None, self.sleep, self.clock
        )
        for identifier, reason in attempt.run(until_gone=True).left.items():
            self.say(f"{self.account.title}: {names.get(identifier) or identifier} is still there: {reason}")

    def _left(self, protected: set[str], by_id: Mapping[str, Shown]) -> tuple[list[str], str]:
        open_ = [life for life in self._lives() if life.id not in protected]
        names = {life.name for life in open_ if not life.id}
        doubtful = [item for item in by_id.values() if item.name in names and item.untagged]
        text = f"still open: {ledger.described(open_, self.clock())}"
        if doubtful:
            alike = ", ".join(f"{item.name} ({item.id})" for item in doubtful)
            text += f"; {alike} may be it, but a name is no proof: look at it in the console"
        return [f"{life.id or life.name} {life.state}" for life in open_] + [item.id for item in doubtful], text


def until_none(given: Sequence[Returning], hours: float = HOURS) -> bool:
    """Repeat for all accounts in turn until each shows nothing of the run; False when one took too long."""
    clock, sleep = given[0].clock, given[0].sleep
    begun, through = clock(), True
    with contextlib.ExitStack() as work:
        open_ = {one: work.enter_context(contextlib.ExitStack()) for one in given}
        for one, held in open_.items():
            held.enter_context(one.account.at_work())
        while open_:
            one = min(open_, key=lambda each: each.due)
            sleep(max(0.0, one.due - clock()))
            outcome = one.step(begun, hours)
            if outcome is not None:
                through = through and outcome
                open_.pop(one).close()
    return through


def _collections() -> Path:
    """The folder ansible_collections that this file was found in; links are kept, since only they lead there."""
    return Path(__file__).absolute().parents[5]


def say(text: str) -> None:
    """A line of the guard's log."""
    # That a disk is full ends no instance.
    with contextlib.suppress(OSError):
        print(f"{ledger.stamp(time.time())} {printable(text)}", flush=True)


def gone(run: str) -> bool:
    """Whether the run is certainly gone."""
    return not run_alive.is_alive(run)
