"""One call of the model, as a Sandbox asks for it and the broker answers.

Model, provider, reasoning and timeout are not here: the host takes them from the job, never from a container.
"""

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from orchestrator.wire.frozen import Frozen
from orchestrator.wire.message import Message
from orchestrator.wire.usage import Usage

REQUEST_ID = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")
"""The id of a request: the step that it is made in, and its number."""


class ToolDefinition(Frozen):
    """A tool offered to the model; `input_schema` is JSON Schema."""

    name: str
    description: str | None = None
    input_schema: dict[str, Any]


class GenerationRequest(Frozen):
    """What to send to the model.

    `id` is `<step>/<generation>` and the same in every attempt of the Run: the broker answers a repeated id
    from its records. `number` counts the Run's generations from 0.
    """

    id: str
    number: int
    messages: tuple[Message, ...]
    tools: tuple[ToolDefinition, ...] = ()


class FinishReason(StrEnum):
    """Why the model stopped, in one vocabulary for all providers."""

    STOP = "stop"
    TOOL_CALLS = "toolCalls"
    LENGTH = "length"
    CONTENT_FILTER = "contentFilter"
    OTHER = "other"


class Reasoning(Frozen):
    """One block of reasoning; `signature` lets it be replayed to the provider that made it."""

    text: str
    signature: str | None = None


class RequestedCall(Frozen):
    """A tool call as the model wrote it; its arguments parsed strictly."""

    id: str
    name: str
    args: dict[str, Any]


class Reply(Frozen):
    """A whole reply of the model. A stream that broke never becomes one."""

    text: str = ""
    reasoning: tuple[Reasoning, ...] = ()
    tool_calls: tuple[RequestedCall, ...] = ()
    usage: Usage = Usage()
    finish_reason: FinishReason = FinishReason.STOP


class Failure(Frozen):
    """A call of the model that failed. `status_code` is HTTP's; `retry_after_ms` is what the API asked for."""

    name: str
    message: str
    status_code: int | None = None
    is_retryable: bool = False
    retry_after_ms: int | None = None


def calls_made(request_ids: Iterable[str]) -> int:
    """How many model calls a Run made if these ids are some of theirs, the last among them.

    Calls that failed are numbered like the others, and are not in the records.
    """
    found = map(REQUEST_ID.fullmatch, request_ids)
    return max((int(match[2]) + 1 for match in found if match), default=0)
