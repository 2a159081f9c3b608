# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lines of an engine's log and its metrics mean, out of the catalogue, for the host that reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan


def rules(engine: Optional[Mapping[str, str]]) -> dict[str, list[dict[str, Any]]]:
    """Rules of an engine (``name``, ``version``) as module_utils/serving/causes.py takes them.

    Where it is not known whose lines they are, those of every engine. Raises CatalogError.
    """
    known = catalog.load().engines
    if engine and engine["name"] in known:
        return known[engine["name"]].log_rules(engine["version"])
    each = [entry.log_rules() for entry in known.values()]
    return {kind: [rule for found in each for rule in found[kind]] for kind in each[0]}


def own_words(plan: Plan) -> dict[str, Any]:
    """What the engine of a plan must say of itself, as module_utils/serving/own_words.py takes it.

    Raises CatalogError.
    """
    engine, version = catalog.load().engines[plan["engine"]["name"]], plan["engine"]["version"]
    begins = [rule["pattern"] for rule in engine.log_rules(version)["phases"] if rule["phase"] == "starting the engine"]
    options = {"memory": engine.options.memory_fraction, "speculation": engine.options.speculation}
    return {
        **plan["promises"],
        "planned_pool": plan["memory"]["token_pool"],
        "options": {name: option.removeprefix("--").split(".")[0] for name, option in options.items()},
        "begins": begins,
        "remarks": engine.remark_rules(version),
        "metrics": engine.metric_rules(version),
    }
