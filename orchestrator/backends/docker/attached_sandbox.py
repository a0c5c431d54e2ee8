"""A container that is linked to its broker by its own stdin and stdout, which its engine gives to who attaches.

Its spool is in an anonymous volume. What the link did not bring is read from there after the container's end.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import Any

from orchestrator.backends.docker.client import ANSWER_SECONDS, is_status, until_answered
from orchestrator.backends.docker.logs import AttachedStdout
from orchestrator.backends.docker.sandbox import DETAIL_BYTES, GRACE_SECONDS, UNREACHABLE_SECONDS, DockerSandbox
from orchestrator.backends.docker.stream_link import Accept, MirrorFullError, StreamLink
from orchestrator.backends.tar_reader import ArchiveError, TarReader
from orchestrator.http.connection import Connection
from orchestrator.http.errors import ConnectionBrokenError, StatusError
from orchestrator.log import get_logger
from orchestrator.sandbox.api import Exit, Reason
from orchestrator.wire.layout import SPOOL_NAME, STATE, STDERR
from orchestrator.wire.line import SPOOL_BYTES
from orchestrator.wire.run import ExitCode

_log = get_logger(__name__)
_PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Between attempts to attach: the container ends, or the engine restarts."""

_LASTING_SECONDS = 5.0
"""After a stream that lasted longer, the pauses begin again."""
_LEAVE_SECONDS = 2.0
"""How long the stream of an ended container may take to end."""
_STDERR_BYTES = 16 * 1024 * 1024

_BROKEN = (OSError, ConnectionBrokenError, StatusError, ValueError)


class AttachedSandbox(DockerSandbox):
    """A Sandbox in a container, linked by `open_link`."""

    _link: StreamLink | None = None
    _serving: asyncio.Task[None] | None = None
    _connection: Connection | None = None
    _is_disk_full = False

    @asynccontextmanager
    async def open_link(self, accept: Accept, spool: Path) -> AsyncIterator[None]:
        """Attach, and again whenever the connection breaks, until the container ends."""
        self._link = link = StreamLink(accept, spool, self._line_bytes)
        self._serving = asyncio.create_task(self._serve(link))
        try:
            yield
        finally:
            try:
                # A break at the same moment can swallow a cancellation.
                while not self._serving.done():
                    self._serving.cancel()
                    await asyncio.wait([self._serving], timeout=1)
            finally:
                link.end()
                link.close()

    async def lines(self) -> AsyncGenerator[bytes, None]:
        """Follow the mirror of the spool from its beginning."""
        if self._link is not None:
            async for line in self._link.lines():
                yield line

    async def _serve(self, link: StreamLink) -> None:
        """Work the link, then complete the mirror from the volume of the ended container."""
        clock, pauses = asyncio.get_running_loop().time, iter(_PAUSES)
        try:
            while await self._is_running():
                began = clock()
                try:
                    async with self._engine.attach(self._id) as (self._connection, early):
                        await link.serve(AttachedStdout(self._connection.reader, early), self._connection.writer)
                except _BROKEN as error:
                    _log.debug("the link of the Sandbox %s broke: %s", self._name, error)
                if link.is_whole:
                    # Nothing more can come, so the end of the Run need not wait for the engine.
                    break
                if clock() - began > _LASTING_SECONDS:
                    pauses = iter(_PAUSES)
                await asyncio.sleep(next(pauses, _PAUSES[-1]))
            if not link.is_whole:
                await self._read_rest(link)
        except MirrorFullError:
            # What it does could no longer be reported.
            self._is_disk_full = True
            with suppress(*_BROKEN):
                await self._engine.stop(self._id, GRACE_SECONDS)
        finally:
            link.end()

    async def _is_running(self) -> bool:
        """Ask for the container's state: an engine keeps who attaches to an ended container waiting forever."""
        try:
            found = await until_answered(lambda: self._engine.inspect(self._id), idempotent=True)
        except StatusError as error:
            return not is_status(error, HTTPStatus.NOT_FOUND)
        except (ConnectionBrokenError, TimeoutError):
            return True  # `_end` finds out whether the engine is gone for long.
        return bool(found["State"]["Running"])

    async def _read_rest(self, link: StreamLink) -> None:
        """Complete the mirror; if the engine is restarting, wait for it."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + UNREACHABLE_SECONDS
        while True:
            offset = 0
            try:
                async for data in self._file(STATE / SPOOL_NAME, SPOOL_BYTES):
                    link.add(offset, data)
                    offset += len(data)
            except (*_BROKEN, TimeoutError) as error:
                if isinstance(error, StatusError) and is_status(error, HTTPStatus.NOT_FOUND):
                    return  # The runtime ended before it made a spool, or the container was removed.
                if not isinstance(error, ConnectionBrokenError | StatusError) or clock() > deadline:
                    _log.warning("the last events of the Sandbox %s cannot be read: %s", self._name, error)
                    return
            else:
                return
            await asyncio.sleep(_PAUSES[-1])

    async def _end(self) -> Exit:
        ended = await super()._end()
        if self._serving is not None:
            # Its caller reads the mirror next, so it must be complete.
            await asyncio.wait([self._serving], timeout=_LEAVE_SECONDS)
            if self._connection is not None:
                # An engine keeps a stream open whose container had ended before.
                self._connection.close()
            await asyncio.wait([self._serving])
        if self._is_disk_full:
            message = "the disk that holds the mirror of the event spool is full; free space on the host and run again"
            return Exit(ExitCode.SPOOL_FULL, Reason.ERROR, message)
        return ended

    async def _stderr(self, state: Mapping[str, Any]) -> str:
        if state["ExitCode"] == 0:
            return ""
        tail = b""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                async for data in self._file(STDERR, _STDERR_BYTES):
                    tail = (tail + data)[-DETAIL_BYTES:]
        except (*_BROKEN, TimeoutError) as error:
            _log.debug("the stderr of the Sandbox %s cannot be read: %s", self._name, error)
        return tail.decode(errors="replace").strip()

    async def _file(self, path: PurePosixPath, most: int) -> AsyncGenerator[bytes, None]:
        """Yield the content of a file of the container, running or ended, `most` bytes of it or a little more.

        Raises:
            ConnectionBrokenError, StatusError: the engine does not give it.
            ValueError: it is no plain file.
        """
        reader, left = TarReader(), most
        try:
            async with aclosing(self._engine.archive(self._id, str(path))) as pieces:
                async for piece in pieces:
                    for part in reader.feed(piece):
                        if isinstance(part, bytes):
                            left -= len(part)
                            yield part
                        elif not part.is_file:
                            message = f"{path} of the container {self._name} is no file"
                            raise ValueError(message)
                    if left <= 0:
                        return
            reader.close()
        except ArchiveError as error:
            message = f"the archive of {path} of the container {self._name} {error}"
            raise ValueError(message) from error
