# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an engine that serves says of itself, in its log and its metrics, against what the plan promises.

This module util is PRIVATE to the collection. Standard library, Python 3.9 or newer. An endpoint can answer rightly and
be half as fast as planned, or hold a hundredth of the requests: only the engine says so. What its lines and figures
mean is data of the catalogue (``remarks`` in logs.yml, metrics.yml), and the floors are the plan's ``promises``. What
cannot be read is not proven.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Optional

from ansible_collections.glm.fleet.plugins.module_utils.finding import Finding, judged, not_proven
from ansible_collections.glm.fleet.plugins.module_utils.serving import metrics
from ansible_collections.glm.fleet.plugins.module_utils.serving.journal import Runner, read_start
from ansible_collections.glm.fleet.plugins.module_utils.serving.log import Line, attribute
from ansible_collections.glm.fleet.plugins.module_utils.serving.status import read_secrets, redact, show_unit

PHASE = "verify"
# Fewer steps prove nothing: one strange sentence is twenty. The gate's questions make some hundred.
LEAST_STEPS = 50
# An engine that wrote so much without a draft does not draft.
LEAST_TOKENS = 200
# Of many alike, such as one for each shape of a matrix, some are shown.
MOST_SHOWN = 6
_LONGEST = 240
_RANK = re.compile(r"\bDP(\d+)|_DP(\d+)")


@dataclass(frozen=True)
class Promised:
    """What the plan says of the engine, and what the catalogue says of its words.

    ``token_pool``: tokens that the KV cache must hold at least, of the ``planned_pool`` that the plan counts on; None
    where the plan cannot know. ``draft_tokens``: drafts of one step, 0 for none. ``acceptance_length``: least tokens of
    a step; None where nothing is promised. ``options``: the engine's names for ``memory`` and ``speculation``.
    ``begins``: lines (regular expressions) that only a start's beginning has. ``remarks``: ``{kind, pattern, says,
    next}``. ``metrics``: rules of metrics.parse.
    """

    token_pool: Optional[int]
    planned_pool: int
    draft_tokens: int
    acceptance_length: Optional[float]
    options: Mapping[str, str]
    begins: Sequence[str]
    remarks: Sequence[Mapping[str, str]]
    metrics: Sequence[Mapping[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Said:
    """What was read. ``lines``: of the start and since, without secrets; empty: could not be read, ``why`` says why.

    ``before``, ``after``: the metrics (Prometheus' text) before and after the questions; None: could not be read.
    """

    lines: Sequence[Line]
    before: Optional[str]
    after: Optional[str]
    why: str = "no line of this start could be read"


class Remark(NamedTuple):
    """What a line says: ``line`` is its text, ``process`` who wrote it, ``says`` and ``next_step`` are filled in."""

    kind: str
    says: str
    next_step: str
    line: str
    process: str


class Heard(NamedTuple):
    """What was said, judged. ``token_pool``: tokens that the KV cache holds by the engine's own word, 0: not said."""

    findings: list[Finding]
    token_pool: int


def check(
    run: Runner,
    unit: str,
    promised: Mapping[str, Any],
    before: Optional[str],
    after: Optional[str],
    secret_files: Sequence[str] = (),
) -> Heard:
    """The findings ``kv_pool``, ``mtp_acceptance`` and ``engine_log`` of a unit; reads only.

    ``promised``: the fields of Promised. ``before`` and ``after``: the answers of ``/metrics`` before the gate's
    questions and after them. ``secret_files``: the replica's files whose values are struck out of what is quoted.
    """
    lines, why = _lines(run, unit, read_secrets(secret_files))
    return judge(Promised(**promised), Said(lines, before, after, why))


def _lines(run: Runner, unit: str, secrets: Sequence[str]) -> tuple[list[Line], str]:
    try:
        properties = show_unit(run, unit)
    except RuntimeError as error:
        return [], redact(str(error), secrets)
    invocation = properties.get("InvocationID", "")
    if not invocation:
        return [], f"{unit} has not been started since this host booted"
    ready = properties.get("ActiveEnterTimestamp", "") if properties.get("ActiveState") == "active" else ""
    read = read_start(run, invocation, ready)
    # Before anything is shortened: of a secret that is cut in two, a part would be shown.
    return [line._replace(text=redact(line.text, secrets)) for line in read], Said.why


def judge(promised: Promised, said: Said) -> Heard:
    """What was said, judged: one finding for each of the three checks."""
    heard = remarks(said.lines, promised.remarks)
    begins = [re.compile(pattern) for pattern in promised.begins]
    whole = any(line.engine and pattern.search(line.text) for line in said.lines for pattern in begins)
    before, after = (_figures(text, promised.metrics) for text in (said.before, said.after))
    # Each is the engine's own word. Metrics may lack a rank, and the log a process: the larger one is nearer.
    pool = max(_pool_of_log(heard), int((after or before or {}).get("pool_tokens", 0)))
    found = [
        _pool(promised, pool),
        _acceptance(promised, before, after),
        _log(heard, whole, said.why if not said.lines else ""),
    ]
    return Heard(found, pool)


def _figures(text: Optional[str], rules: Sequence[Mapping[str, Any]]) -> Optional[dict[str, float]]:
    if text is None:
        return None
    return {name: value for name, value in metrics.parse(text, rules).items() if math.isfinite(value)}


def remarks(lines: Sequence[Line], rules: Sequence[Mapping[str, str]]) -> list[Remark]:
    """What the lines of an engine say of it, oldest first; the first rule that holds counts."""
    known = [(re.compile(rule["pattern"]), rule) for rule in rules]
    found = []
    for entry in attribute(lines):
        for pattern, rule in known if not entry.frame else ():
            # From the beginning: a request that is logged may quote anything.
            match = pattern.match(entry.text)
            if match:
                # The size of the pool is read off the line and not put into words.
                says = match.group(1) if rule["kind"] == "pool" else match.expand(rule["says"])
                found.append(Remark(rule["kind"], _short(says), match.expand(rule["next"]), entry.text, entry.process))
    return found


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _pool(promised: Promised, pool: int) -> Finding:
    floor = promised.token_pool
    if floor is None:
        return not_proven(PHASE, "kv_pool", "a KV cache as planned", "glm_engine_args set its size in another unit")
    expected = f"a KV cache of {floor:,} tokens or more ({promised.planned_pool:,} are planned)"
    if pool <= 0:
        return not_proven(PHASE, "kv_pool", expected, "neither /metrics nor the log of this start says its size")
    remedy = (
        "look for another process that holds GPU memory (nvidia-smi or rocm-smi names it); without one the engine "
        f"keeps more for activations and graphs than planned: raise {promised.options['memory']} in glm_engine_args, "
        "or lower the tokens of a step"
    )
    return judged(PHASE, "kv_pool", pool >= floor, expected, f"{pool:,} tokens", remedy)


def _pool_of_log(heard: Sequence[Remark]) -> int:
    """Of the ranks together; the last word of each counts, and the processes of one rank share its cache."""
    ranks: dict[str, int] = {}
    for remark in heard:
        digits = remark.says.replace(",", "")
        if remark.kind == "pool" and digits.isdecimal():
            match = _RANK.search(remark.process)
            ranks[match.group(1) or match.group(2) if match else ""] = int(digits)
    return sum(ranks.values())


def _acceptance(
    promised: Promised, before: Optional[Mapping[str, float]], after: Optional[Mapping[str, float]]
) -> Finding:
    floor, check_name = promised.acceptance_length, "mtp_acceptance"
    if floor is None:
        why = "the plan has no speculative decoding with the MTP layer"
        return not_proven(PHASE, check_name, "accepted drafts where the plan has MTP", why)
    expected = f"{floor:g} tokens or more in a step (at most {1 + promised.draft_tokens} are possible)"
    if after is None:
        return not_proven(PHASE, check_name, expected, "/metrics could not be read")
    ok, found = _drafted(promised, floor, before or {}, after)
    if ok is None:
        return not_proven(PHASE, check_name, expected, found)
    remedy = (
        "run the role weights again, so that the MTP layer is of the same commit; then try another glm_engine_version "
        f"or attention backend, and until then set {promised.options['speculation']} to null in glm_engine_args"
    )
    return judged(PHASE, check_name, ok, expected, found, remedy)


def _drafted(
    promised: Promised, floor: float, before: Mapping[str, float], after: Mapping[str, float]
) -> tuple[Optional[bool], str]:
    """Whether enough drafts were accepted (None: not known), and how many."""

    def grown(name: str) -> float:
        return after.get(name, 0.0) - before.get(name, 0.0)

    steps, written = grown("drafts"), grown("generation_tokens")
    if steps < 0 or written < 0:
        return None, "the engine was started again in the meantime"
    if steps >= LEAST_STEPS:
        length = 1 + grown("accepted_tokens") / steps
        return length >= floor, f"{length:.2f} tokens in a step ({steps:,.0f} steps)"
    if any(rule["name"] == "drafts" for rule in promised.metrics):
        if steps == 0 and written >= LEAST_TOKENS:
            return False, f"the engine wrote {written:,.0f} tokens without one draft"
        return None, f"only {steps:,.0f} steps with drafts"
    # A figure of the last steps, with no word of how many: a sound engine shows a sound one before or after.
    length = max(after.get("acceptance_length", 0.0), before.get("acceptance_length", 0.0))
    if length < 1:
        return None, "/metrics shows no drafts"
    return length >= floor, f"{length:.2f} tokens in a step"


def _log(heard: Sequence[Remark], whole: bool, unread: str) -> Finding:
    expected = "no fallback, and nothing switched off, in what the engine says of itself"
    if unread:
        return not_proven(PHASE, "engine_log", expected, unread)
    failed, noted, backends = (_of_kind(heard, kind) for kind in ("failed", "noted", "backend"))
    chosen = [f"it chose {_list(backends)}"] if backends else []
    also = [f"noted: {_list(noted)}"] if noted else []
    evidence = [remark.line[:_LONGEST] for remark in [*failed, *noted][:MOST_SHOWN]]
    advice = "; ".join(dict.fromkeys(remark.next_step for remark in [*failed, *noted] if remark.next_step))
    if failed:
        found = "; ".join([_list(failed), *also, *chosen])
        remedy = "; ".join(dict.fromkeys(remark.next_step for remark in failed))
        return judged(PHASE, "engine_log", False, expected, found, remedy, evidence=evidence)
    if not whole:
        why = "the journal has no longer the beginning of this start"
        return not_proven(PHASE, "engine_log", expected, "; ".join([why, *also, *chosen]))
    found = "; ".join([*also, *chosen]) or "nothing of the kind"
    if advice:
        evidence.append(f"advice: {advice}")
    return judged(PHASE, "engine_log", True, expected, found, evidence=evidence)


def _of_kind(heard: Sequence[Remark], kind: str) -> list[Remark]:
    """One of those that say the same, as each process of an engine does."""
    found: dict[str, Remark] = {}
    for remark in heard:
        if remark.kind == kind:
            found.setdefault(remark.says, remark)
    return list(found.values())


def _list(said: Sequence[Remark]) -> str:
    shown = ", ".join(remark.says for remark in said[:MOST_SHOWN])
    return shown if len(said) <= MOST_SHOWN else f"{shown} and {len(said) - MOST_SHOWN} more"
