"""`perstack-orch start`: a job as a conversation, a turn after another."""

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from orchestrator.backends import open_backend
from orchestrator.broker.egress import Wanted
from orchestrator.cli import request
from orchestrator.cli.again import again
from orchestrator.cli.cluster import UNENFORCED, cluster_of
from orchestrator.cli.conversation import (
    NextTurn,
    Stopped,
    about_host,
    allowed_from_now_on,
    is_yes,
    next_turn,
    prompt,
)
from orchestrator.cli.dialogue import ask, ask_meanwhile, choose, tell
from orchestrator.cli.hurry import hurrying
from orchestrator.cli.options import RunOptions
from orchestrator.cli.own import own
from orchestrator.cli.render import plain
from orchestrator.cli.run import EXIT_CODES, IN_CONTAINER, NO_ISOLATION
from orchestrator.cli.screen import Screen
from orchestrator.cli.signals import Stop, stoppable
from orchestrator.continuation import GoOn, reached
from orchestrator.errors import ConfigError, OrchestratorError
from orchestrator.job import run_job
from orchestrator.plan import Job, first
from orchestrator.request import provider_of
from orchestrator.store import Store
from orchestrator.wire.job import JobStatus
from orchestrator.wire.masking import mask
from orchestrator.wire.message import ToolCall
from orchestrator.wire.skill import InteractiveSkill

_INTERRUPTED = 130


def talk(options: RunOptions, environ: Mapping[str, str]) -> int:
    """Talk with an Expert until the user ends it; give the exit code of the last turn.

    Without a query, or with an empty key of the Expert, the user is asked.

    Raises:
        OrchestratorError: a turn could not be worked.
    """
    request.check(options)
    asked, options = options, own(options)
    cwd = Path.cwd()
    config = request.configure(options, cwd)
    env = request.environment(options, config, environ, cwd)
    continued = request.going_on(options, cwd)
    for note in (*config.notes, *env.notes):
        tell(f"warning: {plain(note)}")
    if options.allow_unenforced_network and options.backend == "kubernetes":
        tell(f"warning: {UNENFORCED}")
    if options.backend == "process":
        tell(f"warning: {IN_CONTAINER if environ.get('PERSTACK_CONTAINER') else NO_ISOLATION}")
    key = options.expert_key or choose(tuple(config.experts.values()))
    if key is None:
        return 0
    config.expert(key)
    if continued is None and not options.query:
        words = ask(f"what is {plain(key)} to do?")
        if not (words or "").strip():
            return 0
        options = replace(options, query=words or "")
    job = request.job(replace(options, expert_key=key), config, env.values, cwd)
    how = None
    if continued is not None:
        job = replace(job, id=continued[0])
        # Without words the first turn only tells where the job stands.
        how = continued[1]
    # The events then tell the container of each Run, and hosts can be asked about.
    job = replace(job, verbose=True, asks=True)
    conversation = _Conversation(options, environ, job, Store(cwd / options.storage))
    try:
        return conversation.held(how)
    finally:
        if conversation.began:
            command = again(asked, environ, "start", "--continue-job", job.id, key)
            tell(f"\nthis was job {job.id}; go on with it: {command}")


class _Conversation:
    """Turns of one job, which is on record once it `began`. What was allowed, refused and granted is kept between."""

    def __init__(self, options: RunOptions, environ: Mapping[str, str], job: Job, store: Store) -> None:
        self._options = options
        self._environ = environ
        self._job = job
        self._store = store
        self._steps = job.max_steps
        self._consents: dict[Wanted, bool] = {}
        self._asking = asyncio.Lock()
        self.began = False

    def held(self, how: GoOn | None) -> int:
        """Take turns until the user ends it."""
        while True:
            stop = Stop()
            try:
                stopped = asyncio.run(self._turn(how, stop))
            except ConfigError as error:
                if how is None or how.words is None or not self.began:
                    raise
                tell(f"perstack-orch: {plain(str(error))}")
                how = GoOn()
                continue
            if stop.ends:
                return stop.exit_code
            code = _INTERRUPTED if stopped.status is JobStatus.CANCELLED else EXIT_CODES.get(stopped.status, 3)
            following = self._next(stopped)
            if following is None:
                return code
            self._job = replace(self._job, max_steps=self._job.max_steps + following.more_steps)
            how = following.how if self.began else None
            if how is None:
                self._job = replace(self._job, query=following.how.words or "")

    def _next(self, stopped: Stopped) -> NextTurn | None:
        asking = prompt(stopped, self._steps)
        for line in asking.told:
            tell(line)
        words = ask(asking.asked)
        return None if words is None else next_turn(stopped, words, self._steps)

    async def _turn(self, how: GoOn | None, stop: Stop) -> Stopped:
        job = self._job
        unit = "process" if self._options.backend == "process" else "container"
        screen = Screen(sys.stdout, unit, mask=mask(job.secrets), verbose=self._options.verbose)
        with screen, stoppable(screen.say, stop):
            try:
                async with (
                    open_backend(
                        self._options.backend,
                        self._environ,
                        image=job.image,
                        events=job.events,
                        note=screen.note,
                        announce=screen.say,
                        cluster=cluster_of(self._options.backend, self._options, Path.cwd()),
                    ) as backend,
                    hurrying(stop, backend, job),
                    run_job(
                        job,
                        backend=backend,
                        store=self._store,
                        provider=provider_of(job),
                        go_on=how,
                        note=screen.note,
                        announce=screen.say,
                        consent=partial(self._consent, screen),
                    ) as events,
                ):
                    self.began = True
                    async for recorded in events:
                        screen.event(recorded.event)
            except asyncio.CancelledError:
                if stop.number is None:
                    raise
                return Stopped(JobStatus.CANCELLED, job.expert_key)
            outcome = events.outcome
            if outcome is None:
                message = "the job ended without an outcome; look at its records with --storage"
                raise OrchestratorError(message)
            screen.finish(outcome)
        return Stopped(outcome.status, job.expert_key, self._question(), outcome.error, job.max_steps)

    async def _consent(self, screen: Screen, wanted: Wanted) -> bool:
        async with self._asking:
            if wanted not in self._consents:
                self._consents[wanted] = is_yes(await screen.ask(about_host(wanted), ask_meanwhile))
                if self._consents[wanted]:
                    screen.say(allowed_from_now_on(wanted))
            return self._consents[wanted]

    def _question(self) -> ToolCall | None:
        """What the Expert waits for: the first of its calls that is open and the user's to answer."""
        records = self._store.read(self._job.id)
        if records is None:
            return None
        starts = records.starts()
        stopped = reached(starts[-1] if starts else first(self._job), records.earlier)
        interactive = {skill.name for skill in self._job.expert.skills if isinstance(skill, InteractiveSkill)}
        pending = (stopped.pending_tool_calls or ()) if stopped else ()
        return next((call for call in pending if call.skill_name in interactive), None)
