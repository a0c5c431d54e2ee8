"""Reports about a job: its status on stderr, its exit code, and how the user can continue it."""

import sys
from collections.abc import Callable, Mapping

from orchestrator.backends import is_cluster, isolates
from orchestrator.cli.cluster_options import UNENFORCED
from orchestrator.cli.options import RunOptions
from orchestrator.cli.output.logfmt import JobLog
from orchestrator.cli.output.status_line import StatusLine
from orchestrator.config import Config
from orchestrator.config.environment import Environment
from orchestrator.errors import OrchestratorError
from orchestrator.jobs.outcome import Outcome
from orchestrator.units import count
from orchestrator.wire.job_record import JobStatus
from orchestrator.wire.masking import hide, mask

EXIT_CODES = {
    JobStatus.COMPLETED: 0,
    JobStatus.STOPPED_BY_ERROR: 1,
    JobStatus.STOPPED_BY_MAX_STEPS: 4,
    JobStatus.STOPPED_BY_INTERACTIVE_TOOL: 4,
}

_NO_ISOLATION = "--backend process gives no isolation: Experts run as processes with your files and network"
_IN_CONTAINER = "the container around this is the sandbox: Experts and their delegates are processes in it"
_EVENTS_FOLLOW = (
    "events follow, one per line; redirect them with > FILE, or use perstack-orch start for a readable view"
)

JobReport = StatusLine | JobLog


def open_report(unit: str, expert_key: str, job_id: str, secrets: tuple[str, ...], *, verbose: bool) -> JobReport:
    """Return where the job's status goes: a status line if stderr is a terminal, else log lines.

    `unit` is the kind of the job's Sandboxes: container, process.
    """
    if not sys.stderr.isatty():
        return JobLog(sys.stderr, unit, job_id=job_id, mask=mask(secrets), verbose=verbose)
    live = not sys.stdout.isatty()
    report = StatusLine(sys.stderr, unit, expert_key=expert_key, hide=hide(secrets), live=live, verbose=verbose)
    if not live:
        report.info(_EVENTS_FOLLOW)
    return report


def job_warnings(options: RunOptions, config: Config, env: Environment, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return what the user should know before the job starts: ignored settings, and isolation that is missing."""
    unenforced = options.allow_unenforced_network and is_cluster(options.backend)
    return (
        *config.notes,
        *env.notes,
        *((UNENFORCED,) if unenforced else ()),
        *(() if isolates(options.backend) else (isolation_warning(environ),)),
    )


def isolation_warning(environ: Mapping[str, str]) -> str:
    """Return the warning for a backend without isolation."""
    return _IN_CONTAINER if environ.get("PERSTACK_CONTAINER") else _NO_ISOLATION


def exit_code_of(outcome: Outcome) -> int:
    """Return the exit code for a job with this outcome."""
    return EXIT_CODES.get(outcome.status, OrchestratorError.exit_code)


def format_advice(
    outcome: Outcome, expert_key: str, job_id: str, max_steps: int | None, command: Callable[..., str]
) -> str | None:
    """Return why a job is not complete and how to continue it, with `command` as formatter; None if it is complete."""
    match outcome.status:
        case JobStatus.STOPPED_BY_ERROR:
            return f"Expert {expert_key!r} stopped with an error: {outcome.error or 'no message'}"
        case JobStatus.STOPPED_BY_MAX_STEPS if max_steps is not None:
            limit, more = count(max_steps, "step", "steps"), str(2 * max_steps)
            allow = command("run", "--continue-job", job_id, "--max-steps", more, expert_key, "Continue.")
            return f"Expert {expert_key!r} stopped at the limit of {limit}; allow more: {allow}"
        case JobStatus.STOPPED_BY_INTERACTIVE_TOOL:
            answer = command("run", "--continue-job", job_id, "-i", expert_key, "ANSWER")
            return f"Expert {expert_key!r} waits for the answer to its question: {answer}"
    return None
