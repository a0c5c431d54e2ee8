"""One model call: the request of a Sandbox and the reply of the broker.

Model, provider, reasoning and timeout are not included: the host takes them from the job, never from a container.
"""

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from orchestrator.wire.frozen import Frozen
from orchestrator.wire.message import Message
from orchestrator.wire.usage import Usage

REQUEST_ID = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")
"""The id of a request: `<step>/<generation>`. Generations count from 0 within the Run, as `number` does."""


class ToolDefinition(Frozen):
    """A tool offered to the model; `input_schema` is JSON Schema."""

    name: str
    description: str | None = None
    input_schema: dict[str, Any]


class GenerationRequest(Frozen):
    """The input of one model call.

    `id` is `<step>/<generation>` and the same in every attempt of the Run: the broker answers a repeated id from its
    records. `number` counts the Run's generations from 0.
    """

    id: str
    number: int
    messages: tuple[Message, ...]
    tools: tuple[ToolDefinition, ...] = ()


class FinishReason(StrEnum):
    """Why the model stopped; the same values for all providers."""

    STOP = "stop"
    TOOL_CALLS = "toolCalls"
    LENGTH = "length"
    CONTENT_FILTER = "contentFilter"
    OTHER = "other"


class Reasoning(Frozen):
    """One block of reasoning; `signature` allows sending it back to the provider that made it."""

    text: str
    signature: str | None = None


class RequestedCall(Frozen):
    """A tool call as the model wrote it, with strictly parsed arguments."""

    id: str
    name: str
    args: dict[str, Any]


class Reply(Frozen):
    """A complete reply of the model. A broken stream never becomes a Reply."""

    text: str = ""
    reasoning: tuple[Reasoning, ...] = ()
    tool_calls: tuple[RequestedCall, ...] = ()
    usage: Usage = Usage()
    finish_reason: FinishReason = FinishReason.STOP


class Failure(Frozen):
    """A failed model call.

    `status_code` is the HTTP status; `retry_after_ms` is the delay in milliseconds that the API requested.
    """

    name: str
    message: str
    status_code: int | None = None
    is_retryable: bool = False
    retry_after_ms: int | None = None


def calls_made(request_ids: Iterable[str]) -> int:
    """Return how many model calls a Run has made. `request_ids` may be incomplete, but must include the last one.

    Failed calls are numbered as well, but are not in the records.
    """
    found = map(REQUEST_ID.fullmatch, request_ids)
    return max((int(match[2]) + 1 for match in found if match), default=0)
