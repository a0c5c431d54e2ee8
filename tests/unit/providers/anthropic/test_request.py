"""A conversation in the format of the Messages API."""

import base64
from collections.abc import Sequence
from typing import Any

import pytest

from orchestrator.providers import ModelRequest
from orchestrator.providers.anthropic.request import request_body
from orchestrator.wire.generation import ToolDefinition
from orchestrator.wire.message import (
    ExpertMessage,
    FileInlinePart,
    FileUrlPart,
    ImageBinaryPart,
    ImageInlinePart,
    ImageUrlPart,
    InstructionMessage,
    Message,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolMessage,
    ToolResultPart,
    UserMessage,
)


def made(messages: Sequence[Message], model: str = "m", reasoning_tokens: int = 0) -> dict[str, Any]:
    """Return the request body for a conversation."""
    return request_body(
        ModelRequest(
            expert_key="coach",
            generation=0,
            model=model,
            messages=tuple(messages),
            tools=(),
            reasoning_tokens=reasoning_tokens,
            timeout=1,
        )
    )


def said(text: str) -> TextPart:
    """Text."""
    return TextPart(id="p", text=text)


HELLO = UserMessage(id="u", contents=(said("Hello"),))
CALL = ToolCallPart(id="p", tool_call_id="t1", tool_name="read", args={"path": "a"})
THOUGHT = ThinkingPart(id="p", thinking="Hm.", signature="sig")
RESULT = ToolMessage(
    id="t", contents=(ToolResultPart(id="p", tool_call_id="t1", tool_name="read", contents=(said("text"),)),)
)


def test_a_whole_conversation() -> None:
    """The system prompt is cached, thinking is first, results are a user turn, equal roles merge, empty text is cut."""
    image = ImageInlinePart(id="p", encoded_data="aW1n", mime_type="image/png")
    results = (
        ToolResultPart(id="p", tool_call_id="t1", tool_name="read", contents=(said("text"), image)),
        ToolResultPart(id="p", tool_call_id="t2", tool_name="read", contents=(said(""),), is_error=True),
    )
    second = ToolCallPart(id="p", tool_call_id="t2", tool_name="read", args={})
    conversation = (
        InstructionMessage(id="i", contents=(said("Be kind."), said("Be brief.")), cache=True),
        HELLO,
        ExpertMessage(id="e", contents=(said(" "), CALL, second, said("Reading."), THOUGHT)),
        ToolMessage(id="t", contents=results),
        UserMessage(id="u", contents=(said("Go ahead."), said(""))),
        ExpertMessage(id="e", contents=(said(""),)),
    )
    assert made(conversation, reasoning_tokens=2048) == {
        "model": "m",
        "max_tokens": 32_000,
        "thinking": {"type": "enabled", "budget_tokens": 2048},
        "system": [
            {"type": "text", "text": "Be kind."},
            {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}},
        ],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Hm.", "signature": "sig"},
                    {"type": "text", "text": "Reading."},
                    {"type": "tool_use", "id": "t1", "name": "read", "input": {"path": "a"}},
                    {"type": "tool_use", "id": "t2", "name": "read", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "t1",
                        "content": [
                            {"type": "text", "text": "text"},
                            {
                                "type": "image",
                                "source": {"type": "base64", "media_type": "image/png", "data": "aW1n"},
                            },
                        ],
                    },
                    {"type": "tool_result", "tool_use_id": "t2", "is_error": True},
                    {"type": "text", "text": "Go ahead."},
                ],
            },
        ],
    }


PDF = "application/pdf"


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (ImageUrlPart(id="p", url="https://x/y.png", mime_type="image/png"), ("image", "url", "https://x/y.png")),
        (ImageBinaryPart(id="p", data="\x89PNG", mime_type="image/png"), ("image", "data", "iVBORw==")),
        (FileUrlPart(id="p", url="https://x/y.pdf", mime_type=PDF), ("document", "url", "https://x/y.pdf")),
        (FileInlinePart(id="p", encoded_data="cGRm", mime_type=PDF), ("document", "data", "cGRm")),
        (
            FileInlinePart(id="p", encoded_data=base64.b64encode(b"a,b").decode(), mime_type="text/csv"),
            ("document", "data", "a,b"),
        ),
    ],
)
def test_media(part: Any, expected: tuple[str, str, str]) -> None:
    """Images and PDF files, inline and by URL, and text files are converted."""
    (made_block,) = made([UserMessage(id="u", contents=(part,))])["messages"][0]["content"]
    kind, key, value = expected
    assert (made_block["type"], made_block["source"][key]) == (kind, value)


@pytest.mark.parametrize(
    "part",
    [
        FileInlinePart(id="p", encoded_data="AAAA", mime_type="application/zip"),
        FileInlinePart(id="p", encoded_data="/w==", mime_type="text/plain"),
        FileUrlPart(id="p", url="https://x/y.zip", mime_type="application/zip"),
    ],
)
def test_files_that_no_model_reads_are_named(part: Any) -> None:
    """The model gets a text about the file, so that the API does not reject the call."""
    (made_block,) = made([UserMessage(id="u", contents=(part,))])["messages"][0]["content"]
    assert made_block["type"] == "text"
    assert part.mime_type in made_block["text"]


@pytest.mark.parametrize(
    ("model", "asked", "max_tokens", "budget"),
    [
        ("m", 0, 32_000, None),
        ("m", 1, 32_000, 1024),
        ("m", 50_000, 66_000, 50_000),
        ("claude-sonnet-4-5", 10_000, 64_000, 10_000),
        ("claude-haiku-4-5", 10_000, 8192, 7168),
    ],
)
def test_output_has_room_for_thinking_and_answer(model: str, asked: int, max_tokens: int, budget: int | None) -> None:
    """The budget is at least 1024 and less than the whole output."""
    sent = made([HELLO], model, asked)
    assert (sent["max_tokens"], sent.get("thinking", {}).get("budget_tokens")) == (max_tokens, budget)


def test_thinking_is_not_requested_amid_calls_that_began_without() -> None:
    """The API rejects thinking after tool calls whose turn has none."""
    assert "thinking" not in made([HELLO, ExpertMessage(id="e", contents=(CALL,)), RESULT], reasoning_tokens=2048)
    assert "thinking" in made([HELLO, ExpertMessage(id="e", contents=(THOUGHT, CALL)), RESULT], reasoning_tokens=2048)


def test_thinking_is_replayed_only_with_what_proves_it() -> None:
    """Thinking without a signature is dropped; redacted thinking is sent back unchanged."""
    unsigned = ThinkingPart(id="p", thinking="Hm.")
    redacted = ThinkingPart(id="p", thinking="", signature="redacted_thinking:opaque")
    sent = made([HELLO, ExpertMessage(id="e", contents=(unsigned, redacted, said("Hi")))])
    assert sent["messages"][1]["content"] == [
        {"type": "redacted_thinking", "data": "opaque"},
        {"type": "text", "text": "Hi"},
    ]


def test_tools() -> None:
    """Tools are converted with and without a description."""
    tools = (
        ToolDefinition(name="a", description="Does a.", input_schema={"type": "object"}),
        ToolDefinition(name="b", input_schema={"type": "object"}),
    )
    request = ModelRequest("coach", 0, "m", (HELLO,), tools, 0, 1)
    assert request_body(request)["tools"] == [
        {"name": "a", "description": "Does a.", "input_schema": {"type": "object"}},
        {"name": "b", "input_schema": {"type": "object"}},
    ]
