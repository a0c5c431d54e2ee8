"""What Anthropic's Messages API answers, for `fake_http`."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from tests.support.fake_http import Events, Plain


def stream(events: Sequence[Mapping[str, Any]], then: Literal["end", "cut", "stall"] = "end") -> Events:
    """A stream of the API's events, each under its type."""
    return Events([json.dumps(event) for event in events], then, [str(event["type"]) for event in events])


def error(status: int, kind: str, message: str, **headers: str) -> Plain:
    """An error in the API's own words."""
    body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Plain(status, json.dumps(body), named)


def start(**usage: int) -> dict[str, Any]:
    """The first event of a reply."""
    message: dict[str, Any] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": 1, **usage},
    }
    return {"type": "message_start", "message": message}


def block(index: int, opened: Mapping[str, Any], *deltas: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One content block, with all that comes between its start and its stop."""
    return [
        {"type": "content_block_start", "index": index, "content_block": opened},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def text(index: int, *pieces: str) -> list[dict[str, Any]]:
    """A block of text."""
    return block(index, {"type": "text", "text": ""}, *({"type": "text_delta", "text": piece} for piece in pieces))


def tool_use(index: int, call_id: str, name: str, *pieces: str) -> list[dict[str, Any]]:
    """A block that calls a tool; its input arrives in pieces of JSON."""
    opened = {"type": "tool_use", "id": call_id, "name": name, "input": {}}
    return block(index, opened, *({"type": "input_json_delta", "partial_json": piece} for piece in ("", *pieces)))


def stop(reason: str | None, **usage: Any) -> list[dict[str, Any]]:
    """The end of a reply."""
    return [
        {
            "type": "message_delta",
            "delta": {"stop_reason": reason, "stop_sequence": None},
            "usage": {"output_tokens": 7, **usage},
        },
        {"type": "message_stop"},
    ]
