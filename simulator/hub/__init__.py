"""A model hub that the real ``huggingface_hub`` client can download from (``HF_ENDPOINT``), for rehearsals and tests.

It serves folders as repositories with the addresses, headers, error codes and pagination of the public hub, and can
be made to misbehave: cut a file short, change its bytes, stall, crawl, or answer 401, 403, 429 and 500.

>>> from simulator.hub import Hub
>>> with Hub(Path("repos")) as hub:      # repos/<organisation>/<name>/<files>
...     os.environ["HF_ENDPOINT"] = hub.url
"""

from __future__ import annotations

from simulator.hub.content import Repositories, Revision, Sibling
from simulator.hub.faults import Fault
from simulator.hub.server import Hub

__all__ = ["Fault", "Hub", "Repositories", "Revision", "Sibling"]
