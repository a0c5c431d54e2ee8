"""A job in the cluster as if it ran here: its events on stdout, its state on stderr, its exit code."""

import asyncio
import sys
from collections.abc import Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from orchestrator.backends.kubernetes_setting import Owner
from orchestrator.cli.again import again
from orchestrator.cli.options import RunOptions
from orchestrator.cli.render import plain
from orchestrator.cli.run import advice, report_of
from orchestrator.cli.signals import stoppable
from orchestrator.cli.stdout import Stdout
from orchestrator.cli.unread import NOBODY_READS
from orchestrator.coordination.following import Following
from orchestrator.coordination.messages import Began, Ended, Remark
from orchestrator.coordination.submission import Place, command_about
from orchestrator.store import Recorded

if TYPE_CHECKING:
    from orchestrator.cli.log import Log
    from orchestrator.cli.terminal import Terminal


@dataclass(slots=True)
class Watching:
    """Watches one job that `options` lead to; `secrets` are values that nobody may see.

    `environ` is what need not be typed again.
    """

    job_id: str
    options: RunOptions
    environ: Mapping[str, str]
    secrets: tuple[str, ...] = ()
    expert_key: str = ""
    max_steps: int | None = None

    def _command(self, *command: str) -> str:
        return again(replace(self.options, backend="kubernetes"), self.environ, *command)

    @contextmanager
    def reported(self, *, verbose: bool) -> Iterator["Terminal | Log"]:
        """Give where its state is told."""
        with report_of("container", self.expert_key, self.job_id, self.secrets, verbose=verbose) as report:
            yield report

    async def follow(
        self, place: Place, owner: Owner | None, after: int | None, report: "Terminal | Log", start_seconds: float
    ) -> int:
        """Show the job to its end; give its exit code.

        Raises:
            OrchestratorError: it cannot be followed.
        """
        stdout = Stdout()
        following = Following(place, self.job_id, owner, after, report.say, start_seconds)
        with stoppable(report.say, doing="leaving") as stop:
            try:
                ended = await self._show(following, stdout, report)
            except asyncio.CancelledError:
                if stop.number is None:
                    raise
                await stdout.finish()
                report.say(self._goes_on(place))
                return stop.exit_code
            except BrokenPipeError:
                report.say(f"nobody reads stdout any more; {self._goes_on(place)}")
                return NOBODY_READS
        return self._conclude(ended, report)

    async def _show(self, following: Following, stdout: Stdout, report: "Terminal | Log") -> Ended:
        async with aclosing(following.told()) as told:
            async for each in told:
                match each:
                    case Recorded():
                        await stdout.write(each.line)
                        await report.prepare()
                        report.event(each.event)
                    case Remark():
                        {"warn": report.warn, "note": report.note}.get(each.level, report.say)(each.text)
                    case Began():
                        self.expert_key, self.max_steps = each.expert_key, each.max_steps
                    case Ended():
                        return each
        raise AssertionError

    def _conclude(self, ended: Ended, report: "Terminal | Log") -> int:
        outcome = ended.read()
        if outcome is not None:
            report.finish(outcome, self.expert_key)
            said = advice(outcome, self.expert_key, self.job_id, self.max_steps, self._command)
        else:
            said = ended.error
        if said is not None:
            sys.stderr.write(f"perstack-orch: {plain(said, keep=chr(10))}\n")
        return ended.code

    def _goes_on(self, place: Place) -> str:
        watch, cancel = (command_about(place.where, verb, self.job_id) for verb in ("watch", "cancel"))
        return f"the job goes on in the cluster: see it with {watch}, end it with {cancel}"
