"""Which world a worker process of pytest has."""

from __future__ import annotations

from collections.abc import Mapping


def worker_world(environ: Mapping[str, str]) -> int:
    """The world of this process: workers count on from that of the process that started them, which they inherit."""
    first = int(environ.get("GLM_REHEARSAL_WORLD") or 1)
    return first + int(environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
