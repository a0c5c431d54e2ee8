"""The calls of a Sandbox over its link, and what is stored of them."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from orchestrator.broker.assignment import Assignment
from orchestrator.broker.checkpoint_validation import (
    ProtocolViolationError,
    checkpoint_violation,
    is_repeat,
    with_host_facts,
)
from orchestrator.broker.gateway import Gateway
from orchestrator.broker.run_records import RunRecords
from orchestrator.broker.workspace_lock import WorkspaceLock, WorkspaceLockCalls
from orchestrator.sandbox.frame_stream import DeltaBuffer, FrameStream
from orchestrator.units import amount
from orchestrator.wire import frames
from orchestrator.wire.checkpoint import Checkpoint
from orchestrator.wire.frozen import Frozen
from orchestrator.wire.generation import Reply, ToolDefinition
from orchestrator.wire.run import Run


async def generate(stream: FrameStream, call: frames.Generate, gateway: Gateway) -> frames.Generated | frames.Failed:
    """Make the model call, and return the answer to `call`.

    Raises:
        ProtocolViolationError: another call is in flight; a Run makes one at a time.
    """
    if gateway.busy_with not in (None, call.request.id):
        message = f"model call {call.request.id!r} came while {gateway.busy_with!r} was not answered yet"
        raise ProtocolViolationError(message)
    pieces = DeltaBuffer()
    outcome = gateway.call(call.request, pieces.add)
    outcome.add_done_callback(pieces.end)
    async for kind, text in pieces:
        await stream.send(frames.Delta(id=call.id, kind=kind, text=text))
    answer = await outcome
    if isinstance(answer, Reply):
        return frames.Generated(id=call.id, reply=answer)
    return frames.Failed(id=call.id, failure=answer)


_AT_ONCE = 16

_LARGE_BYTES = 1024 * 1024
"""A larger call is answered before the next is read: many at once would cost the host many frames of memory."""

RECORD_BYTES = 8 * 1024 * 1024 * 1024
"""How much of one Run is stored in total: checkpoints with the conversation so far, and results."""


class Calls:
    """The calls of one Sandbox, over any of its connections.

    `start` runs tasks that end with the session, `tasks` those that must complete. `assignment` is set once the Sandbox
    has work; `checkpoint`, `tools` and `violation` are as in Session. `has_begun` is whether a call has come.
    """

    def __init__(
        self,
        run_records: RunRecords,
        files: WorkspaceLock,
        tasks: asyncio.TaskGroup,
        start: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self.assignment: Assignment | None = None
        self.checkpoint: Checkpoint | None = None
        self.tools: Mapping[str, tuple[ToolDefinition, ...]] | None = None
        self.violation: str | None = None
        self.has_begun = False
        self._run_records = run_records
        self._files = WorkspaceLockCalls(files, start)
        self._tasks = tasks
        self._start = start
        self._free = asyncio.Semaphore(_AT_ONCE)
        self._reading = asyncio.Lock()
        self._keeping = asyncio.Lock()
        self._kept_bytes = 0
        self._writing: set[asyncio.Task[None]] = set()

    async def serve(self, stream: FrameStream) -> None:
        """Answer the calls of a connection until it ends.

        Raises:
            WireError: a frame is not a call.
            asyncio.IncompleteReadError: the other end is gone.
        """
        while True:
            async with self._reading:
                await self._take(stream)

    async def kept(self) -> None:
        """Wait until all pending writes are complete."""
        while self._writing:
            await asyncio.wait(self._writing)

    async def _take(self, stream: FrameStream) -> None:
        await self._free.acquire()
        try:
            call, size = await frames.read_sized_frame(stream.reader, frames.CALL)
            self.has_begun = True
            answering = self._start(self._answer(stream, call, size))
        except BaseException:
            self._free.release()
            raise
        answering.add_done_callback(lambda _: self._free.release())
        if size > _LARGE_BYTES:
            await asyncio.wait({answering})

    async def _answer(self, stream: FrameStream, call: frames.Call, size: int) -> None:
        try:
            answer = await self._do(stream, call, size)
        except ProtocolViolationError as error:
            self.violation = str(error)
            answer = frames.Refused(id=call.id, reason=self.violation)
        await stream.send(answer)

    async def _do(self, stream: FrameStream, call: frames.Call, size: int) -> Frozen:
        assignment = self.assignment
        if self.violation is not None or assignment is None:
            raise ProtocolViolationError(self.violation or "a call came before the Run was given")
        if not isinstance(assignment.task, Run) or isinstance(call, frames.KeepTools) != assignment.inspects:
            message = f"the call {call.type!r} is not for what this Sandbox was given to do"
            raise ProtocolViolationError(message)
        if isinstance(call, frames.Generate):
            return await generate(stream, call, assignment.gateway)
        match call:
            case frames.LockFiles():
                await self._files.take(call.id)
                return frames.Locked(id=call.id)
            case frames.UnlockFiles():
                self._files.give_up(call.lock)
                return frames.Unlocked(id=call.id)
        self._count(size)
        match call:
            case frames.KeepResult():
                await self._run_records.keep_result(assignment.run_id, call.result)
            case frames.KeepTools():
                self.tools = call.tools
            case frames.KeepCheckpoint():
                await self._keep_checkpoint(call.checkpoint, assignment.task, assignment)
        return frames.Kept(id=call.id)

    def _count(self, size: int) -> None:
        self._kept_bytes += size
        if self._kept_bytes > RECORD_BYTES:
            message = f"the records of one Run would exceed {amount(RECORD_BYTES)}"
            raise ProtocolViolationError(message)

    async def _keep_checkpoint(self, checkpoint: Checkpoint, run: Run, assignment: Assignment) -> None:
        async with self._keeping:
            if is_repeat(checkpoint, self.checkpoint):
                return
            rule = checkpoint_violation(checkpoint, run, assignment.authority, self.checkpoint)
            if rule is not None:
                raise ProtocolViolationError(rule)
            # Completed even if the session is revoked meanwhile: the Run's end on the disk must not differ from the
            # reported one.
            writing = self._tasks.create_task(self._write(with_host_facts(checkpoint, run, assignment.usage)))
            self._writing.add(writing)
            writing.add_done_callback(self._writing.discard)
            await asyncio.shield(writing)

    async def _write(self, checkpoint: Checkpoint) -> None:
        await self._run_records.keep_checkpoint(checkpoint)
        self.checkpoint = checkpoint
