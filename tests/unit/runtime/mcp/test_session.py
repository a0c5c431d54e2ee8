"""Agreement on a version, listing and calling, whatever the server answers."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from orchestrator.runtime.mcp.exchange import Headers, Receiver
from orchestrator.runtime.mcp.messages import Failure, Message, Notification, Request, Response
from orchestrator.runtime.mcp.protocol import (
    HEADER_MISMATCH,
    INTERNAL_ERROR,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    UNSUPPORTED_VERSION,
    McpError,
    ViolationError,
)
from orchestrator.runtime.mcp.results import CallResult, TextContent
from orchestrator.runtime.mcp.session import Session, open_session

INFO = {"name": "n", "version": "1"}
NEWEST = {
    "supportedVersions": ["2025-11-25", "2026-07-28"],
    "capabilities": {},
    "ttlMs": 0,
    "cacheScope": "private",
    "resultType": "complete",
    "_meta": {"io.modelcontextprotocol/serverInfo": INFO},
}
CACHED = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
TEXT = [{"type": "text", "text": "done"}]
DONE = CallResult((TextContent("done"),))
EMPTY = {"type": "object"}

Answers = Callable[[Request], dict[str, Any] | Failure | None]


def introduced(version: object = "2025-11-25") -> dict[str, Any]:
    """The result of `initialize`."""
    return {"protocolVersion": version, "capabilities": {}, "serverInfo": INFO}


def failure(code: int, data: Any = None) -> Failure:
    """An error of the server."""
    return Failure(0, code, "refused", data)


def unsupported(*versions: str) -> Failure:
    """The error for a version that the server lacks."""
    return failure(UNSUPPORTED_VERSION, {"supported": list(versions), "requested": "x"})


class Server:
    """A server that answers each request with what `answers` returns: a result, an error, or nothing."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._receiver: Receiver | None = None
        self.sent: list[tuple[Message, Headers]] = []

    @property
    def methods(self) -> list[str]:
        """The methods of everything that arrived."""
        return [message.method for message, _ in self.sent if isinstance(message, Request | Notification)]

    def start(self, receiver: Receiver) -> None:
        """Remember whom to answer."""
        self._receiver = receiver

    async def send(self, message: Message, headers: Headers) -> None:
        """Take a message, and answer it."""
        self.sent.append((message, headers))
        if isinstance(message, Request):
            found = self._answers(message)
            if isinstance(found, Failure):
                await self.ask(Failure(message.id, found.code, found.message, found.data))
            elif found is not None:
                await self.ask(Response(message.id, found))

    async def ask(self, message: Message) -> None:
        """Send a message of the server."""
        assert self._receiver is not None
        await self._receiver.receive(message)


@asynccontextmanager
async def opened(**answers: Any) -> AsyncIterator[tuple[Session, Server]]:
    """A session with a server that answers methods, by their last word; others are unknown to it."""

    def answer(request: Request) -> dict[str, Any] | Failure | None:
        found = answers.get(request.method.rpartition("/")[2], failure(METHOD_NOT_FOUND))
        found = found.pop(0) if isinstance(found, list) else found
        return found(request) if callable(found) else found  # type: ignore[no-any-return]

    server = Server(answer)
    async with asyncio.timeout(20), open_session(server) as session:
        yield session, server


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
async def test_a_handshake_agrees_on_the_server_s_version(version: str) -> None:
    """Each that has a handshake; later messages carry it."""
    async with opened(initialize=introduced(version), list={"tools": []}) as (session, server):
        assert session.version == version
        assert await session.list_tools() == ()
    assert server.methods == ["server/discover", "initialize", "notifications/initialized", "tools/list"]
    offered = server.sent[1][0]
    assert isinstance(offered, Request)
    assert offered.params is not None
    assert (offered.params["protocolVersion"], offered.params["capabilities"]) == ("2025-11-25", {})
    assert [headers.get("mcp-protocol-version") for _, headers in server.sent] == ["2026-07-28", None, version, version]


async def test_no_handshake_with_a_server_that_needs_none() -> None:
    """Each request has the version, and who this client is, in itself."""
    async with opened(discover=NEWEST, list={**CACHED, "tools": []}) as (session, server):
        assert await session.list_tools() == ()
        assert (session.version, session.server is not None) == ("2026-07-28", True)
    listed, headers = server.sent[1]
    assert isinstance(listed, Request)
    assert headers == {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/list"}
    assert listed.params is not None
    assert listed.params["_meta"]["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"


@pytest.mark.parametrize(
    "discovered",
    [
        {},
        {**NEWEST, "supportedVersions": ["2025-11-25"]},
        {**NEWEST, "supportedVersions": "2026-07-28"},
        unsupported("2025-11-25", "2099-01-01"),
        unsupported(),
        failure(UNSUPPORTED_VERSION, "no list"),
        failure(INTERNAL_ERROR),
        failure(-5),
    ],
    ids=repr,
)
async def test_whatever_else_a_server_answers_it_gets_a_handshake(discovered: Any) -> None:
    """No answer but a list of newer versions alone means that it needs none."""
    if isinstance(discovered, Failure) and discovered.data == {"supported": [], "requested": "x"}:
        with pytest.raises(McpError, match="refused"):
            async with opened(discover=discovered):
                pass
        return
    async with opened(discover=discovered, initialize=introduced()) as (session, _):
        assert session.version == "2025-11-25"


async def test_a_server_that_never_answers_the_question_gets_a_handshake(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while; if it answered too late and refuses the handshake, the client asks again."""
    monkeypatch.setattr("orchestrator.runtime.mcp.session._DISCOVER_SECONDS", 0.05)
    async with opened(discover=None, initialize=introduced()) as (session, server):
        assert session.version == "2025-11-25"
        assert "notifications/cancelled" not in server.methods
    refusal = unsupported("2026-07-28")
    async with opened(discover=[None, NEWEST], initialize=refusal) as (session, _):
        assert session.version == "2026-07-28"


@pytest.mark.parametrize(
    ("answers", "kind", "reason"),
    [
        ({"discover": unsupported("2099-01-01")}, McpError, "refused"),
        ({"initialize": unsupported("2099-01-01")}, McpError, "refused"),
        ({"initialize": failure(INVALID_REQUEST)}, McpError, "refused"),
        (
            {"initialize": introduced("2099-01-01")},
            ViolationError,
            "Unsupported protocol version from the server: 2099",
        ),
        ({"initialize": introduced(5)}, ViolationError, "protocolVersion must be a string, not a number"),
        ({"initialize": {}}, ViolationError, "protocolVersion is missing"),
        (
            {"initialize": {**introduced(), "serverInfo": {"name": "n"}}},
            ViolationError,
            "serverInfo.version is missing",
        ),
    ],
)
async def test_no_agreement(answers: dict[str, Any], kind: type[Exception], reason: str) -> None:
    """The reason is given."""
    with pytest.raises(kind, match=f"^{reason}"):
        async with opened(**answers):
            pass


async def test_tools_are_listed_page_by_page() -> None:
    """Up to a limit, so that a server that always has a next page does not hold the Run."""

    def page(request: Request) -> dict[str, Any]:
        number = int((request.params or {}).get("cursor", 0))
        return {"tools": [{"name": f"t{number}", "inputSchema": EMPTY}], "nextCursor": str(number + 1)}

    async with opened(initialize=introduced(), list=page) as (session, _):
        assert [tool.name for tool in await session.list_tools()] == [f"t{number}" for number in range(100)]


@pytest.mark.parametrize(
    ("tools", "reason"),
    [
        (
            [{"name": "good", "inputSchema": EMPTY}, {"name": 5, "inputSchema": EMPTY}],
            r"tools\[1\].name must be a string",
        ),
        ([{"name": "bad"}], r"tools\[0\].inputSchema is missing"),
        ([{"name": "bad", "inputSchema": {}}], r"tools\[0\].inputSchema.type is missing"),
        ([{"name": "bad", "inputSchema": EMPTY, "annotations": {"readOnlyHint": "maybe"}}], "readOnlyHint must be"),
        ({}, "tools must be a list, not an object"),
        (None, "tools must be a list, not null"),
    ],
)
async def test_one_wrong_tool_refuses_the_list(tools: Any, reason: str) -> None:
    """As with the protocol's SDK; the error names the tool and the field."""
    async with opened(initialize=introduced(), list={"tools": tools}) as (session, _):
        with pytest.raises(ViolationError, match=reason):
            await session.list_tools()


@pytest.mark.parametrize("version", ["2024-11-05", "2025-11-25", "2026-07-28"])
async def test_what_a_server_may_ask_for(version: str) -> None:
    """A ping is answered, and everything else refused, as far as the version has it."""
    answers = {"discover": NEWEST} if version == "2026-07-28" else {"initialize": introduced(version)}
    methods = ("ping", "roots/list", "sampling/createMessage", "elicitation/create", "tasks/get", "x")
    async with opened(**answers) as (_, server):
        for number, method in enumerate(methods):
            await server.ask(Request(number, method, {"any": "thing"}))
        await asyncio.sleep(0.01)
    told = {message.id: message for message, _ in server.sent if isinstance(message, Response | Failure)}
    refused = {
        "roots/list": "List roots not supported",
        "sampling/createMessage": "Sampling not supported",
        **({} if version == "2024-11-05" else {"elicitation/create": "Elicitation not supported"}),
    }
    for number, method in enumerate(methods):
        if version != "2026-07-28" and method == "ping":
            assert told[number] == Response(number, {})
        elif version != "2026-07-28" and method in refused:
            assert told[number] == Failure(number, INVALID_REQUEST, refused[method])
        else:
            assert told[number] == Failure(number, METHOD_NOT_FOUND, "Method not found", method)


ROUTED = {"type": "object", "properties": {"a": {"type": "string", "x-mcp-header": "Way"}}}


async def test_a_tool_whose_headers_changed_is_listed_again() -> None:
    """Once; if that fails, the first error counts."""
    before, after = ({**CACHED, "tools": [{"name": "t", "inputSchema": schema}]} for schema in (EMPTY, ROUTED))
    mismatch, done = failure(HEADER_MISMATCH), {"resultType": "complete", "content": TEXT}
    async with opened(discover=NEWEST, list=[before, after], call=[mismatch, done]) as (session, server):
        await session.list_tools()
        assert await session.call_tool("t", {"a": "x"}) == DONE
        calls = [headers.get("Mcp-Param-Way") for message, headers in server.sent if message.method == "tools/call"]  # type: ignore[union-attr]
        assert calls == [None, "x"]
    async with opened(discover=NEWEST, list=[before, failure(-5)], call=[mismatch]) as (session, _):
        await session.list_tools()
        with pytest.raises(McpError) as caught:
            await session.call_tool("t", {"a": "x"})
        assert caught.value.code == HEADER_MISMATCH


@pytest.mark.parametrize("structure", [None, {"a": 5}, {"a": "x"}])
async def test_structured_content_is_checked(structure: Any) -> None:
    """Against the tool's output schema, as the protocol asks of clients; an error result needs none."""
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    tools = [{"name": "t", "inputSchema": EMPTY, "outputSchema": schema}]
    call = {"content": TEXT, **({} if structure is None else {"structuredContent": structure})}
    async with opened(initialize=introduced(), list={"tools": tools}, call=lambda _: dict(call)) as (session, _):
        await session.list_tools()
        if structure == {"a": "x"}:
            assert (await session.call_tool("t", {})).structure == structure
        else:
            reason = "has an output schema but did not" if structure is None else "Invalid structured content .* a: 5"
            with pytest.raises(ViolationError, match=reason):
                await session.call_tool("t", {})
        call["isError"] = True
        assert (await session.call_tool("t", {})).is_error


async def test_an_output_schema_that_is_none() -> None:
    """The call fails with the reason, and not the listing."""
    tools = [{"name": "t", "inputSchema": EMPTY, "outputSchema": {**EMPTY, "minProperties": "many"}}]
    call = {"content": TEXT, "structuredContent": {}}
    async with opened(initialize=introduced(), list={"tools": tools}, call=call) as (session, _):
        await session.list_tools()
        with pytest.raises(ViolationError, match=r"^Invalid schema for tool t: /minProperties must be a whole number"):
            await session.call_tool("t", {})
