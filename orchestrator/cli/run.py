"""`perstack-orch run`: work a job, its events on stdout, its state on stderr."""

import asyncio
import gc
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.backends import open_backend
from orchestrator.cli import request
from orchestrator.cli.again import again
from orchestrator.cli.cluster import UNENFORCED, cluster_of, is_submitted
from orchestrator.cli.hurry import hurrying
from orchestrator.cli.options import RunOptions
from orchestrator.cli.own import own
from orchestrator.cli.render import plain
from orchestrator.cli.signals import stoppable
from orchestrator.cli.stdout import Stdout
from orchestrator.cli.terminal import Terminal
from orchestrator.cli.unread import NOBODY_READS
from orchestrator.continuation import GoOn
from orchestrator.errors import OrchestratorError
from orchestrator.job import run_job
from orchestrator.job_events import JobEvents
from orchestrator.outcome import Outcome
from orchestrator.plan import Job
from orchestrator.request import provider_of
from orchestrator.store import Store
from orchestrator.units import count
from orchestrator.wire.job import JobStatus
from orchestrator.wire.masking import hide, mask

if TYPE_CHECKING:
    from orchestrator.cli.log import Log

EXIT_CODES = {
    JobStatus.COMPLETED: 0,
    JobStatus.STOPPED_BY_ERROR: 1,
    JobStatus.STOPPED_BY_MAX_STEPS: 4,
    JobStatus.STOPPED_BY_INTERACTIVE_TOOL: 4,
}

NO_ISOLATION = "--backend process gives no isolation: Experts run as processes with your files and network"
EVENTS_HERE = "events follow, one a line; > FILE keeps them apart, and perstack-orch start is made for reading along"
IN_CONTAINER = "the container around this is the sandbox: Experts and their delegates are processes in it"


def run(options: RunOptions, environ: Mapping[str, str]) -> int:
    """Work the job that `options` ask for; give the exit code.

    Raises:
        OrchestratorError: it could not be worked.
    """
    if is_submitted(options):
        from orchestrator.cli.submit import submit  # noqa: PLC0415 - only where a cluster works it

        return submit(options, environ)
    request.check(options)
    asked, options = options, own(options)
    cwd = Path.cwd()
    config = request.configure(options, cwd)
    env = request.environment(options, config, environ, cwd)
    continued = request.going_on(options, cwd)
    job = request.job(options, config, env.values, cwd)
    if continued is not None:
        job = replace(job, id=continued[0])
    unit = "process" if options.backend == "process" else "container"
    report = report_of(unit, job.expert_key, job.id, job.secrets, verbose=options.verbose)
    for note in (*config.notes, *env.notes):
        report.warn(note)
    if options.allow_unenforced_network and options.backend == "kubernetes":
        report.warn(UNENFORCED)
    if options.backend == "process":
        report.warn(IN_CONTAINER if environ.get("PERSTACK_CONTAINER") else NO_ISOLATION)
    how = None if continued is None else continued[1]
    outcome, code = asyncio.run(_work(options, job, how, report, environ))
    command = partial(again, asked, environ)
    if outcome is None:
        said = _stopped(job, Store(cwd / options.storage), command)
    else:
        said = advice(outcome, job.expert_key, job.id, job.max_steps, command)
    if said is not None:
        sys.stderr.write(f"perstack-orch: {plain(said)}\n")
    return code


async def _work(
    options: RunOptions, job: Job, how: GoOn | None, report: "Terminal | Log", environ: Mapping[str, str]
) -> tuple[Outcome | None, int]:
    """Give how the job ended and the exit code; a job that was stopped has not ended."""
    stdout, events, store = Stdout(), None, Store(Path.cwd() / options.storage)
    with report, stoppable(report.say) as stop:
        try:
            if options.after is not None:
                await _repeat(store, job.id, options.after, stdout)
            async with (
                open_backend(
                    options.backend,
                    environ,
                    image=job.image,
                    events=job.events,
                    note=report.note,
                    announce=report.say,
                    cluster=cluster_of(options.backend, options, Path.cwd()),
                ) as backend,
                hurrying(stop, backend, job),
                run_job(
                    job,
                    backend=backend,
                    store=store,
                    provider=provider_of(job),
                    go_on=how,
                    note=report.note,
                    announce=report.say,
                ) as events,
            ):
                outcome = await _follow(events, stdout, report)
        except asyncio.CancelledError:
            if stop.number is None:
                raise
            # What was stored before the stop is shown, too: whoever reads stdout misses nothing of the records.
            await stdout.finish()
            for recorded in events.rest() if events else ():
                await stdout.write(recorded.line)
            return None, stop.exit_code
        except BrokenPipeError:
            report.say("nobody reads stdout any more, so the job was stopped")
            return None, NOBODY_READS
        report.finish(outcome)
    return outcome, exit_code(outcome)


def exit_code(outcome: Outcome) -> int:
    """What a command ends with whose job ended so."""
    return EXIT_CODES.get(outcome.status, OrchestratorError.exit_code)


async def _repeat(store: Store, job_id: str, after: int, stdout: Stdout) -> None:
    records = store.read(job_id)
    for recorded in records.events() if records else ():
        if (recorded.event.position or 0) > after:
            await stdout.write(recorded.line)


async def _follow(events: JobEvents, stdout: Stdout, report: "Terminal | Log") -> Outcome:
    # All that the job needs is imported now; what is made from here on may be garbage.
    gc.freeze()
    gc.enable()
    async for recorded in events:
        await stdout.write(recorded.line)
        # After the first event: before it, a second core has a Sandbox to start.
        await report.prepare()
        report.event(recorded.event)
    if events.outcome is None:
        message = "the job ended without an outcome; look at its records with --storage"
        raise OrchestratorError(message)
    return events.outcome


def _stopped(job: Job, store: Store, command: Callable[..., str]) -> str | None:
    known = (store.root / "jobs" / job.id / "job.json").exists()
    return f"job {job.id} was stopped; finish it: {command('resume', job.id)}" if known else None


def advice(
    outcome: Outcome, expert_key: str, job_id: str, max_steps: int | None, command: Callable[..., str]
) -> str | None:
    """Say why a job is not complete and, where it can be gone on with, by which `command`."""
    match outcome.status:
        case JobStatus.STOPPED_BY_ERROR:
            return f"Expert {expert_key!r} stopped by an error: {outcome.error or 'it gave none'}"
        case JobStatus.STOPPED_BY_MAX_STEPS if max_steps is not None:
            limit, more = count(max_steps, "step", "steps"), str(2 * max_steps)
            allowed = command("run", "--continue-job", job_id, "--max-steps", more, expert_key, "Go on.")
            return f"Expert {expert_key!r} stopped at the limit of {limit}; allow more: {allowed}"
        case JobStatus.STOPPED_BY_INTERACTIVE_TOOL:
            answered = command("run", "--continue-job", job_id, "-i", expert_key, "ANSWER")
            return f"Expert {expert_key!r} waits for the answer to its question: {answered}"
    return None


def report_of(unit: str, expert_key: str, job_id: str, secrets: tuple[str, ...], *, verbose: bool) -> "Terminal | Log":
    """Give where a job's state is told: to a person at a terminal, else as lines for machines."""
    if sys.stderr.isatty():
        hides, live = hide(secrets), not sys.stdout.isatty()
        shown = Terminal(sys.stderr, unit, expert_key=expert_key, hide=hides, live=live, verbose=verbose)
        if not live:
            shown.say(EVENTS_HERE)
        return shown
    # structlog takes longer to import than a terminal needs.
    from orchestrator.cli.log import Log  # noqa: PLC0415

    return Log(sys.stderr, unit, job_id=job_id, mask=mask(secrets), verbose=verbose)
