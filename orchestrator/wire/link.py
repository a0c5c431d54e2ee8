"""The link between a Sandbox and its broker: length-prefixed JSON frames over one stream.

The first frame of a connection says what it is for. A link carries calls and answers, matched by `id`;
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
from orchestrator.wire.install import Install
from orchestrator.wire.message import ToolResult
from orchestrator.wire.run import Run
from orchestrator.wire.shell import Shell

GATE_NAME = "gate"
"""The directory in the state directory that leads to the broker's socket; shut once the Sandbox has come in."""

SOCKET_NAME = "in/broker.sock"
"""The broker's socket, seen from the gate: one directory further, which whoever came in before keeps open."""

SPOOL_NAME = "events.jsonl"
"""The event spool in the state directory."""

FRAME_BYTES = 64 * 1024 * 1024
"""The largest frame: a 30 MiB PDF as base64 with the conversation around it."""

_PREFIX = 4

T = TypeVar("T")


class Identify(Frozen):
    """What comes before everything else where all Sandboxes use one port: who this is. Answered by Opened.

    `token` is the Pod's. `reached` counts how often it reached the port that it must not reach, while it tried whether
    it can.
    """

    token: str
    reached: int = 0


class Attach(Tagged):
    """First connection of a Sandbox: it is up, says what it found around itself, and asks for its Run.

    `inodes` are of the directories that were mounted for it.
    """

    facts: Facts | None = None
    inodes: Inodes | None = None


class Reattach(Tagged):
    """A Sandbox that lost its broker comes back."""

    session_key: str


class Tunnel(Tagged):
    """One proxied connection; `credential` says for which skill, and so to which hosts."""

    session_key: str
    credential: str
    host: str
    port: int


class Terminal(Tagged):
    """The connection of a shell to the person it is for; what crosses it is in `wire.shell`."""

    session_key: str


class Assigned(Frozen):
    """The answer to Attach: one thing to do, and the key that every later connection presents (hex, 256 bits).

    A `run` is worked; of an `inspection` only the skills are started, to learn their tools; an `install` is done; a
    `shell` is started for a person.
    """

    run: Run | None = None
    inspection: Run | None = None
    install: Install | None = None
    shell: Shell | None = None
    session_key: str


class Opened(Frozen):
    """The answer to Identify, Reattach, Tunnel and Terminal; `refused` is a sentence, absent if all is well."""

    refused: str | None = None


class Generate(Tagged):
    """Call the model."""

    id: str
    request: GenerationRequest


class KeepCheckpoint(Tagged):
    """Store a checkpoint; answered once it is safe."""

    id: str
    checkpoint: Checkpoint


class KeepResult(Tagged):
    """Store a tool's result before its event is written; answered once it is safe."""

    id: str
    result: ToolResult


class KeepTools(Tagged):
    """Tell the tools of each skill, by its name: what an inspection is for."""

    id: str
    tools: Mapping[str, tuple[ToolDefinition, ...]]


class LockFiles(Tagged):
    """Wait for the lock under which files of the workspace are changed; answered by Locked once it is held."""

    id: str


class UnlockFiles(Tagged):
    """Give up the lock that the call `lock` got, or still waits for; answered by Unlocked."""

    id: str
    lock: str


class Delta(Tagged):
    """A piece of a reply on its way."""

    id: str
    kind: Literal["reasoning", "text"]
    text: str


class Generated(Tagged):
    """The whole reply."""

    id: str
    reply: Reply


class Failed(Tagged):
    """The model could not be called."""

    id: str
    failure: Failure


class Kept(Tagged):
    """What was to be stored is safe."""

    id: str


class Locked(Tagged):
    """The Sandbox holds the lock on files."""

    id: str


class Unlocked(Tagged):
    """It does not hold it any more."""

    id: str


class Refused(Tagged):
    """The call breaks a rule; the Sandbox must end."""

    id: str
    reason: str


Opening = Attach | Reattach | Tunnel | Terminal
Call = Generate | KeepCheckpoint | KeepResult | KeepTools | LockFiles | UnlockFiles
Answer = Delta | Generated | Failed | Kept | Locked | Unlocked | Refused

IDENTIFY = Decoder(Identify)
"""Reads who comes, where that must be asked."""

OPENING: Decoder[Opening] = Decoder(Opening)
"""Reads a connection's first frame."""

CALL: Decoder[Call] = Decoder(Call)
"""Reads what a Sandbox asks for."""

ANSWER: Decoder[Answer] = Decoder(Answer)
"""Reads what the broker says to a call."""

ASSIGNED = Decoder(Assigned)
"""Reads what the broker says to Attach."""

OPENED = Decoder(Opened)
"""Reads what the broker says to Identify, Reattach, Tunnel and Terminal."""


def frame(value: Frozen) -> bytes:
    """Write one frame.

    Raises:
        WireError: it would be larger than FRAME_BYTES.
    """
    body = value.to_json()
    if len(body) > FRAME_BYTES:
        message = f"a frame of {len(body)} bytes is over the limit of {FRAME_BYTES}"
        raise WireError(message)
    return len(body).to_bytes(_PREFIX) + body


async def read_frame(reader: asyncio.StreamReader, decoder: Decoder[T], limit: int = FRAME_BYTES) -> T:
    """Read one frame of at most `limit` bytes.

    Raises:
        WireError: it is too large or not of this shape.
        asyncio.IncompleteReadError: the other end is gone.
    """
    value, _ = await read_sized_frame(reader, decoder, limit)
    return value


async def read_sized_frame(
    reader: asyncio.StreamReader, decoder: Decoder[T], limit: int = FRAME_BYTES
) -> tuple[T, int]:
    """The same, with its size in bytes."""
    size = int.from_bytes(await reader.readexactly(_PREFIX))
    if size > limit:
        message = f"a frame of {size} bytes is over the limit of {limit}"
        raise WireError(message)
    body = await reader.readexactly(size)
    try:
        return read_json(decoder, body), size
    except WireError as error:
        message = f"a frame is not what was agreed: {error}"
        raise WireError(message) from error
