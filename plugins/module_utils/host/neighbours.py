# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who else lives on a host beside Docker, read from its files, so that a runtime that hangs cannot hide.

This module util is PRIVATE to the collection.

Sources: containerd/containerd, core/runtime/v2/README.md (a shim has ``-namespace``; Docker's is moby, that of the CRI
k8s.io).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ansible_collections.glm.fleet.plugins.module_utils import files

DOCKERS_NAMESPACE = "moby"


def shims(root: Path = Path("/")) -> Counter[str]:
    """How many containers run, by namespace of containerd: each has a shim, whose name of it counts as Docker's."""
    found: Counter[str] = Counter()
    for process in (root / "proc").glob("[0-9]*"):
        words = files.read_text(process / "cmdline").split("\0")
        if Path(words[0]).name.startswith(("containerd-shim", "docker-containerd-shim")):
            named = words.index("-namespace") + 1 if "-namespace" in words else len(words)
            found[words[named] if named < len(words) else DOCKERS_NAMESPACE] += 1
    return found
