"""One attempt of a Run: one Sandbox, from its launch to its verdict."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from orchestrator.backends.naming import sandbox_name
from orchestrator.broker.server import Broker
from orchestrator.broker.session import Session
from orchestrator.collect import Collected, Origin, Sequence, Spool, collect, drain
from orchestrator.errors import BackendUnavailableError, SandboxLostError
from orchestrator.outcome import Again, Broken, conclude, is_committed
from orchestrator.plan import Job, Plan, sandbox_spec
from orchestrator.sandbox import Backend, Exit, Reason, Sandbox
from orchestrator.state import state_directory
from orchestrator.wire.checkpoint import Checkpoint, RunError
from orchestrator.wire.event import TerminalEvent

READY_SECONDS = 60
"""How long a Sandbox may take from its launch to its broker."""

_EXIT_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Place:
    """Where a job's Sandboxes come to life. `publish` stores an event and shows it, `note` takes remarks for a log."""

    job: Job
    backend: Backend
    broker: Broker
    directory: Path
    publish: Callable[[Collected], Awaitable[None]]
    note: Callable[[str], None]
    clock: Callable[[], int]


@dataclass(frozen=True, slots=True)
class Ended:
    """What came of an attempt: a committed checkpoint, or a verdict; with it the checkpoint and model calls so far."""

    verdict: Checkpoint | Again | Broken
    acknowledged: Checkpoint | None
    generations: int


async def attempt(place: Place, planned: Plan, ordinal: int, ended: "asyncio.Future[Ended]") -> None:
    """Run `planned` in a Sandbox of its own, tell `ended` as soon as the verdict stands, and then clear up.

    Raises:
        OrchestratorError: through `ended`, or as a note once that is told.
    """
    again: Ended | None = None
    try:
        name = sandbox_name(place.job.id, ordinal)
        user = place.job.workspace.user
        with state_directory(place.directory, str(ordinal), user, planned.run.events) as (state, spool):
            spec = sandbox_spec(place.job, ordinal, state, place.clock() // 1000)
            async with place.broker.listen(state, user) as session, place.backend.launch(spec) as sandbox:
                await _ready(name, session, sandbox)
                await session.assign(planned.run, planned.authority)
                verdict = await _follow(place, planned, session, sandbox, spool)
                session.revoke()
                done = Ended(verdict, session.checkpoint, session.generations)
                if isinstance(verdict, Again):
                    # Two Sandboxes must never work on one Run: tell only when this one is gone.
                    again = done
                else:
                    ended.set_result(done)
                    await _leave(sandbox)
    except Exception as error:  # noqa: BLE001 - whoever awaits `ended` gets it, whatever it is
        if ended.done():
            place.note(f"after the end of run {planned.run.run_id}: {error}")
        else:
            ended.set_exception(error)
    else:
        if again is not None:
            ended.set_result(again)


async def _ready(name: str, session: Session, sandbox: Sandbox) -> None:
    try:
        async with asyncio.timeout(READY_SECONDS), asyncio.TaskGroup() as group:
            ready = group.create_task(session.ready())
            gone = group.create_task(_exit(sandbox))
            await asyncio.wait((ready, gone), return_when=asyncio.FIRST_COMPLETED)
            ready.cancel()
            gone.cancel()
    except TimeoutError as error:
        message = f"Sandbox {name} did not reach its broker within {READY_SECONDS} s; {_REMEDY}"
        raise BackendUnavailableError(message) from error
    if gone.done() and not gone.cancelled():
        last = gone.result().detail.strip().splitlines()
        said = f": {last[-1]}" if last else ""
        message = f"Sandbox {name} ended before it reached its broker (exit code {gone.result().code}{said}); {_REMEDY}"
        raise BackendUnavailableError(message)


_REMEDY = (
    "the engine must run on this machine and share its file system and unix sockets, "
    "which remote engines and most desktop products do not"
)


async def _follow(
    place: Place, planned: Plan, session: Session, sandbox: Sandbox, spool: Spool
) -> Checkpoint | Again | Broken:
    run = planned.run
    sequence = Sequence(Origin(run.job_id, run.run_id, run.attempt), place.note)
    async for collected in collect(sandbox.lines(), spool, sequence):
        verdict = await _publish(place, session, collected)
        if verdict is not None:
            return verdict
    gone = await _exit(sandbox)
    for collected in drain(spool, sequence):
        verdict = await _publish(place, session, collected)
        if verdict is not None:
            return verdict
    return conclude(gone, run.attempt, session.violation or spool.tampered)


async def _exit(sandbox: Sandbox) -> Exit:
    try:
        return await sandbox.wait()
    except SandboxLostError as error:
        return Exit(None, Reason.LOST, str(error))


async def _publish(place: Place, session: Session, collected: Collected) -> Checkpoint | Broken | None:
    event = collected.event
    if isinstance(event, TerminalEvent):
        if session.checkpoint is None or not is_committed(event, session.checkpoint):
            message = "it ended without handing over its last checkpoint"
            return Broken(RunError(name="WireError", message=message))
        await place.publish(collected)
        return session.checkpoint
    await place.publish(collected)
    return None


async def _leave(sandbox: Sandbox) -> None:
    try:
        async with asyncio.timeout(_EXIT_SECONDS):
            await _exit(sandbox)
    except TimeoutError:
        return
