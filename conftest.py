"""Put the collection on the import path the way ansible does, so tests import ``ansible_collections.glm.fleet``."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT / ".collections"))
sys.path.insert(0, str(ROOT))
