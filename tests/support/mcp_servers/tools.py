"""A well-behaved MCP server, save for tools that die, never answer, or answer too much.

It needs no package and no other file, so that it runs in any image. Programs next to it may use its `serve`.
"""

import base64
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Tool = Callable[..., Any]
SILENT = object()
"""What a tool returns that never answers."""
_TYPES = {int: "integer", str: "string"}
_INVALID, _UNKNOWN = -32602, -32601


def _schema(tool: Tool) -> dict[str, Any]:
    kinds = {name: kind for name, kind in tool.__annotations__.items() if name != "return"}
    properties = {name: {"type": _TYPES[kind]} for name, kind in kinds.items()}
    return {"type": "object", "properties": properties, "required": list(kinds)}


def _described(name: str, tool: Tool) -> dict[str, Any]:
    described = {"name": name, "description": tool.__doc__, "inputSchema": _schema(tool)}
    if tool.__annotations__.get("return") is int:
        result = {"type": "object", "properties": {"result": {"type": "integer"}}, "required": ["result"]}
        described["outputSchema"] = result
    return described


def _called(name: str, tool: Tool, args: Mapping[str, Any]) -> object:
    try:
        found = tool(**{key: kind(args[key]) for key, kind in tool.__annotations__.items() if key != "return"})
    except Exception:  # noqa: BLE001 - what a tool raises is its answer
        return {"content": [{"type": "text", "text": f"Error executing tool {name}"}], "isError": True}
    if isinstance(found, list) or found is SILENT:
        return found if found is SILENT else {"content": found}
    structure = {"structuredContent": {"result": found}} if isinstance(found, int) else {}
    return {"content": [{"type": "text", "text": str(found)}], **structure}


def _result(request: Mapping[str, Any], info: Mapping[str, str], tools: Mapping[str, Tool]) -> object:
    params = request.get("params", {})
    match request["method"]:
        case "initialize":
            version = params["protocolVersion"]
            return {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": dict(info)}
        case "tools/list":
            return {"tools": [_described(name, tool) for name, tool in tools.items()]}
        case "tools/call" if params["name"] in tools:
            return _called(params["name"], tools[params["name"]], params["arguments"])
        case "tools/call":
            return {"code": _INVALID, "message": "no such tool"}
        case _:
            return {"code": _UNKNOWN, "message": "Method not found"}


def serve(name: str, version: str, **tools: Tool) -> None:
    """Answer requests, one a line, until stdin ends. A tool returns a text, a number, or a list of content."""
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if "id" not in request or "method" not in request:
            continue
        found = _result(request, {"name": name, "version": version}, tools)
        if found is SILENT:
            continue
        kind = "error" if isinstance(found, dict) and "code" in found else "result"
        reply = {"jsonrpc": "2.0", "id": request["id"], kind: found}
        sys.stdout.buffer.write(json.dumps(reply, separators=(",", ":")).encode() + b"\n")
        sys.stdout.buffer.flush()


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def environ() -> str:
    """Show the environment, the working directory last."""
    return "\n".join([*sorted(f"{name}={value}" for name, value in os.environ.items()), str(Path.cwd())])


def read(path: str) -> str:
    """Read a file."""
    return Path(path).read_text(encoding="utf-8", errors="replace")


def fail() -> str:
    """Fail."""
    message = "it was not to be"
    raise RuntimeError(message)


def mixed() -> list[dict[str, Any]]:
    """Return one of everything."""
    data = base64.b64encode(b"data").decode()
    return [
        {"type": "text", "text": "text"},
        {"type": "text", "text": ""},
        {"type": "image", "data": data, "mimeType": "image/png"},
        {"type": "image", "data": "", "mimeType": "image/png"},
        {"type": "resource", "resource": {"uri": "a://b", "text": "resource"}},
        {"type": "resource", "resource": {"uri": "a://c", "blob": data, "mimeType": "application/pdf"}},
        {"type": "resource", "resource": {"uri": "a://d", "blob": data}},
        {"type": "audio", "data": data, "mimeType": "audio/wav"},
        {"type": "resource_link", "uri": "a://e", "name": "e"},
    ]


def read_image_file(path: str) -> str:
    """Answer as Perstack's own tool of this name does, for any path."""
    return json.dumps({"path": path, "mimeType": "image/png", "size": 1})


def nothing() -> list[dict[str, Any]]:
    """Return nothing."""
    return []


def die() -> str:
    """Die without an answer."""
    sys.stderr.write("something broke\n")
    sys.stderr.flush()
    os._exit(7)


def wait() -> object:
    """Never answer."""
    return SILENT


def chatter(lines: int) -> str:
    """Write much to stderr."""
    for number in range(lines):
        sys.stderr.write(f"{number} " + "x" * 5000 + "\n")
    sys.stderr.flush()
    return "done"


def flood(size: int) -> str:
    """Answer with `size` characters."""
    return "x" * size


if __name__ == "__main__":
    _all = (add, environ, read, fail, mixed, nothing, die, wait, chatter, flood)
    serve("tools", "1.2.3", **{tool.__name__: tool for tool in _all}, readImageFile=read_image_file)
