# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A list in an answer whose envelope is not published: found by its own name, and refused when it may be a part. Pure.

Nobody says how this API divides long lists, so whatever smells of more is taken for it: a partial list would hide hosts
that cost money. A link to the next page on the same path is followed by the client; anything else is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional

from ansible_collections.glm.fleet.plugins.module_utils.cloud.api import BadAnswer, kind_of

# Where lists are if not under the resource's own name.
GENERIC = ("items", "data", "results", "result", "records", "list", "rows", "content", "elements", "entries", "values")
COMPLAINTS = frozenset({"error", "errors", "failures", "failed"})
NOTES = frozenset({"warning", "warnings", "notice", "notices", "message", "messages", "note", "notes"})
PAGES = frozenset({"pages", "pagecount", "numpages", "lastpage", "maxpage", "pagetotal", "totalpage", "totalpages"})
COUNTS = frozenset({"total", "count", "hits", "found", "remaining", "remainingitems", "remainingitemcount"})
MORE = frozenset(
    {"more", "hasmore", "hasmoreitems", "hasmorepages", "hasmoreresults", "hasnext", "hasnextpage", "moreavailable",
     "moreresults", "truncated", "istruncated", "partial", "ispartial", "incomplete", "isincomplete"}
)  # fmt: skip
LAST = frozenset({"last", "islast", "islastpage", "complete", "iscomplete", "done", "isdone", "finished"})
CONTINUED = frozenset(
    {"after", "cursor", "continue", "continuation", "continuationtoken", "pagetoken", "marker", "scrollid", "bookmark",
     "lastevaluatedkey", "moretoken", "resumetoken"}
)  # fmt: skip
PAGE_SIZES = frozenset({"pagesize", "perpage", "size", "limit", "itemsperpage", "maxresults", "take"})
PLACES = frozenset({"offset", "skip", "start", "startindex"})
PAGE_NUMBERS = frozenset({"page", "pagenumber", "pageno", "currentpage", "pageindex", "pagenum"})


@dataclass
class Page:
    """The ``items`` of one answer, and what it says of others.

    ``next``: a link to the next page. ``total``: the highest number of entries it announces, ``pages`` of pages.
    ``signs``: what else smells of more, as ``key: value``. ``notes``: warnings that came with it.
    """

    items: List[Dict[str, Any]]
    next: Optional[str] = None
    total: int = 0
    pages: int = 1
    signs: List[str] = field(default_factory=list)
    notes: List[str] = field(default_factory=list)


def page_of(what: str, answer: Any, name: str, headers: Mapping[str, str]) -> Page:
    """The page in the answer to ``what``, for a list of resources called ``name`` (such as ``elastic-ips``).

    Raises BadAnswer when it is not clear which list is meant, or when the answer says that something failed.
    """
    holders: List[Mapping[str, Any]] = []
    if isinstance(answer, list):
        page = Page(answer)
    else:
        holders, key = _found(what, answer, name)
        page = Page(holders[-1][key] or [])
        for holder in holders:
            inner = (page.items, *holders[1:])
            _judge_siblings(what, {k: v for k, v in holder.items() if all(v is not part for part in inner)}, key, page)
    _note_signs(_paging_headers(headers), page)
    for holder in holders:
        _note_signs({k: v for k, v in holder.items() if v is not page.items}, page)
    return page


def refuse_more(what: str, page: Page, held: int, pages: int) -> None:
    """Raises BadAnswer unless ``held`` entries of ``pages`` pages are all that the last page announces."""
    signs = list(page.signs)
    if page.next:
        signs.append(f"next: {page.next}")
    if page.pages > pages:
        signs.append(f"{page.pages} pages")
    if page.total > held:
        signs.insert(0, f"{held} of {page.total} entries came back")
    if signs:
        raise BadAnswer(
            f"{what}: this may be a part of the list ({'; '.join(signs[:4])}). How this API gives the rest is not "
            "documented, and a partial list could hide hosts; please report this answer's shape."
        )


def _plain(key: str) -> str:
    return re.sub(r"[^a-z0-9]", "", key.lower())


def _found(what: str, answer: Mapping[str, Any], name: str) -> tuple[List[Mapping[str, Any]], str]:
    """The objects from the answer down to the one with the list, and the key of the list there."""
    paths = [[answer], *([answer, inner] for inner in answer.values() if isinstance(inner, dict))]
    own = _plain(name)
    single = own[:-1] if own.endswith("s") else own
    for wanted in (lambda key: key == own, lambda key: single in key, lambda key: key in GENERIC):
        found = [
            (path, key)
            for path in paths
            for key, value in path[-1].items()
            if wanted(_plain(key))
            and not _about_trouble(_plain(key))
            # Go writes an empty list as null.
            and (isinstance(value, list) or (value is None and _plain(key) == own))
        ]
        if len(found) == 1:
            return found[0]
        if found:
            keys = ", ".join(sorted(key for _path, key in found))
            raise BadAnswer(f"{what}: expected one list of {name}, found several: {keys}.")
    raise BadAnswer(f"{what}: expected a list, or an object with one under {name}, found {_keys(answer)}.")


def _about_trouble(plain: str) -> bool:
    return any(word in plain for word in ("error", "warn", "fail"))


def _keys(answer: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} ({kind_of(value)})" for key, value in list(answer.items())[:8]) or "an empty object"


def _judge_siblings(what: str, siblings: Mapping[str, Any], found: str, page: Page) -> None:
    """What stands beside the list: complaints and a second list are refused, warnings are kept to be said."""
    for key, value in siblings.items():
        plain = _plain(key)
        if not _says_something(value):
            continue
        if plain in COMPLAINTS or (isinstance(value, list) and "error" in plain):
            raise BadAnswer(f"{what}: the answer has {found}, but also {key}: {str(value)[:300]}")
        if plain in NOTES:
            if not (isinstance(value, str) and value.lower() in ("ok", "success", "successful")):
                page.notes.append(f"{key}: {str(value)[:300]}")
        elif isinstance(value, list):
            raise BadAnswer(f"{what}: the answer has a second list beside {found}: {key}. Which is meant is not clear.")


def _says_something(value: Any) -> bool:
    """Whether there is anything in a value but emptiness and zeros."""
    if isinstance(value, dict):
        return any(map(_says_something, value.values()))
    return bool(value)


def _note_signs(siblings: Mapping[str, Any], page: Page) -> None:
    entries = [(key, _plain(key), value) for key, value in _scalars(siblings)]
    for key, plain, value in entries:
        number = _whole_number(value)
        if plain in PAGES and number is not None:
            page.pages = max(page.pages, number)
        elif number is not None and (plain in COUNTS or (_counts(plain) and "page" not in plain)):
            page.total = max(page.total, number + (len(page.items) if plain.startswith("remaining") else 0))
        elif "next" in plain or plain.endswith("cursor") or plain in CONTINUED:
            _note_next(key, value, page)
        elif _not_all(plain, value, number):
            page.signs.append(f"{key}: {value}")
    # As many as fit on a page, and nobody says how many there are.
    for key, plain, value in entries:
        if plain in PAGE_SIZES and page.items and _whole_number(value) == len(page.items) and not page.total:
            page.signs.append(f"{key}: {value}, as many as came back")


def _not_all(plain: str, value: Any, number: Optional[int]) -> bool:
    """Whether a flag or a position says that this is not the whole list, or not its beginning."""
    if plain in MORE:
        return _true(value)
    if plain in LAST:
        return _false(value)
    return bool(number) and (plain in PLACES or (plain in PAGE_NUMBERS and (number or 0) > 1))


def _counts(plain: str) -> bool:
    return plain.startswith(("total", "num", "count")) or plain.endswith(("count", "total"))


def _note_next(key: str, value: Any, page: Page) -> None:
    if not _true(value):
        return
    if isinstance(value, str) and re.match(r"(https?://|/|\?)", value):
        page.next = value
    else:
        page.signs.append(f"{key}: {value}")


def _scalars(mapping: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The keys of an object and of the objects in it, with values that are no objects and no lists."""
    for key, value in mapping.items():
        if isinstance(value, dict):
            # {"links": {"next": {"href": ...}}}
            href = value.get("href")
            yield from _scalars({key: href} if isinstance(href, str) else value)
        elif not isinstance(value, list):
            yield key, value


def _whole_number(value: Any) -> Optional[int]:
    if isinstance(value, str) and re.fullmatch(r"\d{1,9}", value):
        return int(value)
    return int(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _true(value: Any) -> bool:
    return bool(value) and str(value).strip().lower() not in ("", "false", "0", "no", "null", "none")


def _false(value: Any) -> bool:
    return value is not None and not _true(value)


def _paging_headers(headers: Mapping[str, str]) -> Dict[str, Any]:
    """What headers say of more pages, under the names that bodies would use."""
    said: Dict[str, Any] = {}
    for key, value in headers.items():
        lower = key.lower()
        if lower == "link":
            found = re.search(r"<([^>]*)>[^,]*\brel=\"?next\b", value)
            said["next"] = found[1] if found else None
        elif lower == "content-range":
            said["total"] = value.rpartition("/")[2]
        elif re.match(r"x-.*(total|page|count|more|next|cursor)", lower):
            said[lower.removeprefix("x-").removeprefix("pagination-")] = value
    return said
