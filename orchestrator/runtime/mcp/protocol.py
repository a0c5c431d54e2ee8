"""Versions, error codes and names of the Model Context Protocol, and the errors of a session.

Facts without another source are from the specification's revisions 2024-11-05 to 2026-07-28.
"""

from typing import Any

HANDSHAKE_VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
"""Revisions that `initialize` can agree on, the oldest first."""

LATEST_HANDSHAKE = HANDSHAKE_VERSIONS[-1]

STATELESS_VERSIONS = ("2026-07-28",)
"""Revisions without a handshake: each request names its version, and `server/discover` lists a server's."""

ELICITATION_SINCE = "2025-06-18"

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INTERNAL_ERROR = -32603
HEADER_MISMATCH = -32020
UNSUPPORTED_VERSION = -32022
CONNECTION_CLOSED = -32000
"""The connection ended before a reply. Servers use the number for other errors: see `McpError.is_closed`."""
REQUEST_TIMEOUT = -32001
"""No reply in time. Servers use the number too: see `McpError.is_timeout`."""

META_VERSION = "io.modelcontextprotocol/protocolVersion"
META_CLIENT = "io.modelcontextprotocol/clientInfo"
META_CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
META_SERVER = "io.modelcontextprotocol/serverInfo"

HEADER_VERSION = "mcp-protocol-version"
HEADER_METHOD = "mcp-method"
HEADER_NAME = "mcp-name"

CANCELLED = "notifications/cancelled"
INITIALIZED = "notifications/initialized"

MESSAGE_BYTES = 16 * 1024 * 1024
"""The longest message of a server in bytes: a 12 MB file as base64."""


class McpError(Exception):
    """A request failed: with the server's error, or because no reply can come.

    Args:
        code: the code of JSON-RPC or of this module.
        message: what the server, or this client, states.
        data: more from the server, of any JSON type.
        problem: what the transport observed, as the end of a sentence about the server's host; None if nothing failed.
        status: the HTTP status code of the reply; None if it was below 400, or for other transports.
    """

    is_remote = False
    """Whether the server sent it; a server may use any code."""

    def __init__(
        self, code: int, message: str, data: Any = None, problem: str | None = None, status: int | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.data = data
        self.problem = problem
        self.status = status

    @property
    def is_closed(self) -> bool:
        """Whether the connection ended before a reply."""
        return self.code == CONNECTION_CLOSED and not self.is_remote

    @property
    def is_timeout(self) -> bool:
        """Whether no reply came in time."""
        return self.code == REQUEST_TIMEOUT and not self.is_remote


class ViolationError(Exception):
    """A server sent something that the protocol does not allow."""
