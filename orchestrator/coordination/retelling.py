"""A job that nobody works on, told from its records as a coordinator would."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from orchestrator.coordination import notebook
from orchestrator.coordination.broadcast import Broadcast, line_of
from orchestrator.coordination.messages import EVENT, Began, Ended, Follow
from orchestrator.coordination.submission import command_about
from orchestrator.errors import OrchestratorError, StoreError
from orchestrator.store import Recorded, Store

_ABOUT_RECORDS = frozenset({"log", "record"})
_LONGEST_LINE = 1 << 28


async def written(command: tuple[str, ...], storage: Path) -> AsyncIterator[bytes]:
    """Give what a command about the records writes, as lines for one watcher."""
    if command[0] not in _ABOUT_RECORDS:
        yield line_of(Ended(code=2, error=f"{command[0]!r} is no command about records"))
        return
    program = Path(sys.executable).with_name("perstack-orch")
    process = await asyncio.create_subprocess_exec(
        program,
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
        said = (await complaining).decode(errors="replace").removeprefix("perstack-orch: ").rstrip("\n")
        yield line_of(Ended(code=await process.wait(), error=said or None))
    finally:
        complaining.cancel()
        if process.returncode is None:
            process.kill()
            await process.wait()


async def retold(store: Store, follow: Follow) -> AsyncIterator[bytes]:
    """Give the lines for one watcher."""
    try:
        broadcast = _broadcast(store, follow)
    except OrchestratorError as error:
        broadcast = Broadcast(lambda: iter(()), Began(after=follow.after or 0))
        broadcast.end(Ended(code=error.exit_code, error=str(error)))
    async for line in broadcast.lines(follow.after, follow.said):
        yield line


def _broadcast(store: Store, follow: Follow) -> Broadcast:
    job_id = follow.job_id
    record = notebook.record_of(store, job_id)
    if record is None:
        message = f"job {job_id!r} is not in the user's records; check the id, and --user"
        raise StoreError(message)
    began = notebook.read(store, job_id, follow.uid) or notebook.latest(store, job_id)
    ended = None if began is None else began.ended
    if ended is None:
        resume = command_about(follow.where, "resume", job_id)
        said = f"nobody works on job {job_id!r}, which is {record.status}: go on with {resume}"
        ended = Ended(code=OrchestratorError.exit_code, error=said)

    def stored() -> Iterator[Recorded]:
        records = store.read(job_id)
        return iter(()) if records is None else records.events()

    after = 0 if began is None else began.after
    broadcast = Broadcast(
        stored, Began(after=after, expert_key=record.coordinator_expert_key, max_steps=record.max_steps)
    )
    broadcast.end(ended)
    return broadcast
