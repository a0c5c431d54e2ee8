"""`perstack-orch record`: a job as a script of the scripted provider."""

import asyncio
import json
import sys
from pathlib import Path

from orchestrator.cli.render import plain
from orchestrator.errors import ConfigError, StoreError
from orchestrator.history.runs import RunHistory, histories
from orchestrator.history.script import Replies, Script, model_calls, script
from orchestrator.store import JobRecords, Store
from orchestrator.wire.job import JobStatus


def write_script(job_id: str, output: str | None, storage: str) -> int:
    """Write the script of a job to the file `output`, or to stdout; what it cannot replay is said on stderr.

    Raises:
        StoreError: there is no such job, or its records are damaged.
        ConfigError: the file cannot be written.
    """
    store = Store(Path.cwd() / storage)
    records = store.read(job_id)
    if records is None:
        message = f"job {job_id!r} is not in the store {store.root}; see perstack-orch log --jobs"
        raise StoreError(message)
    made = asyncio.run(_script(records))
    text = json.dumps(made.document, indent=2) + "\n"
    if output is None:
        sys.stdout.write(text)
        sys.stdout.flush()
    else:
        _put(Path(output), text)
    for note in (*made.notes, *_unfinished(records)):
        cleaned = plain(note)
        sys.stderr.write(f"perstack-orch: warning: {cleaned}\n")
    return 0


async def _script(records: JobRecords) -> Script:
    runs = histories(records.settings(), [recorded.event for recorded in records.events()])
    if not runs:
        message = "the job has no Run that could be replayed; record one that got as far"
        raise StoreError(message)
    return script(runs, await _replies(records, runs))


async def _replies(records: JobRecords, runs: tuple[RunHistory, ...]) -> Replies:
    found = {
        (call.run_id, call.request_id): await records.reply(call.run_id, call.request_id)
        for run in runs
        for call in model_calls(run)
    }
    return {place: reply for place, reply in found.items() if reply is not None}


def _unfinished(records: JobRecords) -> tuple[str, ...]:
    job = records.job()
    if job.status in (JobStatus.RUNNING, JobStatus.CANCELLED):
        return (f"job {job.id} is {job.status}, so its replay runs out of replies where the record ends",)
    return ()


def _put(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="ascii")
    except OSError as error:
        message = f"the script cannot be written to {file}: {error.strerror}; name another --output"
        raise ConfigError(message) from error
