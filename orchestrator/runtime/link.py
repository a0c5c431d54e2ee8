"""The Sandbox's end of its link to the broker: calls by id, repeated over a new connection if one breaks."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from orchestrator.errors import WireError
from orchestrator.runtime.way import Connection, NotAdmittedError, Way
from orchestrator.wire import link as wire
from orchestrator.wire.checkpoint import Checkpoint
from orchestrator.wire.facts import Facts, Inodes
from orchestrator.wire.frozen import Frozen
from orchestrator.wire.generation import Failure, GenerationRequest, Reply, ToolDefinition
from orchestrator.wire.message import ToolResult

PATIENCE = 60.0
"""Seconds that a broker may be away before the Sandbox gives up (design 5)."""

_ABSENT = 2.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
_BROKEN = (OSError, asyncio.IncompleteReadError)

T = TypeVar("T")
OnDelta = Callable[[Literal["reasoning", "text"], str], None]


class BrokerGoneError(Exception):
    """The broker stayed away for longer than a Sandbox waits."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    frame: bytes
    answer: asyncio.Future[wire.Answer]
    on_delta: OnDelta | None


class Link:
    """Calls to the broker; made by `attach`."""

    def __init__(self, way: Way, session_key: str, connection: Connection, patience: float) -> None:
        self._way = way
        self._session_key = session_key
        self._reader, self._writer = connection
        self._patience = patience
        self._waiting: dict[str, _Waiting] = {}
        self._checkpoints = 0
        self._locks = 0

    async def generate(self, request: GenerationRequest, on_delta: OnDelta) -> Reply | Failure:
        """Have the model called; `on_delta` gets pieces of the reply, perhaps not all of them.

        Raises:
            WireError: the broker refuses.
        """
        match await self._ask(wire.Generate(id=request.id, request=request), on_delta):
            case wire.Generated(reply=reply):
                return reply
            case wire.Failed(failure=failure):
                return failure
            case other:
                raise _unexpected(other)

    async def keep_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Return once the broker has stored it.

        Raises:
            WireError: the broker refuses.
        """
        self._checkpoints += 1
        await self._settle(wire.KeepCheckpoint(id=f"checkpoint/{self._checkpoints}", checkpoint=checkpoint), wire.Kept)

    async def keep_result(self, result: ToolResult) -> None:
        """Return once the broker has stored it.

        Raises:
            WireError: the broker refuses.
        """
        await self._settle(wire.KeepResult(id=f"result/{result.id}", result=result), wire.Kept)

    async def keep_tools(self, tools: Mapping[str, tuple[ToolDefinition, ...]]) -> None:
        """Return once the broker knows the tools of each skill.

        Raises:
            WireError: the broker refuses.
        """
        await self._settle(wire.KeepTools(id="tools", tools=tools), wire.Kept)

    @asynccontextmanager
    async def files_locked(self) -> AsyncIterator[None]:
        """Hold the lock under which files of the workspace are changed: no other Sandbox does so meanwhile.

        Raises:
            WireError: the broker refuses.
        """
        self._locks += 1
        lock = f"lock/{self._locks}"
        unlock = wire.UnlockFiles(id=f"un{lock}", lock=lock)
        await self._settle(wire.LockFiles(id=lock), wire.Locked)
        # A cancelled call does not unlock: then the Sandbox ends, which frees the lock, and the broker may be gone.
        try:
            yield
        except Exception:
            await self._settle(unlock, wire.Unlocked)
            raise
        await self._settle(unlock, wire.Unlocked)

    async def open_tunnel(self, credential: str, host: str, port: int) -> Connection | str:
        """Open a connection to a host outside, or give the sentence why not.

        Raises:
            OSError, asyncio.IncompleteReadError: the broker is not there.
            WireError: it answers what was not agreed.
        """
        reader, writer = await self._way.dial()
        opening = wire.Tunnel(session_key=self._session_key, credential=credential, host=host, port=port)
        try:
            refused = await _open(reader, writer, opening)
        except BaseException:
            writer.close()
            raise
        if refused is None:
            return reader, writer
        writer.close()
        return refused

    async def open_terminal(self) -> Connection:
        """Open the connection of a shell to the person it is for.

        Raises:
            OSError, asyncio.IncompleteReadError: the broker is not there.
            WireError: it refuses.
        """
        reader, writer = await self._way.dial()
        try:
            _accept(await _open(reader, writer, wire.Terminal(session_key=self._session_key)))
        except BaseException:
            writer.close()
            raise
        return reader, writer

    async def serve(self) -> None:
        """Hand answers to those who wait for them, for as long as the broker is there; never returns.

        Raises:
            BrokerGoneError: it stayed away.
            WireError: it does not take this Sandbox back, or sends what was not agreed.
        """
        while True:
            with suppress(*_BROKEN):
                while True:
                    self._take(await wire.read_frame(self._reader, wire.ANSWER))
            self._writer.close()
            self._reader, self._writer = await _persist(self._reattach, self._patience)

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()

    async def _reattach(self) -> Connection:
        try:
            reader, writer = await self._way.dial()
        except NotAdmittedError as error:
            raise _not_taken_back(str(error)) from error
        try:
            _accept(await _open(reader, writer, wire.Reattach(session_key=self._session_key)))
            for call_id, waiting in self._waiting.items():
                # What the broker streams again was told already, at least in part.
                self._waiting[call_id] = replace(waiting, on_delta=None)
                writer.write(waiting.frame)
        except BaseException:
            writer.close()
            raise
        return reader, writer

    def _take(self, answer: wire.Answer) -> None:
        waiting = self._waiting.get(answer.id)
        if waiting is None:
            return
        if not isinstance(answer, wire.Delta):
            if not waiting.answer.done():
                waiting.answer.set_result(answer)
        elif waiting.on_delta is not None:
            waiting.on_delta(answer.kind, answer.text)

    async def _settle(self, call: wire.Call, expected: type[wire.Answer]) -> None:
        answer = await self._ask(call, None)
        if not isinstance(answer, expected):
            raise _unexpected(answer)

    async def _ask(self, call: wire.Call, on_delta: OnDelta | None) -> wire.Answer:
        waiting = _Waiting(wire.frame(call), asyncio.get_running_loop().create_future(), on_delta)
        self._waiting[call.id] = waiting
        try:
            self._writer.write(waiting.frame)
            with suppress(OSError):  # `serve` sees the same and repeats the call.
                await self._writer.drain()
            return await waiting.answer
        finally:
            del self._waiting[call.id]


async def _nothing() -> None:
    """Do nothing while waiting."""


@asynccontextmanager
async def attach(
    way: Way,
    facts: Facts | None = None,
    inodes: Inodes | None = None,
    *,
    patience: float = PATIENCE,
    meanwhile: Callable[[], Coroutine[None, None, None]] = _nothing,
) -> AsyncIterator[tuple[wire.Assigned, Link]]:
    """Tell the broker that this Sandbox is up, and what it found; wait for its Run: a warm one waits long.

    `meanwhile` is done between the two, and dropped where it is not finished when the Run comes.

    Raises:
        BrokerGoneError, WireError: in an exception group, as `Link.serve`.
        NetworkOpenError: there is another way out, or one opens later; the same.
    """
    attached = asyncio.Event()

    async def once() -> tuple[wire.Assigned, Connection]:
        await way.prove()
        reader, writer = await way.dial()
        try:
            writer.write(wire.frame(wire.Attach(facts=facts, inodes=inodes)))
            attached.set()
            return await wire.read_frame(reader, wire.ASSIGNED), (reader, writer)
        except BaseException:
            writer.close()
            raise

    async def afterwards(work: Callable[[], Coroutine[None, None, None]]) -> None:
        await attached.wait()
        await work()

    with closing(way):
        async with asyncio.TaskGroup() as tasks:
            waiting, guarding = (tasks.create_task(afterwards(work)) for work in (meanwhile, way.watch))
            # The host makes the socket before the Sandbox: one that is absent will not come, its engine shares none.
            assigned, connection = await _persist(once, patience, absent=_ABSENT)
            waiting.cancel()
            link = Link(way, assigned.session_key, connection, patience)
            try:
                serving = tasks.create_task(link.serve())
                yield assigned, link
                serving.cancel()
                guarding.cancel()
            finally:
                link.close()


async def _open(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, opening: Frozen) -> str | None:
    writer.write(wire.frame(opening))
    return (await wire.read_frame(reader, wire.OPENED)).refused


def _accept(refused: str | None) -> None:
    if refused is not None:
        raise _not_taken_back(refused)


def _not_taken_back(why: str) -> WireError:
    return WireError(f"the broker does not take this Sandbox back: {why}")


def _unexpected(answer: wire.Answer) -> WireError:
    if isinstance(answer, wire.Refused):
        return WireError(f"the broker refuses: {answer.reason}")
    return WireError(f"the broker answered call {answer.id!r} with {answer.type!r}, which was not asked for")


async def _persist(attempt: Callable[[], Awaitable[T]], patience: float, absent: float = PATIENCE) -> T:
    """Try until it works; `patience` seconds count from the last time that somebody answered the door.

    Where there is no door at all, `absent` seconds are enough.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + patience
    pause = _FIRST_PAUSE
    while True:
        began = clock()
        try:
            return await attempt()
        except _BROKEN as error:
            if clock() - began > patience:
                deadline = clock() + patience  # It was there, for long, and left: waiting begins anew.
            limit = deadline - max(0.0, patience - absent) if isinstance(error, FileNotFoundError) else deadline
            if clock() + pause > limit:
                message = f"the broker was away for {patience:g} s ({type(error).__name__}: {error})"
                raise BrokerGoneError(message) from error
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
