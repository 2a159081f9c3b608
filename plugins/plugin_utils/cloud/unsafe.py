# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep text that comes from outside from ever being run as a template.

ansible-core 2.18 evaluates ``{{ }}`` in any variable a plugin sets, so such text is wrapped there. From 2.19 on a
string is only a template when somebody vouches for it, so text from outside is left as it is.

Text made only of letters, digits and plain punctuation cannot hold a template, whatever it says. It is vouched for:
core then treats it as ordinary text everywhere (``ansible-inventory --list`` prints it plainly instead of as
``{"__ansible_unsafe": ...}``), which also halves the time core takes to print a large fleet.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any


def _unchanged(text: str) -> str:
    return text


_mark_plain: Callable[[str], Any] = _unchanged
_mark_other: Callable[[str], Any] = _unchanged
try:
    from ansible.template import trust_as_template as _mark_plain  # type: ignore[no-redef,import-untyped,unused-ignore]
except ImportError:  # ansible-core 2.18
    from ansible.utils.unsafe_proxy import wrap_var as _mark_other  # type: ignore[no-redef,import-untyped,unused-ignore]

# No braces, percent signs, hashes, quotes, brackets, parentheses or pipes: nothing a template or an expression needs.
_PLAIN_TEXT = re.compile(r"[A-Za-z0-9 _.,:;/@+=~-]*").fullmatch


def is_plain_text(text: str) -> bool:
    """Whether ``text`` consists only of characters that cannot form a template."""
    return _PLAIN_TEXT(text) is not None


def _key(key: str) -> Any:
    # Core never asks whether a key is trusted, so a plain one needs no mark.
    return key if is_plain_text(key) else _mark_other(key)


def text_marker() -> Callable[[Any], Any]:
    """Return a function that makes JSON-like values safe to store as variables.

    It accepts strings, numbers, booleans, ``None`` and lists and dictionaries of them, and returns a copy in which
    each string is marked as described in the module docstring. Equal strings come back as one object, because a fleet
    repeats the same few region, type and tag strings thousands of times.
    """
    known: dict[str, Any] = {}

    def mark(value: Any) -> Any:
        kind = type(value)
        if kind is str:
            # Most are new, and an exception for each would take as long as the mark itself.
            marked = known.get(value)
            if marked is None:
                marked = known[value] = _mark_plain(value) if _PLAIN_TEXT(value) else _mark_other(value)
            return marked
        if value is None:
            return None
        if kind is dict:
            return {_key(key): mark(item) for key, item in value.items()}
        if kind is list:
            return [mark(item) for item in value]
        if isinstance(value, (bool, int, float)):
            return value
        raise TypeError(f"expected a value as JSON has them, found {kind.__name__}")

    return mark
