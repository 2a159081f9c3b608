# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host key that each instance is launched with: in its user data, and kept under its id once that is known."""

from __future__ import annotations

from typing import List, Tuple

from ansible_collections.glm.fleet.plugins.module_utils.cloud import host_keys
from ansible_collections.glm.fleet.plugins.module_utils.cloud import user_data as _user_data
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import api as lambda_api
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud.fleet import LAUNCHED_TAG
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud.members import Members
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet

# "maxLength": 1000000 (API description, 1.10.0)
USER_DATA_LIMIT = 1_000_000
# An OpenSSH ed25519 key has 387 bytes in 7 lines, its public line 80.
_LIKE_A_KEY = host_keys.Pair("k" * 450, "k" * 90)


class Identity:
    """Makes, announces and keeps the host keys of what a run launches."""

    def __init__(self, fleet: Members) -> None:
        self.fleet = fleet
        self.given: str = fleet.params["user_data"] or ""
        wanted = fleet.params["host_keys"] and fleet.host_keys is not None
        self.user_sets_them = bool(wanted and _user_data.sets_host_keys(self.given))
        self.makes_them = bool(wanted and not self.user_sets_them)

    def require_room(self) -> None:
        """Fail when the user data would be too long with a key; say it when the user's own host keys are used."""
        if self.user_sets_them:
            self.fleet.module.warn(
                f"fleet {self.fleet.name}, launch: user_data sets ssh_keys, so instances get those host keys and none "
                "is made for them; what they show at first contact is pinned unseen."
            )
        size = len(self._with(_LIKE_A_KEY).encode("utf-8")) if self.makes_them else 0
        if size > USER_DATA_LIMIT:
            self.fleet.fail(
                "launch",
                f"expected user data of at most {USER_DATA_LIMIT} bytes with the host key, found {size}.",
                "shorten glm_launch_user_data (an #include of a URL takes one line), or set glm_launch_host_keys to "
                "false.",
            )

    def user_data(self, name: str, moment: str) -> str:
        """The user data of that launch, empty when there is none; its key is announced before it returns."""
        if not self.makes_them:
            return self.given
        try:
            pair = host_keys.make()
            # Should an answer of the API quote the request.
            self.fleet.module.no_log_values.update(pair.secrets)
            if self.fleet.host_keys:
                self.fleet.host_keys.announce(name, moment, pair.public)
        except Unmet as error:
            self._fail(name, error)
        return self._with(pair)

    def launched(self, name: str, moment: str, ids: List[str]) -> None:
        """The launch was answered."""
        if self.fleet.host_keys is None:
            return
        try:
            for identifier in ids:
                self.fleet.host_keys.assign(name, moment, identifier)
        except Unmet as error:
            self._fail(name, error)

    def refused(self, name: str, moment: str) -> None:
        """The launch was refused."""
        if self.fleet.host_keys is not None:
            self.fleet.host_keys.withdraw(name, moment)

    def find_lost(self) -> None:
        """Keep the keys of listed members whose launch was never answered, in this run or an earlier one.

        Keys that no instance of the account has are dropped after a day.
        """
        for item in self.fleet.known_members():
            self.launched(*_launch_of(item), [item["id"]])
        if self.fleet.host_keys is not None:
            self.fleet.host_keys.drop_lost(map(_launch_of, self.fleet.known))

    def _with(self, pair: host_keys.Pair) -> str:
        return _user_data.combined(_user_data.host_key_config(pair.private, pair.public), self.given)

    def _fail(self, name: str, error: Unmet) -> None:
        self.fleet.fail(
            "launch", f"host key of {name}: expected {error.expected}, found {error.found}.", error.next_step
        )


def _launch_of(item: lambda_api.Instance) -> Tuple[str, str]:
    """Name and moment under which the key of an instance waits."""
    return item.get("name") or "", lambda_api.tags_of(item).get(LAUNCHED_TAG, "")
