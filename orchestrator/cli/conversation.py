"""A job as a conversation in the terminal, which this process runs."""

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from orchestrator.backends import find_backend, open_backend
from orchestrator.cli.build_job import (
    build_job,
    check_options,
    find_continued_job,
    load_config,
    load_environment_with_key,
)
from orchestrator.cli.chat_turns import (
    NextTurn,
    StoppedTurn,
    host_allowed_text,
    host_question,
    is_yes,
    next_turn,
    prompt_after,
)
from orchestrator.cli.cluster_options import read_cluster_setting
from orchestrator.cli.command_line import format_command
from orchestrator.cli.first_run import advising_on_keys
from orchestrator.cli.job_report import EXIT_CODES, job_warnings
from orchestrator.cli.options import RunOptions
from orchestrator.cli.output.live_view import LiveView
from orchestrator.cli.output.log_lines import show_log
from orchestrator.cli.output.prompts import ask, ask_async, choose_expert, show
from orchestrator.cli.output.render import plain
from orchestrator.cli.signals import Stop, kill_on_second_signal, stop_on_signals
from orchestrator.cli.user_dirs import resolve_user_dirs
from orchestrator.egress.policy import HostRequest
from orchestrator.errors import ConfigError, OrchestratorError
from orchestrator.jobs.resume import Resume, stopped_checkpoint
from orchestrator.jobs.run_job import run_job
from orchestrator.plan.job import Job
from orchestrator.plan.make_job import key_check_of, provider_of
from orchestrator.plan.run_plan import first
from orchestrator.store import Store
from orchestrator.wire.job_record import JobStatus
from orchestrator.wire.masking import mask
from orchestrator.wire.message import ToolCall
from orchestrator.wire.skill import InteractiveSkill

_INTERRUPTED = 130


def converse(options: RunOptions, environ: Mapping[str, str], *, once: bool = False) -> int:
    """Run the job that `options` describe, turn by turn; return the exit code of the last turn.

    With `once` the first turn is the last, and the user is not asked for another.

    Raises:
        OrchestratorError: the job could not be run.
    """
    check_options(options)
    given, options = options, resolve_user_dirs(options)
    cwd = Path.cwd()
    config = load_config(options, cwd)
    env = load_environment_with_key(options, config, environ, cwd)
    continued = find_continued_job(options, cwd)
    for warning in job_warnings(options, config, env, environ):
        show(f"warning: {plain(warning)}")
    key = options.expert_key or choose_expert(tuple(config.experts.values()))
    if key is None:
        return 0
    config.expert(key)
    if continued is None and not options.query:
        text = ask(f"task for {plain(key)}?")
        if not (text or "").strip():
            return 0
        options = options.with_(query=text or "")
    with advising_on_keys(config, env):
        job = build_job(options.with_(expert_key=key), config, env.values, cwd)
    how = None
    if continued is not None:
        # Without a query the first turn only shows how the job ended.
        job, how = replace(job, id=continued[0]), continued[1]
    # Then the events contain the container of each Run, and the user can allow hosts.
    job = replace(job, options=job.options.with_(verbose=True), asks=True)
    conversation = _Conversation(options, environ, job, Store(cwd / options.storage), once=once)
    try:
        return conversation.run(how)
    finally:
        if conversation.began and not once:
            command = format_command(given, environ, "start", "--continue-job", job.id, key)
            show(f"\nthis was job {job.id}; continue it: {command}")


class _Conversation:
    """The turns of one job, which is recorded once it `began`. Allowed and refused hosts and granted steps are kept."""

    def __init__(
        self, options: RunOptions, environ: Mapping[str, str], job: Job, store: Store, *, once: bool = False
    ) -> None:
        self._options = options
        self._environ = environ
        self._job = job
        self._store = store
        self._once = once
        self._steps = job.max_steps
        self._consents: dict[HostRequest, bool] = {}
        self._question_lock = asyncio.Lock()
        self.began = False

    def run(self, how: Resume | None) -> int:
        """Run turns until the user ends the conversation; return the exit code of the last."""
        while True:
            stop = Stop()
            try:
                stopped = asyncio.run(self._run_turn(how, stop))
            except ConfigError as error:
                if how is None or how.text is None or not self.began:
                    raise
                show(f"perstack-orch: {plain(str(error))}")
                how = Resume()
                continue
            if stop.ends_conversation:
                return stop.exit_code
            code = _INTERRUPTED if stopped.status is JobStatus.CANCELLED else EXIT_CODES.get(stopped.status, 3)
            following = None if self._once else self._ask_next(stopped)
            if following is None:
                return code
            self._job = replace(self._job, max_steps=self._job.max_steps + following.more_steps)
            how = following.how if self.began else None
            if how is None:
                self._job = replace(self._job, query=following.how.text or "")

    def _ask_next(self, stopped: StoppedTurn) -> NextTurn | None:
        prompt = prompt_after(stopped, self._steps)
        for line in prompt.lines:
            show(line)
        text = ask(prompt.question)
        return None if text is None else next_turn(stopped, text, self._steps)

    async def _run_turn(self, how: Resume | None, stop: Stop) -> StoppedTurn:
        job = self._job
        view = LiveView(
            sys.stdout, find_backend(self._options.backend).unit, mask=mask(job.secrets), verbose=self._options.verbose
        )
        with view, show_log(view), stop_on_signals(view.info, stop):
            try:
                async with (
                    open_backend(
                        self._options.backend,
                        self._environ,
                        image=job.image,
                        events=job.events,
                        cluster=read_cluster_setting(self._options, Path.cwd()),
                    ) as backend,
                    kill_on_second_signal(stop, backend, job),
                    run_job(
                        job,
                        backend=backend,
                        store=self._store,
                        provider=provider_of(job),
                        check_key=key_check_of(job),
                        resume=how,
                        consent=partial(self._ask_consent, view),
                    ) as events,
                ):
                    self.began = True
                    async for recorded in events:
                        view.event(recorded.event)
            except asyncio.CancelledError:
                if stop.signal_number is None:
                    raise
                return StoppedTurn(JobStatus.CANCELLED, job.expert_key)
            outcome = events.outcome
            if outcome is None:
                message = "the job ended without an outcome; look at its records with --storage"
                raise OrchestratorError(message)
            view.finish(outcome)
        return StoppedTurn(outcome.status, job.expert_key, self._open_question(), outcome.error, job.max_steps)

    async def _ask_consent(self, view: LiveView, request: HostRequest) -> bool:
        async with self._question_lock:
            if request not in self._consents:
                self._consents[request] = is_yes(await view.ask(host_question(request), ask_async))
                if self._consents[request]:
                    view.info(host_allowed_text(request))
            return self._consents[request]

    def _open_question(self) -> ToolCall | None:
        """Return the question that the Expert waits for: its first open call of an interactive skill."""
        records = self._store.read(self._job.id)
        if records is None:
            return None
        starts = records.starts()
        stopped = stopped_checkpoint(starts[-1] if starts else first(self._job), records.earlier)
        interactive = {skill.name for skill in self._job.expert.skills if isinstance(skill, InteractiveSkill)}
        pending = (stopped.pending_tool_calls or ()) if stopped else ()
        return next((call for call in pending if call.skill_name in interactive), None)
