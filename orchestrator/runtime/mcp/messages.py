"""JSON-RPC messages: reading what a server sent, and writing requests.

As MCP's SDK does, this refuses batches, accepts numbers that are no JSON (`NaN`), and keeps the last of equal keys.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from orchestrator.runtime.mcp.protocol import ViolationError
from orchestrator.runtime.mcp.shapes import integer

RequestId = int | str

_LEVELS = 201
"""As many as the parser of MCP's SDK accepts."""
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


@dataclass(frozen=True, slots=True)
class Request:
    """A request, of either side."""

    id: RequestId
    method: str
    params: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Notification:
    """A message without a reply, of either side."""

    method: str
    params: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """The result of a request."""

    id: RequestId
    result: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Failure:
    """The error of a request; the last three are those of `McpError`. Without an id it belongs to none."""

    id: RequestId | None
    code: int
    message: str
    data: Any = None
    problem: str | None = None
    status: int | None = None
    is_remote: bool = field(default=False, compare=False)


Message = Request | Notification | Response | Failure


def encode(message: Message) -> bytes:
    """One message as JSON, without a line break.

    Raises:
        ValueError: it contains half a surrogate pair, or a number that is not finite.
    """
    fields: dict[str, Any] = {"jsonrpc": "2.0"}
    if not isinstance(message, Notification):
        fields["id"] = message.id
    match message:
        case Request(method=method, params=params) | Notification(method=method, params=params):
            fields["method"] = method
            if params is not None:
                fields["params"] = params
        case Response(result=result):
            fields["result"] = result
        case Failure(code=code, message=text, data=data):
            fields["error"] = {"code": code, "message": text} | ({} if data is None else {"data": data})
    return json.dumps(fields, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def decode(content: bytes) -> Message:
    """Parse one message.

    Raises:
        ViolationError: it is not a message of JSON-RPC 2.0.
    """
    try:
        fields = json.loads(content.decode())
        if _SURROGATE.search(content):
            json.dumps(fields, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        message = f"the message is not JSON: {error}"
        raise ViolationError(message) from error
    if content.count(b"[") + content.count(b"{") > _LEVELS and _is_deep(fields):
        message = f"the message has more than {_LEVELS} levels"
        raise ViolationError(message)
    if not isinstance(fields, dict) or fields.get("jsonrpc") != "2.0":
        message = "the message is not an object of JSON-RPC 2.0"
        raise ViolationError(message)
    found = _error(fields) or _call(fields) or _result(fields)
    if found is None:
        message = "the message is neither a request nor a notification, result or error"
        raise ViolationError(message)
    return found


def same_id(value: object) -> RequestId | None:
    """The id of a reply as this client numbered its request; some servers return numbers as text."""
    if not _is_id(value):
        return None
    try:
        return int(value)
    except ValueError:
        return value


def _is_id(value: object) -> TypeGuard[RequestId]:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _error(fields: dict[str, Any]) -> Failure | None:
    number, error = fields.get("id", ...), fields.get("error")
    if not isinstance(error, dict) or not (number is None or _is_id(number)):
        return None
    try:
        code = integer(error.get("code"), "code")
    except ViolationError:
        return None
    text = error.get("message")
    return Failure(number, code, text, error.get("data"), is_remote=True) if isinstance(text, str) else None


def _call(fields: dict[str, Any]) -> Request | Notification | None:
    method, params, number = fields.get("method"), fields.get("params"), fields.get("id")
    if not isinstance(method, str) or not isinstance(params, dict | None):
        return None
    return Request(number, method, params) if _is_id(number) else Notification(method, params)


def _result(fields: dict[str, Any]) -> Response | None:
    number, result = fields.get("id"), fields.get("result")
    return Response(number, result) if _is_id(number) and isinstance(result, dict) else None


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_LEVELS):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True
