"""MCP over a process's pipes: one JSON message per line.

The SDK's own transport grows a string without limit and in quadratic time, and adds six variables of its parent to the
environment. Skills are untrusted, so neither is acceptable.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from signal import SIGKILL, SIGTERM

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client._transport import TransportStreams
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from orchestrator.runtime.confinement import ConfinedProcess
from orchestrator.runtime.skills.stderr import CHUNK_BYTES, SkillLog

LINE_BYTES = 16 * 1024 * 1024
"""The longest message of a server in bytes: a 12 MB file as base64."""
_GRACE_SECONDS = 2.0
_AFTERGLOW_SECONDS = 0.25

_Sent = MemoryObjectSendStream[SessionMessage | Exception]
_Received = MemoryObjectReceiveStream[SessionMessage]


@asynccontextmanager
async def stdio_transport(child: ConfinedProcess, log: SkillLog) -> AsyncIterator[TransportStreams]:
    """Exchange messages with `child`; leaving the block closes its stdin, then terminates it, then kills it."""
    incoming, received = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    sent, outgoing = anyio.create_memory_object_stream[SessionMessage](0)
    async with anyio.create_task_group() as tasks:
        logged = anyio.Event()
        tasks.start_soon(_receive, child, incoming, log)
        tasks.start_soon(_send, child, outgoing, incoming)
        tasks.start_soon(_follow, child, log, logged)
        try:
            yield received, sent
        finally:
            with anyio.CancelScope(shield=True):
                received.close()
                sent.close()
                await _end(child)
                with anyio.move_on_after(_AFTERGLOW_SECONDS):  # Its children may keep its stderr open.
                    await logged.wait()
            tasks.cancel_scope.cancel()


async def _end(child: ConfinedProcess) -> None:
    if child.stdin is not None:
        child.stdin.close()
    for step in (SIGTERM, SIGKILL):
        with suppress(TimeoutError):
            async with asyncio.timeout(_GRACE_SECONDS):
                await child.wait()
        child.signal(step)
    await child.wait()


async def _receive(child: ConfinedProcess, incoming: _Sent, log: SkillLog) -> None:
    async with incoming:
        while True:
            try:
                line = await child.stdout.readuntil(b"\n")
            except asyncio.LimitOverrunError:
                log.write_noise(f"a line of more than {LINE_BYTES // 2**20} MiB; the connection was closed\n".encode())
                return
            except (asyncio.IncompleteReadError, OSError):
                return
            try:
                message = jsonrpc_message_adapter.validate_json(line, by_name=False)
            except ValueError:
                log.write_noise(line)
                continue
            with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):
                await incoming.send(SessionMessage(message))


async def _send(child: ConfinedProcess, outgoing: _Received, incoming: _Sent) -> None:
    if child.stdin is None:
        return
    try:
        async with outgoing:
            async for message in outgoing:
                line = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                child.stdin.write(line.encode() + b"\n")
                await child.stdin.drain()
    except OSError:
        # The server may live on without reading: end its session, so that calls do not wait for an answer.
        await incoming.aclose()


async def _follow(child: ConfinedProcess, log: SkillLog, logged: anyio.Event) -> None:
    with suppress(OSError):
        while chunk := await child.stderr.read(CHUNK_BYTES):
            log.write(chunk)
    logged.set()
