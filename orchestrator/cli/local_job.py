"""A job that this process runs: its events go to stdout, its status to stderr."""

import asyncio
import gc
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from orchestrator.backends import find_backend, open_backend
from orchestrator.cli.broken_pipe import BROKEN_PIPE
from orchestrator.cli.build_job import (
    build_job,
    check_options,
    find_continued_job,
    load_config,
    load_environment_with_key,
)
from orchestrator.cli.cluster_options import read_cluster_setting
from orchestrator.cli.command_line import format_command
from orchestrator.cli.first_run import advising_on_keys
from orchestrator.cli.job_report import (
    JobReport,
    exit_code_of,
    format_advice,
    job_warnings,
    open_report,
)
from orchestrator.cli.options import RunOptions
from orchestrator.cli.output.log_lines import show_log
from orchestrator.cli.output.notices import write_message
from orchestrator.cli.output.stdout import Stdout
from orchestrator.cli.signals import kill_on_second_signal, stop_on_signals
from orchestrator.cli.user_dirs import resolve_user_dirs
from orchestrator.errors import OrchestratorError
from orchestrator.jobs.event_stream import JobEvents
from orchestrator.jobs.outcome import Outcome
from orchestrator.jobs.resume import Resume
from orchestrator.jobs.run_job import run_job
from orchestrator.plan.job import Job
from orchestrator.plan.make_job import key_check_of, provider_of
from orchestrator.store import Store


def run_local(options: RunOptions, environ: Mapping[str, str]) -> int:
    """Run the job that `options` describe; return the exit code.

    Raises:
        OrchestratorError: the job could not be run.
    """
    check_options(options)
    given, options = options, resolve_user_dirs(options)
    cwd = Path.cwd()
    config = load_config(options, cwd)
    env = load_environment_with_key(options, config, environ, cwd)
    continued = find_continued_job(options, cwd)
    with advising_on_keys(config, env):
        job = build_job(options, config, env.values, cwd)
    if continued is not None:
        job = replace(job, id=continued[0])
    unit = find_backend(options.backend).unit
    report = open_report(unit, job.expert_key, job.id, job.secrets, verbose=options.verbose)
    for warning in job_warnings(options, config, env, environ):
        report.warn(warning)
    how = None if continued is None else continued[1]
    outcome, code = asyncio.run(_run(options, job, how, report, environ))
    command = partial(format_command, given, environ)
    if outcome is None:
        advice = _advice_for_stopped(job, Store(cwd / options.storage), command)
    else:
        advice = format_advice(outcome, job.expert_key, job.id, job.max_steps, command)
    if advice is not None:
        write_message(advice)
    return code


async def _run(
    options: RunOptions, job: Job, how: Resume | None, report: JobReport, environ: Mapping[str, str]
) -> tuple[Outcome | None, int]:
    """Return the job's outcome and the exit code; a job that was stopped has no outcome."""
    stdout, events, store = Stdout(), None, Store(Path.cwd() / options.storage)
    with report, show_log(report), stop_on_signals(report.info) as stop:
        try:
            if options.after is not None:
                await _write_stored(store, job.id, options.after, stdout)
            async with (
                open_backend(
                    options.backend,
                    environ,
                    image=job.image,
                    events=job.events,
                    cluster=read_cluster_setting(options, Path.cwd()),
                ) as backend,
                kill_on_second_signal(stop, backend, job),
                run_job(
                    job,
                    backend=backend,
                    store=store,
                    provider=provider_of(job),
                    check_key=key_check_of(job),
                    resume=how,
                ) as events,
            ):
                outcome = await _write_events(events, stdout, report)
        except asyncio.CancelledError:
            if stop.signal_number is None:
                raise
            # Events stored before the stop are written too, so that stdout is as complete as the records.
            await stdout.finish()
            for recorded in events.rest() if events else ():
                await stdout.write(recorded.line)
            return None, stop.exit_code
        except BrokenPipeError:
            report.info("the reader of stdout is gone, so the job was stopped")
            return None, BROKEN_PIPE
        report.finish(outcome)
    return outcome, exit_code_of(outcome)


async def _write_stored(store: Store, job_id: str, after: int, stdout: Stdout) -> None:
    records = store.read(job_id)
    for recorded in records.events() if records else ():
        if (recorded.event.position or 0) > after:
            await stdout.write(recorded.line)


async def _write_events(events: JobEvents, stdout: Stdout, report: JobReport) -> Outcome:
    # All imports are done now; only objects made from here on can become garbage.
    gc.freeze()
    gc.enable()
    async for recorded in events:
        await stdout.write(recorded.line)
        # Not before the first event: until then, starting the Sandbox needs the CPU.
        await report.prepare()
        report.event(recorded.event)
    if events.outcome is None:
        message = "the job ended without an outcome; look at its records with --storage"
        raise OrchestratorError(message)
    return events.outcome


def _advice_for_stopped(job: Job, store: Store, command: Callable[..., str]) -> str | None:
    is_recorded = (store.root / "jobs" / job.id / "job.json").exists()
    return f"job {job.id} was stopped; finish it: {command('resume', job.id)}" if is_recorded else None
