"""A conversation in the format of the Gemini API."""

from typing import Any

import pytest

from orchestrator.providers import ModelRequest
from orchestrator.providers.google.request import config, contents, signature
from orchestrator.wire.generation import ToolDefinition
from orchestrator.wire.message import (
    ExpertMessage,
    FileInlinePart,
    FileUrlPart,
    ImageBinaryPart,
    ImageInlinePart,
    InstructionMessage,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolMessage,
    ToolResultPart,
    UserMessage,
)


def said(text: str) -> TextPart:
    """Text."""
    return TextPart(id="p", text=text)


def call(call_id: str, name: str) -> ToolCallPart:
    """A tool call."""
    return ToolCallPart(id="p", tool_call_id=call_id, tool_name=name, args={"of": call_id})


def result(call_id: str, name: str, *parts: Any, is_error: bool | None = None) -> ToolResultPart:
    """Its result."""
    return ToolResultPart(id="p", tool_call_id=call_id, tool_name=name, contents=parts, is_error=is_error)


def test_a_whole_conversation() -> None:
    """Results have the tool's name, in order, in one turn with their media; errors are marked."""
    image = ImageInlinePart(id="p", encoded_data="aW1n", mime_type="image/png")
    made = contents(
        [
            InstructionMessage(id="i", contents=(said("Be brief."),)),
            UserMessage(id="u", contents=(said("Hello"), said(" "))),
            ExpertMessage(id="e", contents=(said("Reading."), call("t1", "look"), call("t2", "read"))),
            ToolMessage(
                id="t", contents=(result("t1", "look", image), result("t2", "read", said("none"), is_error=True))
            ),
            UserMessage(id="u", contents=(said("Go ahead."),)),
        ]
    )
    assert made == [
        {"role": "user", "parts": [{"text": "Hello"}]},
        {
            "role": "model",
            "parts": [
                {"text": "Reading."},
                {"function_call": {"name": "look", "args": {"of": "t1"}}},
                {"function_call": {"name": "read", "args": {"of": "t2"}}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {
                    "function_response": {
                        "name": "look",
                        "response": {"output": "[1 of what this tool gave follow below]"},
                    }
                },
                {"inline_data": {"mime_type": "image/png", "data": "aW1n"}},
                {"function_response": {"name": "read", "response": {"error": "none"}}},
                {"text": "Go ahead."},
            ],
        },
    ]


def test_signatures_go_back_where_they_were() -> None:
    """Signatures go back to their thinking, text or call; those of another provider are dropped."""
    thoughts = (
        ThinkingPart(id="p", thinking="Hm.", signature=signature("thinking", b"one")),
        ThinkingPart(id="p", thinking="Unsigned."),
        ThinkingPart(id="p", thinking="", signature=signature("text", b"two")),
        ThinkingPart(id="p", thinking="", signature=signature("call:t:2", b"three")),
        ThinkingPart(id="p", thinking="Foreign.", signature="c2ln"),
        ThinkingPart(id="p", thinking="Broken.", signature="gemini:call:t1:!"),
    )
    made = contents([ExpertMessage(id="e", contents=(*thoughts, said("Yes."), call("t1", "a"), call("t:2", "b")))])
    assert made == [
        {
            "role": "model",
            "parts": [
                {"text": "Hm.", "thought": True, "thought_signature": b"one"},
                {"text": "Yes.", "thought_signature": b"two"},
                {"function_call": {"name": "a", "args": {"of": "t1"}}},
                {"function_call": {"name": "b", "args": {"of": "t:2"}}, "thought_signature": b"three"},
            ],
        }
    ]


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (
            ImageBinaryPart(id="p", data="\xff\x00", mime_type="image/png"),
            {"inline_data": {"mime_type": "image/png", "data": "/wA="}},
        ),
        (
            FileInlinePart(id="p", encoded_data="cGRm", mime_type="application/pdf"),
            {"inline_data": {"mime_type": "application/pdf", "data": "cGRm"}},
        ),
        (FileInlinePart(id="p", encoded_data="YSxi", mime_type="text/csv"), {"text": "a,b"}),
        (
            FileUrlPart(id="p", url="https://a.example/b.pdf", mime_type="application/pdf"),
            {"file_data": {"file_uri": "https://a.example/b.pdf", "mime_type": "application/pdf"}},
        ),
    ],
)
def test_media(part: Any, expected: dict[str, Any]) -> None:
    """Images and PDFs are inline, text is text, URLs are left for the API to fetch."""
    assert contents([UserMessage(id="u", contents=(part,))]) == [{"role": "user", "parts": [expected]}]


@pytest.mark.parametrize(
    ("tokens", "thinking"),
    [(0, {}), (2048, {"thinking_config": {"thinking_budget": 2048, "include_thoughts": True}})],
)
def test_config(tokens: int, thinking: dict[str, Any]) -> None:
    """System prompt, tools, thinking where asked for, the timeout in milliseconds.

    See docs/reference/perstack.md#reasoning.
    """
    instruction = InstructionMessage(id="i", contents=(said("Be brief."), said("")))
    tool = ToolDefinition(name="read", description="Reads.", input_schema={"type": "object"})
    request = ModelRequest("coach", 0, "m", (instruction,), (tool,), tokens, 1.5)
    declared = {"name": "read", "description": "Reads.", "parameters_json_schema": {"type": "object"}}
    assert config(request) == {
        "http_options": {"timeout": 1500},
        "automatic_function_calling": {"disable": True},
        "system_instruction": {"parts": [{"text": "Be brief."}]},
        "tools": [{"function_declarations": [declared]}],
        **thinking,
    }
