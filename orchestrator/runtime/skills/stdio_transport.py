"""MCP over a process's pipes: one JSON message per line."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from signal import SIGKILL, SIGTERM

from orchestrator.runtime.confinement import ConfinedProcess
from orchestrator.runtime.mcp.exchange import Headers, Receiver
from orchestrator.runtime.mcp.messages import Message, decode, encode
from orchestrator.runtime.mcp.protocol import MESSAGE_BYTES, ViolationError
from orchestrator.runtime.skills.stderr import CHUNK_BYTES, SkillLog

_GRACE_SECONDS = 2.0
_AFTERGLOW_SECONDS = 0.25


class StdioTransport:
    """The pipes of a process.

    Args:
        child: the process, whose longest line is MESSAGE_BYTES.
        log: gets its stderr, and lines of its stdout that are no messages.
    """

    def __init__(self, child: ConfinedProcess, log: SkillLog) -> None:
        self._child = child
        self._log = log
        self._receiver: Receiver | None = None
        self._reading: asyncio.Task[None] | None = None
        self._following = asyncio.get_running_loop().create_task(_follow(child, log))

    def start(self, receiver: Receiver) -> None:
        """Pass on everything that arrives from now on."""
        self._receiver = receiver
        self._reading = asyncio.get_running_loop().create_task(self._read(receiver))

    async def send(self, message: Message, _headers: Headers) -> None:
        """Write a message; waits while the process does not read."""
        if self._child.stdin is None:
            return
        line = encode(message) + b"\n"
        try:
            self._child.stdin.write(line)
            await self._child.stdin.drain()
        except OSError:
            # The server may live on without reading: end its session, so that calls do not wait for an answer.
            if self._receiver is not None:
                self._receiver.close()

    async def close(self) -> None:
        """Close the process's stdin, then terminate it, then kill it."""
        if self._reading is not None:
            self._reading.cancel()
        await _end(self._child)
        # Its children may keep its stderr open.
        await asyncio.wait((self._following,), timeout=_AFTERGLOW_SECONDS)
        self._following.cancel()
        await asyncio.wait([task for task in (self._reading, self._following) if task is not None])

    async def _read(self, receiver: Receiver) -> None:
        try:
            await self._pass_on(receiver)
        finally:
            receiver.close()

    async def _pass_on(self, receiver: Receiver) -> None:
        while True:
            # Lines that are here already are read without waiting, and a server may print without end.
            await asyncio.sleep(0)
            try:
                line = await self._child.stdout.readuntil(b"\n")
            except asyncio.LimitOverrunError:
                limit = MESSAGE_BYTES // 2**20
                self._log.write_noise(f"a line of more than {limit} MiB; the connection was closed\n".encode())
                return
            except (asyncio.IncompleteReadError, OSError):
                return
            try:
                message = decode(line)
            except ViolationError:
                self._log.write_noise(line)
                continue
            await receiver.receive(message)


@asynccontextmanager
async def stdio_transport(child: ConfinedProcess, log: SkillLog) -> AsyncIterator[StdioTransport]:
    """Exchange messages with `child`; leaving the block ends it."""
    transport = StdioTransport(child, log)
    try:
        yield transport
    finally:
        await transport.close()


async def _end(child: ConfinedProcess) -> None:
    if child.stdin is not None:
        child.stdin.close()
    for step in (SIGTERM, SIGKILL):
        with suppress(TimeoutError):
            async with asyncio.timeout(_GRACE_SECONDS):
                await child.wait()
        child.signal(step)
    await child.wait()


async def _follow(child: ConfinedProcess, log: SkillLog) -> None:
    with suppress(OSError):
        while chunk := await child.stderr.read(CHUNK_BYTES):
            log.write(chunk)
