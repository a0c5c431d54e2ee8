"""Requests to the APIs, as our client and the SDK send them."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from anthropic.types.message_create_params import MessageCreateParamsStreaming
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming
from pydantic import TypeAdapter, ValidationError

from orchestrator.providers import ModelRequest
from orchestrator.providers.anthropic import request as anthropic_request
from orchestrator.providers.openai import request as openai_request
from orchestrator.providers.openai.provider import reasoning_effort
from orchestrator.providers.openai.request import Dialect
from orchestrator.testing.leak_check import nothing_left
from orchestrator.wire.generation import ToolDefinition
from orchestrator.wire.message import (
    ExpertMessage,
    FileInlinePart,
    ImageBinaryPart,
    ImageInlinePart,
    ImageUrlPart,
    InstructionMessage,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolMessage,
    ToolResultPart,
    UserMessage,
)
from tests.judges.apis import APIS, STREAMS
from tests.judges.judge import KEY, Api, compared, ours
from tests.judges.streams import WIDE
from tests.judges.wire import Answer, Sent, serving

pytestmark = pytest.mark.judges

ROOT = Path(__file__).parents[2]


def said(text: str) -> TextPart:
    """Text."""
    return TextPart(id="p", text=text)


TOOL = ToolDefinition(
    name="read",
    description="Reads a file.",
    input_schema={
        "type": "object",
        "properties": {"file_path": {"type": "string"}, "oneOf": {"anyOf": [{"type": "null"}, {"type": "integer"}]}},
        "required": ["file_path"],
        "additionalProperties": False,
    },
)
HELLO = ModelRequest("coach", 0, "gpt-5", (UserMessage(id="u", contents=(said("Hello"),)),), (), 0, 5)
IMAGE = ImageInlinePart(id="p", encoded_data="//79/A==", mime_type="image/png")
CALLS = (
    ToolCallPart(
        id="p", tool_call_id="t1", tool_name="read", args={"file_path": WIDE, "snake_case": {"a_b": [1, None]}}
    ),
    ToolCallPart(id="p", tool_call_id="t2", tool_name="read", args={}),
)
RESULTS = (
    ToolResultPart(id="p", tool_call_id="t1", tool_name="read", contents=(said(WIDE), IMAGE)),
    ToolResultPart(id="p", tool_call_id="t2", tool_name="read", contents=(said("none"),), is_error=True),
)
THOUGHTS = {
    "anthropic": (
        ThinkingPart(id="p", thinking="Hm.", signature="c2ln"),
        ThinkingPart(id="p", thinking="", signature="redacted_thinking:b3BhcXVl"),
    ),
    "google": (
        ThinkingPart(id="p", thinking="Hm.", signature="gemini:thinking://8="),
        ThinkingPart(id="p", thinking="", signature="gemini:call:t1:AAE="),
    ),
}


def whole(provider: str) -> ModelRequest:
    """Return a request with everything that a conversation can have."""
    thoughts = THOUGHTS.get(provider, (ThinkingPart(id="p", thinking="Hm."),))
    media = (
        IMAGE,
        ImageBinaryPart(id="p", data="\xff\x00", mime_type="image/jpeg"),
        ImageUrlPart(id="p", url="https://a.example/b.png", mime_type="image/png"),
        FileInlinePart(id="p", encoded_data="cGRm", mime_type="application/pdf"),
        FileInlinePart(id="p", encoded_data="YSxi", mime_type="text/csv"),
    )
    messages = (
        InstructionMessage(id="i", contents=(said("Be brief."), said(WIDE)), cache=True),
        UserMessage(id="u", contents=(said(WIDE), *media)),
        ExpertMessage(id="e", contents=(*thoughts, said("Reading."), *CALLS)),
        ToolMessage(id="t", contents=RESULTS),
        ExpertMessage(id="e", contents=(said("Done."),)),
        UserMessage(id="u", contents=(said("Continue."),)),
    )
    return ModelRequest("coach", 0, "gpt-5", messages, (TOOL, TOOL.with_(name="list", description=None)), 2048, 5)


async def sent(api: Api, request: ModelRequest, **setting: Any) -> tuple[Sent, Sent]:
    """Return the request of our client and that of the judge to one server."""
    stream = STREAMS["anthropic" if api.provider == "anthropic" else "google" if api.provider == "google" else "openai"]
    async with nothing_left(), asyncio.timeout(60), serving(Answer([stream["text"]])) as wire:
        await ours(api.at(wire.url, **setting), request)
        await api.judge.send(api.at(wire.url, **setting), request)
    own, judged = wire.sent
    return compared(own), compared(judged)


@pytest.mark.parametrize("name", APIS)
async def test_a_question_is_the_same_request(name: str) -> None:
    """Method, path, query, each header that does not name the client, and the body as JSON."""
    own, judged = await sent(APIS[name], HELLO)
    assert own == plain(judged)


@pytest.mark.parametrize("name", APIS)
async def test_a_whole_conversation_is_the_same_request(name: str) -> None:
    """With tools, images, files, reasoning and its signatures, in characters of all lengths."""
    own, judged = await sent(APIS[name], whole(APIS[name].provider))
    assert own == plain(judged)


@pytest.mark.parametrize("name", APIS)
@pytest.mark.parametrize(
    "headers", [{"X-Team": "gym"}, {"Authorization": "Bearer gateway", "Accept": "text/event-stream", "X-Empty": ""}]
)
async def test_headers_of_the_setting_are_the_same(name: str, headers: dict[str, str]) -> None:
    """One of the setting replaces ours."""
    own, judged = await sent(APIS[name], HELLO, headers=headers)
    assert own == plain(judged)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        *(("azure deployments", model) for model in ("ft:gpt:org::1", "a b", "ä")),
        *(("google", model) for model in ("a/b", "ft:gpt:org::1", "models/a", "tunedModels/a", "a b", "ä")),
    ],
)
async def test_the_name_of_a_model_is_the_same_path(name: str, model: str) -> None:
    """The path has it where the body does not."""
    own, judged = await sent(APIS[name], replace(HELLO, model=model))
    assert own == plain(judged)


async def test_organization_and_project_are_the_same() -> None:
    """OpenAI has headers for both."""
    own, judged = await sent(APIS["openai"], HELLO, organization="org", project="gym")
    assert own == plain(judged)
    assert own.headers["openai-organization"] == "org"


def plain(request: Sent) -> Sent:
    """Return a request of a judge as the API's documentation has it: Google's SDK leaves some fields in snake case."""
    return replace(request, body=_documented(request.body))


_SNAKE = {
    "mime_type": "mimeType",
    "file_uri": "fileUri",
    "parameters_json_schema": "parametersJsonSchema",
    "include_thoughts": "includeThoughts",
    "thinking_budget": "thinkingBudget",
}
_FREE = frozenset({"args", "response", "parametersJsonSchema", "input_schema", "parameters", "input"})
"""Fields whose content is not the API's."""


def _documented(body: Any) -> Any:
    if isinstance(body, list):
        return [_documented(each) for each in body]
    if not isinstance(body, dict):
        return body
    named = {_SNAKE.get(name, name): value for name, value in body.items()}
    return {
        name: value if name in _FREE else _documented(value)
        for name, value in named.items()
        if not (name == "generationConfig" and value == {})
    }


def _plain(value: Any) -> Any:
    """Read what pydantic validates only when it is read."""
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return value if isinstance(value, str) or not isinstance(value, Iterable) else [*map(_plain, value)]


_TYPES: Mapping[str, tuple[Any, Callable[[], dict[str, Any]]]] = {
    "anthropic": (
        MessageCreateParamsStreaming,
        lambda: {**anthropic_request.request_body(whole("anthropic")), "stream": True},
    ),
    "openai": (
        CompletionCreateParamsStreaming,
        lambda: openai_request.request_body(whole("openai"), Dialect(None, reasoning_effort)),
    ),
}


@pytest.mark.parametrize("name", _TYPES)
def test_a_body_has_the_types_of_the_sdk(name: str) -> None:
    """These SDKs send what they are given; their types know each field. That of Google checks what it sends."""
    expected, body = _TYPES[name][0], _TYPES[name][1]()
    types: TypeAdapter[Any] = TypeAdapter(expected)
    assert _plain(types.validate_python(body)) == body
    misspelt = body | {"max_tokenz": 1}
    assert _plain(types.validate_python(misspelt)) == body, "an unknown field is left out"
    with pytest.raises(ValidationError):
        _plain(types.validate_python(body | {"messages": [{"role": "user", "content": 1}]}))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("anthropic", {"anthropic-version": "2023-06-01"}),
        ("openai", {"Authorization": f"Basic {KEY}"}),
        ("google", {"x-goog-api-key": "another"}),
    ],
)
async def test_a_wrong_header_is_a_difference(name: str, wrong: dict[str, str]) -> None:
    """Otherwise nothing that these tests compare would count."""
    api = APIS[name]
    async with serving(Answer([STREAMS[name]["text"]])) as wire:
        await ours(api.at(wire.url, headers=wrong), HELLO)
        await api.judge.send(api.at(wire.url), HELLO)
    own, judged = map(compared, wire.sent)
    (header,) = wrong
    different = {
        each for each in own.headers.keys() | judged.headers if own.headers.get(each) != judged.headers.get(each)
    }
    assert different == {header.lower()}
    assert replace(own, headers={}) == plain(replace(judged, headers={}))


def test_a_wrong_header_fails_this_suite(tmp_path: Path) -> None:
    """The version of Anthropic's API, changed in our client alone, fails each test that compares its requests."""
    script = (
        "import sys, pytest\n"
        "from orchestrator.providers.anthropic import provider\n"
        "provider._VERSION = '2023-06-01'\n"
        "sys.exit(pytest.main(sys.argv[1:]))\n"
    )
    here = str(Path(__file__).relative_to(ROOT))
    (tmp_path / "t").mkdir()
    options = (
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        "anthropic and the_same_request",
        "--directory",
        str(tmp_path / "t"),
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, here, *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "2 failed" in ran.stdout
    assert "2023-06-01" in ran.stdout
