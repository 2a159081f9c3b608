"""How long tests wait for what must come."""

from __future__ import annotations

# Only for what hangs: a machine that is busy with other tests takes as long as it takes.
PATIENCE_SECONDS = 900
