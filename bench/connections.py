"""What a TLS connection costs: ours (`orchestrator.tls`) against asyncio's, held by the thousand and idle, and busy.

python -m bench.connections KIND DIRECTORY listens with the certificate in DIRECTORY, writes its port to stdout, echoes
frames, and answers each line of stdin with its bytes of memory and its seconds of CPU time as JSON.
"""

import asyncio
import asyncio.sslproto
import json
import os
import resource
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bench.measure import Figures, Ratio
from bench.section import Section, Target, rows
from orchestrator.http.dial import dial
from orchestrator.tls import Tls
from tests.support import certificates

IDLE, MOST_KIB = 5000, 32
"""What one idle connection may take at the server's end."""

OURS, THEIRS, BOUNDED = "ours", "asyncio's", "asyncio's, its buffer bounded to 16 KiB"
_HERE, _NAME = "127.0.0.1", "broker"
_AHEAD = 64 * 1024
_AT_ONCE = 16
_WARM = 20
_LENGTH_BYTES = 4
_ROUNDS = 5
_FRAMES: Mapping[int, int] = {200: 1000, 64 * 1024: 200}
"""Bytes of a frame, and how many go to and fro in a round."""

Accept = Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Use(NamedTuple):
    """Bytes of memory and seconds of CPU time of the server so far."""

    resident: int
    cpu: float


class _Bounded(asyncio.sslproto.SSLProtocol):
    """asyncio's, with a smaller buffer for what it receives."""

    max_size = 16 * 1024


async def _ours(context: ssl.SSLContext, accept: Accept, listener: socket.socket) -> asyncio.Server:
    return await Tls(context, _AHEAD).serve(accept, listener)


async def _theirs(context: ssl.SSLContext, accept: Accept, listener: socket.socket) -> asyncio.Server:
    return await asyncio.start_server(accept, sock=listener, ssl=context, limit=_AHEAD)


async def _bounded(context: ssl.SSLContext, accept: Accept, listener: socket.socket) -> asyncio.Server:
    loop = asyncio.get_running_loop()

    def protocol() -> asyncio.BufferedProtocol:
        inner = asyncio.StreamReaderProtocol(asyncio.StreamReader(_AHEAD), accept)
        return _Bounded(loop, inner, context, None, server_side=True)  # type: ignore[arg-type] # no waiter, as in CPython

    return await loop.create_server(protocol, sock=listener)


_KINDS = {OURS: _ours, THEIRS: _theirs, BOUNDED: _bounded}


@dataclass(slots=True)
class _Server:
    """The server's process, and a client that knows it."""

    process: asyncio.subprocess.Process
    port: int
    client: Tls

    async def use(self) -> Use:
        """Ask what it has used so far."""
        assert self.process.stdin is not None  # noqa: S101 - it has pipes
        assert self.process.stdout is not None  # noqa: S101
        self.process.stdin.write(b"\n")
        return Use(*json.loads(await self.process.stdout.readline()))

    async def connect(self, turns: asyncio.Semaphore) -> Streams:
        """Open one connection."""
        async with turns:
            return await self.client.connect(await dial(_HERE, self.port), _NAME)


def connections() -> Section:
    """Measure."""
    _allow(IDLE)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        authority = certificates.issue(Path(name), _NAME)
        context = ssl.create_default_context(cafile=authority)
        idle = {kind: asyncio.run(_idle(kind, Path(name), context)) for kind in _KINDS}
        busy = asyncio.run(_busy(Path(name), context))
    kib = {kind: size / 1024 for kind, size in idle.items()}
    memory = rows(
        [f"the server's end, {IDLE} idle connections", "memory for each", "against ours"],
        *([kind, f"{each:.0f} KiB", f"{each / kib[OURS]:.1f}"] for kind, each in kib.items()),
    )
    cpu = rows(
        ["CPU time of the server for a frame there and back, against ours", *(f"{size} bytes" for size in _FRAMES)],
        *([kind, *(Ratio.of(busy[kind, size], busy[OURS, size]) for size in _FRAMES)] for kind in _KINDS),
    )
    ours = kib[OURS]
    target = Target("memory of an idle TLS connection", f"≤ {MOST_KIB} KiB", f"{ours:.0f} KiB", ours <= MOST_KIB)
    return Section("TLS connections", f"{memory}\n\n{cpu}", (target,))


async def _idle(kind: str, directory: Path, context: ssl.SSLContext) -> float:
    turns = asyncio.Semaphore(_AT_ONCE)
    async with _serving(kind, directory, context) as server:
        held = [await server.connect(turns) for _ in range(_WARM)]
        before = await server.use()
        async with asyncio.TaskGroup() as tasks:
            opening = [tasks.create_task(server.connect(turns)) for _ in range(IDLE)]
        after = await server.use()
        for _, writer in (*held, *(task.result() for task in opening)):
            writer.transport.abort()
    return (after.resident - before.resident) / IDLE


async def _busy(directory: Path, context: ssl.SSLContext) -> dict[tuple[str, int], Figures]:
    """Seconds of CPU time of the server for each size, round by round."""
    seen: dict[tuple[str, int], list[float]] = {(kind, size): [] for kind in _KINDS for size in _FRAMES}
    for _ in range(_ROUNDS):
        for kind in _KINDS:
            async with _serving(kind, directory, context) as server:
                reader, writer = await server.connect(asyncio.Semaphore())
                for size, times in _FRAMES.items():
                    await _echoed(reader, writer, size, times // 10)
                    before = await server.use()
                    await _echoed(reader, writer, size, times)
                    seen[kind, size].append((await server.use()).cpu - before.cpu)
                writer.transport.abort()
    return {key: Figures(key[0], tuple(seconds)) for key, seconds in seen.items()}


async def _echoed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, size: int, times: int) -> None:
    frame = size.to_bytes(_LENGTH_BYTES, "big") + bytes(size)
    for _ in range(times):
        writer.write(frame)
        await writer.drain()
        await reader.readexactly(len(frame))


@asynccontextmanager
async def _serving(kind: str, directory: Path, context: ssl.SSLContext) -> AsyncIterator[_Server]:
    command = [sys.executable, "-m", "bench.connections", kind, str(directory)]
    process = await asyncio.create_subprocess_exec(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None  # noqa: S101 - it has a pipe
        yield _Server(process, int(await process.stdout.readline()), Tls(context, _AHEAD))
    finally:
        process.kill()
        await process.wait()


async def _serve(start: Callable[..., Awaitable[asyncio.Server]], directory: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "cert.pem", directory / "key.pem")
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.ensure_future(_echo(reader, writer)))

    listener = socket.create_server((_HERE, 0), backlog=_AT_ONCE)
    server = await start(context, accept, listener)
    print(listener.getsockname()[1], flush=True)
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async for _ in lines:
        print(json.dumps(Use(_resident(), time.process_time())), flush=True)
    server.close()


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(asyncio.IncompleteReadError, OSError):
        while True:
            head = await reader.readexactly(_LENGTH_BYTES)
            writer.write(head + await reader.readexactly(int.from_bytes(head, "big")))
            await writer.drain()


def _allow(descriptors: int) -> None:
    """Let this process and its children open as many files as this takes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = descriptors + 1000
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))


if __name__ == "__main__":
    asyncio.run(_serve(_KINDS[sys.argv[1]], Path(sys.argv[2])))
