# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Repositories beside the model's: draft models, adapters, tokenizers. Hosts fetch and lock them as the weights.

Arguments name them as the hub does, and the plan puts the folder of the locked commit there: engines fetch nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ansible_collections.glm.fleet.plugins.plugin_utils.plan import files, lockfile
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import REPOSITORY, Choice, Intent, PlanError
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import ExtraRepository, Plan

_VARIABLE = "glm_extra_repositories"
_USUAL_REVISION = "main"
# Of a commit in the cache of a host; names of the hub have no two dashes in a row.
_FOLDER = re.compile(r"[^=]*/hub/models--([^/]+?)--([^/]+)/snapshots/[^/]+")


def extra(intent: Intent, lock: lockfile.LockData) -> list[ExtraRepository]:
    """What glm_extra_repositories names, with the commit that the lock file has. Raises PlanError."""
    found: dict[str, ExtraRepository] = {}
    entries: Any = intent.extra_repositories
    if isinstance(entries, str) or not isinstance(entries, Sequence):
        raise PlanError(f"{_VARIABLE}: expected a list, found {entries!r}", f"correct {_VARIABLE}, or leave it empty")
    for entry in entries:
        repository, asked = named(entry)
        if repository in found:
            raise PlanError(f"{_VARIABLE} names {repository} twice", "name it once, at one revision")
        locked = lock["models"].get(lockfile.model_key(repository, asked))
        commit = locked["commit"] if locked else None
        found[repository] = {
            "repository": repository,
            "requested_revision": asked,
            "revision": commit,
            # Where the commit is not known yet, the plan is not served, and shows what was asked for.
            "path": files.snapshot(files.hf_home_inside(intent), repository, commit or asked),
            "bytes": locked.get("bytes") if locked else None,
        }
    return list(found.values())


def require_others(choice: Choice, found: Sequence[ExtraRepository]) -> None:
    """Refuse the model's own repository among them. Raises PlanError."""
    if any(one["repository"] == choice.repository for one in found):
        choice.refuse(
            f"{_VARIABLE} names {choice.repository}, which has the weights of the model", f"remove it from {_VARIABLE}"
        )


def named(entry: Any) -> tuple[str, str]:
    """Repository and revision of ``owner/name`` or ``owner/name@revision``. Raises PlanError."""
    repository, at, revision = str(entry).partition("@")
    if not isinstance(entry, str) or not REPOSITORY.fullmatch(repository) or (at and not _is_revision(revision)):
        raise PlanError(
            f"{_VARIABLE}: expected owner/name or owner/name@revision, found {entry!r}", f"correct {_VARIABLE}"
        )
    return repository, revision or _USUAL_REVISION


def _is_revision(text: str) -> bool:
    return bool(text) and not text.startswith(("-", "/")) and ".." not in text and all(map(_plain, text))


def _plain(character: str) -> bool:
    return character.isascii() and (character.isalnum() or character in "._-/")


def placed(value: Any, found: Sequence[ExtraRepository]) -> Any:
    """``value`` with each name of these repositories replaced by its folder: also ``name=owner/name``, what lies in it
    (``owner/name/folder``), and in JSON text."""

    def folder(text: str) -> str:
        before, equals, name = text.rpartition("=")
        for one in found:
            if name == one["repository"] or name.startswith(f"{one['repository']}/"):
                return f"{before}{equals}{one['path']}{name.removeprefix(one['repository'])}"
        return text

    return _each_text(value, folder)


def by_name(value: Any) -> Any:
    """The inverse, for a recipe that is kept: a folder is of one commit, and of hosts that have it."""
    return _each_text(value, lambda text: _FOLDER.sub(r"\1/\2", text))


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _each_text(inner, change) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_each_text(inner, change) for inner in value]
    if not isinstance(value, str):
        return value
    return _in_json(value, change) if value.lstrip().startswith(("{", "[")) else change(value)


def _in_json(text: str, change: Callable[[str], str]) -> str:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    changed = _each_text(value, change)
    return text if changed == value else json.dumps(changed)


def with_folders(intent: Intent, found: Sequence[ExtraRepository]) -> Intent:
    """The intent whose arguments name folders instead of these repositories."""
    return replace(intent, engine_args=placed(dict(intent.engine_args), found)) if found else intent


def notes(arguments: Mapping[str, Any], found: Sequence[ExtraRepository]) -> list[str]:
    """What a reader should know of them; ``arguments`` are those of the engine, with folders."""
    given = json.dumps(arguments, default=str)
    said = []
    for one in found:
        size = f" ({one['bytes'] / 1e9:,.1f} GB)" if one["bytes"] is not None else ""
        if one["path"] in given:
            said.append(f"The arithmetic counts nothing of {one['repository']}{size} in the memory of the GPUs.")
        else:
            said.append(f"{one['repository']}{size} is fetched, and nothing in glm_engine_args names it.")
    return said


def of_plan(plan: Plan) -> list[tuple[str, str, str | None]]:
    """Repository, revision asked for, and commit of all that a host fetches for a plan, the model first."""
    model = plan["model"]
    return [
        (model["repository"], model["requested_revision"], model["revision"]),
        # Releases of earlier versions name none.
        *(
            (one["repository"], one["requested_revision"], one["revision"])
            for one in plan.get("extra_repositories", [])
        ),
    ]
