"""Each question about quality to a good engine, and to one that is broken in exactly that way."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.serving.endpoint import Endpoint
from ansible_collections.glm.fleet.plugins.module_utils.serving.quality import KINDS, Asked, run_quality
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from tests.playbooks.verify.fake_engine import KEY, MODEL, Behaviour, engine

GLM = catalog.load().models["GLM-5.1"]
SAMPLING = {
    name: {key: value for key, value in dataclasses.asdict(one).items() if value is not None}
    for name, one in GLM.sampling.items()
}
ALL = [
    "models",
    "sampling_default",
    "sampling_terminal_bench",
    "sampling_tool_use",
    "thinking_interleaved",
    "thinking_preserved",
    "thinking_off",
    "tool_turns",
    "needle",
]


def ask(behaviour: Behaviour | None = None, kinds: tuple[str, ...] = KINDS, **options: Any) -> dict[str, Any]:
    with engine(behaviour) as (_behaviour, port):
        endpoint = Endpoint(
            "127.0.0.1", port, MODEL, KEY, thinking_on=GLM.thinking.on, thinking_off=GLM.thinking.off, timeout=5
        )
        wanted = {"sampling": SAMPLING, "thinking_preserved": GLM.thinking.preserved, **options}
        results = run_quality(Asked(endpoint, kinds, **wanted))
    return {result["check"]: result for result in results}


def failed(results: dict[str, Any]) -> list[str]:
    return [name for name, result in results.items() if result["outcome"] == "failed"]


def test_a_good_engine_passes_every_check() -> None:
    results = ask()
    assert list(results) == ALL and failed(results) == []


def test_the_author_s_parameters_are_sent_with_the_mode_they_are_for() -> None:
    behaviour = Behaviour()
    ask(behaviour, ("sampling",))
    sent = [
        (body["temperature"], body.get("top_p"), body["chat_template_kwargs"].get("clear_thinking"))
        for body in behaviour.requests
    ]
    assert sent == [(1.0, 0.95, None), (0.7, 1.0, False), (0.0, None, False)]


def test_thoughts_that_a_template_drops() -> None:
    results = ask(Behaviour(drops_thoughts=True))
    assert failed(results) == ["thinking_preserved"]
    assert "16 prompt tokens with clear_thinking false, 16 without" in results["thinking_preserved"]["found"]


def test_tool_results_that_a_template_drops() -> None:
    results = ask(Behaviour(drops_tool_results=True))
    assert failed(results) == ["thinking_interleaved", "tool_turns"]
    assert "does not say 37: '42'" in results["tool_turns"]["found"]


def test_a_needle_that_is_not_found() -> None:
    results = ask(Behaviour(misreads_long_prompts=True))
    assert failed(results) == ["needle"] and "attention backend" in results["needle"]["next"]


def test_the_needle_lies_in_the_middle_of_a_text_that_fits_the_context() -> None:
    behaviour = Behaviour(context=10_000)
    assert failed(ask(behaviour, ("needle",))) == []
    (text,) = (body["messages"][0]["content"] for body in behaviour.requests)
    assert 0.5 < text.index("locker is") / len(text) < 0.7 and len(text.splitlines()) < 10_000 / 20


def test_a_model_that_does_not_think_and_one_that_always_does() -> None:
    assert failed(ask(Behaviour(reasons=False))) == ["thinking_interleaved"]
    assert failed(ask(Behaviour(always_thinks=True))) == ["thinking_off"]


def test_no_tool_call_and_markup_in_the_text() -> None:
    results = ask(Behaviour(tool_as_text=True), ("tool_turns",))
    assert failed(results) == ["tool_turns"] and "<tool_call> is in message" in results["tool_turns"]["found"]


def test_after_one_question_without_an_answer_none_is_asked() -> None:
    with engine(Behaviour(hang=True)) as (_behaviour, port):
        endpoint = Endpoint("127.0.0.1", port, MODEL, KEY, timeout=0.3)
        results = run_quality(Asked(endpoint, ("needle", "tool_turns")))
    assert [result["outcome"] for result in results] == ["passed", "failed", "failed"]
    assert results[2]["found"] == "not tried: needle got no answer"


@pytest.mark.parametrize("status", [401, 500])
def test_an_engine_that_refuses_is_quoted_without_the_key(status: int) -> None:
    results = ask(Behaviour(chat_status=status), ("needle",))
    assert f"HTTP {status}" in results["needle"]["found"] and KEY not in str(results)
