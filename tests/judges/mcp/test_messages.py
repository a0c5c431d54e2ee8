"""Messages and results, read by us and by the models of the protocol's own SDK."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import mcp_types as sdk
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp_types import methods
from pydantic import TypeAdapter, ValidationError

from orchestrator.runtime.mcp import results
from orchestrator.runtime.mcp.messages import Failure, Message, Notification, Request, Response, decode, encode
from orchestrator.runtime.mcp.protocol import HANDSHAKE_VERSIONS, STATELESS_VERSIONS, ViolationError

pytestmark = [pytest.mark.judges]

NEWEST = STATELESS_VERSIONS[-1]
OLDER = HANDSHAKE_VERSIONS[-1]
RESULTS: Mapping[str, TypeAdapter[Any]] = {
    "initialize": TypeAdapter(sdk.InitializeResult),
    "tools/list": TypeAdapter(sdk.ListToolsResult),
    "tools/call": TypeAdapter(sdk.CallToolResult | sdk.InputRequiredResult),
}

VALUES = st.recursive(
    st.sampled_from([None, True, False, 0, 1, -1, 7, 2.0, 2.5, "", "true", "5", "x", "text", "object", "user"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["type", "name", "text"]), inner),
    max_leaves=3,
)
"""Values that take the place of right ones."""


def damaged(draw: st.DrawFn, value: Any) -> Any:
    """Return `value` with one or two of its members, at any depth, replaced, renamed or removed."""
    if isinstance(value, dict) and value and draw(st.integers(0, 9)):
        key = draw(st.sampled_from(sorted(value)))
        match draw(st.sampled_from(["inside", "inside", "inside", "remove", "replace"])):
            case "remove":
                return {name: member for name, member in value.items() if name != key}
            case "replace":
                return {**value, key: draw(VALUES)}
            case _:
                return {**value, key: damaged(draw, value[key])}
    if isinstance(value, list) and value and draw(st.integers(0, 9)):
        index = draw(st.integers(0, len(value) - 1))
        return [*value[:index], damaged(draw, value[index]), *value[index + 1 :]]
    return draw(VALUES)


@st.composite
def odd(draw: st.DrawFn, value: Any) -> Any:
    """A valid value, or one with up to two faults."""
    for _ in range(draw(st.integers(0, 2))):
        value = damaged(draw, value)
    return value


def by_sdk(line: bytes) -> Message | None:
    """What the SDK makes of a line."""
    try:
        found = sdk.jsonrpc_message_adapter.validate_json(line, by_name=False)
    except ValidationError:
        return None
    match found:
        case sdk.JSONRPCRequest(id=number, method=method, params=params):
            return Request(number, method, params)
        case sdk.JSONRPCNotification(method=method, params=params):
            return Notification(method, params)
        case sdk.JSONRPCResponse(id=number, result=result):
            return Response(number, result)
        case sdk.JSONRPCError(id=number, error=error):
            return Failure(number, error.code, error.message, error.data)


def by_us(line: bytes) -> Message | None:
    """What we make of a line."""
    try:
        return decode(line)
    except ViolationError:
        return None


ENVELOPES: st.SearchStrategy[Any] = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.sampled_from(["2.0", "2.0", "2.0", "1.0", 2.0, None]),
        "id": st.sampled_from([1, "1", "a", None, True, 1.0, 2.5, -3, [], {}]),
        "method": st.sampled_from(["ping", "", None, 5, []]),
        "params": st.sampled_from([{}, {"a": 1}, None, [], "x"]),
        "result": st.sampled_from([{}, {"a": [1]}, None, [], "x"]),
        "error": st.fixed_dictionaries(
            {},
            optional={
                "code": st.sampled_from([-1, "5", 5.0, 5.5, True, None, "x"]),
                "message": st.sampled_from(["m", None, 5]),
                "data": st.sampled_from([None, 1, {}]),
            },
        )
        | st.sampled_from([None, "x", []]),
    },
)


@given(ENVELOPES | st.lists(ENVELOPES, max_size=2))
def test_an_envelope_means_the_same(envelope: Any) -> None:
    """Whether it is a message, and which kind; batches are none."""
    line = json.dumps(envelope).encode()
    assert by_us(line) == by_sdk(line)


@pytest.mark.parametrize(
    "content",
    [
        b'{"jsonrpc":"2.0","id":1,"result":{"a":NaN}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"a":"\\ud800"}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"a":"\\ud83d\\ude00"}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"\\udc00":1}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"a":"\xff"}}',
        b'\xef\xbb\xbf{"jsonrpc":"2.0","id":1,"result":{}}',
        '{"jsonrpc":"2.0","id":1,"result":{}}'.encode("utf-16"),
        b'{"jsonrpc":"2.0","id":1,"result":{"a":1,"a":2}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"a":1e999}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"a":1.}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"a":01}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"a":"\t"}}',
        b'{"jsonrpc":"2.0","id":1,"result":{}}\r',
        b'{"jsonrpc":"2.0","id":1,"result":{}} x',
        b'{"jsonrpc":"2.0","id":1,"result":{"a":' + b"1" * 5000 + b"}}",
        b'{"jsonrpc":"2.0","id":1,"result":{"a":' + b"[" * 199 + b"]" * 199 + b"}}",
        b'{"jsonrpc":"2.0","id":1,"result":{"a":' + b"[" * 200 + b"]" * 200 + b"}}",
        b'{"jsonrpc":"2.0","id":1,"result":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
        b"",
        b"{",
        b"null",
        b"Welcome!",
    ],
    ids=repr,
)
def test_odd_json_means_the_same(content: bytes) -> None:
    """Numbers that are no JSON, half surrogate pairs, other encodings, and nesting without end."""
    assert repr(by_us(content)) == repr(by_sdk(content))


@given(
    st.dictionaries(
        st.text(),
        st.text() | st.integers() | st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False),
    )
)
def test_a_request_is_written_as_the_sdk_writes_it(params: dict[str, Any]) -> None:
    """With the same members; what JSON cannot express is an error."""
    try:
        ours = encode(Request(1, "tools/call", params))
    except UnicodeEncodeError:
        return
    theirs = sdk.JSONRPCRequest(jsonrpc="2.0", id=1, method="tools/call", params=params)
    assert json.loads(ours) == json.loads(theirs.model_dump_json(by_alias=True, exclude_unset=True))


META = {"_meta": {"a": 1}}
ICONS = [{"src": "a://b", "mimeType": "image/png", "sizes": ["1x1"], "theme": "dark"}]
INFO = {"name": "n", "version": "1", "title": "t", "description": "d", "websiteUrl": "a://b", "icons": ICONS}
CAPABILITIES = {
    "completions": {},
    "experimental": {"a": {}},
    "extensions": {"a": {}},
    "logging": {},
    "prompts": {"listChanged": True},
    "resources": {"listChanged": True, "subscribe": False},
    "tasks": {"cancel": {}, "list": {}, "requests": {"tools": {"call": {}}}},
    "tools": {"listChanged": True},
}
INITIALIZED = {
    "protocolVersion": OLDER,
    "capabilities": CAPABILITIES,
    "serverInfo": INFO,
    "instructions": "i",
    **META,
}
DISCOVERED = {
    "supportedVersions": [NEWEST],
    "capabilities": CAPABILITIES,
    "instructions": "i",
    "ttlMs": 5,
    "cacheScope": "private",
    "resultType": "complete",
    "_meta": {"io.modelcontextprotocol/serverInfo": INFO},
}
HINTS = {"title": "t", "readOnlyHint": True, "destructiveHint": False, "idempotentHint": True, "openWorldHint": True}
OBJECT = {"type": "object", "properties": {"a": {"type": "string"}, "b": True}, "required": ["a"], "$schema": "s"}
TOOL = {
    "name": "n",
    "title": "t",
    "description": "d",
    "inputSchema": OBJECT,
    "outputSchema": OBJECT,
    "annotations": HINTS,
    "execution": {"taskSupport": "optional"},
    "icons": ICONS,
    **META,
}
PAGE = {"tools": [TOOL, {"name": "m", "inputSchema": {"type": "object"}}], "nextCursor": "c", **META}
SHOWN = {"annotations": {"audience": ["user"], "lastModified": "l", "priority": 0.5}, **META}
TEXT_RESOURCE = {"uri": "a://b", "text": "t", "mimeType": "m", **META}
CONTENT = [
    {"type": "text", "text": "t", **SHOWN},
    {"type": "image", "data": "d", "mimeType": "m", **SHOWN},
    {"type": "audio", "data": "d", "mimeType": "m", **SHOWN},
    {"type": "resource_link", "uri": "a://b", "name": "n", "size": 5, "icons": ICONS, "mimeType": "m", **SHOWN},
    {"type": "resource", "resource": TEXT_RESOURCE, **SHOWN},
    {"type": "resource", "resource": {"uri": "a://b", "blob": "b", "mimeType": "m", **META}, **SHOWN},
]
CALLED = {"content": CONTENT, "isError": False, "structuredContent": {"a": 1}, **META}
INPUT = {"resultType": "input_required", "inputRequests": {"a": {"method": "roots/list"}}, "requestState": "s", **META}
STATELESS = {"resultType": "complete"}
CACHED = {**STATELESS, "ttlMs": 5, "cacheScope": "public"}


def accepted(method: str, version: str, result: Mapping[str, Any]) -> Any:
    """What the SDK's session makes of a result; None if it refuses it."""
    try:
        methods.validate_server_result(method, version, result)
        adapter = RESULTS[method]
        known = {"resultType", "ttlMs", "cacheScope", "inputRequests", "requestState"} if version == OLDER else set()
        return adapter.validate_python({k: v for k, v in result.items() if k not in known}, by_name=False)
    except ValidationError:
        return None


REPLACEMENTS: tuple[Any, ...] = (None, True, 0, 1, 7, -1, 2.5, 2.0, "", "true", "5", "x", [], [5], {}, {"type": "text"})


def each_fault(value: Any) -> Iterator[Any]:
    """`value` with each of its members, at any depth, replaced by each of REPLACEMENTS or removed."""
    if isinstance(value, dict):
        for key in value:
            yield {name: member for name, member in value.items() if name != key}
            yield from ({**value, key: damage} for damage in REPLACEMENTS)
            yield from ({**value, key: inner} for inner in each_fault(value[key]))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from ([*value[:index], damage, *value[index + 1 :]] for damage in REPLACEMENTS)
            yield from ([*value[:index], inner, *value[index + 1 :]] for inner in each_fault(item))


@pytest.mark.parametrize(
    ("method", "version", "right"),
    [
        ("initialize", OLDER, INITIALIZED),
        ("tools/list", OLDER, PAGE),
        ("tools/list", NEWEST, {**PAGE, **CACHED}),
        ("tools/call", OLDER, CALLED),
    ],
)
def test_each_single_fault_has_the_same_verdict(method: str, version: str, right: dict[str, Any]) -> None:
    """No field is checked by one of the two alone."""
    read: Mapping[str, Callable[[Any], Any]] = {
        "initialize": results.introduction,
        "tools/list": lambda result: results.tool_page(result, version),
        "tools/call": lambda result: results.call_result(result, version),
    }
    count = 0
    for result in [right, *each_fault(right)]:
        theirs = accepted(method, version, result)
        try:
            read[method](result)
            ours = True
        except ViolationError:
            ours = False
        # The SDK's session counts a negative lifetime as 0 before it checks the result.
        assert ours == (theirs is not None) or result.get("ttlMs") == -1, result
        count += not ours
    assert count > 100


@given(odd(INITIALIZED))
def test_an_introduction_means_the_same(result: Any) -> None:
    """The version and the server's name are read, and faults refused."""
    if not isinstance(result, dict):
        return
    theirs = accepted("initialize", OLDER, result)
    try:
        ours = results.introduction(result)
    except ViolationError:
        assert theirs is None
        return
    assert theirs is not None
    assert ours.versions == (theirs.protocol_version,)
    assert ours.server == results.ServerInfo(theirs.server_info.name, theirs.server_info.version)


@given(odd(DISCOVERED))
def test_a_discovery_means_the_same(result: Any) -> None:
    """The versions and the server's optional name are read, and faults refused."""
    if not isinstance(result, dict):
        return
    theirs: sdk.DiscoverResult | None
    try:
        theirs = sdk.DiscoverResult.model_validate(result)
    except ValidationError:
        theirs = None
    try:
        ours = results.discovery(result)
    except ViolationError:
        # A negative lifetime counts as 0, as in the SDK's session.
        assert theirs is None
        return
    assert theirs is not None or result.get("ttlMs", 0) < 0
    assert theirs is None or ours.versions == tuple(theirs.supported_versions)


@pytest.mark.parametrize("version", [OLDER, NEWEST])
@given(data=st.data())
def test_a_page_of_tools_means_the_same(version: str, data: st.DataObject) -> None:
    """Names, descriptions and schemas are read; one wrong field of one tool refuses the page."""
    result = data.draw(odd({**PAGE, **CACHED} if version == NEWEST else PAGE))
    if not isinstance(result, dict):
        return
    theirs = accepted("tools/list", version, result)
    try:
        ours = results.tool_page(result, version)
    except ViolationError:
        assert theirs is None
        return
    assert theirs is not None or result["ttlMs"] < 0
    if theirs is not None:
        assert ours.next_cursor == theirs.next_cursor
        assert [(tool.name, tool.description, tool.input_schema, tool.output_schema) for tool in ours.tools] == [
            (tool.name, tool.description, tool.input_schema, tool.output_schema) for tool in theirs.tools
        ]


def as_ours(block: sdk.ContentBlock) -> results.Content:
    """One block of the SDK as ours."""
    match block:
        case sdk.TextContent(text=text):
            return results.TextContent(text)
        case sdk.ImageContent(data=data, mime_type=mime_type):
            return results.ImageContent(data, mime_type)
        case sdk.AudioContent(mime_type=mime_type):
            return results.AudioContent(mime_type)
        case sdk.ResourceLink(uri=uri):
            return results.ResourceLink(uri)
        case sdk.EmbeddedResource(resource=sdk.TextResourceContents(uri=uri, text=text)):
            return results.TextResource(uri, text)
        case sdk.EmbeddedResource(resource=sdk.BlobResourceContents(uri=uri, blob=blob, mime_type=mime_type)):
            return results.BlobResource(uri, blob, mime_type)
    raise AssertionError(block)


@pytest.mark.parametrize("version", [OLDER, NEWEST])
@given(data=st.data())
def test_a_call_s_result_means_the_same(version: str, data: st.DataObject) -> None:
    """Each kind of content is read, and a fault in any field refused."""
    result = data.draw(odd({**CALLED, **STATELESS} if version == NEWEST else CALLED))
    if not isinstance(result, dict) or result.get("resultType") == "input_required":
        return
    blocks = result.get("content")
    if version == NEWEST and isinstance(blocks, list):
        # Since 2026-07-28 the SDK guesses the type of content that has none.
        result = {**result, "content": [block for block in blocks if not isinstance(block, dict) or block.get("type")]}
    theirs = accepted("tools/call", version, result)
    try:
        ours = results.call_result(result, version)
    except ViolationError:
        assert theirs is None
        return
    assert isinstance(ours, results.CallResult)
    assert isinstance(theirs, sdk.CallToolResult)
    assert ours.content == tuple(map(as_ours, theirs.content))
    assert (ours.is_error, ours.structure) == (theirs.is_error, theirs.structured_content)
    assert ours.has_structure == ("structured_content" in theirs.model_fields_set)


@given(odd(INPUT))
def test_a_request_for_input_means_the_same(result: Any) -> None:
    """What a server asks for in place of a result is read, and faults refused."""
    if not isinstance(result, dict) or result.get("resultType") != "input_required":
        return
    theirs = accepted("tools/call", NEWEST, result)
    try:
        ours = results.call_result(result, NEWEST)
    except ViolationError:
        assert theirs is None
        return
    assert isinstance(ours, results.InputRequired)
    assert theirs is not None
    assert ours.state == theirs.request_state
    assert ours.methods == tuple(request.method for request in (theirs.input_requests or {}).values())
