"""The baseline: the same agent loop and the same model, all Experts of a job in one process, and nothing around them.

python -m bench.inprocess DIRECTORY EXPERT works a job and writes the first and the last of its events to stdout.
"""

import asyncio
import os
import sys
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import cast

from bench.driven import job_in
from orchestrator.jobs.delegation import Ending, children, continue_caller
from orchestrator.plan.job import Job
from orchestrator.plan.make_job import provider_of
from orchestrator.plan.run_plan import first, plan
from orchestrator.providers import ModelRequest, Provider
from orchestrator.runtime import loop
from orchestrator.runtime.emit import Emitter, StdoutCopy, emit_initialize
from orchestrator.runtime.link import Link, OnDelta
from orchestrator.runtime.tool_context import ToolContext
from orchestrator.units import now
from orchestrator.wire.checkpoint import Checkpoint, Status
from orchestrator.wire.generation import Failure, GenerationRequest, Reply
from orchestrator.wire.identity import identify
from orchestrator.wire.layout import SPOOL_NAME
from orchestrator.wire.message import ToolResult
from orchestrator.wire.run import Run, Start


@dataclass(slots=True)
class Direct:
    """In place of a Link: the model is called from here, and nothing is kept."""

    job: Job
    provider: Provider
    run: Run
    before: int
    checkpoint: Checkpoint | None = None
    asked: int = 0

    async def generate(self, request: GenerationRequest, on_delta: OnDelta) -> Reply | Failure:
        """Call the model."""
        self.asked += 1
        asked = ModelRequest(
            expert_key=self.run.expert.key,
            generation=self.before + request.number,
            model=self.run.model,
            messages=request.messages,
            tools=request.tools,
            reasoning_tokens=0,
            timeout=self.run.timeout_ms / 1000,
        )
        return await self.provider.generate(asked, on_delta)

    async def keep_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Remember it."""
        self.checkpoint = checkpoint

    async def keep_result(self, result: ToolResult) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class InProcess:
    """Works a job's tree; events go to a spool in `state`."""

    job: Job
    provider: Provider
    state: Path
    parts: "count[int]" = field(default_factory=count)

    async def expert(self, start: Start, depth: int = 0) -> Checkpoint:
        """Work an Expert to its end, through every delegation."""
        while True:
            checkpoint, asked = await self._run(start)
            if checkpoint.status is not Status.STOPPED_BY_DELEGATE:
                return checkpoint
            async with asyncio.TaskGroup() as tasks:
                working = [
                    (
                        child.call,
                        tasks.create_task(
                            self.expert(Start(checkpoint=child.start, query=child.call.query), depth + 1)
                        ),
                    )
                    for child in children(checkpoint, self.job.config.experts, depth)
                    if child.start is not None
                ]
            endings = [Ending(call, task.result()) for call, task in working]
            start = Start(checkpoint=continue_caller(checkpoint, endings), generations=start.generations + asked)

    async def _run(self, start: Start) -> tuple[Checkpoint, int]:
        planned = plan(self.job, start, b"0" * 32, now())
        emitter = Emitter(planned.run, self.state, StdoutCopy(os.open(os.devnull, os.O_WRONLY)).write)
        surroundings = ToolContext(
            workspace=self.job.workspace.path,
            state=self.state,
            emitter=emitter,
            new_part_id=lambda: identify("part", next(self.parts)),
            open_forwarder=_no_way_out,
            lock_files=nullcontext,
        )
        direct = Direct(self.job, self.provider, planned.run, start.generations)
        emit_initialize(planned.run, emitter)
        await loop.work(planned.run, cast("Link", direct), surroundings, _nobody)
        if direct.checkpoint is None:
            sys.exit("the Run handed over nothing")
        return direct.checkpoint, direct.asked


def _no_way_out(credential: str) -> AbstractAsyncContextManager[int]:
    raise NotImplementedError(credential)


async def _nobody() -> bool:
    """Leave everything else alone: it is the same process."""
    return True


async def _work(directory: Path, expert: str) -> None:
    job, _ = job_in(directory, expert, "process")
    state = directory / "state"
    state.mkdir(exist_ok=True)
    spool = state / SPOOL_NAME
    spool.write_bytes(b"")
    async with provider_of(job)() as provider:
        last = await InProcess(job, provider, state).expert(first(job))
    if last.status is not Status.COMPLETED:
        sys.exit(f"the job did not complete: {last.error}")
    lines = spool.read_bytes().splitlines(keepends=True)
    sys.stdout.buffer.write(lines[0] + lines[-1])


if __name__ == "__main__":
    asyncio.run(_work(Path(sys.argv[1]), sys.argv[2]))
