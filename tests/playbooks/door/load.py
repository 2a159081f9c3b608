"""Clients that ask a door without a pause while the block runs; one that dies fails it."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

from tests.playbooks.door.scripted import Client


class Load:
    """``statuses`` of all answers so far. The end of the block raises what ended a client early.

    ``count``: requests of each client, after which it has done its part; without, it goes on to the end of the block.
    """

    def __init__(
        self, port: int, key: str, clients: int = 1, pause: float = 0.0, count: int | None = None, **asked: Any
    ) -> None:
        self.port, self.key, self.pause, self.count, self.asked = port, key, pause, count, asked
        self.statuses: list[int] = []
        self._ended = threading.Event()
        self._pool = ThreadPoolExecutor(clients)
        self._clients = clients
        self._running: Sequence[Future[None]] = ()

    def __enter__(self) -> Load:
        self._running = [self._pool.submit(self._ask) for _ in range(self._clients)]
        return self

    def wait(self) -> None:
        """Return when every client has done its part."""
        for client in self._running:
            client.result()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._pool.shutdown()
        # What failed in the block itself says more.
        if error is None:
            self.wait()

    def _ask(self) -> None:
        client = Client(self.port, self.key)
        try:
            for _ in itertools.count() if self.count is None else range(self.count):
                if self._ended.wait(self.pause):
                    return
                self.statuses.append(client.ask(**self.asked).status)
        finally:
            client.close()
