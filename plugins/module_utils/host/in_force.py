# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the settings that the collection wrote are in force: a file that is read later may say otherwise.

What is compared is what our own files say, so that nothing here repeats a role's variables. Files of the vendor and of
the user are never written: a difference is a finding that names the file that wins. Settings that only add to others
(apt preferences, modules to load, a blacklist) cannot be taken back by a later file and are not looked at.

This module util is PRIVATE to the collection.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from ansible_collections.glm.fleet.plugins.module_utils.finding import Finding, judged, unread
from ansible_collections.glm.fleet.plugins.module_utils.host.commands import run

PHASE = "settings"
_OURS = "60-glm-fleet.conf"
# In the order in which a file takes the place of one of the same name (systemd.syntax(7), modprobe.d(5)).
_FOLDERS = ("etc", "run", "usr/local/lib", "usr/lib", "lib")
_APT = "etc/apt/apt.conf.d"
_APT_OURS = re.compile(r"60glm-fleet\S*")
_APT_DUMP_SECONDS = 20.0
_APT_VARIABLES = {
    "Acquire": "glm_proxy and glm_no_proxy",
    "DPkg": "gpu_base_apt_lock_timeout",
    "Unattended-Upgrade": "gpu_base_hold_back",
}


@dataclass(frozen=True)
class _Line:
    """One setting in one file."""

    key: str
    value: str
    path: str


_Parsed = Iterator[tuple[str, str]]


def look(root: Path, kernel: bool = True) -> list[Finding]:
    """A finding for each setting of ours that is not in force, or of which that cannot be read.

    ``kernel``: whether the kernel is the host's own; a container's is that of another machine, and was not set.
    """
    found: list[Finding] = []
    if kernel:
        found += _compare(root, "sysctl.d", _sysctl, "gpu_base_sysctl", lambda key: _sysctl_now(root, key))
        found += _compare(
            root, "tmpfiles.d", _tmpfiles, "gpu_base_transparent_huge_pages", lambda key: _mode(root, key)
        )
        found += _compare(root, "modprobe.d", _modprobe, "gpu_base_disable_nouveau")
    found += _compare(root, "systemd/journald.conf.d", _journald, "gpu_base_journald", main="systemd/journald.conf")
    found += _limits(root)
    found += _apt(root)
    found += _needrestart(root)
    return found


def _compare(
    root: Path,
    folder: str,
    parse: Callable[[str], _Parsed],
    variable: str,
    now: Optional[Callable[[str], str]] = None,
    main: str = "",
) -> Iterator[Finding]:
    """Each setting of our file in ``folder`` beside the last one that is read, and beside what counts ``now``.

    ``now`` may raise OSError. Both are looked at: what is set now may be another value from the next boot on.
    """
    ours = f"/etc/{folder}/{_OURS}"
    try:
        lines = [line for path in _read_order(root, folder, main) for line in _parsed(root, path, parse)]
    except OSError as exc:
        yield _unread(folder, f"the files of {folder}", exc)
        return
    for line in [line for line in lines if line.path == ours]:
        # By its whole name: a pattern never takes the place of that (sysctl.d(5)).
        last = [other for other in lines if other.key == line.key][-1]
        found = []
        try:
            current = line.value if now is None else now(line.key)
        except OSError as exc:
            yield _unread(line.key, f"{line.key} = {line.value}, as {ours} says", exc)
            continue
        if current != line.value:
            found.append(f"{current} now")
        if last.value != line.value:
            found.append(f"{last.value} in {last.path}, which is read later and wins")
        if found:
            yield _differs(line, ours, "; ".join(found), last.path if last.value != line.value else "", variable)


def _differs(line: _Line, ours: str, found: str, winner: str, variable: str) -> Finding:
    choose = f"take it out of {winner}, or set {variable} to the value that you want"
    by_hand = f"look for what changed it since {ours} was applied, or boot the host"
    expected = f"{line.key} = {line.value}, as {ours} says"
    return judged(PHASE, line.key, None, expected, found, choose if winner else by_hand)


def _unread(check: str, expected: str, error: OSError) -> Finding:
    return unread(PHASE, check, expected, f"nothing that can be read: {error}", "look at it on the host")


def _read_order(root: Path, folder: str, main: str) -> list[str]:
    """Paths of the files that count, in the order in which they are read. Raises OSError."""
    first: dict[str, str] = {}
    for above in _FOLDERS:
        for name in _names(root / above / folder):
            if name.endswith(".conf"):
                first.setdefault(name, f"/{above}/{folder}/{name}")
    heads = [f"/{above}/{main}" for above in _FOLDERS if main and (root / above / main).is_file()]
    return heads[:1] + [first[name] for name in sorted(first)]


def _names(folder: Path) -> list[str]:
    """Names in a folder; none where it does not exist. Raises OSError: what cannot be listed is not empty."""
    try:
        return sorted(entry.name for entry in folder.iterdir())
    except FileNotFoundError:
        return []


def _parsed(root: Path, path: str, parse: Callable[[str], _Parsed]) -> Iterator[_Line]:
    text = _text(root, path)
    yield from (_Line(key, value, path) for key, value in parse(text))


def _text(root: Path, path: str) -> str:
    """The content of a file; none of one that is masked by a link to nowhere. Raises OSError."""
    try:
        return (root / path.lstrip("/")).read_text("utf-8", "replace")
    except FileNotFoundError:
        return ""


def _without_comments(text: str, marks: str = "#;") -> Iterator[str]:
    for line in text.splitlines():
        if (stripped := line.strip()) and stripped[0] not in marks:
            yield stripped


# What files say ---------------------------------------------------------------------------------------------------


def _sysctl(text: str) -> _Parsed:
    for line in _without_comments(text):
        key, equals, value = line.partition("=")
        if equals:
            yield _sysctl_key(key.strip().lstrip("-")), " ".join(value.split())


def _sysctl_key(key: str) -> str:
    """With dots between the parts: whichever of dot and slash comes first is the separator (sysctl.d(5))."""
    slash, dot = key.find("/"), key.find(".")
    return key.translate(str.maketrans("/.", "./")) if slash >= 0 and (dot < 0 or slash < dot) else key


def _sysctl_now(root: Path, key: str) -> str:
    path = "proc/sys/" + key.translate(str.maketrans("/.", "./"))
    return " ".join((root / path).read_text("utf-8").split())


def _tmpfiles(text: str) -> _Parsed:
    for line in _without_comments(text):
        words = line.split(None, 6)
        if words[0].startswith("w") and len(words) == 7:
            yield words[1], words[6]


def _mode(root: Path, key: str) -> str:
    """What stands in brackets: ``always [madvise] never``."""
    said = (root / key.lstrip("/")).read_text("utf-8").strip()
    chosen = re.search(r"\[(\w+)\]", said)
    return chosen[1] if chosen else said


def _modprobe(text: str) -> _Parsed:
    for line in _without_comments(text):
        words = line.split()
        if words[0] == "options":
            for option in words[2:]:
                name, _equals, value = option.partition("=")
                yield f"{words[1]} {name}", value


def _journald(text: str) -> _Parsed:
    for line in _without_comments(text):
        key, equals, value = line.partition("=")
        if equals:
            yield key.strip(), value.strip()


# What is read in ways of its own ----------------------------------------------------------------------------------


def _limits(root: Path) -> Iterator[Finding]:
    """Of everybody and of root: limits.conf, then limits.d, the last line for the same counts (limits.conf(5))."""
    ours = f"/etc/security/limits.d/{_OURS}"
    try:
        names = [name for name in _names(root / "etc/security/limits.d") if name.endswith(".conf")]
        paths = ["/etc/security/limits.conf", *(f"/etc/security/limits.d/{name}" for name in names)]
        lines = [line for path in paths for line in _parsed(root, path, _limit_lines)]
    except OSError as exc:
        yield _unread("limits", "the limits of logins", exc)
        return
    for line in [line for line in lines if line.path == ours]:
        last = [other for other in lines if other.key == line.key][-1]
        if last.value != line.value:
            found = f"{last.value} in {last.path}, which is read later and wins"
            yield _differs(line, ours, found, last.path, "gpu_base_limits")


def _limit_lines(text: str) -> _Parsed:
    for line in _without_comments(text, "#"):
        words = line.split()
        if len(words) >= 4:
            for kind in ("soft", "hard") if words[1] == "-" else (words[1],):
                yield f"{words[0]} {kind} {words[2]}", words[3]


def _apt(root: Path) -> Iterator[Finding]:
    """Our files beside what apt makes of all of them."""
    try:
        names = _names(root / _APT)
        own = {name: _apt_lines(_text(root, f"{_APT}/{name}")) for name in names if _APT_OURS.fullmatch(name)}
        if not own:
            return
        asked = run(("apt-config", "dump"), _APT_DUMP_SECONDS)
        if not asked.ok:
            raise OSError(f"apt-config dump: {asked.evidence()}")
        # In the letters of whichever file has a key first: apt knows no difference.
        merged = {(key.lower(), said) for key, said in _APT_LINE.findall(asked.stdout)}
        for name, lines in own.items():
            for key, value in lines:
                if (key.lower(), value) in merged:
                    continue
                found = ", ".join(said for known, said in merged if known == key.lower()) or "none"
                winner = _mentions(root, names[names.index(name) + 1 :], key.rstrip(":").rpartition("::")[2])
                line = _Line(key.rstrip(":"), value, f"/{_APT}/{name}")
                said = f"{found}{f', by {winner}, which is read later' if winner else ''}"
                yield _differs(line, line.path, said, winner, _APT_VARIABLES[line.key.partition("::")[0]])
    except OSError as exc:
        yield _unread("apt", f"the settings of /{_APT} in force", exc)


_APT_LINE = re.compile(r'^(\S+) "(.*)";$', re.MULTILINE)


def _apt_lines(text: str) -> list[tuple[str, str]]:
    """Keys and values of one of our files, in the form of ``apt-config dump``, where ``::`` ends a list's name."""
    found, block = [], ""
    for line in _without_comments(text, "/*"):
        if line.endswith("{"):
            block = line[:-1].strip()
        elif line.startswith("}"):
            block = ""
        elif block:
            found.append((f"{block}::", line.strip('";')))
        elif match := _APT_LINE.match(line):
            found.append((match[1], match[2]))
    return found


def _mentions(root: Path, later: list[str], word: str) -> str:
    """The last of the files that has the word; empty where none has."""
    paths = [*(f"/{_APT}/{name}" for name in later), "/etc/apt/apt.conf"]
    return next((path for path in reversed(paths) if word.lower() in _text(root, path).lower()), "")


def _needrestart(root: Path) -> Iterator[Finding]:
    """Its files are a program: one that touches the same table after ours may have changed what ours says."""
    folder = "etc/needrestart/conf.d"
    try:
        names = _names(root / folder)
        later = [f"/{folder}/{name}" for name in names if _OURS in names and name > _OURS]
        for path in later:
            if any("override_rc" in line for line in _without_comments(_text(root, path), "#")):
                expected = f"services that needrestart leaves alone, as /{folder}/{_OURS} says"
                found = f"{path}, which is read later and changes the same table"
                yield judged(PHASE, "needrestart", None, expected, found, f"compare {path} with it")
    except OSError as exc:
        yield _unread("needrestart", "what needrestart leaves alone", exc)
