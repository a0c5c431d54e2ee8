"""The Sandbox's end of its link to the broker: calls matched by id, sent again on a new connection if one breaks."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from orchestrator.errors import WireError
from orchestrator.runtime.transport import Connection, NoListenerError, NotAdmittedError, Transport
from orchestrator.wire import frames as wire
from orchestrator.wire.checkpoint import Checkpoint
from orchestrator.wire.facts import Facts, Inodes
from orchestrator.wire.frozen import Frozen
from orchestrator.wire.generation import Failure, GenerationRequest, Reply, ToolDefinition
from orchestrator.wire.message import ToolResult

RETRY_SECONDS = 60.0
"""Seconds that a broker may be unreachable before the Sandbox gives up (decision 45)."""

_ABSENT_SECONDS = 1.0
"""Seconds for a socket that never answered: the host makes it before the Sandbox, so the engine does not share it."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
_BROKEN = (OSError, asyncio.IncompleteReadError)

T = TypeVar("T")
OnDelta = Callable[[Literal["reasoning", "text"], str], None]


class BrokerGoneError(Exception):
    """The broker was unreachable for longer than a Sandbox waits, or gives this one no work."""


class NoBrokerError(BrokerGoneError):
    """No broker ever answered at its socket."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    frame: bytes
    answer: asyncio.Future[wire.Answer]
    on_delta: OnDelta | None


class Link:
    """Calls to the broker; created by `attach`."""

    def __init__(self, transport: Transport, session_key: str, connection: Connection, retry_seconds: float) -> None:
        self._transport = transport
        self._session_key = session_key
        self._reader, self._writer = connection
        self._retry_seconds = retry_seconds
        self._waiting: dict[str, _Waiting] = {}
        self._checkpoints = 0
        self._locks = 0

    async def generate(self, request: GenerationRequest, on_delta: OnDelta) -> Reply | Failure:
        """Call the model through the broker; `on_delta` gets pieces of the reply, perhaps not all of them.

        Raises:
            WireError: the broker refuses.
        """
        match await self._call(wire.Generate(id=request.id, request=request), on_delta):
            case wire.Generated(reply=reply):
                return reply
            case wire.Failed(failure=failure):
                return failure
            case other:
                raise _unexpected(other)

    async def keep_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Return once the broker has stored the checkpoint.

        Raises:
            WireError: the broker refuses.
        """
        self._checkpoints += 1
        await self._settle(wire.KeepCheckpoint(id=f"checkpoint/{self._checkpoints}", checkpoint=checkpoint), wire.Kept)

    async def keep_result(self, result: ToolResult) -> None:
        """Return once the broker has stored the result.

        Raises:
            WireError: the broker refuses.
        """
        await self._settle(wire.KeepResult(id=f"result/{result.id}", result=result), wire.Kept)

    async def keep_tools(self, tools: Mapping[str, tuple[ToolDefinition, ...]]) -> None:
        """Return once the broker has the tools of each skill.

        Raises:
            WireError: the broker refuses.
        """
        await self._settle(wire.KeepTools(id="tools", tools=tools), wire.Kept)

    @asynccontextmanager
    async def lock_files(self) -> AsyncIterator[None]:
        """Hold the lock on workspace changes: no other Sandbox changes files meanwhile.

        Raises:
            WireError: the broker refuses.
        """
        self._locks += 1
        lock = f"lock/{self._locks}"
        unlock = wire.UnlockFiles(id=f"un{lock}", lock=lock)
        await self._settle(wire.LockFiles(id=lock), wire.Locked)
        # A cancelled call does not unlock: the Sandbox exits, which frees the lock, and the broker may be unreachable.
        try:
            yield
        except Exception:
            await self._settle(unlock, wire.Unlocked)
            raise
        await self._settle(unlock, wire.Unlocked)

    async def open_tunnel(self, credential: str, host: str, port: int) -> Connection | str:
        """Open a connection to a host outside, or return a sentence that explains the refusal.

        Raises:
            OSError, asyncio.IncompleteReadError: the broker is unreachable.
            WireError: the broker's answer is not valid.
        """
        reader, writer = await self._transport.connect()
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
        """Open the connection between a shell and the user's terminal.

        Raises:
            OSError, asyncio.IncompleteReadError: the broker is unreachable.
            WireError: it refuses.
        """
        reader, writer = await self._transport.connect()
        try:
            _accept(await _open(reader, writer, wire.Terminal(session_key=self._session_key)))
        except BaseException:
            writer.close()
            raise
        return reader, writer

    async def serve(self) -> None:
        """Deliver answers to the waiting calls while the broker is reachable; never returns.

        Raises:
            BrokerGoneError: the broker stayed unreachable.
            WireError: the broker refuses to reattach this Sandbox, or sends an invalid frame.
        """
        while True:
            with suppress(*_BROKEN):
                while True:
                    self._take(await wire.read_frame(self._reader, wire.ANSWER))
            self._writer.close()
            self._reader, self._writer = await _retry(self._reattach, self._retry_seconds)

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()

    async def _reattach(self) -> Connection:
        try:
            reader, writer = await self._transport.connect()
        except NotAdmittedError as error:
            raise _not_reattached(str(error)) from error
        try:
            _accept(await _open(reader, writer, wire.Reattach(session_key=self._session_key)))
            for call_id, waiting in self._waiting.items():
                # The broker streams the reply from its start, and at least a part of it was delivered already.
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
        answer = await self._call(call, None)
        if not isinstance(answer, expected):
            raise _unexpected(answer)

    async def _call(self, call: wire.Call, on_delta: OnDelta | None) -> wire.Answer:
        waiting = _Waiting(wire.frame(call), asyncio.get_running_loop().create_future(), on_delta)
        self._waiting[call.id] = waiting
        try:
            self._writer.write(waiting.frame)
            with suppress(OSError):  # `serve` gets the same error and sends the call again.
                await self._writer.drain()
            return await waiting.answer
        finally:
            del self._waiting[call.id]


async def _nothing() -> None:
    """Do nothing while waiting."""


@asynccontextmanager
async def attach(
    transport: Transport,
    facts: Facts | None = None,
    inodes: Inodes | None = None,
    *,
    retry_seconds: float = RETRY_SECONDS,
    meanwhile: Callable[[], Coroutine[None, None, None]] = _nothing,
) -> AsyncIterator[tuple[wire.Assigned, Link]]:
    """Report to the broker that this Sandbox is up, with its facts, and wait for its Run; a warm Sandbox waits long.

    `meanwhile` runs while it waits, and is cancelled if it has not finished when the Run arrives.

    Raises:
        BrokerGoneError, WireError: in an exception group, as for `Link.serve`.
        NetworkOpenError: likewise in a group; an address that must be blocked can be reached, now or later.
    """
    attached = asyncio.Event()

    async def once() -> tuple[wire.Assigned, Connection]:
        await transport.verify_isolation()
        reader, writer = await transport.connect()
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

    with closing(transport):
        async with asyncio.TaskGroup() as tasks:
            waiting, guarding = (
                tasks.create_task(afterwards(work)) for work in (meanwhile, transport.verify_isolation_forever)
            )
            assigned, connection = await _retry(once, retry_seconds, attached.is_set)
            waiting.cancel()
            if assigned.refused is not None:
                connection[1].close()
                message = f"the broker gives this Sandbox no work: {assigned.refused}"
                raise BrokerGoneError(message)
            link = Link(transport, assigned.session_key, connection, retry_seconds)
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
        raise _not_reattached(refused)


def _not_reattached(why: str) -> WireError:
    return WireError(f"the broker refused to reattach this Sandbox: {why}")


def _unexpected(answer: wire.Answer) -> WireError:
    if isinstance(answer, wire.Refused):
        return WireError(f"the broker refuses: {answer.reason}")
    return WireError(f"the broker answered call {answer.id!r} with {answer.type!r}, which was not asked for")


async def _retry(
    attempt: Callable[[], Awaitable[T]], retry_seconds: float, was_reached: Callable[[], bool] = lambda: True
) -> T:
    """Retry until `attempt` works, for `retry_seconds` seconds since the broker was last connected.

    Raises:
        BrokerGoneError: it did not work.
        NoBrokerError: the broker was never reached, and its socket does not answer.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + retry_seconds
    pause = _FIRST_PAUSE
    while True:
        began = clock()
        try:
            return await attempt()
        except _BROKEN as error:
            if clock() - began > retry_seconds:
                deadline = clock() + retry_seconds  # A long connection broke, so the full time starts again.
            cause = str(error) if isinstance(error, NoListenerError) else f"{type(error).__name__}: {error}"
            # Over a network, a broker may come later: its coordinator may be starting.
            is_absent = not was_reached() and isinstance(error, NoListenerError)
            if is_absent and clock() + pause > deadline - retry_seconds + _ABSENT_SECONDS:
                message = f"the broker's socket does not answer ({cause})"
                raise NoBrokerError(message) from error
            if clock() + pause > deadline:
                message = f"the broker was unreachable for {retry_seconds:g} s ({cause})"
                raise BrokerGoneError(message) from error
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
