"""The provider `lines`: a model behind a TCP port that answers one line of JSON with many.

The request is `{"model": …, "messages": […], "tools": […]}`. Each line of the reply has one key: `text`, `reasoning`,
`call`, `error` or `usage`. The line with `usage` is the last.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from orchestrator.errors import ConfigError
from orchestrator.providers import ModelRequest, ModelSize, OnDelta, Provider, ProviderSetting, ProviderSpec
from orchestrator.providers.setting import HttpSetting
from orchestrator.wire.generation import Failure, FinishReason, Reasoning, Reply, RequestedCall
from orchestrator.wire.usage import Usage

_LINE_BYTES = 16 * 1024 * 1024


@dataclass
class _Reply:
    """The lines of a reply so far."""

    text: str = ""
    reasoning: str = ""
    calls: list[RequestedCall] = field(default_factory=list)

    def whole(self, usage: dict[str, int]) -> Reply:
        read, written = usage["input"], usage["output"]
        return Reply(
            text=self.text,
            reasoning=(Reasoning(text=self.reasoning),) if self.reasoning else (),
            tool_calls=tuple(self.calls),
            usage=Usage(input_tokens=read, output_tokens=written, total_tokens=read + written),
            finish_reason=FinishReason.TOOL_CALLS if self.calls else FinishReason.STOP,
        )


class Lines:
    """The model at one address."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port

    async def generate(self, request: ModelRequest, on_delta: OnDelta) -> Reply | Failure:
        """Call the model once."""
        try:
            async with asyncio.timeout(request.timeout):
                reader, writer = await asyncio.open_connection(self._host, self._port, limit=_LINE_BYTES)
                try:
                    writer.write(_body(request))
                    await writer.drain()
                    return await _read(reader, on_delta)
                finally:
                    writer.close()
        except (OSError, ValueError, KeyError, TypeError) as error:
            message = f"the model's API does not answer as expected: {type(error).__name__}"
            return Failure(name="StreamBroken", message=message, is_retryable=True)


def _body(request: ModelRequest) -> bytes:
    body = {
        "model": request.model,
        "messages": [json.loads(message.to_json()) for message in request.messages],
        "tools": [json.loads(tool.to_json()) for tool in request.tools],
    }
    return json.dumps(body).encode() + b"\n"


async def _read(reader: asyncio.StreamReader, on_delta: OnDelta) -> Reply | Failure:
    reply = _Reply()
    while line := await reader.readline():
        ((kind, value),) = json.loads(line).items()
        match kind:
            case "text":
                reply.text += value
                on_delta("text", value)
            case "reasoning":
                reply.reasoning += value
                on_delta("reasoning", value)
            case "call":
                reply.calls.append(RequestedCall(id=value["id"], name=value["name"], args=value["args"]))
            case "error":
                return _failure(value)
            case "usage":
                return reply.whole(value)
    return Failure(name="StreamBroken", message="the model's reply ended before it was complete", is_retryable=True)


def _failure(error: dict[str, Any]) -> Failure:
    return Failure(
        name=error["name"],
        message=error["message"],
        status_code=error["status"],
        is_retryable=error["retryable"],
    )


@asynccontextmanager
async def connect(setting: ProviderSetting) -> AsyncIterator[Provider]:
    """Give the model at `baseUrl`.

    Raises:
        ConfigError: the setting has no address with a port.
    """
    url = urlsplit(str(setting.setting.get("baseUrl") or ""))
    if url.hostname is None or url.port is None:
        message = "provider 'lines' needs provider.setting.baseUrl with a port, such as http://127.0.0.1:8080"
        raise ConfigError(message)
    yield Lines(url.hostname, url.port)


SPEC = ProviderSpec(
    name="lines",
    connect=connect,
    settings=HttpSetting,
    models={"short": ModelSize(window=8_000, output=1_000)},
)
