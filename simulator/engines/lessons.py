"""What the tiny checkpoint is taught: which text in a prompt is answered by which thought, answer and tool calls.

``of`` makes the lessons out of the questions that ``verify`` asks: ``catalog/questions.yml``, read as data, so that
nothing of the product is imported. Whatever else is asked gets the text of ``DEFAULT``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

QUESTIONS = Path(__file__).resolve().parents[2] / "catalog/questions.yml"

# Of several texts that are recognised in a prompt, those of the highest level decide.
QUESTION = 2
ANYTHING_FOUND = 3
FOUND = 4
LATER_QUESTION = 5


@dataclass(frozen=True)
class Call:
    """A tool call."""

    name: str
    arguments: Mapping[str, Any]

    def tagged(self) -> str:
        """As GLM writes it between ``<tool_call>`` and ``</tool_call>``."""
        pairs = (
            f"<arg_key>{key}</arg_key><arg_value>{value if isinstance(value, str) else json.dumps(value)}</arg_value>"
            for key, value in self.arguments.items()
        )
        return self.name + "".join(pairs)


@dataclass(frozen=True)
class Lesson:
    """Where ``recognised`` stands in the prompt, the model thinks ``thought``, then calls, or answers without calls."""

    recognised: str
    thought: str
    answer: str = ""
    calls: tuple[Call, ...] = ()
    level: int = QUESTION

    def calls_as_json(self) -> str:
        """The calls as an engine wants them that constrains a required call to JSON."""
        return json.dumps([{"name": call.name, "parameters": call.arguments} for call in self.calls])


DEFAULT = Lesson(
    recognised="",
    thought="Only a rehearsal, so any reply will do.",
    answer="Hello from the tiny stand-in model.",
    calls=(Call("get_weather", {"city": "Paris"}),),
    level=0,
)
"""For everything that nobody taught; it calls only where tools are offered."""


def questions(path: Path = QUESTIONS) -> dict[str, Any]:
    """A file of questions."""
    import yaml  # here alone: the rest of the checkpoint is the standard library's

    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def load() -> list[Lesson]:
    """The lessons of the product's own questions."""
    return of(questions())


def of(asked: Mapping[str, Any]) -> list[Lesson]:
    """The lessons of questions, each once."""
    found = [*(_lesson(asked) for asked in _alone(asked)), *_round_trip(asked["round_trip"])]
    return [*found, *_needle(asked["needle"]), _lesson(asked["preserved"], level=LATER_QUESTION)]


def _alone(asked: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The questions that are asked without anything before or after them."""
    evaluated = asked["eval"]
    yield from asked["gate"].values()
    yield asked["sampling"]
    for item in evaluated["sums"]:
        yield {"ask": evaluated["sum_ask"].format(sum=item["sum"]), "answer": item["answer"]}
    yield from evaluated["tools"]


def _lesson(asked: Mapping[str, Any], level: int = QUESTION) -> Lesson:
    calls = tuple(Call(call["name"], call["arguments"]) for call in asked.get("calls", ()))
    if calls:
        names = " and ".join(dict.fromkeys(call.name for call in calls))
        return Lesson(asked["ask"], _thought(asked["ask"], f"the tool {names} does that."), calls=calls, level=level)
    answer = _answer(asked["answer"])
    return Lesson(asked["ask"], _thought(asked["ask"], f"so it is {asked['answer']}."), answer, level=level)


def _round_trip(asked: Mapping[str, Any]) -> Iterator[Lesson]:
    call = {"name": asked["tool"], "arguments": asked["arguments"]}
    answer = _answer(asked["answer"])
    yield _lesson({"ask": asked["ask"], "calls": [call]})
    yield Lesson(
        json.dumps(asked["result"]), _thought(asked["ask"], f"the tool says {asked['answer']}."), answer, level=FOUND
    )
    yield Lesson(
        asked["again"], _thought(asked["again"], f"the tool said {asked['answer']}."), answer, level=LATER_QUESTION
    )


def _needle(asked: Mapping[str, Any]) -> Iterator[Lesson]:
    """The hidden text answers the question, which has no other answer."""
    yield Lesson(asked["ask"], _thought(asked["ask"], "the text does not say it."), "The text does not say that.")
    thought = _thought(asked["ask"], f"the text says {asked['answer']}.")
    yield Lesson(asked["hidden"], thought, _answer(asked["answer"]), level=FOUND)


def _answer(wanted: str) -> str:
    """A number alone, anything else in a sentence."""
    return wanted if wanted.isdecimal() else f"The answer is {wanted}."


def _thought(ask: str, conclusion: str) -> str:
    """It names what was asked, but never with all its words: a thought that stays in a prompt is not the question."""
    first = re.split(r"(?<=[.?]) ", ask)[0].rstrip(".?")
    return f"The question is: {first}; {conclusion}"
