"""Ways in which the simulated hub can be made to misbehave."""

from __future__ import annotations

import dataclasses
import fnmatch
import threading
from dataclasses import dataclass
from typing import Any

KINDS = ("truncate", "corrupt", "stall", "slow", "status")


@dataclass
class Fault:
    """One misbehaviour, for the next ``times`` requests it matches (-1: for ever).

    ``match`` is a shell pattern for ``<organisation>/<name>/<file>`` (what a download asks for) or, with the prefix
    ``api:``, for the path of an API address. Kinds:

    - ``truncate``: close the connection after ``after_bytes`` of the body;
    - ``corrupt``: the right number of bytes, but wrong ones from ``after_bytes`` on;
    - ``stall``: send ``after_bytes``, then nothing for ``seconds``, then close;
    - ``slow``: send the body at ``bytes_per_second``;
    - ``status``: answer ``status`` (with ``retry_after`` seconds and ``error_code`` when given) and no file.
    """

    match: str
    kind: str
    times: int = 1
    after_bytes: int = 0
    seconds: float = 3600.0
    bytes_per_second: int = 1_000_000
    status: int = 500
    retry_after: int | None = None
    error_code: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown kind of fault {self.kind!r}; known: {', '.join(KINDS)}")

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Fault:
        """Make a fault from the control endpoint's JSON; raises ValueError naming what is wrong."""
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(data) - known):
            raise ValueError(f"unknown key {unknown[0]!r}; known: {', '.join(sorted(known))}")
        try:
            return cls(**data)
        except TypeError as exc:
            raise ValueError(str(exc)) from exc


class FaultList:
    """The faults in force, taken one by one as requests match them."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> None:
        """Put a fault in force."""
        with self._lock:
            self._faults.append(fault)

    def clear(self) -> None:
        """End all faults."""
        with self._lock:
            self._faults.clear()

    def take(self, target: str) -> Fault | None:
        """The first fault in force for ``target``, counted as used; None when there is none."""
        with self._lock:
            for fault in self._faults:
                if fault.times != 0 and fnmatch.fnmatchcase(target, fault.match):
                    if fault.times > 0:
                        fault.times -= 1
                    return fault
        return None
