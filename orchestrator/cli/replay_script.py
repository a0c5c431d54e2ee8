"""A job's model replies, written as a script for the scripted provider."""

import asyncio
import json
import sys
from pathlib import Path

from orchestrator.cli.cwd_guard import refuse_mounted_store
from orchestrator.cli.options import RecordsOptions
from orchestrator.cli.output.notices import write_warning
from orchestrator.errors import ConfigError, StoreError
from orchestrator.history.runs import RunHistory, histories
from orchestrator.history.script import Replies, Script, model_calls, script
from orchestrator.store import JobRecords, Store
from orchestrator.wire.job_record import JobStatus
from orchestrator.workspace.users import store_of


def write_script(options: RecordsOptions, job_id: str, output: str | None) -> int:
    """Write the script of a job to the file `output`, default stdout; warn about what it cannot replay.

    Raises:
        StoreError: the job does not exist, or its records are damaged.
        ConfigError: the store is in a workspace, or the file cannot be written.
    """
    refuse_mounted_store(options.storage, Path.cwd())
    store = Store(Path.cwd() / store_of(Path(options.storage), options.user))
    records = store.read(job_id)
    if records is None:
        message = f"job {job_id!r} is not in the store {store.root}; see perstack-orch log --jobs"
        raise StoreError(message)
    made = asyncio.run(_read_script(records))
    text = json.dumps(made.document, indent=2) + "\n"
    if output is None:
        sys.stdout.write(text)
        sys.stdout.flush()
    else:
        _write_file(Path(output), text)
    for note in (*made.notes, *_unfinished_notes(records)):
        write_warning(note)
    return 0


async def _read_script(records: JobRecords) -> Script:
    runs = histories(records.settings(), [recorded.event for recorded in records.events()])
    if not runs:
        message = "the job has no Run to replay; record a job that started one"
        raise StoreError(message)
    return script(runs, await _read_replies(records, runs))


async def _read_replies(records: JobRecords, runs: tuple[RunHistory, ...]) -> Replies:
    found = {
        (call.run_id, call.request_id): await records.reply(call.run_id, call.request_id)
        for run in runs
        for call in model_calls(run)
    }
    return {place: reply for place, reply in found.items() if reply is not None}


def _unfinished_notes(records: JobRecords) -> tuple[str, ...]:
    job = records.job()
    if job.status in (JobStatus.RUNNING, JobStatus.CANCELLED):
        return (f"job {job.id} is {job.status}, so its replay ends where the record ends",)
    return ()


def _write_file(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="ascii")
    except OSError as error:
        message = f"the script cannot be written to {file}: {error.strerror}; name another --output"
        raise ConfigError(message) from error
