# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the options of an engine mean for a plan: each is of one class, whatever its name in a version."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Optional

Class = Literal["owned", "memory", "contract", "start", "free"]


@dataclass(frozen=True)
class Need:
    """What an option needs before the engine starts. With a value in ``without`` it needs nothing."""

    needs: Literal["file", "package", "repository", "host"]
    without: list[str] = field(default_factory=list)

    @classmethod
    def of_text(cls, text: Any) -> Need:
        """The need whose kind the text is, for every value."""
        return cls(text)


@dataclass(frozen=True)
class Numbers:
    """The numbers that mean something: from ``least`` to ``most``, which may be open. ``because``: why no others.

    ``also``: numbers outside of that with a meaning of their own, such as -1. ``whole``: no fractions.
    """

    because: str
    least: float
    most: Optional[float] = None
    also: list[int] = field(default_factory=list)
    whole: bool = True


@dataclass(frozen=True)
class Drafting:
    """Methods of speculation and keys of the mapping that sets it, which engines check only when they start."""

    methods: list[str]
    keys: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Meanings:
    """What each option means, by one of its names; all versions of the engine are covered.

    ``owned``: the plan sets it, what to use instead. ``memory``: changes what GPU or host memory is taken.
    ``contract``: changes what clients may ask. ``start``: needs what the plan does not bring. ``free``: none of these.
    """

    owned: dict[str, str]
    memory: list[str]
    contract: list[str]
    start: dict[str, Need]
    free: list[str]
    # Values with which the endpoint still answers chats, of options that have others.
    chat: dict[str, list[Any]]
    # Values with which code of the weights' repository runs, or a pickle, which may hold any.
    unsafe: dict[str, list[Any]]
    # Options whose value is a mapping (or JSON text of one), and those that take other text as well.
    mappings: list[str]
    mappings_or_text: list[str]
    # Switches without a form for false that the engine sets by itself when they are absent.
    undecided: list[str]
    # Options that a parser lists and refuses, whatever their value: what to do instead.
    retired: dict[str, str]
    # By option; a dotted name reaches into a mapping.
    numbers: dict[str, Numbers]
    # Options that the engine wants all or none of, as long as it drafts with the model's own layer.
    together: list[list[str]]
    drafting: Drafting

    @cached_property
    def classes(self) -> dict[str, Class]:
        """The class of every name."""
        return {name: kind for kind, name in self.rows()}

    def rows(self) -> Iterator[tuple[Class, str]]:
        """Every class with the name of each of its options."""
        yield from (("owned", name) for name in self.owned)
        yield from (("memory", name) for name in self.memory)
        yield from (("contract", name) for name in self.contract)
        yield from (("start", name) for name in self.start)
        yield from (("free", name) for name in self.free)
