# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host is given of weights in a store: the list of files once, and signed addresses as often as it takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.module_utils.weights.store import Manifest
from ansible_collections.glm.fleet.plugins.plugin_utils.store import staged
from ansible_collections.glm.fleet.plugins.plugin_utils.store.bucket import LONGEST_SIGNED_SECONDS, Bucket, Place

SHORTEST_SIGNED_SECONDS = 60


class Origin:
    """The weights of one commit for one host. The store is asked when they are needed, and not before."""

    def __init__(
        self, where: Place, repository: str, commit: str, seconds: int, unsafe: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        if not SHORTEST_SIGNED_SECONDS <= seconds <= LONGEST_SIGNED_SECONDS:
            limits = f"between {SHORTEST_SIGNED_SECONDS} and {LONGEST_SIGNED_SECONDS} s"
            raise Unmet(f"addresses that last {limits}", f"{seconds} s", "correct weights_address_seconds")
        self._where, self._repository, self._commit, self._seconds = where, repository, commit, seconds
        self._unsafe, self._now = unsafe, now
        self._signed_at = float("-inf")

    @cached_property
    def _bucket(self) -> Bucket:
        return Bucket(self._where)

    @cached_property
    def manifest(self) -> Manifest:
        """The list of files, all of which are in the store. Raises StoreError."""
        return staged.complete(self._bucket, self._repository, self._commit, self._unsafe)

    def due(self, status: dict[str, Any]) -> bool:
        """Whether the host needs new addresses: it says so, or half their time has passed."""
        return status.get("error_kind") == "expired" or self._now() - self._signed_at > self._seconds / 2

    def addresses(self) -> dict[str, Any]:
        """New addresses, as the host keeps them: secrets. Raises StoreError."""
        now = self._now()
        signed = staged.addresses(self._bucket, self.manifest, self._unsafe, self._seconds)
        # Only now: what failed is due again at once.
        self._signed_at = now
        return {"expires": int(now) + self._seconds, "addresses": signed}
