# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which accounts an inventory file asks, with which keys; and that the file has no option that nobody reads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin
from ansible.plugins.loader import vars_loader

from ansible_collections.glm.fleet.plugins.module_utils.cloud import api as _cloud_api
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud import selection

KEYED_GROUP_KEYS = ("key", "prefix", "separator", "parent_group", "default_value", "trailing_separator")
KEY_SOURCES = ("api_key", "api_key_env", "api_key_file")


class Account(NamedTuple):
    """One account to ask. ``name`` is empty unless the option ``accounts`` is used; ``more`` is the cloud's own."""

    name: str
    api_key: str
    base_url: str
    more: Mapping[str, str]

    @property
    def label(self) -> str:
        """How messages name the account."""
        return f"account {self.name}" if self.name else "the account"


class AccountOptions(BaseInventoryPlugin):  # type: ignore[misc]
    """The part of an inventory plugin that reads its file."""

    # Where the cloud's keys come from, and the options that an account may set for itself.
    KEY_VARIABLE: ClassVar[str]
    KEY_PAGE: ClassVar[str]
    BASE_URL: ClassVar[str]
    ACCOUNT_OPTIONS: ClassVar[tuple[str, ...]] = ()

    _vars: dict[str, Any]
    _given: dict[str, Any]
    _group_vars_problem = ""

    def read_options(self, path: str) -> None:
        """Read the file and set the options. Raises AnsibleParserError, BadOption for an option that nobody reads."""
        extra: dict[str, Any] = self._vars
        # What templates there may lean on, as core names it.
        place = {"inventory_file": path, "inventory_dir": str(Path(path).parent)}
        self._given = {**place, **self._vars_of_all(path), **extra}
        # Options may come from variables. ``use_extra_vars`` means extra variables only.
        self._vars = self._given
        try:
            config = self._read_config_data(path)
        finally:
            self._vars = extra
        self._refuse_unknown(config)

    def _vars_of_all(self, path: str) -> dict[str, Any]:
        """The variables of group_vars/all beside the file, which core itself reads only after the inventory."""
        try:
            reader = vars_loader.get("ansible.builtin.host_group_vars")
            found = reader.get_vars(self.loader, str(Path(path).parent), [self.inventory.groups["all"]])
        except Exception as error:
            # Core stops on it when it reads them; here they matter only if the key is among them.
            self._group_vars_problem = f". The group_vars beside this file cannot be read: {error}"
            return {}
        return dict(found)

    def _refuse_unknown(self, config: Mapping[str, Any]) -> None:
        definitions = self.option_definitions
        aliases = [alias for definition in definitions.values() for alias in definition.get("aliases") or ()]
        selection.known("this file", config, [*definitions, *aliases], "option")
        for number, entry in enumerate(self.get_option("keyed_groups") or []):
            what = f"keyed_groups[{number}]"
            if not isinstance(entry, Mapping):
                raise selection.BadOption(f"{what}: expected a mapping with a key, found {entry!r}")
            selection.known(what, entry, KEYED_GROUP_KEYS, "key")

    def manner(self, account: Account) -> dict[str, Any]:
        """How the client of an account asks: its arguments of these names."""
        options = {"retries": "retries", "timeout": "request_timeout", "budget": "total_timeout"}
        options.update({option: option for option in ("validate_certs", "ca_path")})
        if not self.get_option("validate_certs"):
            self.display.warning(f"{self.NAME}: {account.label}: validate_certs is off; others can take the key")
        pacer = _cloud_api.Pacer(account.api_key, self.get_option("request_interval"))
        return {
            "pacer": pacer,
            "say": self._say,
            **{argument: self.get_option(option) for argument, option in options.items()},
        }

    def _say(self, text: str) -> None:
        """Show a line while it goes on; the standard output may be read by a program."""
        self.display.display(f"{self.NAME}: {text}", stderr=True)

    def accounts(self) -> list[Account]:
        """The accounts to ask, at least one. Raises AnsibleParserError."""
        base_url = self.text("base_url") or self.BASE_URL
        entries = self.get_option("accounts")
        if not entries:
            key = self.text("api_key") or _key_in_file(self.text("api_key_file"))
            if not key:
                raise AnsibleParserError(
                    f"no API key. Set the environment variable {self.KEY_VARIABLE}, or api_key or api_key_file in this "
                    f"file, or {self.KEY_VARIABLE.lower()} in group_vars/all beside it (core reads other variables of "
                    f"hosts and groups later); keys are made at {self.KEY_PAGE}{self._group_vars_problem}"
                )
            return [Account("", key, base_url, {name: self.text(name) for name in self.ACCOUNT_OPTIONS})]
        accounts = [self._account(number, entry, base_url) for number, entry in enumerate(entries)]
        names = [account.name for account in accounts]
        if len(set(names)) < len(names):
            raise AnsibleParserError(f"accounts: each needs a name of its own, found {', '.join(names)}")
        return accounts

    def _account(self, number: int, entry: Any, base_url: str) -> Account:
        if not isinstance(entry, Mapping):
            # Not the entry itself: it may be a key.
            found = _cloud_api.kind_of(entry)
            raise AnsibleParserError(f"accounts[{number}]: expected a mapping with a name, found {found}")
        selection.known("accounts", entry, ("name", *KEY_SOURCES, "base_url", *self.ACCOUNT_OPTIONS), "key")
        values = {key: self.templated(f"accounts: {key}", value) for key, value in entry.items()}
        name = values.get("name")
        if not name:
            raise AnsibleParserError("accounts: each entry needs a name")
        sources = [key for key in KEY_SOURCES if key in values]
        if len(sources) != 1:
            raise AnsibleParserError(
                f"account {name}: give exactly one of api_key, api_key_env and api_key_file, found "
                f"{' and '.join(sources) or 'none'}"
            )
        key = _key_from(sources[0], values[sources[0]])
        if not key:
            raise AnsibleParserError(f"account {name}: no API key in {sources[0]}")
        more = {option: values.get(option) or self.text(option) for option in self.ACCOUNT_OPTIONS}
        return Account(name, key, values.get("base_url") or base_url, more)

    def text(self, option: str) -> str:
        """The value of an option as text, with templates evaluated against extra variables and group_vars/all."""
        return self.templated(option, self.get_option(option))

    def templated(self, what: str, value: Any) -> str:
        """A value as text; ``what`` names it in the AnsibleParserError of one that cannot be evaluated."""
        if value is None:
            return ""
        self.templar.available_variables = self._given
        try:
            return str(self.templar.template(value)).strip()
        except Exception as error:
            raise AnsibleParserError(f"{what} cannot be evaluated: {error}") from error


def _key_from(source: str, value: str) -> str:
    if source == "api_key_env":
        return os.environ.get(value, "")
    return _key_in_file(value) if source == "api_key_file" else value


def _key_in_file(path: str) -> str:
    return _cloud_api.read_api_key(path) if path else ""
