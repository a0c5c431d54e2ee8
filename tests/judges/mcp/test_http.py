"""HTTP responses, read by us and by h11; headers of arguments, written by us and by the protocol's SDK."""

import asyncio
from typing import Any

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.shared.inbound import encode_header_value, find_invalid_x_mcp_header, mcp_param_headers, x_mcp_header_map

from orchestrator.runtime.mcp.http1 import BrokenResponseError, HttpRequest, exchange
from orchestrator.runtime.mcp.param_headers import header_names, header_value, param_headers

pytestmark = [pytest.mark.judges]

HEADS = st.lists(
    st.sampled_from(
        [
            b"content-length: 5",
            b"Content-Length:5 ",
            b"content-length: 5, 5",
            b"content-length: 6",
            b"transfer-encoding: chunked",
            b"Transfer-Encoding: CHUNKED",
            b"transfer-encoding: gzip",
            b"connection: close",
            b"connection: keep-alive",
            b"x: y",
            b"x:",
            b"x y: z",
            b": z",
            b" folded",
            b"x: \x00",
            b"x: \xe9",
        ]
    ),
    max_size=3,
)
STATUSES = st.sampled_from(
    [b"HTTP/1.1 200 OK", b"HTTP/1.1 204", b"HTTP/1.0 200 ", b"HTTP/1.1 304 x", b"HTTP/1.1 2000", b"ICY 200 OK"]
)
BODIES = st.sampled_from(
    [b"hello", b"hell", b"", b"5\r\nhello\r\n0\r\n\r\n", b"5;a\r\nhello\r\n0\r\nx: y\r\n\r\n", b"5\r\nhel", b"z\r\n"]
)
RESPONSES = st.builds(
    lambda first, status, heads, body: first + b"\r\n".join((status, *heads, b"", b"")) + body,
    st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\n\r\n"]),
    STATUSES,
    HEADS,
    BODIES,
)


def by_h11(content: bytes) -> tuple[int, bytes] | None:
    """The status and body of a response before the end of its connection; None if it is refused."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(content)
    connection.receive_data(b"")
    status, body = 0, b""
    try:
        while True:
            match connection.next_event():
                case h11.Response(status_code=status):
                    pass
                case h11.Data(data=data):
                    body += data
                case h11.EndOfMessage():
                    return status, body
                case h11.ConnectionClosed() | h11.NEED_DATA | h11.PAUSED:
                    return None
    except h11.RemoteProtocolError:
        return None


class Nowhere(asyncio.Transport):
    """Where a request goes that nothing reads."""

    is_closed = False

    def write(self, data: Any) -> None:
        """Drop it."""

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self.is_closed

    def close(self) -> None:
        """Remember it."""
        self.is_closed = True


async def by_us(content: bytes) -> tuple[int, bytes] | None:
    """The same, read by us."""
    reader = asyncio.StreamReader()
    reader.feed_data(content)
    reader.feed_eof()
    protocol = asyncio.StreamReaderProtocol(reader)
    writer = asyncio.StreamWriter(Nowhere(), protocol, reader, asyncio.get_running_loop())
    try:
        response = await exchange((reader, writer), HttpRequest("GET", "/", {"host": "x"}))
        body = b""
        while piece := await response.body.read():
            body += piece
    except BrokenResponseError:
        return None
    finally:
        writer.close()
    return response.status, body


@given(RESPONSES)
def test_a_response_means_the_same(content: bytes) -> None:
    """Wherever it ends, or it is refused by both; what only one of them refuses is listed here."""
    ours, theirs = asyncio.run(by_us(content)), by_h11(content)
    lenient = b"\r\n folded" in content or content.lower().count(b"transfer-encoding") > 1 or b"gzip" in content
    if not lenient:
        assert ours == theirs


SCHEMAS: st.SearchStrategy[Any] = st.recursive(
    st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["string", "integer", "boolean", "number", "object", ["string"], None]),
            "x-mcp-header": st.sampled_from(["A", "a", "B", "", "a b", "\u20ac", 5, None]),
        },
    ),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "type": st.just("object"),
            "properties": st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
            "items": inner,
            "anyOf": st.lists(inner, max_size=2),
            "$defs": st.dictionaries(st.sampled_from("ab"), inner, max_size=1),
            "default": inner,
        },
    ),
    max_leaves=6,
)
ARGS: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from([None, True, False, 0, -5, 2.5, "", " x ", "x", "\u00e9", "=?base64?eA==?=", "a\nb", []]),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=5,
)


@given(SCHEMAS, st.dictionaries(st.sampled_from("abc"), ARGS, max_size=3))
def test_headers_of_arguments_are_the_same(schema: Any, args: dict[str, Any]) -> None:
    """Which tools may not be offered, which headers there are, and their values."""
    names = header_names(schema)
    assert (names is None) == (find_invalid_x_mcp_header(schema) is not None)
    if names is not None:
        assert names == x_mcp_header_map(schema)
        assert param_headers(names, args) == mcp_param_headers(x_mcp_header_map(schema), args)


def test_headers_of_nested_arguments_of_each_type() -> None:
    """Text, numbers and booleans have one each, and what is absent or a list has none."""
    kinds = {"a": "string", "b": "integer", "c": "boolean", "d": "string", "e": "string"}
    inner = {name: {"type": kind, "x-mcp-header": name.upper()} for name, kind in kinds.items()}
    schema = {"type": "object", "properties": {"in": {"type": "object", "properties": inner}}}
    args = {"in": {"a": "caf\u00e9", "b": 5, "c": True, "d": ["x"]}}
    names = header_names(schema)
    assert names is not None
    expected = {"Mcp-Param-A": "=?base64?Y2Fmw6k=?=", "Mcp-Param-B": "5", "Mcp-Param-C": "true"}
    assert param_headers(names, args) == mcp_param_headers(x_mcp_header_map(schema), args) == expected


@given(st.text() | st.sampled_from(["=?base64?x?=", " x", "x ", "~", "\x7f", ""]))
def test_a_header_s_value_is_the_same(text: str) -> None:
    """As it is, or in base64."""
    try:
        expected = encode_header_value(text)
    except UnicodeEncodeError:
        return
    assert header_value(text) == expected
