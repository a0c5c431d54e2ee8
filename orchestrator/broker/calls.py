"""What a Sandbox asks for over its link, and what is kept of it."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from orchestrator.broker.assignment import Assignment
from orchestrator.broker.claims import BrokenRuleError, as_known, false_claim, is_repeat
from orchestrator.broker.file_lock import FileLock, FileLockCalls
from orchestrator.broker.generating import generate
from orchestrator.broker.ledger import Ledger
from orchestrator.broker.stream import Stream
from orchestrator.units import amount
from orchestrator.wire import link
from orchestrator.wire.checkpoint import Checkpoint
from orchestrator.wire.frozen import Frozen
from orchestrator.wire.generation import ToolDefinition
from orchestrator.wire.run import Run

_AT_ONCE = 16

_LARGE_BYTES = 1024 * 1024
"""A call that is larger is answered before another is read: many at once would cost the host many times a frame."""

RECORD_BYTES = 8 * 1024 * 1024 * 1024
"""How much of one Run is ever kept: checkpoints with the conversation so far, and results."""


class Calls:
    """The calls of one Sandbox, over whichever connection they come.

    `start` runs what ends with the session, `tasks` what must come to its end. `given` is set once there is something
    to do; `checkpoint`, `tools` and `violation` are as in Session.
    """

    def __init__(
        self,
        ledger: Ledger,
        files: FileLock,
        tasks: asyncio.TaskGroup,
        start: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self.given: Assignment | None = None
        self.checkpoint: Checkpoint | None = None
        self.tools: Mapping[str, tuple[ToolDefinition, ...]] | None = None
        self.violation: str | None = None
        self._ledger = ledger
        self._files = FileLockCalls(files, start)
        self._tasks = tasks
        self._start = start
        self._free = asyncio.Semaphore(_AT_ONCE)
        self._reading = asyncio.Lock()
        self._keeping = asyncio.Lock()
        self._kept_bytes = 0
        self._writing: set[asyncio.Task[None]] = set()

    async def serve(self, stream: Stream) -> None:
        """Answer the calls that come over a connection, until it ends.

        Raises:
            WireError: what comes is no call.
            asyncio.IncompleteReadError: the other end is gone.
        """
        while True:
            async with self._reading:
                await self._take(stream)

    async def kept(self) -> None:
        """Wait until what was being kept is."""
        while self._writing:
            await asyncio.wait(self._writing)

    async def _take(self, stream: Stream) -> None:
        await self._free.acquire()
        try:
            call, size = await link.read_sized_frame(stream.reader, link.CALL)
            answering = self._start(self._answer(stream, call, size))
        except BaseException:
            self._free.release()
            raise
        answering.add_done_callback(lambda _: self._free.release())
        if size > _LARGE_BYTES:
            await asyncio.wait({answering})

    async def _answer(self, stream: Stream, call: link.Call, size: int) -> None:
        try:
            answer = await self._do(stream, call, size)
        except BrokenRuleError as error:
            self.violation = str(error)
            answer = link.Refused(id=call.id, reason=self.violation)
        await stream.send(answer)

    async def _do(self, stream: Stream, call: link.Call, size: int) -> Frozen:
        given = self.given
        if self.violation is not None or given is None:
            raise BrokenRuleError(self.violation or "a call came before the Run was given")
        if not isinstance(given.work, Run) or isinstance(call, link.KeepTools) != given.inspects:
            message = f"the call {call.type!r} is not for what this Sandbox was given to do"
            raise BrokenRuleError(message)
        if isinstance(call, link.Generate):
            return await generate(stream, call, given.gateway)
        match call:
            case link.LockFiles():
                await self._files.take(call.id)
                return link.Locked(id=call.id)
            case link.UnlockFiles():
                self._files.give_up(call.lock)
                return link.Unlocked(id=call.id)
        self._count(size)
        match call:
            case link.KeepResult():
                await self._ledger.keep_result(given.run_id, call.result)
            case link.KeepTools():
                self.tools = call.tools
            case link.KeepCheckpoint():
                await self._keep_checkpoint(call.checkpoint, given.work, given)
        return link.Kept(id=call.id)

    def _count(self, size: int) -> None:
        self._kept_bytes += size
        if self._kept_bytes > RECORD_BYTES:
            message = f"more than {amount(RECORD_BYTES)} were to be kept of one Run"
            raise BrokenRuleError(message)

    async def _keep_checkpoint(self, checkpoint: Checkpoint, run: Run, given: Assignment) -> None:
        async with self._keeping:
            if is_repeat(checkpoint, self.checkpoint):
                return
            rule = false_claim(checkpoint, run, given.authority, self.checkpoint)
            if rule is not None:
                raise BrokenRuleError(rule)
            # To its end also if the session is revoked meanwhile: a Run must not have one end on the disk and another
            # in what is told of it.
            writing = self._tasks.create_task(self._write(as_known(checkpoint, run, given.usage)))
            self._writing.add(writing)
            writing.add_done_callback(self._writing.discard)
            await asyncio.shield(writing)

    async def _write(self, checkpoint: Checkpoint) -> None:
        await self._ledger.keep_checkpoint(checkpoint)
        self.checkpoint = checkpoint
