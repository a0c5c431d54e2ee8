"""A conversation in the format of the Gemini API."""

from typing import Any

import pytest

from orchestrator.providers import ModelRequest
from orchestrator.providers.google.request import contents, request_body, signature
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
                {"functionCall": {"name": "look", "args": {"of": "t1"}}},
                {"functionCall": {"name": "read", "args": {"of": "t2"}}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {
                    "functionResponse": {
                        "name": "look",
                        "response": {"output": "[1 of what this tool gave follow below]"},
                    }
                },
                {"inlineData": {"mimeType": "image/png", "data": "aW1n"}},
                {"functionResponse": {"name": "read", "response": {"error": "none"}}},
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
                {"text": "Hm.", "thought": True, "thoughtSignature": "b25l"},
                {"text": "Yes.", "thoughtSignature": "dHdv"},
                {"functionCall": {"name": "a", "args": {"of": "t1"}}},
                {"functionCall": {"name": "b", "args": {"of": "t:2"}}, "thoughtSignature": "dGhyZWU="},
            ],
        }
    ]


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (
            ImageBinaryPart(id="p", data="\xff\x00", mime_type="image/png"),
            {"inlineData": {"mimeType": "image/png", "data": "_wA="}},
        ),
        (
            FileInlinePart(id="p", encoded_data="cGRm", mime_type="application/pdf"),
            {"inlineData": {"mimeType": "application/pdf", "data": "cGRm"}},
        ),
        (FileInlinePart(id="p", encoded_data="YSxi", mime_type="text/csv"), {"text": "a,b"}),
        (
            FileUrlPart(id="p", url="https://a.example/b.pdf", mime_type="application/pdf"),
            {"fileData": {"fileUri": "https://a.example/b.pdf", "mimeType": "application/pdf"}},
        ),
    ],
)
def test_media(part: Any, expected: dict[str, Any]) -> None:
    """Images and PDFs are inline, text is text, URLs are left for the API to fetch."""
    assert contents([UserMessage(id="u", contents=(part,))]) == [{"role": "user", "parts": [expected]}]


@pytest.mark.parametrize(
    ("tokens", "thinking"),
    [(0, {}), (2048, {"generationConfig": {"thinkingConfig": {"thinkingBudget": 2048, "includeThoughts": True}}})],
)
def test_a_whole_request(tokens: int, thinking: dict[str, Any]) -> None:
    """System prompt, tools, and thinking where it was asked for (docs/reference/perstack.md#reasoning)."""
    instruction = InstructionMessage(id="i", contents=(said("Be brief."), said("")))
    tool = ToolDefinition(name="read", description="Reads.", input_schema={"type": "object"})
    request = ModelRequest("coach", 0, "m", (instruction,), (tool,), tokens, 1.5)
    declared = {"name": "read", "description": "Reads.", "parametersJsonSchema": {"type": "object"}}
    assert request_body(request) == {
        "contents": [],
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "tools": [{"functionDeclarations": [declared]}],
        **thinking,
    }


@pytest.mark.parametrize("encoded", ["//79/A==", "__79_A==", "__79_A"])
def test_each_form_of_base64_is_sent_in_one(encoded: str) -> None:
    """Both alphabets, with or without padding."""
    image = ImageInlinePart(id="p", encoded_data=encoded, mime_type="image/png")
    assert contents([UserMessage(id="u", contents=(image,))])[0]["parts"][0]["inlineData"]["data"] == "__79_A=="


@pytest.mark.parametrize("encoded", ["!", "a", "YQ==\n", "ä"])
def test_what_is_not_base64_is_an_error(encoded: str) -> None:
    """The API would refuse the whole conversation."""
    image = ImageInlinePart(id="p", encoded_data=encoded, mime_type="image/png")
    with pytest.raises(ValueError, match=r"base64|ascii|padding|padded|ASCII"):
        contents([UserMessage(id="u", contents=(image,))])
