"""What servers return: tools, content of calls, and how they introduce themselves.

A result with one wrong field is refused as a whole, also in fields that nothing here reads. That is what MCP's SDK
does, and a server's author sees the mistake.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.runtime.mcp.protocol import META_SERVER, STATELESS_VERSIONS, ViolationError
from orchestrator.runtime.mcp.shapes import (
    Check,
    anything,
    boolean,
    constant,
    fields,
    fraction,
    integer,
    listed,
    mapped,
    mapping,
    milliseconds,
    optional,
    text,
)


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """The name and version that a server states of itself."""

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class Introduction:
    """The reply to `initialize`, or to `server/discover`; `versions` are the one agreed on, or all that it offers."""

    versions: tuple[str, ...]
    server: ServerInfo | None


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool of a server; both schemas are JSON Schemas."""

    name: str
    description: str | None
    input_schema: dict[str, Any]
    output_schema: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ToolPage:
    """One page of a server's tools; `next_cursor` is None on the last."""

    tools: tuple[Tool, ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class TextContent:
    """Text."""

    text: str


@dataclass(frozen=True, slots=True)
class ImageContent:
    """An image, in base64."""

    data: str
    mime_type: str


@dataclass(frozen=True, slots=True)
class AudioContent:
    """Sound; its data is dropped, since no model is shown it."""

    mime_type: str


@dataclass(frozen=True, slots=True)
class ResourceLink:
    """The address of a resource."""

    uri: str


@dataclass(frozen=True, slots=True)
class TextResource:
    """A resource that is text."""

    uri: str
    text: str


@dataclass(frozen=True, slots=True)
class BlobResource:
    """A resource that is bytes, in base64."""

    uri: str
    blob: str
    mime_type: str | None


Content = TextContent | ImageContent | AudioContent | ResourceLink | TextResource | BlobResource


@dataclass(frozen=True, slots=True)
class CallResult:
    """What a tool returned; `has_structure` is whether it has `structure`, which may be null."""

    content: tuple[Content, ...]
    is_error: bool = False
    has_structure: bool = False
    structure: Any = None


@dataclass(frozen=True, slots=True)
class InputRequired:
    """A tool needs input of these kinds, by method, before it can answer; `state` goes back with the next request."""

    methods: tuple[str, ...]
    state: str | None


_META = {"_meta": optional(mapping)}
_ICONS = optional(
    listed(
        fields(
            {"src": text},
            {
                "mimeType": optional(text),
                "sizes": optional(listed(text)),
                "theme": optional(constant("dark", "light")),
            },
        )
    )
)
_IMPLEMENTATION = fields(
    {"name": text, "version": text},
    {"title": optional(text), "description": optional(text), "websiteUrl": optional(text), "icons": _ICONS},
)
_FLAG = optional(boolean)
_OBJECT = optional(mapping)
_LIST_CHANGED = {"listChanged": _FLAG}
_TASK_CALLS = optional(fields({}, {"tools": optional(fields({}, {"call": _OBJECT}))}))
_CAPABILITIES = fields(
    {},
    {
        "completions": _OBJECT,
        "experimental": optional(mapped(mapping)),
        "extensions": optional(mapped(mapping)),
        "logging": _OBJECT,
        "prompts": optional(fields({}, _LIST_CHANGED)),
        "resources": optional(fields({}, {**_LIST_CHANGED, "subscribe": _FLAG})),
        "tasks": optional(fields({}, {"cancel": _OBJECT, "list": _OBJECT, "requests": _TASK_CALLS})),
        "tools": optional(fields({}, _LIST_CHANGED)),
    },
)
_INITIALIZED = fields(
    {"protocolVersion": text, "capabilities": _CAPABILITIES, "serverInfo": _IMPLEMENTATION},
    {**_META, "instructions": optional(text)},
)
_DISCOVERED = fields(
    {"supportedVersions": listed(text), "capabilities": _CAPABILITIES},
    {
        **_META,
        "instructions": optional(text),
        "ttlMs": milliseconds,
        "cacheScope": constant("private", "public"),
        "resultType": text,
    },
)

_HINTS = fields(
    {},
    {
        "title": optional(text),
        "readOnlyHint": _FLAG,
        "destructiveHint": _FLAG,
        "idempotentHint": _FLAG,
        "openWorldHint": _FLAG,
    },
)


def _schema(*, is_object: bool, is_open: bool) -> Check:
    """A JSON Schema of a tool: before 2026-07-28, properties and what is required were checked too."""
    required: dict[str, Check] = {"type": constant("object")} if is_object else {}
    others: dict[str, Check] = {"$schema": optional(text)}
    if not is_open:
        others |= {"properties": optional(mapped(_property)), "required": optional(listed(text))}
    known = fields(required, others)

    def check(value: Any, path: str) -> dict[str, Any]:
        known(value, path)
        return mapping(value, path)

    return check


def _property(value: Any, path: str) -> Any:
    return value if isinstance(value, dict) else boolean(value, path)


def _tool(input_schema: Check, output_schema: Check) -> Check:
    return fields(
        {"name": text, "inputSchema": input_schema},
        {
            **_META,
            "title": optional(text),
            "description": optional(text),
            "annotations": optional(_HINTS),
            "execution": optional(
                fields({}, {"taskSupport": optional(constant("forbidden", "optional", "required"))}),
            ),
            "icons": _ICONS,
            "outputSchema": optional(output_schema),
        },
    )


_STATELESS_PAGE = {"resultType": text, "cacheScope": constant("private", "public"), "ttlMs": milliseconds}
_TOOLS = listed(_tool(_schema(is_object=True, is_open=False), _schema(is_object=True, is_open=False)))
_STATELESS_TOOLS = listed(_tool(_schema(is_object=True, is_open=True), _schema(is_object=False, is_open=True)))
_PAGE_OTHERS = {**_META, "nextCursor": optional(text)}
_PAGE = fields({"tools": _TOOLS}, _PAGE_OTHERS)
_STATELESS = fields({"tools": _STATELESS_TOOLS, **_STATELESS_PAGE}, _PAGE_OTHERS)

_ANNOTATIONS = {
    **_META,
    "annotations": optional(
        fields(
            {},
            {
                "audience": optional(listed(constant("assistant", "user"))),
                "lastModified": optional(text),
                "priority": optional(fraction),
            },
        )
    ),
}
_MIME = {"mimeType": optional(text)}
_DATA = fields({"data": text, "mimeType": text}, _ANNOTATIONS)
_TEXT_RESOURCE = fields({"uri": text, "text": text}, {**_META, **_MIME})
_BLOB_RESOURCE = fields({"uri": text, "blob": text}, {**_META, **_MIME})


def _resource(value: Any, path: str) -> TextResource | BlobResource:
    members = mapping(value, path)
    if isinstance(members.get("text"), str) or "blob" not in members:
        found = _TEXT_RESOURCE(members, path)
        return TextResource(found["uri"], found["text"])
    found = _BLOB_RESOURCE(members, path)
    return BlobResource(found["uri"], found["blob"], found.get("mimeType"))


_LINK = fields(
    {"uri": text, "name": text},
    {
        **_ANNOTATIONS,
        **_MIME,
        "title": optional(text),
        "description": optional(text),
        "icons": _ICONS,
        "size": optional(integer),
    },
)
_KINDS: Mapping[str, tuple[Check, Callable[[Mapping[str, Any]], Content]]] = {
    "text": (fields({"text": text}, _ANNOTATIONS), lambda found: TextContent(found["text"])),
    "image": (_DATA, lambda found: ImageContent(found["data"], found["mimeType"])),
    "audio": (_DATA, lambda found: AudioContent(found["mimeType"])),
    "resource_link": (_LINK, lambda found: ResourceLink(found["uri"])),
    "resource": (fields({"resource": _resource}, _ANNOTATIONS), lambda found: found["resource"]),
}
_KIND = constant(*_KINDS)


def _content(value: Any, path: str) -> Content:
    members = mapping(value, path)
    check, make = _KINDS[_KIND(members.get("type"), f"{path}.type")]
    return make(check(members, path))


_ANSWER = {"content": listed(_content)}
_ANSWER_OTHERS = {**_META, "isError": boolean}
_CALLED = fields(_ANSWER, {**_ANSWER_OTHERS, "structuredContent": optional(mapping)})
_STATELESS_CALLED = fields({**_ANSWER, "resultType": text}, {**_ANSWER_OTHERS, "structuredContent": anything})
_REQUESTED = fields(
    {"method": constant("sampling/createMessage", "elicitation/create", "roots/list")}, {"params": optional(mapping)}
)
_INPUT = fields(
    {"resultType": constant("input_required")},
    {**_META, "inputRequests": optional(mapped(_REQUESTED)), "requestState": optional(text)},
)
_UNSUPPORTED = fields({"supported": listed(text), "requested": text}, {})


def introduction(result: Mapping[str, Any]) -> Introduction:
    """Check the result of `initialize`.

    Raises:
        ViolationError: a field is missing or of a wrong type.
    """
    found = _INITIALIZED(result, "")
    return Introduction((found["protocolVersion"],), _server(found["serverInfo"]))


def discovery(result: Mapping[str, Any]) -> Introduction:
    """Check the result of `server/discover`, in which the server's name is optional and may be malformed.

    Raises:
        ViolationError: a field is missing or of a wrong type.
    """
    found = _DISCOVERED(_with_valid_age(result), "")
    try:
        server = _server(_IMPLEMENTATION((found.get("_meta") or {}).get(META_SERVER), META_SERVER))
    except ViolationError:
        server = None
    return Introduction(tuple(found["supportedVersions"]), server)


def tool_page(result: Mapping[str, Any], version: str) -> ToolPage:
    """Check one page of `tools/list` under a version of the protocol.

    Raises:
        ViolationError: a field is missing or of a wrong type.
    """
    check = _STATELESS if version in STATELESS_VERSIONS else _PAGE
    found = check(_with_valid_age(result), "")
    tools = tuple(
        Tool(tool["name"], tool.get("description"), tool["inputSchema"], tool.get("outputSchema"))
        for tool in found["tools"]
    )
    return ToolPage(tools, found.get("nextCursor"))


def call_result(result: Mapping[str, Any], version: str) -> CallResult | InputRequired:
    """Check the result of `tools/call` under a version of the protocol.

    Raises:
        ViolationError: a field is missing or of a wrong type.
    """
    is_stateless = version in STATELESS_VERSIONS
    if is_stateless and "content" not in result and result.get("resultType") == "input_required":
        asked = _INPUT(result, "")
        requests, state = asked.get("inputRequests") or {}, asked.get("requestState")
        if not requests and state is None:
            message = "an input_required result needs inputRequests or requestState"
            raise ViolationError(message)
        return InputRequired(tuple(request["method"] for request in requests.values()), state)
    found = (_STATELESS_CALLED if is_stateless else _CALLED)(result, "")
    return CallResult(
        tuple(found["content"]),
        found.get("isError", False),
        "structuredContent" in found,
        found.get("structuredContent"),
    )


def supported_versions(data: Any) -> tuple[str, ...] | None:
    """The versions that an error for an unsupported version names; None if it names none."""
    try:
        return tuple(_UNSUPPORTED(data, "")["supported"])
    except ViolationError:
        return None


def _server(found: Mapping[str, Any]) -> ServerInfo:
    return ServerInfo(found["name"], found["version"])


def _with_valid_age(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """A negative lifetime counts as 0, as the specification asks of clients."""
    age = result.get("ttlMs")
    is_negative = isinstance(age, int | float) and not isinstance(age, bool) and age < 0
    return {**result, "ttlMs": 0} if is_negative else result
