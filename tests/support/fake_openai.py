"""The Chat Completions API's words: chunks of a reply, and errors."""

import json
from collections.abc import Mapping
from typing import Any

from tests.support.fake_http import Plain

DONE = "[DONE]"
USAGE = {
    "prompt_tokens": 110,
    "completion_tokens": 7,
    "total_tokens": 117,
    "prompt_tokens_details": {"cached_tokens": 100},
    "completion_tokens_details": {"reasoning_tokens": 3},
}


def chunk(finish: str | None = None, **delta: Any) -> str:
    """One piece of a reply."""
    return _chunk([{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}], None)


def call(index: int, arguments: str, call_id: str | None = None, name: str | None = None) -> str:
    """A piece of a tool call; its id and name come with the first."""
    piece: dict[str, Any] = {"index": index, "function": {"arguments": arguments}}
    if call_id is not None:
        piece |= {"id": call_id, "type": "function"}
    if name is not None:
        piece["function"]["name"] = name
    return chunk(tool_calls=[piece])


def usage(**changes: Any) -> str:
    """The last chunk of a reply, which counts the tokens."""
    return _chunk([], USAGE | changes)


def stop(reason: str) -> tuple[str, str, str]:
    """The end of a reply."""
    return chunk(reason), usage(), DONE


def error_event(message: str, **more: Any) -> str:
    """An error amid a stream."""
    return json.dumps({"error": {"message": message, "type": "server_error", "code": None, **more}})


def error(status: int, kind: str, message: str, headers: Mapping[str, str] | None = None) -> Plain:
    """A refusal."""
    body = {"error": {"message": message, "type": kind, "param": None, "code": kind}}
    return Plain(status, json.dumps(body), headers or {})


def _chunk(choices: list[dict[str, Any]], usage: Mapping[str, Any] | None) -> str:
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return json.dumps(head | {"choices": choices, "usage": usage})
