# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the accounts of an inventory answer: from the cache, from the API or, if allowed, the last good answer."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Optional

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import Cacheable

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.cloud import api as _cloud_api
from ansible_collections.glm.fleet.plugins.module_utils.cloud import ledger
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud import selection
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.accounts import Account, AccountOptions
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.provider import Provider

CACHE_SCHEMA = 2


@dataclass(frozen=True)
class Answer:
    """The ``machines`` of an account, without what an inventory does not need.

    ``known``: by option, the names that the cloud has, where that was asked; None where it did not say.
    """

    machines: list[dict[str, Any]]
    known: dict[str, Optional[list[str]]] = field(default_factory=dict)

    def stored(self) -> dict[str, Any]:
        """What is kept of it. As text, because cache plugins spend seconds on the nested form of a large fleet."""
        return {"schema": CACHE_SCHEMA, "answer": json.dumps([self.machines, self.known])}

    @classmethod
    def of(cls, stored: Any) -> Optional[Answer]:
        """A kept answer, or ``None`` if another version or something else wrote it."""
        if not isinstance(stored, dict) or stored.get("schema") != CACHE_SCHEMA:
            return None
        try:
            machines, known = json.loads(stored["answer"])
        except (KeyError, TypeError, ValueError):
            return None
        return cls(machines, known) if isinstance(machines, list) and isinstance(known, dict) else None


# The accounts of this run's inventory, by cloud and file. Workers inherit them.
ASKED: dict[tuple[str, str], list[Account]] = {}


class Answers(AccountOptions, Cacheable):  # type: ignore[misc]
    """The part of an inventory plugin that gets answers; it never gives a part of one."""

    PROVIDER: ClassVar[Provider]
    # Options whose values are names in the cloud, and the key of Host with such a name. Each has a sibling exclude_….
    TEXT_FILTERS: ClassVar[Mapping[str, str]]

    def _ask(self, account: Account) -> Answer:
        """All machines of the account. Raises CloudError."""
        raise NotImplementedError

    def answers(self, path: str, cache: bool) -> list[tuple[str, Answer]]:
        """The answers of all accounts, with their names. Raises AnsibleParserError."""
        accounts = ASKED[self.PROVIDER.name, path] = self.accounts()
        ledger.keep_apart([account.base_url for asked in ASKED.values() for account in asked])
        return [(account.name, self._answer_of(account, path, cache)) for account in accounts]

    def _asked_for(self) -> Sequence[str]:
        """What options add to the question, so that the answer to another one is not taken from the cache."""
        return ()

    def names_in_the_cloud(self) -> dict[str, str]:
        """The options whose values are names in the cloud, and the key of Host that has such a name."""
        return {f"{sign}{option}": key for option, key in self.TEXT_FILTERS.items() for sign in ("", "exclude_")}

    def unseen(self, machines: Sequence[Mapping[str, Any]]) -> set[str]:
        """The options with a value that fits no machine, so that it must be asked whether the cloud has it."""
        keys = self.names_in_the_cloud()
        wanted = {option: selection.patterns_in(option, self.get_option(option) or []) for option in keys}
        if not any(wanted.values()):
            return set()
        hosts = [self.PROVIDER.host_of(machine) for machine in machines]
        return {
            option
            for option, key in keys.items()
            if selection.unseen(wanted[option], map(selection.reader(key), hosts))
        }

    def _answer_of(self, account: Account, path: str, cache: bool) -> Answer:
        # The key is part of it so that another account's answer is never taken for this one's.
        more = (value for value in (*account.more.values(), *self._asked_for()) if value)
        parts = [account.base_url, account.api_key, *more]
        digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
        cache_key = f"{self.get_cache_key(path)}_{digest}"
        use_cache = self.get_option("cache")
        if use_cache and cache:
            answer = self._cached(cache_key)
            # An option that was changed since may name what nobody asked for.
            if answer is not None and not self.unseen(answer.machines) - set(answer.known):
                return answer
        answer = self._asked(account, digest)
        if use_cache:
            self._cache[cache_key] = answer.stored()
        return answer

    def _cached(self, cache_key: str) -> Optional[Answer]:
        try:
            return Answer.of(self._cache[cache_key])
        except KeyError:
            return None

    def _asked(self, account: Account, digest: str) -> Answer:
        last_good = Path(self.get_option("stale_cache_dir")) / f"{digest}.json"
        allowed = self.get_option("stale_cache_on_error")
        try:
            answer = self._ask(account)
        except _cloud_api.AuthError as error:
            raise AnsibleParserError(f"{account.label}: the key was refused. {error}") from error
        except _cloud_api.CloudError as error:
            if not allowed:
                raise AnsibleParserError(f"{account.label}: {error}") from error
            return self._last_good(account, last_good, error)
        if allowed:
            try:
                files.write_json(last_good, answer.stored())
            except OSError as error:
                self.display.warning(f"{self.NAME}: {account.label}: this answer could not be cached: {error}")
        return answer

    def _last_good(self, account: Account, file: Path, error: Exception) -> Answer:
        try:
            age = time.time() - file.stat().st_mtime
            answer = Answer.of(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            answer = None
        if answer is None:
            raise AnsibleParserError(f"{account.label}: {error} There is no earlier answer to fall back to.")
        limit = self.get_option("stale_cache_max_age")
        if age > limit:
            raise AnsibleParserError(
                f"{account.label}: {error} The last good answer is {age:.0f} s old, more than stale_cache_max_age "
                f"({limit} s)."
            )
        self.display.warning(
            f"{self.NAME}: {account.label}: {error} Using the answer of {age:.0f} s ago ({len(answer.machines)} "
            "instances); instances may have come or gone since."
        )
        return answer
