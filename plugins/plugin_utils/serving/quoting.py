# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Text as systemd reads it in units and environment files, and docker in ``--env-file`` (which has no quoting).

The rules are those of systemd.service(5), "COMMAND LINES", systemd.exec(5) and src/basic/env-file.c.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils.finding import QuotingError

_PLAIN_WORD = re.compile(r"[A-Za-z0-9_@%$+=:,./-]+")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}


class UnitError(QuotingError, ValueError):
    """The plan cannot be written as a unit; the text says which value and why."""


def systemd_word(word: str) -> str:
    """Quote one argument for an ``Exec*=`` line so that systemd passes exactly ``word`` on.

    Raises UnitError for what no unit file can hold: NUL bytes and text that is not UTF-8.
    """
    try:
        word.encode("utf-8")
    except UnicodeEncodeError as exc:
        raise UnitError(f"the argument {word!r} is not valid UTF-8, which systemd requires") from exc
    if "\0" in word:
        raise UnitError(f"the argument {word!r} contains a NUL byte")
    return _quoted(word.replace("%", "%%").replace("$", "$$"))


def _quoted(text: str) -> str:
    if _PLAIN_WORD.fullmatch(text):
        return text
    return '"' + "".join(_escape(char) for char in text) + '"'


def _escape(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if ord(char) < 0x20 or ord(char) == 0x7F:
        return f"\\x{ord(char):02x}"
    return char


def systemd_exec(argv: Sequence[Any]) -> str:
    """Render an argument list as the value of ``Exec*=``, each long option and its value on a line of their own."""
    if not argv:
        raise UnitError("an empty command cannot be run")
    lines: list[list[str]] = [[]]
    for word in argv:
        text = str(word)
        value_is_there = len(lines) > 1 and len(lines[-1]) > 1 and lines[-1][0].startswith("--")
        if (lines[0] and text.startswith("--")) or value_is_there:
            lines.append([])
        lines[-1].append(text)
    return " \\\n    ".join(" ".join(systemd_word(word) for word in line) for line in lines)


def systemd_value(text: str) -> str:
    """Escape a value that is not a command line (a description, a path): ``%`` doubled, one line only."""
    if "\n" in text or "\0" in text:
        raise UnitError(f"{text!r} does not fit on one line of a unit file")
    return text.replace("%", "%%")


def systemd_environment(env: Mapping[str, str]) -> str:
    """The value of ``Environment=``, in which ``%`` is special and ``$`` is not (systemd.exec(5))."""
    return " ".join(_quoted(f"{name}={value}".replace("%", "%%")) for name, value in env.items())


def systemd_env(env: Mapping[str, Any]) -> str:
    """Lines for ``EnvironmentFile=``. Raises UnitError as ``docker_env`` does.

    Within double quotes only four characters are special (systemd, src/basic/env-file.c, SHELL_NEED_ESCAPE).
    """
    lines = []
    for name, value in _env_values(env):
        if not re.fullmatch(r"[A-Za-z0-9_@%+=:,./-]*", value):
            value = '"' + re.sub(r'(["\\`$])', r"\\\1", value) + '"'
        lines.append(f"{name}={value}\n")
    return "".join(lines)


def docker_env(env: Mapping[str, Any]) -> str:
    """Lines for ``docker run --env-file``: ``NAME=value`` taken literally, so a line break cannot be carried."""
    return "".join(f"{name}={value}\n" for name, value in _env_values(env))


def _env_values(env: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values in order, as text; the same are refused for every runtime."""
    values = []
    for name in sorted(env):
        text = str(env[name])
        if not _ENV_NAME.fullmatch(name):
            raise UnitError(f"{name!r} is not a name for an environment variable")
        if "\n" in text or "\r" in text or "\0" in text:
            raise UnitError(f"the value of {name} contains a line break, which an environment file cannot carry")
        values.append((name, text))
    return values
