"""A server of the records on a claim, in a Pod that mounts it.

It replays a job that is not being worked on as its coordinator would send it, and runs commands about the records.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from orchestrator.cluster import journal
from orchestrator.cluster.broadcast import Broadcast, line_of
from orchestrator.cluster.client import RECORDS, cancelled, command_about
from orchestrator.cluster.event_server import serve_events
from orchestrator.cluster.job_request import CLAIM_DIRECTORY
from orchestrator.cluster.protocol import EVENT, JobEnded, JobStarted, Subscribe
from orchestrator.errors import OrchestratorError, StoreError
from orchestrator.store import Store
from orchestrator.wire.job_record import JobStatus
from orchestrator.wire.line import EventLine

_IDLE_SECONDS = 60.0
"""How long the Pod waits for a client: the one that created it may be gone, and another creates its own."""


async def serve_records() -> None:
    """Serve the jobs on the claim to clients, until no client has connected for a minute."""
    store = Store(Path(CLAIM_DIRECTORY) / RECORDS)
    connected, left = 0, asyncio.Event()

    async def lines(follow: Subscribe) -> AsyncIterator[bytes]:
        nonlocal connected
        connected += 1
        try:
            replayed = command_output(follow.command, store.root) if follow.command else replay(store, follow)
            async for line in replayed:
                yield line
        finally:
            connected -= 1
            left.set()

    async with serve_events(lines):
        while True:
            try:
                async with asyncio.timeout(_IDLE_SECONDS):
                    await left.wait()
                    left.clear()
            except TimeoutError:
                if not connected:
                    return


_ABOUT_RECORDS = frozenset({"log", "record"})
_LONGEST_LINE = 1 << 28
_COMMAND_LINE = "import sys; from orchestrator.cli.entry import main; sys.exit(main())"
"""Runs the command line with this interpreter: where the script of that name is, depends on the installation."""


async def command_output(command: tuple[str, ...], storage: Path) -> AsyncIterator[bytes]:
    """Yield the output of a command about the records, as lines for one watcher."""
    if command[0] not in _ABOUT_RECORDS:
        yield line_of(JobEnded(code=2, error=f"{command[0]!r} is no command about records"))
        return
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _COMMAND_LINE,
        *command,
        "--storage",
        str(storage),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=_LONGEST_LINE,
    )
    if process.stdout is None or process.stderr is None:
        raise AssertionError
    complaining = asyncio.ensure_future(process.stderr.read())
    try:
        async for line in process.stdout:
            yield EVENT + line.rstrip(b"\n") + b"\n"
        error = (await complaining).decode(errors="replace").removeprefix("perstack-orch: ").rstrip("\n")
        yield line_of(JobEnded(code=await process.wait(), error=error or None))
    finally:
        complaining.cancel()
        if process.returncode is None:
            process.kill()
            await process.wait()


async def replay(store: Store, follow: Subscribe) -> AsyncIterator[bytes]:
    """Yield the lines for one watcher."""
    try:
        broadcast = _broadcast(store, follow)
    except OrchestratorError as error:
        broadcast = Broadcast(lambda: iter(()), JobStarted(after=follow.after or 0))
        broadcast.end(JobEnded(code=error.exit_code, error=str(error)))
    async for line in broadcast.lines(follow.after, follow.last_log_number):
        yield line


def _broadcast(store: Store, follow: Subscribe) -> Broadcast:
    job_id = follow.job_id
    record = journal.record_of(store, job_id)
    if record is None:
        message = f"job {job_id!r} is not in the user's records; check the id, and --user"
        raise StoreError(message)
    began = journal.read(store, job_id, follow.uid) or journal.latest(store, job_id)
    ended = None if began is None else began.ended
    if ended is None and record.status is JobStatus.CANCELLED:
        # Its coordinator was killed, or its Pod was gone, before it could record how it ended.
        ended = cancelled(follow.where, job_id)
    if ended is None:
        resume = command_about(follow.where, "resume", job_id)
        error = f"job {job_id!r} is {record.status} and not running: resume it with {resume}"
        ended = JobEnded(code=OrchestratorError.exit_code, error=error)

    def stored() -> Iterator[EventLine]:
        records = store.read(job_id)
        return iter(()) if records is None else records.events()

    after = 0 if began is None else began.after
    broadcast = Broadcast(
        stored, JobStarted(after=after, expert_key=record.coordinator_expert_key, max_steps=record.max_steps)
    )
    broadcast.end(ended)
    return broadcast
