"""OpenAI's own Python client takes every answer and every chunk, with strict validation by its types."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionToolParam
from pydantic import BaseModel

from scripts.node import command_for

ASK: Any = [{"role": "user", "content": "Hi"}]
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


class Opinion(BaseModel):
    """What an answer is to be."""

    good: bool
    why: str


@pytest.fixture(scope="module")
def client(repository: Path) -> Iterator[OpenAI]:
    """A client that refuses what is not as its types say."""
    command = [*command_for("node"), str(Path(__file__).with_name("openai_server.mjs"))]
    with subprocess.Popen(command, cwd=repository, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
            with OpenAI(base_url=address, api_key="none", max_retries=0, _strict_response_validation=True) as made:
                yield made
        finally:
            server.kill()


def test_whole_answers(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="greeting", messages=ASK, n=2, logprobs=True, top_logprobs=2)
    assert [choice.message.content for choice in answer.choices] == ["Grüße 😀!"] * 2
    assert answer.choices[0].logprobs is not None
    assert answer.choices[0].logprobs.content is not None
    assert len(answer.choices[0].logprobs.content[0].top_logprobs) == 2
    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 0
    assert client.models.list().data[0].id == "small"


def test_streams_with_thoughts_logprobs_and_usage(client: OpenAI) -> None:
    options: Any = {"stream_options": {"include_usage": True}, "logprobs": True, "reasoning_effort": "low"}
    *chunks, last = client.chat.completions.create(model="thinker", messages=ASK, stream=True, **options)
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert "".join(delta.content or "" for delta in deltas) == "Paris"
    assert "".join(getattr(delta, "reasoning_content", "") for delta in deltas) == "Hm."
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert last.usage is not None
    assert last.usage.completion_tokens_details is not None
    assert (last.usage.completion_tokens_details.reasoning_tokens or 0) > 0


def test_tool_calls_whole_and_streamed(client: OpenAI) -> None:
    """The client puts the pieces of a streamed call together."""
    whole = client.chat.completions.create(model="caller", messages=ASK, tools=[WEATHER])
    with client.chat.completions.stream(model="caller", messages=ASK, tools=[WEATHER]) as stream:
        pieces = [event.arguments_delta for event in stream if event.type == "tool_calls.function.arguments.delta"]
        streamed = stream.get_final_completion()
    assert len(pieces) > 4
    found = []
    for message in (whole.choices[0].message, streamed.choices[0].message):
        assert message.tool_calls is not None
        functions = [call.function for call in message.tool_calls if call.type == "function"]
        found.append([(function.name, json.loads(function.arguments)) for function in functions])
    assert found == [[("get_weather", {"city": "Rome"}), ("get_weather", {"city": "Zürich"})]] * 2
    assert [whole.choices[0].finish_reason, streamed.choices[0].finish_reason] == ["tool_calls"] * 2


def test_an_answer_is_parsed_into_a_model(client: OpenAI) -> None:
    answer = client.chat.completions.parse(model="closer", messages=ASK, response_format=Opinion)
    assert isinstance(answer.choices[0].message.parsed, Opinion)


def test_a_streamed_answer_is_parsed_into_a_model(client: OpenAI) -> None:
    with client.chat.completions.stream(model="closer", messages=ASK, response_format=Opinion) as stream:
        pieces = [event.delta for event in stream if event.type == "content.delta"]
        parsed = stream.get_final_completion().choices[0].message.parsed
    assert isinstance(parsed, Opinion)
    assert Opinion.model_validate_json("".join(pieces)) == parsed


def test_streams_of_several_answers_and_of_cut_ones(client: OpenAI) -> None:
    chunks = list(client.chat.completions.create(model="greeting", messages=ASK, n=2, stream=True))
    for index in range(2):
        mine = [chunk.choices[0] for chunk in chunks if chunk.choices[0].index == index]
        assert "".join(choice.delta.content or "" for choice in mine) == "Grüße 😀!"
        assert mine[-1].finish_reason == "stop"
    cut = list(client.chat.completions.create(model="greeting", messages=ASK, max_tokens=1, stream=True))
    assert cut[-1].choices[0].finish_reason == "length"


def test_messages_that_were_left_out_are_told_beside_openais_fields(client: OpenAI) -> None:
    long: Any = [{"role": role, "content": "word " * 100} for role in ("user", "assistant") * 3]
    extra = {"context_overflow": "drop_oldest"}
    whole = client.chat.completions.create(model="greeting", messages=[*long, *ASK], extra_body=extra)
    first, *rest = client.chat.completions.create(
        model="greeting", messages=[*long, *ASK], extra_body=extra, stream=True
    )
    told: list[Any] = [(answer.model_extra or {}).get("dropped_messages") for answer in (whole, first, *rest)]
    assert told[0] == told[1]
    assert told[0][:2] == [0, 1]
    assert set(map(str, told[2:])) == {"None"}


def test_what_goes_wrong_in_a_stream_is_the_clients_own_error_after_what_came_before(client: OpenAI) -> None:
    seen: list[str] = []
    stream = client.chat.completions.create(model="stumbler", messages=ASK, tools=[WEATHER], stream=True)
    with pytest.raises(openai.APIError, match="cannot be read") as failed:
        seen.extend(chunk.choices[0].delta.content or "" for chunk in stream)
    assert "".join(seen) == "Let me see."
    assert failed.value.code == "malformed-tool-call"


def test_a_refusal_is_the_clients_own_error(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=r"temperature") as refused:
        client.chat.completions.create(model="greeting", messages=ASK, temperature=3)
    assert refused.value.code == "bad-request"
