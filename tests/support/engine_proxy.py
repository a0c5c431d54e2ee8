"""The engine behind a proxy that records its requests, and that may take away each Sandbox's state directory.

Without the directory it is like an engine that shares no sockets. Desktop products mount directories of the host, but a
unix socket in them does not work inside. The container then finds a separate, empty directory at that place. A Sandbox
that a stream links has no such directory, and is left as it is.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_ENGINE = "unix:///var/run/docker.sock"
STATE = "/run/perstack"

_CHUNK = 64 * 1024
_BROKEN = (OSError, asyncio.IncompleteReadError)


@dataclass
class EngineProxy:
    """Where to reach the engine, its requests so far, as `METHOD TARGET`, and the targets of changed requests.

    One that `withholds` creates containers and never confirms it.
    """

    engine: str
    address: str
    shares: bool
    withholds: bool = False
    asked: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Relay one connection until either side ends it."""
        engine_reader, engine_writer = await asyncio.open_unix_connection(urlsplit(self.engine).path)
        try:
            async with asyncio.TaskGroup() as tasks:
                answers = tasks.create_task(_relay(engine_reader, writer))
                await self._requests(reader, engine_writer, answers)
                answers.cancel()
        finally:
            engine_writer.close()
            writer.close()

    async def _requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: asyncio.Task[None]
    ) -> None:
        with suppress(*_BROKEN):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(int(_header(head, "content-length") or 0))
                self.asked.append(b" ".join(head.split(b" ")[:2]).decode())
                if not self.shares and _is_create(head) and _mounts_state(body):
                    self.changed.append(head.split(b" ")[1].decode())
                    head, body = _replaced(head, body)
                if self.withholds and _is_create(head):
                    answers.cancel()
                writer.write(head + body)
                await writer.drain()
                if _header(head, "upgrade"):
                    await _relay(reader, writer)


@asynccontextmanager
async def engine_proxy(directory: Path, *, engine: str = _ENGINE, shares: bool = True) -> AsyncIterator[EngineProxy]:
    """Serve the proxy at a socket in `directory`; unless it `shares`, Sandboxes get no state directory of the host."""
    path = directory / "engine.sock"
    proxy = EngineProxy(engine, f"unix://{path}", shares)
    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(proxy.serve(reader, writer))
            connections.add(task)
            task.add_done_callback(connections.discard)

    async with await asyncio.start_unix_server(serve, path, limit=1024 * 1024):
        try:
            yield proxy
        finally:
            for task in connections:
                task.cancel()


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(*_BROKEN):
        while chunk := await reader.read(_CHUNK):
            writer.write(chunk)
            await writer.drain()
    writer.close()


def _is_create(head: bytes) -> bool:
    method, target = head.split(b" ")[:2]
    return method == b"POST" and target.partition(b"?")[0].endswith(b"/containers/create")


def _header(head: bytes, name: str) -> str | None:
    for line in head.decode("latin-1").split("\r\n")[1:]:
        key, _, value = line.partition(":")
        if key.strip().lower() == name:
            return value.strip()
    return None


def _mounts_state(body: bytes) -> bool:
    mounts = json.loads(body)["HostConfig"].get("Mounts", ())
    return any(mount["Type"] == "bind" and mount["Target"] == STATE for mount in mounts)


def _replaced(head: bytes, body: bytes) -> tuple[bytes, bytes]:
    described: dict[str, Any] = json.loads(body)
    host = described["HostConfig"]
    host["Mounts"] = [mount for mount in host["Mounts"] if not mount["Target"].startswith(STATE)]
    host["Tmpfs"] = {**host["Tmpfs"], STATE: "rw,mode=1777"}
    changed = json.dumps(described).encode()
    lines = [line for line in head.rstrip().split(b"\r\n") if not line.lower().startswith(b"content-length:")]
    return b"\r\n".join([*lines, b"Content-Length: %d" % len(changed), b"", b""]), changed
