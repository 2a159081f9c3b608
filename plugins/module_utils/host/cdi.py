# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""CDI specs, as Docker finds them: the one reader of facts and of the guard of a serving unit.

Alone in its file because the role serve copies it beside that guard. A host's Python has no YAML, so the part of YAML
is read that specs are written in: mappings and lists as blocks or in brackets (JSON too), and scalars of one line.
Anything else is refused by name, never skipped.

Sources: cncf-tags/container-device-interface, SPEC.md and pkg/cdi/cache.go (``refresh``); YAML 1.2, chapters 6 to 8.
"""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any, Callable, Optional, Sequence

# In Docker's order: the last folder that names a device wins.
FOLDERS = ("/etc/cdi", "/var/run/cdi")

_BLANKS = re.compile(r"[ \t]*")
_BLANKS_AND_LINES = re.compile(r"(?:[ \t\n]|(?<![^ \t\n])#[^\n]*)*")
_PLAIN = re.compile(r"(?:[^\s:]|:(?=\S)|[ \t]+(?=[^\s#:]|:\S))+")
_PLAIN_IN_FLOW = re.compile(r"(?:[^\s:,\[\]{}]|:(?=[^\s,\[\]{}])|[ \t]+(?=[^\s#:,\[\]{}]))+")
_QUOTED = {'"': re.compile(r'"(?:[^"\\\n]|\\.)*"'), "'": re.compile(r"'(?:[^'\n]|'')*'")}
_WORDS = {
    **dict.fromkeys(("~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_REFUSED = {
    **{"&": "an anchor", "*": "an alias", "!": "a tag", "%": "a directive", "?": "a complex key"},
    **dict.fromkeys("|>", "a block of text"),
    **dict.fromkeys("@`,]}", "a reserved sign"),
}


def read(
    root: Path = Path("/"), folders: Sequence[str] = FOLDERS, parse: Optional[Callable[[str], dict[str, Any]]] = None
) -> tuple[list[dict[str, Any]], list[str]]:
    """Every spec below ``root`` in folder order, and what could not be read, in words that begin with the path.

    A spec is ``path`` with what ``parse`` makes of its text (``parse_spec`` unless given).
    """
    specs, problems = [], []
    for folder in folders:
        for file in sorted((root / folder.lstrip("/")).glob("*")):
            path = f"{folder}/{file.name}"
            if file.suffix not in (".json", ".yaml"):  # Docker reads no others
                continue
            try:
                specs.append({"path": path, **(parse or parse_spec)(file.read_text("utf-8"))})
            except (OSError, ValueError) as error:
                problems.append(f"{path}: {error}")
    return specs, problems


def taken(paths: Sequence[str]) -> tuple[Optional[str], list[str]]:
    """``(path, rivals)`` for the ``paths``, in folder order, of all specs that name one device.

    ``path`` is the spec whose device a container gets. ``rivals`` are files of one folder that both name it: Docker
    then knows no such device, whatever other folders have.
    """
    folders = [path.rpartition("/")[0] for path in paths]
    rivals = [path for path, folder in zip(paths, folders) if folders.count(folder) > 1]
    return (paths[-1] if paths and not rivals else None), rivals


def parse_spec(text: str) -> dict[str, Any]:
    """``{kind, devices, common}`` of one spec. Raises ValueError with what it is not.

    ``devices`` holds for each device name its host paths by container path; ``common`` those that every device brings.
    """
    document = load(text)
    try:
        kind = str(document.get("kind") or "")
        listed = document.get("devices") or []
        devices = {str(device["name"]): host_paths(device) for device in listed}
        common = host_paths(document)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"not the shape of a CDI spec: {error!r}") from None
    if "/" not in kind or not devices:
        raise ValueError("no kind or no devices found in this CDI spec")
    if len(devices) < len(listed):
        raise ValueError("this CDI spec names a device twice")
    return {"kind": kind, "devices": devices, "common": common}


def host_paths(holder: dict[str, Any]) -> dict[str, str]:
    """Host path by container path of the device nodes that a device, or the whole spec, brings."""
    return {str(node["path"]): str(node.get("hostPath") or node["path"]) for node in nodes_of(holder)}


def nodes_of(holder: dict[str, Any]) -> list[dict[str, Any]]:
    """The device nodes that a device, or the whole spec, brings, as the spec has them."""
    return list((holder.get("containerEdits") or {}).get("deviceNodes") or [])


def load(text: str) -> Any:
    """The document in JSON or YAML. Raises ValueError that names the line and what is not read."""
    try:
        if text.lstrip().startswith("{"):
            with contextlib.suppress(ValueError):  # a flow of YAML looks like JSON at first
                return json.loads(text)
        return _Reader(text).document()
    except RecursionError:
        raise ValueError("lists or mappings within too many others are not read here") from None


class _Reader:
    """One document of YAML, read from left to right."""

    def __init__(self, text: str) -> None:
        self.text = text.lstrip("\ufeff").replace("\r\n", "\n")
        self.at = 0

    def document(self) -> Any:
        self._skip()
        if self._starts("---"):
            self.at += 3
            self._skip()
        value = self._node(-1)
        if self._starts("..."):
            self.at += 3
            self._skip()
        if self.at < len(self.text):
            raise self._refused("a second document" if self._starts("---") else "text that belongs to nothing")
        return value

    def _node(self, parent: int, block: bool = True) -> Any:
        """The value that begins here, of something in column ``parent``; ``block``: it may be a block of its own."""
        column = self._column()
        if self._at_end() or column <= parent:
            return None
        start, is_list = self.at, self._starts("-")
        if not is_list:
            value = self._flow()
            self._skip(blanks_only=True)
        if is_list or self._starts(":"):
            if not block:
                raise self._refused("a block on the line of its key")
            self.at = start
            return self._sequence(column) if is_list else self._mapping(column)
        if not re.compile(r"\n|$|(?<=[ \t])#").match(self.text, self.at):
            raise self._refused("text after a value")
        self._skip()
        return value

    def _sequence(self, column: int) -> list[Any]:
        items = []
        while not self._at_end() and self._column() == column and self._starts("-"):
            self.at += 1
            self._skip()
            items.append(self._node(column))
        return items

    def _mapping(self, column: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        while not self._at_end() and self._column() == column and not self._starts("-"):
            key = self._key(values, _PLAIN)
            self._skip(blanks_only=True)
            if not self._starts(":"):
                raise self._refused("a line without a key")
            self.at += 1
            after = self.at
            self._skip()
            below = "\n" in self.text[after : self.at]
            # A list may stand in the column of its key.
            same = below and self._column() == column and self._starts("-")
            values[key] = self._node(column - 1 if same else column, block=below)
        if not self._at_end() and self._column() > column:
            raise self._refused("a line that is indented too far, or a text of several lines,")
        return values

    def _flow(self) -> Any:
        """A scalar, or what stands in brackets or braces; JSON is written so, too."""
        if self._take("["):
            items = []
            while not self._ends("]"):
                items.append(self._in_flow())
                self._comma("]")
            return items
        if not self._take("{"):
            return self._scalar(_PLAIN)
        pairs: dict[str, Any] = {}
        while not self._ends("}"):
            key = self._key(pairs, _PLAIN_IN_FLOW)
            self._skip()
            pairs[key] = self._in_flow() if self._take(":") else None
            self._comma("}")
        return pairs

    def _in_flow(self) -> Any:
        self._skip()
        sign = self.text[self.at : self.at + 1]
        if sign in (",", "}"):
            return None
        return self._flow() if sign in ("[", "{") else self._scalar(_PLAIN_IN_FLOW)

    def _comma(self, closing: str) -> None:
        self._skip()
        if not self._take(",") and not self.text.startswith(closing, self.at):
            raise self._refused(f"a flow without its comma or {closing}")

    def _ends(self, closing: str) -> bool:
        self._skip()
        return self._take(closing)

    def _key(self, known: dict[str, Any], plain: re.Pattern[str]) -> str:
        start = self.at
        value = self._scalar(plain)
        key = value if isinstance(value, str) else self.text[start : self.at]
        if key in known or key == "<<":
            raise self._refused("a duplicate key" if key in known else "a merge key")
        return key

    def _scalar(self, plain: re.Pattern[str]) -> Any:
        sign = self.text[self.at : self.at + 1]
        match = _QUOTED.get(sign, plain).match(self.text, self.at)
        if sign in _REFUSED or not match:
            raise self._refused(_REFUSED.get(sign, "a text that does not end on its line"))
        word = match.group()
        try:
            # The escapes of JSON are the common ones.
            value = json.loads(word) if sign == '"' else word[1:-1].replace("''", "'") if sign == "'" else _plain(word)
        except ValueError:
            raise self._refused("an escape") from None
        self.at = match.end()
        return value

    def _skip(self, blanks_only: bool = False) -> None:
        """To the next sign that is neither blank nor comment."""
        match = (_BLANKS if blanks_only else _BLANKS_AND_LINES).match(self.text, self.at)
        self.at = match.end() if match else self.at

    def _take(self, sign: str) -> bool:
        found = self.text.startswith(sign, self.at)
        self.at += len(sign) if found else 0
        return found

    def _starts(self, mark: str) -> bool:
        """Whether ``mark`` stands here, with a blank or the end of the line after it."""
        end = self.at + len(mark)
        return self.text.startswith(mark, self.at) and not self.text[end : end + 1].strip()

    def _at_end(self) -> bool:
        return self.at >= len(self.text) or (self._column() == 0 and (self._starts("---") or self._starts("...")))

    def _column(self) -> int:
        begin = self.text.rfind("\n", 0, self.at) + 1
        if "\t" in self.text[begin : self.at]:
            raise self._refused("a tab before a value")
        return self.at - begin

    def _refused(self, what: str) -> ValueError:
        line = self.text.count("\n", 0, self.at) + 1
        return ValueError(f"line {line}: {what} is not read here: {self.text[self.at : self.at + 40]!r}")


def _plain(text: str) -> Any:
    """What an unquoted word means: a whole number, nothing, yes or no, or itself."""
    if re.fullmatch(r"[-+]?(?:0|[1-9][0-9]*)", text):
        return int(text)
    return _WORDS.get(text, text)
