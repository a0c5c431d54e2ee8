"""The link between a Sandbox and its broker: length-prefixed JSON frames over one stream.

The first frame of a connection states its purpose. A link carries calls and answers, matched by `id`;
a tunnel carries one frame each way and then raw bytes.
"""

import asyncio
from collections.abc import Mapping
from typing import Literal, TypeVar

from msgspec.json import Decoder

from orchestrator.errors import WireError
from orchestrator.wire.checkpoint import Checkpoint
from orchestrator.wire.facts import Facts, Inodes
from orchestrator.wire.frozen import Frozen, Tagged, read_json
from orchestrator.wire.generation import Failure, GenerationRequest, Reply, ToolDefinition
from orchestrator.wire.message import ToolResult
from orchestrator.wire.package import Install
from orchestrator.wire.run import Run
from orchestrator.wire.terminal import Shell

FRAME_BYTES = 64 * 1024 * 1024
"""The largest frame in bytes: a 30 MiB PDF as base64 with the conversation around it."""

_PREFIX = 4

T = TypeVar("T")


class Identify(Frozen):
    """The first frame where all Sandboxes share one port: identifies the sender. Answered by Opened.

    `token` is the Pod's. `reached` counts the successful connections to the forbidden port while the Sandbox probed it.
    """

    token: str
    reached: int = 0


class Attach(Tagged):
    """First connection of a Sandbox: it is ready, reports its environment, and asks for its Run.

    `inodes` identify the directories that were mounted into it.
    """

    facts: Facts | None = None
    inodes: Inodes | None = None


class Reattach(Tagged):
    """A Sandbox reconnects after it lost its broker."""

    session_key: str


class Tunnel(Tagged):
    """One proxied connection; `credential` identifies the skill and therefore the allowed hosts."""

    session_key: str
    credential: str
    host: str
    port: int


class Terminal(Tagged):
    """The connection between a shell and the user's terminal; its frames are in `wire.terminal`."""

    session_key: str


class Assigned(Frozen):
    """The answer to Attach: one thing to do, and the key that every later connection presents (hex, 256 bits).

    Exactly one of the five is set. `run`: execute it. `inspection`: start only its skills, to learn their tools.
    `install`: fetch packages. `shell`: start a program for a user's terminal. `refused`: why it gets nothing.
    """

    run: Run | None = None
    inspection: Run | None = None
    install: Install | None = None
    shell: Shell | None = None
    refused: str | None = None
    session_key: str = ""


class TunnelReply(Frozen):
    """The answer to Identify, Reattach, Tunnel and Terminal; `refused` is the reason, absent if accepted."""

    refused: str | None = None


class Generate(Tagged):
    """Call the model."""

    id: str
    request: GenerationRequest


class KeepCheckpoint(Tagged):
    """Store a checkpoint; answered by Kept once it is durable."""

    id: str
    checkpoint: Checkpoint


class KeepResult(Tagged):
    """Store a tool's result before its event is written; answered by Kept once it is durable."""

    id: str
    result: ToolResult


class KeepTools(Tagged):
    """Report the tools of each skill, by skill name: the result of an inspection."""

    id: str
    tools: Mapping[str, tuple[ToolDefinition, ...]]


class LockFiles(Tagged):
    """Wait for the lock on workspace changes; answered by Locked once the Sandbox holds it."""

    id: str


class UnlockFiles(Tagged):
    """Release the lock that the call `lock` got or still waits for; answered by Unlocked."""

    id: str
    lock: str


class Delta(Tagged):
    """A piece of a reply that is still streaming."""

    id: str
    kind: Literal["reasoning", "text"]
    text: str


class Generated(Tagged):
    """The complete reply."""

    id: str
    reply: Reply


class Failed(Tagged):
    """The model call failed."""

    id: str
    failure: Failure


class Kept(Tagged):
    """The value is stored durably."""

    id: str


class Locked(Tagged):
    """The Sandbox holds the lock on workspace changes."""

    id: str


class Unlocked(Tagged):
    """The Sandbox no longer holds the lock."""

    id: str


class Refused(Tagged):
    """The call violates a rule; the Sandbox must exit."""

    id: str
    reason: str


Opening = Attach | Reattach | Tunnel | Terminal
Call = Generate | KeepCheckpoint | KeepResult | KeepTools | LockFiles | UnlockFiles
Answer = Delta | Generated | Failed | Kept | Locked | Unlocked | Refused

IDENTIFY = Decoder(Identify)
"""Decodes the sender, where all Sandboxes share one port."""

OPENING: Decoder[Opening] = Decoder(Opening)
"""Decodes a connection's first frame."""

CALL: Decoder[Call] = Decoder(Call)
"""Decodes a call of a Sandbox."""

ANSWER: Decoder[Answer] = Decoder(Answer)
"""Decodes the broker's answer to a call."""

ASSIGNED = Decoder(Assigned)
"""Decodes the broker's answer to Attach."""

OPENED = Decoder(TunnelReply)
"""Decodes the broker's answer to Identify, Reattach, Tunnel and Terminal."""


def frame(value: Frozen) -> bytes:
    """Encode one frame.

    Raises:
        WireError: the frame would be larger than FRAME_BYTES.
    """
    body = value.to_json()
    if len(body) > FRAME_BYTES:
        message = f"a frame of {len(body)} bytes is over the limit of {FRAME_BYTES}"
        raise WireError(message)
    return len(body).to_bytes(_PREFIX) + body


async def read_frame(reader: asyncio.StreamReader, decoder: Decoder[T], limit: int = FRAME_BYTES) -> T:
    """Read one frame of at most `limit` bytes.

    Raises:
        WireError: the frame is too large or does not have this shape.
        asyncio.IncompleteReadError: the peer closed the connection.
    """
    value, _ = await read_sized_frame(reader, decoder, limit)
    return value


async def read_sized_frame(
    reader: asyncio.StreamReader, decoder: Decoder[T], limit: int = FRAME_BYTES
) -> tuple[T, int]:
    """Read one frame and return it with its size in bytes."""
    size = int.from_bytes(await reader.readexactly(_PREFIX))
    if size > limit:
        message = f"a frame of {size} bytes is over the limit of {limit}"
        raise WireError(message)
    body = await reader.readexactly(size)
    try:
        return read_json(decoder, body), size
    except WireError as error:
        message = f"a frame is not valid: {error}"
        raise WireError(message) from error
