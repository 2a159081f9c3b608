# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tags of a run that no task of the collection has, which ansible ignores silently. Pure but for the roles' files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import yaml

from ansible_collections.glm.fleet.plugins.module_utils.names import nearest

ROLES = Path(__file__).parents[3] / "roles"
# Words of ansible's own.
_OWN = {"all", "always", "never", "tagged", "untagged"}


def known(roles: Path = ROLES) -> set[str]:
    """The tags of all roles; tasks/main.yml has those of each part."""
    parts = [task for path in roles.glob("*/tasks/main.yml") for task in yaml.safe_load(path.read_text("utf-8")) or []]
    return {str(tag) for task in parts for tag in task.get("tags", [])} - _OWN


def unknown(given: Iterable[str]) -> str:
    """What to say of the tags of a run that no role has; empty when each is known."""
    tags = known()
    strange = sorted(set(map(str, given)) - tags - _OWN)
    if not strange:
        return ""
    meant = list(dict.fromkeys(name for tag in strange for name in nearest(tag, tags, 1)))
    hint = f" Did you mean {', '.join(meant)}?" if meant else ""
    return f"no task of glm.fleet has the tag {', '.join(strange)}, so it runs nothing of it.{hint}"
