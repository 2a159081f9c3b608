"""What the gate does beside finding faults: what it asks and leaves out, how long it waits, what its findings say."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.serving import client
from ansible_collections.glm.fleet.plugins.module_utils.serving import gate as gate_module
from ansible_collections.glm.fleet.plugins.module_utils.serving.gate import Gate, made, tried
from ansible_collections.glm.fleet.plugins.module_utils.serving.talk import GROUPS, PROMPT_TOKENS, SHORT_TOKENS
from tests.playbooks.verify.asking import GLM, QUESTIONS, asked_of, failed, gate
from tests.playbooks.verify.fake import effects
from tests.playbooks.verify.fake.answers import Manner, question
from tests.playbooks.verify.fake.dialects import SGLANG, VLLM
from tests.playbooks.verify.fake.fault import Fault
from tests.playbooks.verify.fake.faults import fault
from tests.playbooks.verify.fake.server import KEY, MODEL, Behaviour
from tests.playbooks.verify.fake.state import State

pytestmark = pytest.mark.one_core
CONTRACT = ["health", "models", "key_missing", "key_wrong", "context"]
ANSWERS = [f"{name}{suffix}" for name in QUESTIONS["gate"] for suffix in ("", "_stream")]
REST = [
    "thinking_interleaved",
    "thinking_preserved",
    "tool_turns",
    "parallel",
    "parallel_calls",
    "needle",
    "prefix_cache",
    "long_tool_call",
]
FIELDS = {"phase", "check", "outcome", "expected", "found", "next", "seconds"}


def with_fault(name: str, **options: Any) -> dict[str, dict[str, Any]]:
    return gate(Behaviour(faults=(fault(name),)), **options)


def test_checks_are_made_in_order() -> None:
    findings = gate()
    sampling = [f"sampling_{name}" for name in GLM.sampling]
    assert list(findings) == [*CONTRACT, "first_token", *ANSWERS, *sampling, *REST]
    assert all(set(one) == FIELDS and one["phase"] == "verify" for one in findings.values())
    assert findings["tool_call"]["found"] == 'get_weather({"city": "Paris"})'


@pytest.mark.parametrize("group", GROUPS)
def test_one_group_looks_at_the_name_and_asks_no_other(group: str) -> None:
    alone = list(gate(groups=(group,)))
    everything = list(gate())
    assert "models" in alone and set(alone) < set(everything)
    assert alone == [name for name in everything if name in alone]


def test_health_alone_proves_nothing_and_the_key_is_not_quoted() -> None:
    findings = gate(Behaviour(chat_status=500))
    assert set(CONTRACT) & set(failed(findings)) == set()
    assert "HTTP 500" in findings["chat"]["found"] and "believe the chat" in findings["chat"]["found"]
    assert KEY not in str(findings) and "key=********" in findings["chat"]["found"]


def test_a_wrong_name_is_shown_with_the_right_one() -> None:
    findings = with_fault("another-model-always", groups=("contract",))
    assert "llama" in findings["models"]["found"] and MODEL in findings["models"]["expected"]


def test_the_wrong_key_on_our_side_is_named_as_such() -> None:
    findings = gate(api_key="glm-another-key", groups=("contract",))
    assert "401" in failed(findings)["models"] and "key" in findings["models"]["next"]


def test_without_a_key_its_checks_are_left_out() -> None:
    findings = with_fault("any-key-is-taken-always", api_key=None)
    assert failed(findings) == {} and not {"key_missing", "key_wrong"} & set(findings)


def test_a_context_that_no_plan_promised_is_not_proven() -> None:
    assert gate(context=None, groups=("contract",))["context"]["outcome"] == "not_proven"


def test_reasoning_in_the_other_field_is_found_there() -> None:
    findings = gate(Behaviour(SGLANG), reasoning_field="reasoning", groups=("answers",))
    assert set(failed(findings)) == {"thinking_on", "thinking_on_stream"}
    assert "the text is in reasoning_content" in findings["thinking_on"]["found"]


def test_a_model_that_does_not_think() -> None:
    findings = with_fault("no-thought-always")
    assert set(failed(findings)) == {"thinking_on", "thinking_on_stream", "thinking_interleaved"}


def test_advice_names_the_plan_s_own_parsers() -> None:
    parsers = {"reasoning_parser": "glm47", "tool_parser": "glm52", "groups": ("answers",)}
    missing = with_fault("no-thought-always", **parsers)
    assert missing["thinking_on"]["next"].endswith("--reasoning-parser glm47")
    assert "--reasoning-parser glm47" in with_fault("the-thought-in-the-text-always", **parsers)["thinking_on"]["next"]
    assert "--tool-call-parser glm52" in with_fault("calls-as-text-always", **parsers)["tool_call"]["next"]
    assert "glm47" not in str(with_fault("no-thought-always", groups=("answers",)))


HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202e\x9b31m"


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour(model=HOSTILE),
        Behaviour(faults=(Fault("text", reply=effects.text(HOSTILE)),)),
        Behaviour(faults=(Fault("arguments", reply=effects.arguments(lambda _given: HOSTILE)),)),
        Behaviour(faults=(Fault("finish", reply=effects.ends(HOSTILE)),)),
        Behaviour(faults=(Fault("refusal", http=lambda _asked: (500, HOSTILE)),)),
    ],
    ids=["model", "text", "arguments", "finish", "refusal"],
)
def test_what_a_hostile_engine_says_is_no_command_for_a_terminal(behaviour: Behaviour) -> None:
    findings = gate(behaviour, groups=("contract", "answers"))
    assert failed(findings)
    assert all(text.isprintable() for one in findings.values() for text in one.values() if isinstance(text, str))


def test_thinking_that_cannot_be_turned_off_fails_where_the_contract_wants_it_off() -> None:
    behaviour = Behaviour(replace(VLLM, manner=Manner(always_thinks=True)))
    found = failed(gate(behaviour, thinking_off=GLM.thinking.off, groups=("answers",)))
    assert {"thinking_off", "thinking_off_stream"} <= set(found) and "thinking_on" not in found


def test_a_model_that_always_thinks_is_not_asked_to_stop() -> None:
    behaviour = Behaviour(replace(VLLM, manner=Manner(always_thinks=True)))
    findings = gate(behaviour)
    assert failed(findings) == {} and not {"thinking_off", "thinking_off_stream"} & set(findings)
    assert all(
        body["chat_template_kwargs"].get("enable_thinking", True)
        for body in behaviour.requests
        if "chat_template_kwargs" in body
    )


def test_tools_are_not_offered_where_the_contract_has_no_calls() -> None:
    behaviour = Behaviour()
    findings = gate(behaviour, tool_call=False)
    assert failed(findings) == {} and not [name for name in findings if "tool" in name and "sampling" not in name]
    assert not any("tools" in body for body in behaviour.requests)


def test_silence_costs_one_timeout_and_not_one_per_check() -> None:
    findings = gate(Behaviour(hang=True), timeout=1)
    assert findings["first_token"]["found"].startswith("no answer within 1 s")
    assert findings["needle"]["found"] == "not tried: first_token got no answer in time"
    assert sum(one["seconds"] for one in findings.values()) < 5


def test_nothing_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        findings = made(Gate(asked_of(Behaviour(), taken.getsockname()[1])))
    outcomes = {one["check"]: one["outcome"] for one in findings}
    assert {name for name, outcome in outcomes.items() if outcome != "failed"} <= {"context"}
    assert "refused" in findings[0]["found"]


def test_answers_stay_within_a_short_context() -> None:
    behaviour = Behaviour(context=4096)
    assert failed(gate(behaviour, max_tokens=4096)) == {}
    assert max(body["max_tokens"] for body in behaviour.requests) == 4096 - PROMPT_TOKENS


def test_a_real_context_gets_all_the_room_it_was_given() -> None:
    behaviour = Behaviour()
    gate(behaviour, max_tokens=9000)
    thinking = [
        body["chat_template_kwargs"].get("enable_thinking", True)
        for body in behaviour.requests
        if "chat_template_kwargs" in body
    ]
    assert True in thinking and False in thinking
    assert {body["max_tokens"] for body in behaviour.requests} - {1, 16} == {9000, SHORT_TOKENS}


def test_the_author_s_parameters_are_sent_with_the_mode_they_are_for() -> None:
    behaviour = Behaviour()
    gate(behaviour, groups=("sampling",))
    sent = [
        (body["temperature"], body.get("top_p"), body["chat_template_kwargs"].get("clear_thinking"))
        for body in behaviour.requests
    ]
    assert sent == [(1.0, 0.95, None), (0.7, 1.0, False), (0.0, None, False)]


def test_thoughts_that_a_template_drops_are_counted() -> None:
    findings = with_fault("thoughts-dropped-always", groups=("thinking_preserved",))
    assert "prompt tokens with clear_thinking false" in failed(findings)["thinking_preserved"]


def test_the_needle_lies_in_the_middle_of_a_text_that_fits_the_context() -> None:
    behaviour = Behaviour(context=10_000)
    assert failed(gate(behaviour, needle_tokens=60_000, groups=("needle",))) == {}
    asked = [body for body in behaviour.requests if "locker" in question(body)]
    assert len(asked) == 2 and asked[0]["messages"] == asked[1]["messages"]
    text = asked[0]["messages"][0]["content"]
    assert 0.5 < text.index("locker is") / len(text) < 0.7
    assert all(len(body["messages"][0]["content"]) / 4 < 10_000 - 1_000 for body in behaviour.requests)


def test_what_is_wrong_at_once_is_asked_again_alone() -> None:
    findings = with_fault("every-chat-fails-always", groups=("parallel",))
    assert failed(findings)["parallel"].startswith("8 of 8 wrong at once, 0 of these right alone: HTTP 500")


@pytest.mark.parametrize(
    "event",
    [
        {"choices": [None]},
        {"choices": "x"},
        {"choices": 5},
        {"choices": [{"delta": [1]}]},
        {"choices": [{"delta": {"tool_calls": [None]}}]},
        {"choices": [{"delta": {"tool_calls": "xx"}}]},
    ],
)
def test_an_event_of_another_form_is_a_finding_and_no_traceback(event: dict[str, Any]) -> None:
    with pytest.raises(client.CheckError, match="the stream has an event of another form"):
        client._taken(client.Turn(), event, 0.1)


def test_slow_checks_end_when_all_of_them_took_too_long() -> None:
    now = iter(range(0, 10_000, 60))
    checks = [(name, "an answer", lambda: "42") for name in "abcd"]
    found = tried("verify", checks, lambda: next(now), budget=200)
    assert [one["outcome"] for one in found] == ["passed", "passed", "failed", "failed"]
    assert found[2]["found"] == "not tried: the checks before it took 300 s" and "verify_timeout" in found[2]["next"]


def test_the_documentation_lists_every_check() -> None:
    page = (Path(__file__).parents[3] / "docs/verify.md").read_text(encoding="utf-8")
    names = {name.removesuffix("_stream") for name in gate() if not name.startswith("sampling_")}
    assert [name for name in sorted(names) if f"`{name}`" not in page] == []


def test_a_full_queue_is_not_called_a_broken_kernel() -> None:
    known = QUESTIONS["eval"]
    first = [known["sum_ask"].format(sum=one["sum"]) for one in known["sums"][:8]]
    findings = gate(Behaviour(capacity=2, state=State(together=frozenset(first))), groups=("parallel",))
    assert "wrong at once" in failed(findings)["parallel"] and "max-queued-requests" in findings["parallel"]["next"]


def test_a_stream_that_loses_thoughts_differs_from_the_whole_answer() -> None:
    whole = client.Turn(content="43", reasoning={"reasoning": "16 + 27 makes 43. " * 4}, completion_tokens=30)
    kept = replace(whole, reasoning={"reasoning": "Adding 27 to 16 gives 43. " * 2}, completion_tokens=22)
    lossy = replace(whole, reasoning={"reasoning": "16 27 43 " * 3})
    gate_module._expect_as_dense(whole, kept)
    gate_module._expect_as_dense(whole, replace(lossy, completion_tokens=None))
    with pytest.raises(
        client.CheckError, match=r"the stream differs from the whole answer: 1\.0 characters to a token"
    ):
        gate_module._expect_as_dense(whole, lossy)


@pytest.mark.parametrize("length", range(270, 300, 7))
def test_a_key_that_is_quoted_is_struck_out_before_its_text_is_shortened(length: int) -> None:
    """At the 300th character of what is shown, where only the first part of the key would be left."""
    refusal = Fault("quoted key", http=lambda _asked: (500, {"error": "x" * length + KEY}))
    findings = gate(Behaviour(faults=(refusal,)), groups=("answers",))
    assert KEY[:5] not in str(findings)


@pytest.mark.parametrize("status", [404, 500, 503])
def test_a_key_check_that_saw_no_refusal_fails(status: int) -> None:
    """Whatever else was wrong: that nobody comes in without the key was not seen."""
    odd = Fault("odd", get=lambda _path, _status, _body: (status, {"error": "odd"}))
    found = failed(gate(Behaviour(faults=(odd,)), groups=("contract",)))
    assert found["key_missing"] == f"HTTP {status} for /v1/models with no key"
