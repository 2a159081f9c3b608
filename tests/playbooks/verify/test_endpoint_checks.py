"""Each check against a good engine and against one that is bad in exactly that way."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.serving.endpoint import Endpoint, run_checks
from tests.playbooks.verify.fake_engine import KEY, MODEL, Behaviour, engine

OFF = {"chat_template_kwargs": {"enable_thinking": False}}
ALL = ["health", "models", "key_missing", "key_wrong", "chat", "thinking_on", "thinking_off", "tool_call"]


def check(behaviour: Behaviour | None = None, **options: Any) -> dict[str, dict[str, Any]]:
    with engine(behaviour) as (_behaviour, port):
        wanted = {"api_key": KEY, "thinking_off": OFF, "timeout": 5, **options}
        results = run_checks(Endpoint(address="127.0.0.1", port=port, model=MODEL, **wanted))
    return {result["check"]: result for result in results}


def failed(results: dict[str, dict[str, Any]]) -> list[str]:
    return [name for name, result in results.items() if result["outcome"] == "failed"]


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_a_good_engine_passes_every_check(field: str) -> None:
    results = check(Behaviour(reasoning_field=field), reasoning_field=field)
    assert list(results) == ALL and failed(results) == []
    assert all(
        set(r) == {"phase", "check", "outcome", "expected", "found", "next", "seconds"} for r in results.values()
    )
    assert results["tool_call"]["found"] == 'get_weather({"city": "Paris"})'


def test_health_alone_proves_nothing() -> None:
    results = check(Behaviour(chat_status=500))
    assert results["health"]["outcome"] == "passed" and results["models"]["outcome"] == "passed"
    assert failed(results) == ["chat", "thinking_on", "thinking_off", "tool_call"]
    assert "HTTP 500" in results["chat"]["found"] and "believe the chat" in results["chat"]["found"]
    assert KEY not in str(results)


def test_a_wrong_name_is_shown_with_the_right_one() -> None:
    results = check(Behaviour(model="llama"))
    assert failed(results) == ["models"]
    assert "llama" in results["models"]["found"] and MODEL in results["models"]["expected"]


def test_an_engine_without_a_key_is_caught_by_both_key_checks() -> None:
    results = check(Behaviour(key_required=False))
    assert failed(results) == ["key_missing", "key_wrong"]
    assert "HTTP 200 for /v1/models with no key" in results["key_missing"]["found"]


def test_the_wrong_key_on_our_side_is_named_as_such() -> None:
    results = check(api_key="glm-another-key")
    assert "models" in failed(results) and "401" in results["models"]["found"]
    assert "key" in results["models"]["next"]


def test_without_a_key_its_checks_are_left_out() -> None:
    results = check(Behaviour(key_required=False), api_key=None)
    assert failed(results) == [] and "key_missing" not in results


def test_reasoning_in_the_other_field_is_found_there() -> None:
    results = check(Behaviour(reasoning_field="reasoning_content"))
    assert failed(results) == ["thinking_on"]
    assert "the text is in reasoning_content" in results["thinking_on"]["found"]


def test_no_reasoning_at_all() -> None:
    results = check(Behaviour(reasons=False))
    assert failed(results) == ["thinking_on"] and "is empty" in results["thinking_on"]["found"]


def test_reasoning_left_in_the_text_means_no_parser() -> None:
    results = check(Behaviour(think_in_content=True))
    assert failed(results) == ["thinking_on"]
    assert "--reasoning-parser" in results["thinking_on"]["next"]


def test_advice_names_the_plan_s_own_parsers() -> None:
    parsers = {"reasoning_parser": "glm47", "tool_parser": "glm52"}
    assert check(Behaviour(reasons=False), **parsers)["thinking_on"]["next"].endswith("--reasoning-parser glm47")
    assert "--reasoning-parser glm47" in check(Behaviour(think_in_content=True), **parsers)["thinking_on"]["next"]
    assert "--tool-call-parser glm52" in check(Behaviour(tool_as_text=True), **parsers)["tool_call"]["next"]
    assert "glm45" not in str(check(Behaviour(reasons=False)))


def test_what_a_hostile_engine_says_is_no_command_for_a_terminal() -> None:
    hostile = "\x1b]0;owned\x07\x1b[2J\u202e\x9b31m"
    for behaviour in (Behaviour(model=hostile), Behaviour(tool_arguments=hostile), Behaviour(tool_finish=hostile)):
        results = check(behaviour)
        assert failed(results)
        assert all(text.isprintable() for one in results.values() for text in one.values() if isinstance(text, str))


def test_thinking_that_cannot_be_turned_off_fails_where_the_contract_wants_it_off() -> None:
    assert failed(check(Behaviour(always_thinks=True))) == ["thinking_off"]


def test_a_model_that_always_thinks_is_not_asked_to_stop() -> None:
    results = check(Behaviour(always_thinks=True), thinking_off=None)
    assert failed(results) == [] and "thinking_off" not in results


def test_a_tool_call_left_as_text_means_no_tool_parser() -> None:
    results = check(Behaviour(tool_as_text=True))
    assert failed(results) == ["tool_call"]
    assert "<tool_call>" in results["tool_call"]["found"] and "--tool-call-parser" in results["tool_call"]["next"]


@pytest.mark.parametrize("arguments", ["Paris", "[]", '{"town": "Paris"}', '{"city": 75}'])
def test_tool_arguments_must_be_json_that_fits_the_schema(arguments: str) -> None:
    assert failed(check(Behaviour(tool_arguments=arguments))) == ["tool_call"]


def test_a_tool_call_must_end_the_turn() -> None:
    results = check(Behaviour(tool_finish="stop"))
    assert failed(results) == ["tool_call"] and "finish_reason stop" in results["tool_call"]["found"]


def test_tool_calls_are_not_asked_for_where_the_contract_has_none() -> None:
    assert "tool_call" not in check(tool_call=False)


def test_an_empty_answer_is_no_answer() -> None:
    results = check(Behaviour(empty_content=True))
    assert {"chat", "thinking_off"} <= set(failed(results))


def test_something_else_on_the_port() -> None:
    results = check(Behaviour(garbage=True))
    assert {"models", "chat", "tool_call"} <= set(failed(results))


def test_a_hang_costs_one_timeout_and_not_one_per_check() -> None:
    results = check(Behaviour(hang=True), timeout=1)
    assert results["chat"]["found"].startswith("no answer within 1 s")
    assert results["tool_call"]["found"] == "not tried: chat got no answer"
    assert sum(result["seconds"] for result in results.values()) < 3


def test_nothing_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        endpoint = Endpoint("127.0.0.1", taken.getsockname()[1], MODEL, KEY, thinking_off=OFF, timeout=2)
        results = run_checks(endpoint)
    assert [result["outcome"] for result in results] == ["failed"] * len(ALL)
    assert "refused" in results[0]["found"]


def test_answers_stay_within_a_short_context() -> None:
    behaviour = Behaviour(context=4096)
    assert failed(check(behaviour, max_tokens=4096)) == []
    assert {body["max_tokens"] for body in behaviour.requests} == {4096 - 1024}


def test_a_real_context_gets_all_the_room_it_was_given() -> None:
    behaviour = Behaviour(context=202752)
    check(behaviour, max_tokens=4096)
    assert {body["max_tokens"] for body in behaviour.requests} == {4096}
