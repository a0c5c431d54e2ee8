"""The Gemini API's words: chunks of a reply, and errors."""

import json
from collections.abc import Mapping
from typing import Any

from tests.support.fake_http import Plain

USAGE = {
    "promptTokenCount": 110,
    "candidatesTokenCount": 4,
    "thoughtsTokenCount": 3,
    "cachedContentTokenCount": 100,
    "totalTokenCount": 117,
}


def chunk(*parts: Mapping[str, Any], **more: Any) -> str:
    """One piece of a reply."""
    candidate = {"content": {"role": "model", "parts": list(parts)}, "index": 0, **more}
    return json.dumps({"candidates": [candidate], "modelVersion": "m"})


def stop(reason: str, **more: Any) -> tuple[str]:
    """The last chunk of a reply, which counts the tokens."""
    candidate = {"content": {"role": "model", "parts": [{"text": ""}]}, "finishReason": reason, "index": 0, **more}
    return (json.dumps({"candidates": [candidate], "usageMetadata": USAGE}),)


def text(piece: str) -> dict[str, Any]:
    """A part of text."""
    return {"text": piece}


def thought(piece: str) -> dict[str, Any]:
    """A part of reasoning."""
    return {"text": piece, "thought": True}


def call(name: str, args: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A part that calls a tool; no id."""
    return {"functionCall": {"name": name, "args": args}, **more}


def error_event(code: int, status: str, message: str) -> str:
    """An error amid a stream."""
    return json.dumps({"error": {"code": code, "status": status, "message": message}})


def error(code: int, status: str, message: str, *details: Any, headers: Mapping[str, str] | None = None) -> Plain:
    """A refusal."""
    told = {"code": code, "status": status, "message": message, "details": list(details)}
    return Plain(code, json.dumps({"error": told}), headers or {})
