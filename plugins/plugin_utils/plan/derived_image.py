# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What derived engine images are called."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence


def name(registry: str, base: str, digest: str, requirements: Mapping[str, Sequence[str]]) -> str:
    """Name and tag of the image that adds ``requirements`` (by machine) to ``base`` (repository:tag) at ``digest``.

    The tag ends in a checksum of both: another list never gets the name of an image that hosts run already.
    """
    repository, _colon, tag = base.rpartition(":")
    content = json.dumps([digest, {machine: sorted(lines) for machine, lines in requirements.items()}], sort_keys=True)
    checksum = hashlib.sha256(content.encode()).hexdigest()[:12]
    prefix = f"{registry.strip('/')}/" if registry else ""
    return f"{prefix}glm-fleet/{repository.rpartition('/')[2]}:{tag}-{checksum}"
