# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether an answer is right, and if not, the name of what is wrong with it.

This module util is PRIVATE to the collection. Pure; standard library, Python 3.9 or newer. Everything here raises
CheckError whose text begins with the fault's name, and returns nothing when there is none.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils.serving.client import (
    REASONING_FIELDS,
    Call,
    CheckError,
    Endpoint,
    NotAsked,
    Turn,
)

# What a template or a tokenizer writes for itself. GLM's, those of other families, and marks of byte-level tokens.
_TEMPLATE = re.compile(
    r"<[|\uff5c][^>\s]{1,40}[|\uff5c]>|\[[gs]?MASK\]|<sop>|<eop>|/no_?think\b"
    r"|</?think>|</?tool_(?:calls?|response)>|</?arg_(?:key|value)>|<function="
    r"|</?s>|<(?:unk|pad|eos|bos)>|\[(?:UNK|PAD|/?INST)\]"
    # Half of one, where the text begins or ends.
    r"|^[a-z_]*\|>|<\|[a-z_]+$|</?(?:think|tool_call|arg_key|arg_value)$"
)
# What is left of a role's token that was skipped.
_ROLE = re.compile(r"^(?:user|assistant|observation|system)$", re.MULTILINE)
_REASONING_TOKENS = ("<think>", "</think>")
_BYTE_MARKS = "ĠĊĉ▁"
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_WORD = re.compile(r"[^\W\d_]{4,}")
# Words that a thought about a short question has, beside those of the question.
_THINKING = frozenset(
    [
        "user",
        "question",
        "answer",
        "number",
        "simple",
        "think",
        "asked",
        "asking",
        "should",
        "compute",
        "calculate",
        "tool",
        "call",
    ]
)
# Han and the scripts that are written with it are one: a text in Japanese has three.
_SCRIPTS = {"HIRAGANA": "CJK", "KATAKANA": "CJK", "HANGUL": "CJK", "FULLWIDTH": "LATIN", "BOPOMOFO": "CJK"}
_NEVER_FIRST = tuple("})],;.!?")
THOUGHT = "the reasoning"

KERNEL = (
    "a kernel, the KV cache or the weights are at fault: try another attention or MoE backend, another kv-cache-dtype "
    "or another engine version (glm_engine_args, glm_engine_version), and see the plan's known issues"
)
TEMPLATE = "is it the model's own chat template and generation_config.json? Run the role weights again"


def check_text(text: str, where: str, endpoint: Endpoint) -> None:
    """Faults that no text may have, whatever was asked. ``where``: the content, the reasoning, the arguments."""
    _expect_no_loop(text, where)
    _expect_no_template(text, where, endpoint)
    _expect_no_salad(text, where)


def check_answer(turn: Turn, answer: str, endpoint: Endpoint, anywhere: bool = False) -> None:
    """The content is the answer, once, and the turn ended by itself. ``anywhere``: a number may stand in other text."""
    check_parts(turn, endpoint)
    content = turn.content.strip()
    if not content:
        _say_why_empty(turn, endpoint)
    if turn.finish == "length":
        raise CheckError(f"cut off at max_tokens: {_shown(content)}", f"the answer never ends: {TEMPLATE}")
    if turn.calls:
        raise CheckError(f"wrong tool call: {turn.calls[0].name}, none was asked for", _tool_advice(endpoint))
    if content.startswith(_NEVER_FIRST):
        raise CheckError(f"token salad at the beginning of the content: {_shown(content)}", KERNEL)
    times = _times(content, answer)
    if times > 1:
        often = "twice" if times == 2 else f"{times} times"
        raise CheckError(
            f"the answer {often}: {_shown(content)}", "another engine version, or thinking without a budget"
        )
    if not (answer in content if anywhere else _is_right(content, answer)):
        raise CheckError(f"wrong answer {_shown(content)}, not {answer}", KERNEL)
    if turn.finish != "stop":
        raise CheckError(f"finish_reason {turn.finish or 'missing'} after {_shown(content)}", TEMPLATE)


def check_parts(turn: Turn, endpoint: Endpoint) -> None:
    """Content, reasoning and arguments have no fault that a text can have by itself."""
    for name in REASONING_FIELDS:
        check_text(turn.thought(name), THOUGHT, endpoint)
    check_text(turn.content.strip(), "the content", endpoint)
    for call in turn.calls:
        check_text(call.arguments, "the arguments", endpoint)
        check_text(call.name, "the name of a tool", endpoint)


def check_thought(turn: Turn, ask: str, answer: str, endpoint: Endpoint) -> None:
    """There is reasoning, in the contract's field, and it is about the question."""
    thought = turn.thought(endpoint.reasoning_field)
    if not thought:
        others = [name for name in REASONING_FIELDS if turn.thought(name)]
        raise CheckError(
            f"reasoning: message.{endpoint.reasoning_field} is empty (finish_reason {turn.finish or 'missing'}"
            + (f", the text is in {others[0]})" if others else ")"),
            endpoint.parser_advice("reasoning-parser"),
        )
    if len(thought) >= 16 and thought in turn.content:
        found = f"reasoning: the content has it once more: {_shown(turn.content)}"
        raise CheckError(found, endpoint.parser_advice("reasoning-parser"))
    if len(thought) >= 40 and not _is_about(thought, f"{ask} {answer}"):
        raise CheckError(f"token salad in the reasoning: {_shown(thought)} has nothing of the question", KERNEL)


def check_no_thought(turn: Turn) -> None:
    """No reasoning, in either field."""
    for name in REASONING_FIELDS:
        if turn.thought(name):
            raise CheckError(
                f"reasoning: message.{name} has {len(turn.thought(name))} characters",
                "the chat template ignores enable_thinking: is it the model's own template?",
            )


def check_calls(turn: Turn, question: Mapping[str, Any], tools: Mapping[str, Any], endpoint: Endpoint) -> None:
    """The calls are those of the question, and the turn ended for them.

    Raises NotAsked when the model called one of several tools rightly: it may ask for the rest later.
    """
    wanted: Sequence[Mapping[str, Any]] = question["calls"]
    if not turn.calls:
        _say_why_uncalled(turn, endpoint)
    check_parts(turn, endpoint)
    for call in turn.calls:
        if call.name not in {one["name"] for one in wanted}:
            raise CheckError(f"wrong tool call: {_shown(call.name)}", _tool_advice(endpoint))
    ids = [call.id for call in turn.calls]
    if "" in ids or len(set(ids)) < len(ids):
        found = f"wrong tool call: {len(ids)} with the ids {ids}, which cannot be answered"
        raise CheckError(found, "another engine version, or another --tool-call-parser")
    if len(turn.calls) > len(wanted):
        raise CheckError(f"wrong tool call: {len(turn.calls)} calls instead of {len(wanted)}", _tool_advice(endpoint))
    left = list(wanted)
    for call in turn.calls:
        left.remove(_matching(call, left, tools, endpoint))
    forced = question["choice"] in ("required", "named")
    if turn.finish != "tool_calls" and not (forced and turn.finish == "stop"):
        raise CheckError(f"finish_reason {turn.finish or 'missing'} after a tool call", _tool_advice(endpoint))
    if left:
        raise NotAsked(f"the model made {len(turn.calls)} call at once, not {len(wanted)}")


def _matching(
    call: Call, left: Sequence[Mapping[str, Any]], tools: Mapping[str, Any], endpoint: Endpoint
) -> Mapping[str, Any]:
    """The wanted call that this is; raises CheckError when it is none."""
    advice = "the tool parser reads them wrongly: " + endpoint.parser_advice("tool-call-parser")
    try:
        found = json.loads(call.arguments)
    except (ValueError, RecursionError):
        raise CheckError(f"arguments are not JSON: {_shown(call.arguments)}", advice) from None
    if not isinstance(found, dict):
        raise CheckError(f"arguments are not an object: {_shown(call.arguments)}", advice)
    problems = []
    for one in left:
        if one["name"] == call.name:
            known = tools[call.name]["parameters"].get("properties") or {}
            problem = _misfit(one["arguments"], found, "", known)
            if problem is None:
                return one
            problems.append(problem)
    said = problems[0] if problems else f"of {call.name} come twice"
    raise CheckError(f"arguments {said}: {_shown(call.arguments)}", advice)


def _misfit(wanted: Any, found: Any, path: str, known: Optional[Mapping[str, Any]] = None) -> Optional[str]:
    """How an argument differs from the wanted one, or None."""
    where = path.rstrip(".")
    if isinstance(wanted, dict):
        if not isinstance(found, dict):
            return f"have {where} as {type(found).__name__}, not as an object"
        extra = sorted(set(found) - set(wanted if known is None else known))
        if extra:
            return f"have {extra[0]}, which the tool does not"
        for key, value in wanted.items():
            if key not in found:
                return f"lack {path}{key}"
            problem = _misfit(value, found[key], f"{path}{key}.")
            if problem:
                return problem
        return None
    if isinstance(wanted, list):
        if not isinstance(found, list) or len(found) != len(wanted):
            return f"have {where} as {_shown(json.dumps(found, ensure_ascii=False))}"
        return next((problem for a, b in zip(wanted, found) if (problem := _misfit(a, b, path))), None)
    if isinstance(wanted, str):
        fits = isinstance(found, str) and wanted.casefold() in found.casefold()
    else:
        fits = (
            isinstance(found, (int, float)) and isinstance(found, bool) == isinstance(wanted, bool) and found == wanted
        )
    return (
        None if fits else f"have {where} as {_shown(json.dumps(found, ensure_ascii=False))}, not {json.dumps(wanted)}"
    )


def _say_why_uncalled(turn: Turn, endpoint: Endpoint) -> None:
    content = turn.content.strip()
    check_parts(turn, endpoint)
    if turn.finish == "length":
        raise CheckError("cut off at max_tokens before a tool call", _tool_advice(endpoint))
    unparsed = any(word in content for word in ("tool_call", "get_weather", '"arguments"', '"parameters"'))
    advice = _tool_advice(endpoint) if unparsed else "the model did not call the tool: are these the right weights?"
    raise CheckError(f"no tool call (finish_reason {turn.finish or 'missing'}), text {_shown(content)}", advice)


def _tool_advice(endpoint: Endpoint) -> str:
    return f"{endpoint.parser_advice('tool-call-parser')}, and --enable-auto-tool-choice if it exists"


def _say_why_empty(turn: Turn, endpoint: Endpoint) -> None:
    thought = max((turn.thought(name) for name in REASONING_FIELDS), key=len)
    if thought and turn.finish == "length":
        raise CheckError(
            f"thought until max_tokens ({len(thought)} characters of reasoning), no answer",
            "the reasoning never ends: " + KERNEL,
        )
    if thought:
        raise CheckError(
            f"no text in message.content (finish_reason {turn.finish or 'missing'}), all of it is reasoning",
            f"the answer was taken for reasoning: {endpoint.parser_advice('reasoning-parser')}",
        )
    raise CheckError(f"no text (finish_reason {turn.finish or 'missing'})", "read the unit's journal")


def _expect_no_loop(text: str, where: str) -> None:
    plain = " ".join(text.split())
    if where == THOUGHT:
        # The line of a sum on paper.
        plain = re.sub(r"[-=_*]{4,}", "", plain)
    if len(plain) < 24:
        return
    run = max((match.group() for match in re.finditer(r"(\S{1,12}?)\1{7,}", plain)), key=len, default="")
    if len(run) > len(plain) / 2:
        raise CheckError(
            f"one token repeated in {where}: {_shown(run[:24])} and so on, {len(plain)} characters", KERNEL
        )
    for size in (4, 8, 13, 21, 34, 55, 89, 144):
        if len(plain) < size * 4:
            break
        pieces = Counter(plain[at : at + size] for at in range(len(plain) - size + 1))
        piece, count = pieces.most_common(1)[0]
        # A piece may overlap itself, as "!!!!" does; what it covers is at most the text.
        if count >= 4 and count * size > len(plain) / 2:
            raise CheckError(f"the same words repeated in {where}: {_shown(piece)}, {count} times", KERNEL)


def _expect_no_template(text: str, where: str, endpoint: Endpoint) -> None:
    # A thought may quote how a call is written.
    quotes = tuple("`\"'\u201c") if where == THOUGHT else ()
    found = [match for match in _TEMPLATE.finditer(text) if text[match.start() - 1 : match.start()] not in quotes]
    found += _ROLE.finditer(text) if where == "the content" else []
    if found:
        token = found[0].group()
        option = "reasoning-parser" if token in _REASONING_TOKENS else "tool-call-parser"
        parsed = token in _REASONING_TOKENS or "tool" in token or "arg" in token
        raise CheckError(f"template token {token} in {where}", endpoint.parser_advice(option) if parsed else TEMPLATE)


def _expect_no_salad(text: str, where: str) -> None:
    for character in text:
        odd = character == "\ufffd" or character in _BYTE_MARKS
        if odd or (unicodedata.category(character) in ("Cc", "Co", "Cs") and character not in "\n\t\r"):
            raise CheckError(f"token salad in {where}: {_shown(text)} has U+{ord(character):04X}", KERNEL)
    scripts = Counter(_script(character) for character in text if character.isalpha())
    many = [name for name, count in scripts.most_common() if count >= max(2, 0.03 * sum(scripts.values()))]
    if len(many) >= 3:
        raise CheckError(f"token salad in {where}: {', '.join(map(str.lower, many))} mixed in {_shown(text)}", KERNEL)


def _script(character: str) -> str:
    name = unicodedata.name(character, "UNKNOWN").split()[0].split("-")[0]
    return _SCRIPTS.get(name, name)


def _times(content: str, answer: str) -> int:
    """How often the content says the same, word for word; a number may follow itself without a space."""
    if content == answer * content.count(answer):
        return content.count(answer)
    words = content.split()
    sizes = (size for size in range(1, len(words)) if len(words) % size == 0)
    return next((len(words) // size for size in sizes if words == words[:size] * (len(words) // size)), 1)


def _numbers(text: str) -> list[str]:
    """The numbers of a text as plain digits, however they are grouped: 1,222 and 1 222 and 1{,}222 are 1222."""
    plain = unicodedata.normalize("NFKC", text).replace("{,}", "")
    plain = re.sub(r"(?<=\d) (?=\d{3}\b)", "", plain)
    return [re.sub(r"\.0*$", "", number.replace(",", "")) for number in _NUMBER.findall(plain)]


def _is_right(content: str, answer: str) -> bool:
    if not answer.isdigit():
        return answer.casefold() in unicodedata.normalize("NFC", content).casefold()
    # The way to it may stand before, a proof of it after. A letter just before it is what is left of a garbled token.
    glued = re.search(rf"[A-Za-z]{answer}(?!\d)", content)
    numbers = _numbers(content)
    return answer in (*numbers[:1], *numbers[-1:]) and not glued


def _is_about(thought: str, question: str) -> bool:
    if set(_numbers(thought)) & set(_numbers(question)) or any(_script(letter) == "CJK" for letter in thought):
        return True
    words = {word.casefold() for word in _WORD.findall(thought)}
    return bool(words & ({word.casefold() for word in _WORD.findall(question)} | _THINKING))


def _shown(text: str) -> str:
    plain = " ".join(text.split())
    return repr(plain if len(plain) <= 120 else plain[:117] + "…")
