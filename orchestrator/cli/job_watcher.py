"""A job in a cluster, shown as if it ran here: events on stdout, status on stderr, the same exit code."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass

from orchestrator.backends.cluster_settings import Owner
from orchestrator.cli.broken_pipe import BROKEN_PIPE
from orchestrator.cli.cluster_client import open_cluster_client
from orchestrator.cli.command_line import format_command, location_options
from orchestrator.cli.job_report import JobReport, format_advice, open_report
from orchestrator.cli.options import RunOptions
from orchestrator.cli.output.log_lines import show_log
from orchestrator.cli.output.notices import write_message
from orchestrator.cli.output.stdout import Stdout
from orchestrator.cli.signals import stop_on_signals
from orchestrator.cluster.client import ClusterClient, command_about, owner_of
from orchestrator.cluster.follow import JobFollower
from orchestrator.cluster.protocol import JobEnded, JobStarted, LogMessage
from orchestrator.store import Recorded


def watch_job(options: RunOptions, job_id: str, after: int, environ: Mapping[str, str]) -> int:
    """Show the job from the event after the position `after` until it ends; return its exit code.

    Raises:
        OrchestratorError: the job cannot be followed.
    """
    return asyncio.run(_watch(options, job_id, after, environ))


async def _watch(options: RunOptions, job_id: str, after: int, environ: Mapping[str, str]) -> int:
    watcher = JobWatcher(job_id, location_options(options), environ)
    async with open_cluster_client(options, environ) as client:
        await client.check()
        found = await client.coordinators(job_id)
        with watcher.report(verbose=options.verbose) as report:
            owner = owner_of(found[-1]) if found else None
            return await watcher.follow(client, owner, after, report, options.start_seconds)


@dataclass(slots=True)
class JobWatcher:
    """Watches one job that `options` locate; `secrets` are masked in the report.

    Commands for the user leave out options that `environ` sets.
    """

    job_id: str
    options: RunOptions
    environ: Mapping[str, str]
    secrets: tuple[str, ...] = ()
    expert_key: str = ""
    max_steps: int | None = None

    def _command(self, *command: str) -> str:
        return format_command(self.options.with_(backend="kubernetes"), self.environ, *command)

    @contextmanager
    def report(self, *, verbose: bool) -> Iterator[JobReport]:
        """Open the report of the job's status."""
        report = open_report("container", self.expert_key, self.job_id, self.secrets, verbose=verbose)
        with report, show_log(report):
            yield report

    async def follow(
        self, client: ClusterClient, owner: Owner | None, after: int | None, report: JobReport, start_seconds: float
    ) -> int:
        """Show the job until it ends; return its exit code.

        Raises:
            OrchestratorError: the job cannot be followed.
        """
        stdout = Stdout()
        following = JobFollower(client, self.job_id, owner, after, start_seconds)
        with stop_on_signals(report.info, message="leaving") as stop:
            try:
                ended = await self._show(following, stdout, report)
            except asyncio.CancelledError:
                if stop.signal_number is None:
                    raise
                await stdout.finish()
                report.info(self._still_running(client))
                return stop.exit_code
            except BrokenPipeError:
                report.info(f"the reader of stdout is gone; {self._still_running(client)}")
                return BROKEN_PIPE
        return self._conclude(ended, report)

    async def _show(self, following: JobFollower, stdout: Stdout, report: JobReport) -> JobEnded:
        async with aclosing(following.messages()) as messages:
            async for each in messages:
                match each:
                    case Recorded():
                        await stdout.write(each.line)
                        await report.prepare()
                        report.event(each.event)
                    case LogMessage():
                        {"warn": report.warn, "note": report.note}.get(each.level, report.info)(each.text)
                    case JobStarted():
                        self.expert_key, self.max_steps = each.expert_key, each.max_steps
                    case JobEnded():
                        return each
        raise AssertionError

    def _conclude(self, ended: JobEnded, report: JobReport) -> int:
        outcome = ended.read()
        if outcome is not None:
            report.finish(outcome, self.expert_key)
            advice = format_advice(outcome, self.expert_key, self.job_id, self.max_steps, self._command)
        else:
            advice = ended.error
        if advice is not None:
            write_message(advice, keep="\n")
        return ended.code

    def _still_running(self, client: ClusterClient) -> str:
        watch, cancel = (command_about(client.where, verb, self.job_id) for verb in ("watch", "cancel"))
        return f"the job keeps running in the cluster: watch it with {watch}, cancel it with {cancel}"
