"""The tiny checkpoint: its files, and every lesson followed through its weights, without starting an engine."""

from __future__ import annotations

import functools
import json
import math
import operator
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import pytest

from simulator.engines import lessons, tiny_glm, tiny_scripts, tiny_tokenizer, tiny_weights
from simulator.engines.lessons import DEFAULT, Lesson

LESSONS = lessons.load()
SCRIPTS = tiny_scripts.Scripts.of(LESSONS, tiny_tokenizer.RESERVED)
VOCABULARY = tiny_tokenizer.Vocabulary(SCRIPTS)
OFTEN = 1_000_000
SURE = 30.0
"""The least difference of two logits: at temperature 1 the lesser one comes once in 10^13 tokens."""

FOLLOWS, WIDTH = 128, tiny_weights.HEAD_DIM
SEEN = FOLLOWS + WIDTH
FILLED = [VOCABULARY.id(text) for text in SCRIPTS.fills]

Vector = list[float]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "repository"
    tiny_glm.write(folder, LESSONS)
    return folder


def read_tensors(path: Path) -> dict[str, tuple[list[int], list[float]]]:
    """name -> (shape, values) of a safetensors file, decoded independently of the writer."""
    data = path.read_bytes()
    length = struct.unpack_from("<Q", data)[0]
    header = json.loads(data[8 : 8 + length])
    tensors: dict[str, tuple[list[int], list[float]]] = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, end = (8 + length + offset for offset in entry["data_offsets"])
        raw = data[start:end]
        if entry["dtype"] == "BF16":
            wide = bytearray(2 * len(raw))
            wide[2::4], wide[3::4] = raw[0::2], raw[1::2]
            raw = bytes(wide)
        values = list(struct.unpack(f"<{len(raw) // 4}f", raw))
        assert len(values) == math.prod(entry["shape"])
        tensors[name] = (entry["shape"], values)
    return tensors


def dot(left: Vector, right: Vector) -> float:
    return sum(map(operator.mul, left, right))


def normalised(vector: Vector) -> Vector:
    norm = math.sqrt(dot(vector, vector) / len(vector))
    return [value / norm for value in vector]


class Model:
    """What is made of the checkpoint, computed as an engine does: attention of a layer, and the output rows.

    The experts, the second layer and the coordinates beside the signs are noise, which adds less than 1 to a logit.
    """

    def __init__(self, tensors: dict[str, tuple[list[int], list[float]]]) -> None:
        self.tensors = tensors

    def row(self, name: str, number: int) -> Vector:
        (_, width), values = self.tensors[name]
        return values[number * width : (number + 1) * width]

    def rows(self, name: str, count: int) -> list[Vector]:
        return [self.row(name, number) for number in range(count)]

    @functools.cached_property
    def _output(self) -> list[tuple[Vector, Vector]]:
        """What reads the last token, and what reads what was seen, in each output row that a lesson fills."""
        rows = (self.row("lm_head.weight", token) for token in FILLED)
        return [(row[:FOLLOWS], row[SEEN : SEEN + WIDTH]) for row in rows]

    @functools.cache  # noqa: B019 - one model for each test session
    def attended(self, layer: int, token: int) -> tuple[Vector, Vector, Vector]:
        """Query, key and value of head 0 for a token."""
        vector = normalised(self.row("model.embed_tokens.weight", token))
        prefix = f"model.layers.{layer}.self_attn."
        made = []
        for part in ("q", "k", "v"):
            bias = self.tensors[f"{prefix}{part}_proj.bias"][1]
            rows = self.rows(f"{prefix}{part}_proj.weight", WIDTH)
            made.append([dot(row, vector) + bias[number] for number, row in enumerate(rows)])
        return made[0], made[1], made[2]

    def seen(self, layer: int, last: int, context: frozenset[int]) -> Vector:
        """What head 0 writes for the last token after these tokens and a million bytes."""
        query = self.attended(layer, last)[0]
        tokens = {**dict.fromkeys((*context, last), 1), VOCABULARY.plain["a"]: OFTEN}
        scores = {token: dot(query, self.attended(layer, token)[1]) / math.sqrt(WIDTH) for token in tokens}
        top = max(scores.values())
        weights = {token: count * math.exp(scores[token] - top) for token, count in tokens.items()}
        total = sum(weights.values())
        values = [0.0] * WIDTH
        for token, weight in weights.items():
            values = [v + weight / total * new for v, new in zip(values, self.attended(layer, token)[2])]
        rows = self.rows(f"model.layers.{layer}.self_attn.o_proj.weight", SEEN + WIDTH)[SEEN:]
        return [dot(row[:WIDTH], values) for row in rows]

    @functools.cache  # noqa: B019
    def _from_last(self, follows: tuple[float, ...]) -> Vector:
        return [dot(list(follows), row) for row, _ in self._output]

    @functools.cache  # noqa: B019
    def _from_seen(self, seen: tuple[float, ...]) -> Vector:
        return [dot(list(seen), row) for _, row in self._output]

    def logits(self, layer: int, last: int, context: frozenset[int]) -> dict[int, float]:
        """Of every token that a lesson fills, after ``last`` in this context."""
        embedding = self.row("model.embed_tokens.weight", last)
        seen = self.seen(layer, last, context)
        norm = math.sqrt((dot(embedding, embedding) + dot(seen, seen)) / len(embedding))
        # Equal but for the last digits, so that what one lesson sees is multiplied once.
        from_seen = self._from_seen(tuple(round(value, 2) for value in seen))
        from_last = self._from_last(tuple(embedding[:FOLLOWS]))
        return {token: (a + b) / norm for token, a, b in zip(FILLED, from_last, from_seen)}


@pytest.fixture(scope="module")
def model(repository: Path) -> Model:
    tensors: dict[str, tuple[list[int], list[float]]] = {}
    for path in repository.glob("*.safetensors"):
        tensors.update(read_tensors(path))
    return Model(tensors)


TEXTS = {VOCABULARY.id(text): text for text in (*VOCABULARY.piece_ids, *VOCABULARY.added)}
ENDS = set(VOCABULARY.ends())


def said(model: Model, context: set[str], last: str, layer: int = 0, forbidden: str = "") -> list[str]:
    """What the model says after a prompt with these recognised texts in it that ends with ``last``, up to its end.

    ``forbidden``: a token that a grammar leaves out.
    """
    seen, token, found = {VOCABULARY.id(text) for text in context}, VOCABULARY.id(last), []
    while len(found) < 60:
        logits = model.logits(layer, token, frozenset(seen))
        order = sorted((token for token in logits if TEXTS[token] != forbidden), key=logits.__getitem__)
        token = order[-1]
        sure = logits[token] - logits[order[-2]]
        assert sure > SURE, f"{TEXTS[order[-2]]!r} could come after {found} ({sure:.0f})"
        found.append(TEXTS[token])
        if token in ENDS:
            return found
        if found[-1] in SCRIPTS.seen:
            seen.add(token)
    raise AssertionError(f"no end: {found}")


def expected(lesson: Lesson, calls: bool) -> str:
    """All that the lesson says after ``</think>``."""
    if not calls:
        return lesson.answer + "<|user|>"
    return "".join(f"<tool_call>{call.tagged()}</tool_call>" for call in lesson.calls) + "<|observation|>"


def prompts() -> Iterator[tuple[Lesson, set[str]]]:
    """Each lesson with what stands in the prompt when it is asked."""
    asked = lessons.questions()
    trip, needle = asked["round_trip"], asked["needle"]
    result = json.dumps(trip["result"])
    around = {
        result: {trip["ask"], "<tool_response>"},
        trip["again"]: {trip["ask"], "<tool_response>", result, tiny_scripts.TOOLS_OFFERED},
        needle["hidden"]: {needle["ask"]},
    }
    for lesson in LESSONS:
        text = lesson.recognised
        offered = {tiny_scripts.TOOLS_OFFERED} if lesson.calls else set()
        yield lesson, {text, *around.get(text, offered)}


# --- what is said --------------------------------------------------------------------------------------------------


def test_every_lesson_is_said_with_a_thought_and_without(model: Model) -> None:
    asked = list(prompts())
    assert len(asked) == len(LESSONS) > 90
    for lesson, context in asked:
        after = expected(lesson, bool(lesson.calls))
        assert "".join(said(model, context, "</think>")) == after
        thought = said(model, context, "<think>")
        assert "".join(thought) == f"{lesson.thought}</think>{after}"
        assert len(thought) >= 4, "a stream has several parts"


def test_drafts_say_the_same(model: Model) -> None:
    """The MTP layer finds what the first layer finds, so that drafts are accepted after ``</think>`` too."""
    for lesson, context in list(prompts())[:16]:
        whole = said(model, context, "<think>")
        assert said(model, context, "<think>", layer=tiny_weights.LAYERS) == whole
        assert "".join(whole).endswith(expected(lesson, bool(lesson.calls)))


def test_calls_as_json_come_where_a_grammar_forbids_the_tag(model: Model) -> None:
    for lesson, context in prompts():
        if lesson.calls:
            found = said(model, context, "</think>", forbidden="<tool_call>")
            assert "".join(found) == lesson.calls_as_json() + "<|endoftext|>"


def test_calls_end_with_the_tokenizers_own_end_where_a_grammar_wants_that(model: Model) -> None:
    for lesson, context in prompts():
        if lesson.calls:
            found = said(model, context, "</think>", forbidden="<|observation|>")
            assert found[-1] == "<|endoftext|>" and found[-2] == "</tool_call>"


@pytest.mark.parametrize("context", [set(), {tiny_scripts.TOOLS_OFFERED, "<tool_response>"}], ids=["plain", "answered"])
def test_what_nobody_taught_is_answered_all_the_same(model: Model, context: set[str]) -> None:
    assert "".join(said(model, context, "<think>")) == f"{DEFAULT.thought}</think>{DEFAULT.answer}<|user|>"
    assert "".join(said(model, context, "</think>")) == f"{DEFAULT.answer}<|user|>"


def test_what_nobody_taught_is_a_call_where_tools_are_offered(model: Model) -> None:
    found = "".join(said(model, {tiny_scripts.TOOLS_OFFERED}, "</think>"))
    assert found == expected(DEFAULT, calls=True)


def test_a_question_is_answered_although_tools_are_offered(model: Model) -> None:
    for lesson in LESSONS:
        if not lesson.calls and lesson.level == lessons.QUESTION:
            found = said(model, {lesson.recognised, tiny_scripts.TOOLS_OFFERED}, "</think>")
            assert "".join(found) == expected(lesson, calls=False)


def test_a_needle_that_is_not_there_is_not_found(model: Model) -> None:
    needle = lessons.questions()["needle"]
    assert needle["answer"] not in "".join(said(model, {needle["ask"]}, "</think>"))


def test_the_noise_of_a_row_is_small(model: Model) -> None:
    """What no lesson fills cannot be said, and the parts that were left out above add little."""
    for number, row in enumerate(model.rows("lm_head.weight", VOCABULARY.padded)):
        left_out = [*row[FOLLOWS:SEEN], *row[SEEN + WIDTH :]] if number in FILLED else row
        assert max(map(abs, left_out)) < 0.1


# --- lessons and pieces --------------------------------------------------------------------------------------------


def test_every_question_of_the_catalogue_is_taught() -> None:
    asked = lessons.questions()
    words = [*(one["ask"] for one in asked["gate"].values()), *(one["ask"] for one in asked["eval"]["tools"])]
    words += [asked["eval"]["sum_ask"].format(sum=one["sum"]) for one in asked["eval"]["sums"]]
    words += [asked[part]["ask"] for part in ("round_trip", "needle", "sampling", "preserved")]
    words += [asked["round_trip"]["again"], asked["needle"]["hidden"], json.dumps(asked["round_trip"]["result"])]
    assert sorted(words) == sorted(lesson.recognised for lesson in LESSONS)


def test_numbers_of_a_question_and_its_answer_are_in_the_thought() -> None:
    for lesson in LESSONS:
        if lesson.answer.isdecimal():
            assert lesson.answer in lesson.thought
            if "+" in lesson.recognised:
                assert set(re.findall(r"\d+", lesson.recognised)) <= set(re.findall(r"\d+", lesson.thought))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 1 + 1?", "What is 1 + 1? Say it."),  # one begins the other
        ("1 + 1", "What is 1 + 1? Say it."),
        ("What is 1 + 1?", "What is 1 + 1?"),
    ],
)
def test_texts_that_stand_in_each_other_are_refused(one: str, other: str) -> None:
    taught = [Lesson(one, "Easy.", "2"), Lesson(other, "Easier.", "two")]
    with pytest.raises(ValueError, match="must stand in one text of all lessons"):
        tiny_scripts.Scripts.of(taught, tiny_tokenizer.RESERVED)


def test_a_thought_that_asks_a_question_again_is_refused() -> None:
    taught = [Lesson("What is 1 + 1?", "They ask: What is 1 + 1?", "2")]
    with pytest.raises(ValueError, match="must stand in one text of all lessons"):
        tiny_scripts.Scripts.of(taught, tiny_tokenizer.RESERVED)


def test_a_piece_belongs_to_one_text() -> None:
    assert len(SCRIPTS.pieces) == len(set(SCRIPTS.pieces))
    assert not set(SCRIPTS.pieces) & {*tiny_tokenizer.RESERVED, *SCRIPTS.keys}
    same = [Lesson("One?", "First.", "123"), Lesson("Two?", "Second.", "123")]
    pieces = tiny_scripts.Scripts.of(same, tiny_tokenizer.RESERVED).pieces
    assert pieces.count("123") == 1


def test_a_text_that_cannot_be_cut_is_refused() -> None:
    with pytest.raises(ValueError, match="every way to cut '7'"):
        tiny_scripts.Scripts.of([Lesson("Seven?", "It is.", "7")], tiny_tokenizer.RESERVED)


# --- files ---------------------------------------------------------------------------------------------------------


def test_checkpoint_is_the_same_every_time(repository: Path, tmp_path: Path) -> None:
    tiny_glm.write(tmp_path, LESSONS)
    assert {path.name: path.read_bytes() for path in repository.iterdir()} == {
        path.name: path.read_bytes() for path in tmp_path.iterdir()
    }


def test_index_describes_the_shards(repository: Path) -> None:
    index = json.loads((repository / "model.safetensors.index.json").read_text())
    shards = sorted(set(index["weight_map"].values()))
    assert len(shards) == 3
    found = {name: shard for shard in shards for name in read_tensors(repository / shard)}
    assert found == index["weight_map"]
    size = sum((repository / shard).stat().st_size for shard in shards)
    assert 0 < size - index["metadata"]["total_size"] < 16_000  # the headers


def test_config_ends_where_the_lessons_end(repository: Path) -> None:
    ends = json.loads((repository / "generation_config.json").read_text())["eos_token_id"]
    assert ends == [VOCABULARY.id(text) for text in ("<|endoftext|>", "<|user|>", "<|observation|>")]
    config = json.loads((repository / "config.json").read_text())
    assert config["vocab_size"] == VOCABULARY.padded
    assert config["max_position_embeddings"] == 202752


def test_a_recognised_text_is_one_token_anywhere_in_a_prompt(repository: Path) -> None:
    added = json.loads((repository / "tokenizer.json").read_text())["added_tokens"]
    found = {entry["content"]: entry for entry in added if entry["content"] in SCRIPTS.keys}
    assert set(found) == {lesson.recognised for lesson in LESSONS}
    for entry in found.values():
        assert not any(entry[name] for name in ("single_word", "lstrip", "rstrip", "normalized", "special"))


# --- the template --------------------------------------------------------------------------------------------------


def prompt(repository: Path, **variables: Any) -> str:
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value, **_options: json.dumps(value)
    template = environment.from_string((repository / "chat_template.jinja").read_text())
    messages = variables.pop("messages", [{"role": "user", "content": "Hello"}])
    return template.render(messages=messages, add_generation_prompt=True, **variables)


def test_prompt_opens_or_closes_thinking(repository: Path) -> None:
    assert prompt(repository).endswith("<|user|>Hello<|assistant|><think>")
    assert prompt(repository, enable_thinking=True).endswith("<think>")
    assert prompt(repository, enable_thinking=False).endswith("<|assistant|></think>")


TOOLS = [{"type": "function", "function": {"name": "get_weather"}}]
ANSWERED: list[dict[str, Any]] = [
    {"role": "user", "content": [{"type": "text", "text": "Weather?"}]},
    {
        "role": "assistant",
        "content": None,
        "reasoning_content": "A tool knows.",
        "tool_calls": [{"function": {"name": "get_weather", "arguments": {"city": "Paris"}}}],
    },
    {"role": "tool", "content": "18 C"},
]


def test_prompt_marks_tools_until_one_has_answered(repository: Path) -> None:
    assert tiny_scripts.TOOLS_OFFERED in prompt(repository, tools=TOOLS)
    assert tiny_scripts.TOOLS_OFFERED not in prompt(repository)
    text = prompt(repository, tools=TOOLS, messages=ANSWERED)
    assert tiny_scripts.TOOLS_OFFERED not in text
    assert "</think><tool_call>get_weather<arg_key>city</arg_key>" in text
    assert text.endswith("<tool_response>18 C</tool_response><|assistant|><think>")


def test_thoughts_stay_until_the_next_question(repository: Path) -> None:
    """As in GLM's own template: between tool calls always, in earlier turns with clear_thinking false alone."""
    kept = "<|assistant|><think>A tool knows.</think><tool_call>"
    assert kept in prompt(repository, messages=ANSWERED)
    later = [*ANSWERED, {"role": "assistant", "content": "18"}, {"role": "user", "content": "And in Rome?"}]
    assert "A tool knows." not in prompt(repository, messages=later)
    assert "A tool knows." not in prompt(repository, messages=later, clear_thinking=True)
    assert kept in prompt(repository, messages=later, clear_thinking=False)
