"""The current openai and anthropic packages against both real engines, through the real HAProxy, over TLS.

What is asserted cannot be had by chance: the answers that the tiny model was made with, tools that it would not call by
itself, JSON that it would not write. What the catalogue says that a version lacks is seen to be lacking. Into how many
pieces a stream comes apart is not asserted: a busy machine joins them. That each passes at once: tests/playbooks/door.
"""

from __future__ import annotations

import asyncio
import functools
import json
import ssl
from collections.abc import Callable
from typing import Any

import anthropic
import jsonschema
import openai
import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from simulator.engines import lessons
from tests.engines.live_engine import MODEL, Running
from tests.playbooks.door import proxy

ANSWER, THOUGHT = lessons.DEFAULT.answer, lessons.DEFAULT.thought
ASKED: Any = [{"role": "user", "content": "Say hello."}]
# What the tiny model calls wherever tools are offered, and what it does not call unless it must.
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
ALARM = {
    "type": "object",
    "properties": {"hour": {"type": "integer", "enum": [7, 19]}},
    "required": ["hour"],
    "additionalProperties": False,
}
LIGHT = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "green"]}, "percent": {"type": "integer", "enum": [5, 55]}},
    "required": ["colour", "percent"],
    "additionalProperties": False,
}
CHAT_TOOLS: Any = [
    {"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "set_alarm", "parameters": ALARM, "strict": True}},
]
RESPONSE_TOOLS: Any = [{"type": "function", **tool["function"]} for tool in CHAT_TOOLS]
MESSAGE_TOOLS: Any = [
    {"name": "get_weather", "input_schema": WEATHER},
    {"name": "set_alarm", "input_schema": ALARM, "strict": True},
]


class Clients:
    """The packages, set up for the door of a running engine as docs/clients.md says."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.trust = ssl.create_default_context(cadata=running.signer.pem)
        self.url = f"https://127.0.0.1:{running.secure}"

    def openai(self, **more: Any) -> openai.OpenAI:
        """The client of OpenAI; the key goes as Authorization: Bearer."""
        given: dict[str, Any] = {"api_key": proxy.CLIENT_KEY, "max_retries": 0, "timeout": 120, **more}
        return openai.OpenAI(
            base_url=f"{self.url}/v1", http_client=openai.DefaultHttpxClient(verify=self.trust), **given
        )

    def anthropic(self, **more: Any) -> anthropic.Anthropic:
        """The client of Anthropic; the key goes as x-api-key, unless ``auth_token`` is given."""
        key = {} if "auth_token" in more else {"api_key": proxy.CLIENT_KEY}
        trusting = anthropic.DefaultHttpxClient(verify=self.trust)
        return anthropic.Anthropic(base_url=self.url, http_client=trusting, max_retries=0, timeout=120, **key, **more)

    def lacks(self, purpose: str, what: str = "") -> bool:
        """Whether the catalogue says so of the version that runs."""
        if not what:
            return purpose in self.running.passing["lacking"]
        known = catalog.load()
        rows = [one for one in known.shortfalls if (one.purpose, one.engine) == (purpose, self.running.name)]
        assert what in {one.lacks for one in known.shortfalls}, what
        return f"{what} in {known.purposes[purpose].title}" in self.running.passing["shortfalls"] and bool(rows)


@pytest.fixture(scope="session")
def clients(running: Running) -> Clients:
    return Clients(running)


@pytest.fixture(scope="session")
def chat(clients: Clients) -> Callable[..., Any]:
    return functools.partial(clients.openai().chat.completions.create, model=MODEL, messages=ASKED, max_tokens=200)


@pytest.fixture(scope="session")
def respond(clients: Clients) -> Callable[..., Any]:
    asked = {"model": MODEL, "input": "Say hello.", "max_output_tokens": 200}
    return functools.partial(clients.openai().responses.create, **asked)


@pytest.fixture(scope="session")
def message(clients: Clients) -> Callable[..., Any]:
    return functools.partial(clients.anthropic().messages.create, model=MODEL, messages=ASKED, max_tokens=200)


def forced(clients: Clients) -> dict[str, Any]:
    """What ends a forced call of the tiny model: on vLLM it calls again and again, on SGLang it likes white space."""
    return (
        {"max_tokens": 200, "extra_body": {"temperature": 0}}
        if clients.running.name == "vllm"
        else {"max_tokens": 1500}
    )


def valid(text: str, schema: dict[str, Any]) -> Any:
    found = json.loads(text)
    jsonschema.validate(found, schema)
    return found


def test_models_are_listed_and_looked_up_by_a_name_with_a_slash(clients: Clients) -> None:
    assert [model.id for model in clients.openai().models.list()] == [MODEL]
    assert [model.id for model in clients.anthropic().models.list()] == [MODEL]
    for client, error in ((clients.openai(), openai.NotFoundError), (clients.anthropic(), anthropic.NotFoundError)):
        if clients.lacks("model"):
            with pytest.raises(error, match="Nothing is served here"):
                client.models.retrieve(MODEL)
        else:
            assert client.models.retrieve(MODEL).id == MODEL
            with pytest.raises(error, match="does not exist"):
                client.models.retrieve("zai-org/other")


def test_either_package_sends_the_key_in_either_header(clients: Clients) -> None:
    own = {"Authorization": openai.Omit(), "x-api-key": proxy.CLIENT_KEY}
    assert [model.id for model in clients.openai().models.list(extra_headers=own)] == [MODEL]
    made = clients.anthropic(auth_token=proxy.CLIENT_KEY).messages.create(model=MODEL, messages=ASKED, max_tokens=64)
    assert made.content[-1].text == ANSWER


def test_a_chat_is_answered_whole_and_as_a_stream(chat: Callable[..., Any]) -> None:
    whole = chat()
    said = whole.choices[0].message
    assert (said.content, whole.choices[0].finish_reason) == (ANSWER, "stop")
    assert THOUGHT in (getattr(said, "reasoning", None), getattr(said, "reasoning_content", None))
    *pieces, last = chat(stream=True, stream_options={"include_usage": True})
    text = [piece.choices[0].delta.content for piece in pieces if piece.choices and piece.choices[0].delta.content]
    assert "".join(text) == ANSWER
    assert last.usage.completion_tokens == whole.usage.completion_tokens > 1


def test_a_tool_is_called_and_its_result_is_answered(chat: Callable[..., Any]) -> None:
    made = chat(tools=CHAT_TOOLS)
    (call,) = made.choices[0].message.tool_calls
    assert made.choices[0].finish_reason == "tool_calls"
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Paris"})
    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    after = chat(tools=CHAT_TOOLS, messages=[*ASKED, made.choices[0].message.to_dict(), result])
    assert after.choices[0].message.content == ANSWER
    deltas = [piece.choices[0].delta for piece in chat(tools=CHAT_TOOLS, stream=True) if piece.choices]
    pieces = [piece.function for delta in deltas for piece in delta.tool_calls or ()]
    assert [piece.name for piece in pieces if piece.name] == ["get_weather"]
    assert json.loads("".join(piece.arguments or "" for piece in pieces)) == {"city": "Paris"}


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "set_alarm"}}], ids=str)
def test_a_chat_calls_the_tool_that_it_must(clients: Clients, chat: Callable[..., Any], choice: Any) -> None:
    offered = CHAT_TOOLS[1:] if choice == "required" else CHAT_TOOLS
    call = chat(tools=offered, tool_choice=choice, **forced(clients)).choices[0].message.tool_calls[0]
    assert call.function.name == "set_alarm" and valid(call.function.arguments, ALARM)


def test_a_chat_answers_in_the_json_that_is_asked_for(chat: Callable[..., Any]) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "light", "schema": LIGHT, "strict": True}}
    assert valid(chat(response_format=form).choices[0].message.content, LIGHT)


def test_completions(clients: Clients) -> None:
    create = functools.partial(clients.openai().completions.create, model=MODEL, prompt="Say", max_tokens=20)
    assert create().choices[0].text == ANSWER
    assert "".join(piece.choices[0].text for piece in create(stream=True) if piece.choices) == ANSWER


def test_responses_are_answered_whole_and_as_a_stream(clients: Clients, respond: Callable[..., Any]) -> None:
    together = clients.lacks("responses", "thinking apart from the answer")
    expected = f"{THOUGHT}</think>{ANSWER}" if together else ANSWER
    whole = respond()
    assert (whole.status, whole.output_text) == ("completed", expected)
    events = list(respond(stream=True))
    assert (events[0].type, events[-1].type) == ("response.created", "response.completed")
    assert events[-1].response.output_text == expected
    pieces = [event.delta for event in events if event.type == "response.output_text.delta"]
    if clients.lacks("responses", "streaming in pieces"):
        assert not pieces
    else:
        assert "".join(pieces) == expected


def test_a_response_is_continued_where_the_engine_keeps_it(clients: Clients, respond: Callable[..., Any]) -> None:
    first = respond()
    if clients.running.name == "vllm":
        with pytest.raises(openai.NotFoundError, match=first.id):
            respond(previous_response_id=first.id)
    else:
        assert respond(previous_response_id=first.id).output_text.endswith(ANSWER)


@pytest.mark.parametrize("choice", ["auto", "required", {"type": "function", "name": "set_alarm"}], ids=str)
def test_responses_call_tools(clients: Clients, respond: Callable[..., Any], choice: Any) -> None:
    offered = RESPONSE_TOOLS[1:] if choice == "required" else RESPONSE_TOOLS
    create = functools.partial(respond, tools=offered, tool_choice=choice, temperature=0)
    if clients.lacks("responses", "function tools (HTTP 500)"):
        with pytest.raises(openai.InternalServerError):
            create()
        return
    call = next(item for item in create().output if item.type == "function_call")
    if choice == "auto":
        assert (call.name, json.loads(call.arguments)) == ("get_weather", {"city": "Paris"})
    else:
        assert call.name == "set_alarm" and valid(call.arguments, ALARM)


def test_responses_answer_in_the_json_that_is_asked_for(clients: Clients, respond: Callable[..., Any]) -> None:
    form = {"type": "json_schema", "name": "light", "schema": LIGHT, "strict": True}
    text = respond(text={"format": form}).output_text
    if clients.lacks("responses", "JSON schema"):
        assert text.endswith(ANSWER)
    else:
        assert valid(text, LIGHT)


def test_a_message_is_answered_whole_and_as_a_stream(clients: Clients, message: Callable[..., Any]) -> None:
    thinks = [] if clients.lacks("messages", "thinking blocks") else ["thinking"]
    whole = message()
    assert [block.type for block in whole.content] == [*thinks, "text"]
    assert (whole.content[-1].text, whole.stop_reason) == (ANSWER, "end_turn")
    with clients.anthropic().messages.stream(model=MODEL, messages=ASKED, max_tokens=200) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    assert "".join(pieces) == ANSWER == final.content[-1].text
    assert final.usage.output_tokens == whole.usage.output_tokens > 1


def test_a_message_calls_a_tool_and_answers_its_result(message: Callable[..., Any]) -> None:
    made = message(tools=MESSAGE_TOOLS)
    call = made.content[-1]
    assert (call.type, call.name, call.input) == ("tool_use", "get_weather", {"city": "Paris"})
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}
    turns = [{"role": "assistant", "content": [call.to_dict()]}, {"role": "user", "content": [result]}]
    assert message(tools=MESSAGE_TOOLS, messages=[*ASKED, *turns]).content[-1].text == ANSWER


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "set_alarm"}], ids=str)
def test_a_message_calls_the_tool_that_it_must(clients: Clients, message: Callable[..., Any], choice: Any) -> None:
    offered = MESSAGE_TOOLS[1:] if choice["type"] == "any" else MESSAGE_TOOLS
    made = message(tools=offered, tool_choice=choice, **forced(clients))
    call = next(block for block in made.content if block.type == "tool_use")
    assert call.name == "set_alarm"
    jsonschema.validate(call.input, ALARM)


def test_a_message_answers_in_the_json_that_is_asked_for(clients: Clients, message: Callable[..., Any]) -> None:
    text = message(output_config={"format": {"type": "json_schema", "schema": LIGHT}}).content[-1].text
    if clients.lacks("messages", "JSON schema"):
        assert text == ANSWER
    else:
        assert valid(text, LIGHT)


def test_a_system_message_may_stand_between_others(clients: Clients, message: Callable[..., Any]) -> None:
    """Claude Code sends such."""
    turns = [*ASKED, {"role": "system", "content": "Be brief."}]
    if clients.lacks("messages", "system messages between others (HTTP 400)"):
        with pytest.raises(anthropic.BadRequestError):
            message(messages=turns)
    else:
        assert message(messages=turns).content[-1].text == ANSWER


def test_tokens_are_counted_as_a_request_uses_them(clients: Clients, message: Callable[..., Any]) -> None:
    for client in (clients.anthropic().messages, clients.anthropic().beta.messages):
        counted = client.count_tokens(model=MODEL, messages=ASKED).input_tokens
        assert counted == message(max_tokens=1).usage.input_tokens > 1


def test_32_at_once_half_of_them_streams(clients: Clients) -> None:
    trust, url, key = clients.trust, clients.url, proxy.CLIENT_KEY
    asked: dict[str, Any] = {"model": MODEL, "messages": ASKED, "max_tokens": 64}

    async def all_of_them() -> list[str]:
        one = openai.AsyncOpenAI(
            base_url=f"{url}/v1", api_key=key, max_retries=0, http_client=openai.DefaultAsyncHttpxClient(verify=trust)
        )
        two = anthropic.AsyncAnthropic(
            base_url=url, api_key=key, max_retries=0, http_client=anthropic.DefaultAsyncHttpxClient(verify=trust)
        )

        async def chat() -> str:
            return (await one.chat.completions.create(**asked)).choices[0].message.content or ""

        async def streamed_chat() -> str:
            stream = await one.chat.completions.create(**asked, stream=True)
            return "".join([piece.choices[0].delta.content or "" async for piece in stream if piece.choices])

        async def message() -> str:
            return (await two.messages.create(**asked)).content[-1].text

        async def streamed_message() -> str:
            async with two.messages.stream(**asked) as stream:
                return "".join([text async for text in stream.text_stream])

        async with one, two:
            kinds = (chat, streamed_chat, message, streamed_message)
            return await asyncio.gather(*(kind() for kind in kinds * 8))

    assert asyncio.run(all_of_them()) == [ANSWER] * 32


def test_what_does_not_pass_is_an_error_that_the_packages_read(clients: Clients) -> None:
    with pytest.raises(openai.NotFoundError, match="Nothing is served here") as refused:
        clients.openai().embeddings.create(model=MODEL, input="hello")
    assert refused.value.code == "not_found" and refused.value.type == "not_found_error"
