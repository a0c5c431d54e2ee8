"""A coordinator at work: the fence, the job, and all who are told about it."""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

from orchestrator.backends import open_backend
from orchestrator.backends.kubernetes_api import Api
from orchestrator.backends.kubernetes_lease import Fence, FencedError, fenced
from orchestrator.backends.kubernetes_own import Own, is_wanted
from orchestrator.backends.kubernetes_setting import ClusterSetting
from orchestrator.backends.naming import coordinator_labels, lease_name
from orchestrator.cli.again import whereabouts
from orchestrator.cli.cluster import UNENFORCED
from orchestrator.cli.log import Log
from orchestrator.cli.run import exit_code
from orchestrator.cli.stdout import Stdout
from orchestrator.continuation import GoOn
from orchestrator.coordination import notebook
from orchestrator.coordination.broadcast import Broadcast
from orchestrator.coordination.last_words import leave
from orchestrator.coordination.listening import listening
from orchestrator.coordination.messages import Began, Ended
from orchestrator.coordination.notebook import Coordination
from orchestrator.coordination.submission import RECORDS, command_about
from orchestrator.errors import (
    BackendError,
    ConfigError,
    InUseError,
    OrchestratorError,
    StoreError,
)
from orchestrator.job import run_job
from orchestrator.keys import derive
from orchestrator.outcome import Outcome
from orchestrator.plan import Job
from orchestrator.request import provider_of
from orchestrator.state import unwritable
from orchestrator.store import Recorded, Store
from orchestrator.store.files import make_directory
from orchestrator.wire.job_request import JobRequest
from orchestrator.wire.masking import hide, mask

_STOPPED = 143
_FENCED = 3
_CANCELLED = 4


@dataclass(slots=True)
class Coordinator:
    """Works `job` as its `own` Job is `asked` to. `key` is what the job's secrets derive from, None if the store is."""

    api: Api
    own: Own
    job: Job
    asked: JobRequest
    setting: ClusterSetting
    key: bytes | None
    environ: Mapping[str, str]
    _cancelled: bool = False
    _log: Log = field(init=False)
    _broadcast: Broadcast = field(init=False)

    def __post_init__(self) -> None:
        job = self.job
        self._log = Log(sys.stderr, "container", job_id=job.id, mask=mask(job.secrets), verbose=job.verbose)
        began = Began(after=0, expert_key=job.expert_key, max_steps=job.max_steps)
        self._broadcast = Broadcast(self._stored, began)

    async def work(self, notes: tuple[str, ...]) -> int:
        """Work the job, and tell whoever connects; give the exit code. `notes` are for the log alone.

        Raises:
            BackendUnavailableError: nobody could connect.
        """
        for text in notes:
            self._log.warn(text)
        broadcast = self._broadcast
        async with listening(lambda follow: broadcast.lines(follow.after, follow.said)):
            try:
                ended = await self._fenced()
            except OrchestratorError as error:
                code = BackendError.exit_code if isinstance(error, InUseError) else error.exit_code
                ended = Ended(code=code, error=str(error))
            if ended.error is not None:
                leave(ended, recorded=self._is_recorded())
                sys.stderr.write(f"perstack-orch: {ended.error}\n")
            broadcast.end(ended)
        return ended.code

    async def _fenced(self) -> Ended:
        labels = coordinator_labels(self.job.id, self.own.claim)
        name = lease_name(self.job.id, self.job.instance)
        async with fenced(self.api, self.own, name, labels, self._say, self._fall) as fence:
            task = asyncio.current_task()
            loop = asyncio.get_running_loop()
            stopping: set[asyncio.Task[None]] = set()
            loop.add_signal_handler(
                signal.SIGTERM, lambda: stopping.add(asyncio.ensure_future(self._stop(fence, task)))
            )
            try:
                return await self._begun(fence)
            finally:
                loop.remove_signal_handler(signal.SIGTERM)

    async def _stop(self, fence: Fence, task: "asyncio.Task[object] | None") -> None:
        """Stop as the cluster wants: for another Pod to go on, what runs is left as it is; else it is cancelled."""
        try:
            goes_on = await is_wanted(self.api, self.own)
        except BackendError:
            goes_on = True
        if goes_on:
            self._log.say("this Pod is stopped, and another will go on")
            await fence.release()
            os._exit(_STOPPED)
        self._cancelled = True
        self._say("the job is cancelled, and what runs is removed")
        if task is not None:
            task.cancel()

    def _fall(self, why: str) -> None:
        """End at once: nothing may be written any more, and nothing that runs be touched."""
        sys.stderr.write(f"perstack-orch: {why}; this one ends at once\n")
        leave(Ended(code=_FENCED, error=why), recorded=True)
        os._exit(_FENCED)

    async def _begun(self, fence: Fence) -> Ended:
        self._make_records()
        key = None if self.key is None else bytes.fromhex(derive(self.key, "job", self.job.id))
        store = Store(self.setting.claim.root / RECORDS, permit=partial(self._permit, fence), key=key)
        began, again = self._begin(store)
        self._broadcast.began = self._broadcast.began.with_(after=began.after)
        if again and began.ended is not None and began.ended.is_final:
            # The Pod was lost after all was done, and before its Job knew.
            return began.ended
        try:
            ended = await self._worked(store, self._how(store, began, again=again))
        except OrchestratorError as error:
            self._keep(fence, store, began.with_(ended=Ended(code=error.exit_code, error=str(error))))
            raise
        self._keep(fence, store, began.with_(ended=ended))
        return ended

    def _permit(self, fence: Fence) -> None:
        try:
            fence.check()
        except FencedError as error:
            # Raised on, it would stop Sandboxes that are another's by now.
            self._fall(str(error))

    def _keep(self, fence: Fence, store: Store, coordination: Coordination) -> None:
        self._permit(fence)
        notebook.write(store, self.job.id, self.own.job.uid, coordination)

    def _make_records(self) -> None:
        volume = self.setting.claim.root
        try:
            make_directory(volume / RECORDS, exist_ok=True)
        except StoreError as error:
            if not isinstance(error.__cause__, PermissionError):
                raise
            message = f"{volume / RECORDS} cannot be made: {error.__cause__.strerror}; {unwritable(volume)}"
            raise ConfigError(message) from error

    def _begin(self, store: Store) -> tuple[Coordination, bool]:
        job_id, uid = self.job.id, self.own.job.uid
        is_there = notebook.record_of(store, job_id) is not None
        if notebook.read(store, job_id, uid) is None and is_there is not self.asked.go_on:
            if is_there:
                message = f"job {job_id!r} is already in the user's records; choose another --job-id"
            else:
                message = f"job {job_id!r} is not in the user's records; check the id, and --user"
            raise StoreError(message)
        return notebook.begin(store, job_id, uid)

    def _how(self, store: Store, began: Coordination, *, again: bool) -> GoOn | None:
        """Say how to go on with the job; None for one that is new."""
        if notebook.record_of(store, self.job.id) is None:
            return None
        records = store.read(self.job.id)
        is_in_records = again and records is not None and len(records.starts()) > began.starts
        if is_in_records or not self.asked.go_on:
            return GoOn()
        return GoOn(self.asked.query, is_answer=self.asked.answers, checkpoint_id=self.asked.resume_from)

    async def _worked(self, store: Store, how: GoOn | None) -> Ended:
        job, stdout, events = self.job, Stdout(), None
        if not self.setting.enforced:
            self._log.warn(UNENFORCED)
        try:
            async with (
                open_backend(
                    "kubernetes",
                    self.environ,
                    image=job.image,
                    events=job.events,
                    note=self._note,
                    announce=self._say,
                    cluster=self.setting,
                ) as backend,
                run_job(
                    job,
                    backend=backend,
                    store=store,
                    provider=provider_of(job),
                    go_on=how,
                    note=self._note,
                    announce=self._say,
                ) as events,
            ):
                gc.freeze()
                gc.enable()
                async for recorded in events:
                    await self._tell(recorded, stdout)
        except asyncio.CancelledError:
            if not self._cancelled:
                raise
            for recorded in events.rest() if events else ():
                await self._tell(recorded, stdout)
            resume = command_about(whereabouts(self.asked, self.asked.user), "resume", job.id)
            return Ended(code=_CANCELLED, error=f"job {job.id!r} was cancelled; go on with it by {resume}")
        return self._concluded(events.outcome)

    def _concluded(self, outcome: Outcome | None) -> Ended:
        if outcome is None:
            message = "the job ended without an outcome; look at its records"
            raise OrchestratorError(message)
        self._log.finish(outcome)
        return Ended.of(exit_code(outcome), outcome)

    async def _tell(self, recorded: Recorded, stdout: Stdout) -> None:
        self._broadcast.event(recorded)
        await stdout.write(recorded.line)
        await self._log.prepare()
        self._log.event(recorded.event)

    def _is_recorded(self) -> bool:
        return (self.setting.claim.root / RECORDS / "jobs" / self.job.id / "job.json").exists()

    def _stored(self) -> Iterator[Recorded]:
        records = Store(self.setting.claim.root / RECORDS).read(self.job.id)
        return iter(()) if records is None else records.events()

    def _say(self, text: str) -> None:
        self._log.say(text)
        self._broadcast.remark("say", self._hidden(text))

    def _note(self, text: str) -> None:
        self._log.note(text)
        self._broadcast.remark("note", self._hidden(text))

    @property
    def _hidden(self) -> Callable[[str], str]:
        return hide(self.job.secrets)
