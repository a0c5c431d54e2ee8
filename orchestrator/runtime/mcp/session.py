"""A session with an MCP server: agree on a version, list tools, call them.

Servers since 2026-07-28 have no handshake; each request carries the version. `server/discover` returns the versions
of a server; any error means that it is older and implements `initialize` alone.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from orchestrator.runtime.mcp.exchange import Exchange, Transport
from orchestrator.runtime.mcp.messages import Failure, Request, Response
from orchestrator.runtime.mcp.param_headers import header_names, header_value, param_headers
from orchestrator.runtime.mcp.protocol import (
    ELICITATION_SINCE,
    HANDSHAKE_VERSIONS,
    HEADER_METHOD,
    HEADER_MISMATCH,
    HEADER_NAME,
    HEADER_VERSION,
    INITIALIZED,
    INVALID_REQUEST,
    LATEST_HANDSHAKE,
    META_CAPABILITIES,
    META_CLIENT,
    META_VERSION,
    METHOD_NOT_FOUND,
    STATELESS_VERSIONS,
    UNSUPPORTED_VERSION,
    McpError,
    ViolationError,
)
from orchestrator.runtime.mcp.results import (
    CallResult,
    InputRequired,
    Introduction,
    ServerInfo,
    Tool,
    call_result,
    discovery,
    introduction,
    supported_versions,
    tool_page,
)
from orchestrator.version import VERSION

_CLIENT = {"name": "perstack-orch", "version": VERSION}
_CAPABILITIES: Mapping[str, Any] = {}
"""None: a skill can reach neither the model nor the user, and gets no list of directories."""

_DISCOVER_SECONDS = 10.0
_ROUNDS = 10
_ROUND_SECONDS = (0.05, 0.25)
_PAGES = 100
_REFUSALS = {
    "sampling/createMessage": "Sampling not supported",
    "elicitation/create": "Elicitation not supported",
    "roots/list": "List roots not supported",
}


class Session:
    """A session, agreed on or about to be.

    Args:
        transport: the connection to the server; the session ends with it.
    """

    def __init__(self, transport: Transport) -> None:
        self._exchange = Exchange(transport, self._answer)
        self._version: str | None = None
        self._server: ServerInfo | None = None
        self._tools: dict[str, Tool] = {}
        self._headers: dict[str, Mapping[tuple[str, ...], str]] = {}
        transport.start(self._exchange)

    @property
    def server(self) -> ServerInfo | None:
        """What the server states of itself; newer ones need not."""
        return self._server

    @property
    def version(self) -> str | None:
        """The version of the protocol; None before there is agreement."""
        return self._version

    def close(self) -> None:
        """Fail what waits for a reply."""
        self._exchange.close()

    async def negotiate(self, *, discover: bool = True) -> None:
        """Agree on a version; with `discover`, first find out whether the server needs a handshake.

        Raises:
            McpError: the server refused, did not answer, or has no version in common with this client.
            ViolationError: its reply is not one that the protocol allows.
        """
        if discover and await self._is_stateless():
            return
        try:
            await self._initialize()
        except McpError as error:
            # A slow server may have answered the first question after its time; then it refuses a handshake.
            versions = supported_versions(error.data) if error.code == UNSUPPORTED_VERSION else None
            if not discover or not _common(versions or ()) or not await self._is_stateless():
                raise

    async def list_tools(self) -> tuple[Tool, ...]:
        """All tools, page by page, up to 100 pages.

        Raises:
            McpError: the server refused, or the connection ended.
            ViolationError: a page is not one that the protocol allows.
        """
        tools: list[Tool] = []
        async for page in self._pages():
            tools += page
        return tuple(tools)

    async def call_tool(self, name: str, args: Mapping[str, Any]) -> CallResult:
        """Call a tool that was listed.

        Raises:
            McpError: the server returned an error or needs input that it cannot have, or the connection ended.
            ViolationError: the result is not one that the protocol or the tool's output schema allows.
        """
        result = await self._call_once(name, args, None)
        pause, longest = _ROUND_SECONDS
        for _ in range(_ROUNDS):
            if isinstance(result, CallResult):
                if not result.is_error:
                    self._check_structure(name, result)
                return result
            if result.methods:
                raise McpError(INVALID_REQUEST, _REFUSALS[result.methods[0]])
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)
            result = await self._call_once(name, args, result.state)
        message = f"Server returned InputRequiredResult for more than {_ROUNDS} rounds"
        raise ViolationError(message)

    async def _is_stateless(self) -> bool:
        """Ask the server for its versions, and choose one without a handshake; False if it has none.

        Raises:
            McpError: it has newer versions only.
        """
        version = STATELESS_VERSIONS[-1]
        headers = {HEADER_VERSION: version, HEADER_METHOD: "server/discover"}
        asking = self._exchange.request(
            "server/discover", _stamped({}, version), headers, seconds=_DISCOVER_SECONDS, may_cancel=False
        )
        try:
            found = discovery(await asking)
        except ViolationError:
            return False
        except McpError as error:
            versions = supported_versions(error.data) if error.code == UNSUPPORTED_VERSION else None
            if versions is not None and not any(version in HANDSHAKE_VERSIONS for version in versions):
                raise
            return False
        common = _common(found.versions)
        if common:
            self._adopt(common[-1], found)
        return bool(common)

    async def _initialize(self) -> None:
        params = {"protocolVersion": LATEST_HANDSHAKE, "capabilities": _CAPABILITIES, "clientInfo": _CLIENT}
        found = introduction(await self._exchange.request("initialize", params, may_cancel=False))
        version = found.versions[0]
        if version not in HANDSHAKE_VERSIONS:
            message = f"Unsupported protocol version from the server: {version}"
            raise ViolationError(message)
        self._adopt(version, found)
        await self._exchange.notify(INITIALIZED, headers={HEADER_VERSION: version})

    def _adopt(self, version: str, found: Introduction) -> None:
        self._version, self._server = version, found.server

    async def _request(
        self, method: str, params: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        stamps = {HEADER_VERSION: self._agreed, **(headers or {})}
        if self._agreed in STATELESS_VERSIONS:
            params, stamps = _stamped(params, self._agreed), {**stamps, HEADER_METHOD: method}
        return await self._exchange.request(method, params, stamps)

    @property
    def _agreed(self) -> str:
        return self._version or LATEST_HANDSHAKE

    async def _pages(self) -> AsyncIterator[tuple[Tool, ...]]:
        cursor: str | None = None
        for _ in range(_PAGES):
            params = {} if cursor is None else {"cursor": cursor}
            page = tool_page(await self._request("tools/list", params), self._agreed)
            yield self._keep(page.tools)
            cursor = page.next_cursor
            if cursor is None:
                return

    def _keep(self, tools: tuple[Tool, ...]) -> tuple[Tool, ...]:
        """Remember tools for their calls; those with invalid names of headers are left out."""
        kept = []
        for tool in tools:
            names = header_names(tool.input_schema) if self._agreed in STATELESS_VERSIONS else {}
            if names is not None:
                self._tools[tool.name], self._headers[tool.name] = tool, names
                kept.append(tool)
        return tuple(kept)

    async def _call_once(self, name: str, args: Mapping[str, Any], state: str | None) -> CallResult | InputRequired:
        try:
            return await self._send_call(name, args, state)
        except McpError as mismatch:
            if mismatch.code != HEADER_MISMATCH or self._agreed not in STATELESS_VERSIONS:
                raise
            # The tool's schema, and with it its headers, may have changed since it was listed.
            try:
                async for page in self._pages():
                    if any(tool.name == name for tool in page):
                        break
            except (McpError, ViolationError):
                raise mismatch from None
            return await self._send_call(name, args, state)

    async def _send_call(self, name: str, args: Mapping[str, Any], state: str | None) -> CallResult | InputRequired:
        params = {"name": name, "arguments": args} | ({} if state is None else {"requestState": state})
        headers = {}
        if self._agreed in STATELESS_VERSIONS:
            headers = {HEADER_NAME: header_value(name), **param_headers(self._headers.get(name, {}), args)}
        return call_result(await self._request("tools/call", params, headers), self._agreed)

    def _check_structure(self, name: str, result: CallResult) -> None:
        tool = self._tools.get(name)
        if tool is None or tool.output_schema is None:
            return
        if not result.has_structure:
            message = f"Tool {name} has an output schema but did not return structured content"
            raise ViolationError(message)
        # Imported here, since many skills have no output schema.
        from orchestrator.runtime.mcp.json_schema import find_problem  # noqa: PLC0415 - see above
        from orchestrator.runtime.mcp.schema_keywords import InvalidSchemaError  # noqa: PLC0415 - see above

        try:
            problem = find_problem(tool.output_schema, result.structure)
        except InvalidSchemaError as error:
            message = f"Invalid schema for tool {name}: {error}"
            raise ViolationError(message) from error
        if problem is not None:
            message = f"Invalid structured content returned by tool {name}: {problem}"
            raise ViolationError(message)

    def _answer(self, request: Request) -> Response | Failure:
        """Answer a request of the server; since 2026-07-28 it cannot make any."""
        is_known = self._agreed not in STATELESS_VERSIONS
        if is_known and request.method == "ping":
            return Response(request.id, {})
        is_known = is_known and (request.method != "elicitation/create" or self._agreed >= ELICITATION_SINCE)
        if is_known and request.method in _REFUSALS:
            return Failure(request.id, INVALID_REQUEST, _REFUSALS[request.method])
        return Failure(request.id, METHOD_NOT_FOUND, "Method not found", request.method)


@asynccontextmanager
async def open_session(transport: Transport, *, discover: bool = True) -> AsyncIterator[Session]:
    """Open a session over a connected transport; leaving the block fails what still waits for a reply.

    Raises:
        McpError: the server refused, did not answer, or has no version in common with this client.
        ViolationError: its reply is not one that the protocol allows.
    """
    session = Session(transport)
    try:
        await session.negotiate(discover=discover)
        yield session
    finally:
        session.close()


def _stamped(params: Mapping[str, Any], version: str) -> dict[str, Any]:
    """The parameters of a request without a handshake before it."""
    meta = {META_VERSION: version, META_CLIENT: _CLIENT, META_CAPABILITIES: _CAPABILITIES}
    return {**params, "_meta": meta}


def _common(versions: tuple[str, ...]) -> list[str]:
    """Those of the server's versions that need no handshake, the newest last."""
    return [version for version in STATELESS_VERSIONS if version in versions]
