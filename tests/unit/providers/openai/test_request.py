"""A conversation in the format of the Chat Completions API."""

from collections.abc import Sequence
from typing import Any

import pytest

from orchestrator.providers import ModelRequest
from orchestrator.providers.openai.provider import reasoning_effort
from orchestrator.providers.openai.request import Dialect, request_body
from orchestrator.wire.generation import ToolDefinition
from orchestrator.wire.message import (
    ExpertMessage,
    FileBinaryPart,
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

PLAIN = Dialect(None)
REPLAYING = Dialect(None, replays_reasoning=True)
CALL = ToolCallPart(id="p", tool_call_id="t1", tool_name="read", args={"path": "ä"})
CALLED = {"id": "t1", "type": "function", "function": {"name": "read", "arguments": '{"path": "ä"}'}}
THOUGHT = ThinkingPart(id="p", thinking="Hm.", signature="sig")


def asked(messages: Sequence[Message] = (), model: str = "m", reasoning_tokens: int = 0) -> ModelRequest:
    """A request for a conversation."""
    return ModelRequest(
        expert_key="coach",
        generation=0,
        model=model,
        messages=tuple(messages),
        tools=(),
        reasoning_tokens=reasoning_tokens,
        timeout=1,
    )


def turns(*messages: Message, dialect: Dialect = PLAIN) -> list[dict[str, Any]]:
    """The turns of a conversation."""
    made: list[dict[str, Any]] = request_body(asked(messages), dialect)["messages"]
    return made


def said(text: str) -> TextPart:
    """Text."""
    return TextPart(id="p", text=text)


def test_a_whole_conversation() -> None:
    """System prompt, question, a call without text, its result and the answer are converted; blank text is dropped."""
    made = turns(
        InstructionMessage(id="i", contents=(said("Be brief."), said("Be kind.")), cache=True),
        UserMessage(id="u", contents=(said("Hello"), said(" "))),
        ExpertMessage(id="e", contents=(THOUGHT, CALL)),
        ToolMessage(
            id="t",
            contents=(
                ToolResultPart(id="p", tool_call_id="t1", tool_name="read", contents=(said("one"), said("two"))),
            ),
        ),
        ExpertMessage(id="e", contents=(said("Done."),)),
        ExpertMessage(id="e", contents=(THOUGHT,)),
    )
    assert made == [
        {"role": "system", "content": "Be brief.\n\nBe kind."},
        {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
        {"role": "assistant", "content": None, "tool_calls": [CALLED]},
        {"role": "tool", "tool_call_id": "t1", "content": "one\ntwo"},
        {"role": "assistant", "content": "Done."},
    ]


def test_reasoning_goes_back_with_tool_calls_only() -> None:
    """DeepSeek rejects a call in the conversation without its reasoning, even an empty one."""
    made = turns(
        ExpertMessage(id="e", contents=(THOUGHT, said("Reading."), CALL)),
        ExpertMessage(id="e", contents=(CALL,)),
        ExpertMessage(id="e", contents=(THOUGHT, said("Done."))),
        dialect=REPLAYING,
    )
    assert made == [
        {"role": "assistant", "content": "Reading.", "tool_calls": [CALLED], "reasoning_content": "Hm."},
        {"role": "assistant", "content": None, "tool_calls": [CALLED], "reasoning_content": ""},
        {"role": "assistant", "content": "Done."},
    ]


def test_images_of_a_tool_follow_all_results() -> None:
    """A result contains only text, and nothing may stand between the results of one turn."""
    image = ImageInlinePart(id="p", encoded_data="aW1n", mime_type="image/png")
    first = ToolResultPart(id="p", tool_call_id="t1", tool_name="look", contents=(image,))
    second = ToolResultPart(id="p", tool_call_id="t2", tool_name="read", contents=(said("text"),))
    assert turns(ToolMessage(id="t", contents=(first, second))) == [
        {"role": "tool", "tool_call_id": "t1", "content": "[1 of what this tool gave follow below]"},
        {"role": "tool", "tool_call_id": "t2", "content": "text"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "[given by tool look for call t1:]"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,aW1n"}},
            ],
        },
    ]


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (
            ImageUrlPart(id="p", url="https://a.example/b.png", mime_type="image/png"),
            {"type": "image_url", "image_url": {"url": "https://a.example/b.png"}},
        ),
        (
            ImageBinaryPart(id="p", data="\xff\x00", mime_type="image/png"),
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,/wA="}},
        ),
        (
            FileInlinePart(id="p", encoded_data="cGRm", mime_type="application/pdf"),
            {"type": "file", "file": {"filename": "file.pdf", "file_data": "data:application/pdf;base64,cGRm"}},
        ),
        (
            FileBinaryPart(id="p", data="a,b", mime_type="text/csv"),
            {"type": "text", "text": "a,b"},
        ),
        (
            FileInlinePart(id="p", encoded_data="!", mime_type="text/csv"),
            {"type": "text", "text": "[a file of type text/csv that is not valid text]"},
        ),
        (
            FileInlinePart(id="p", encoded_data="eg==", mime_type="application/zip"),
            {"type": "text", "text": "[a file of type application/zip, which this model does not read]"},
        ),
        (
            FileUrlPart(id="p", url="https://a.example/b.pdf", mime_type="application/pdf"),
            {"type": "text", "text": "[a file of type application/pdf at https://a.example/b.pdf]"},
        ),
    ],
)
def test_media(part: Any, expected: dict[str, Any]) -> None:
    """Images and PDFs are data, text is text, other files are a sentence."""
    assert turns(UserMessage(id="u", contents=(part,))) == [{"role": "user", "content": [expected]}]


def test_tools_and_usage_are_asked_for() -> None:
    """Tools have their schemas, the stream ends with its usage, and no other option is sent."""
    tool = ToolDefinition(name="read", input_schema={"type": "object"})
    request = ModelRequest("coach", 0, "m", (), (tool,), 0, 1)
    assert request_body(request, Dialect(None, reasoning_effort)) == {
        "model": "m",
        "messages": [],
        "stream": True,
        "stream_options": {"include_usage": True},
        "tools": [{"type": "function", "function": {"name": "read", "parameters": {"type": "object"}}}],
    }


@pytest.mark.parametrize(
    ("model", "tokens", "effort"),
    [
        ("gpt-5", 0, None),
        ("gpt-5", 1024, "low"),
        ("gpt-5", 2048, "low"),
        ("gpt-5-mini", 2049, "medium"),
        ("o4-mini", 5000, "medium"),
        ("o3", 5001, "high"),
        ("openai/gpt-5.1", 10_000, "high"),
        ("gpt-4.1", 10_000, None),
        ("gpt-5-chat-latest", 10_000, None),
        ("meta/llama-4", 10_000, None),
    ],
)
def test_reasoning_effort(model: str, tokens: int, effort: str | None) -> None:
    """The budget as an effort, for models that reason; others would refuse the call.

    See docs/reference/perstack.md#reasoning.
    """
    assert reasoning_effort(asked(model=model, reasoning_tokens=tokens)) == (
        {"reasoning_effort": effort} if effort else {}
    )
