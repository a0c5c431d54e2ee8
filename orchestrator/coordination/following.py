"""Following a job from outside its cluster: by position, over whatever breaks in between.

While a coordinator's Pod runs it tells; when its Job is over, a Job that reads the records does.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from http import HTTPStatus

from orchestrator.backends import kubernetes_api, naming
from orchestrator.backends.http import BrokenError, RefusalError
from orchestrator.backends.kubernetes_api import ANSWER_SECONDS, Object, refused
from orchestrator.backends.kubernetes_setting import Owner
from orchestrator.backends.kubernetes_state import Hope, container_state, has_ended, has_failed, waiting
from orchestrator.backends.kubernetes_warnings import Warnings
from orchestrator.coordination.last_words import last_words
from orchestrator.coordination.messages import Beat, Began, Ended, Follow, Message, Remark
from orchestrator.coordination.reading import heard, read
from orchestrator.coordination.submission import Place, command_about
from orchestrator.errors import BackendError, BackendUnavailableError
from orchestrator.store import Recorded
from orchestrator.wire.line import decode

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 3.0
_PATIENCE_SECONDS = 3.0
"""How long something may take before a person is told why."""

_FOR_GOOD = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}

Told = Recorded | Began | Remark | Ended


@dataclass(slots=True)
class Following:
    """Follows the job `job_id`, worked by the Job `coordinator` if that is still known.

    `after` is the position of the last event that is known, None for whatever was there before this coordinator. A Pod
    that does not come to run within `start_seconds` is given up. `announce` is told what makes it wait.
    """

    place: Place
    job_id: str
    coordinator: Owner | None
    after: int | None
    announce: Callable[[str], None]
    start_seconds: float = 300.0
    _said: dict[str, int] = field(default_factory=dict)
    _waits_since: float | None = None
    _last_word: str = ""
    _warnings: Warnings | None = None

    async def told(self) -> AsyncGenerator[Told]:
        """Give events from the position on, each once, and what else is told; the last is an `Ended`.

        Raises:
            BackendError: the coordinator does not come to run, or its records cannot be read.
        """
        pause = _FIRST_PAUSE
        while True:
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    job, pods = await self._look()
                    trouble = await self._trouble(job, pods)
                async with aclosing(self._source(job, pods)) as source:
                    async for told in source:
                        self._waits_since, pause = None, _FIRST_PAUSE
                        yield told
                        if isinstance(told, Ended):
                            return
            except RefusalError as error:
                if error.status in _FOR_GOOD:
                    doing = f"follow the job {self.job_id}"
                    raise refused(doing, error) from error
                trouble = f"the cluster refuses to let it be followed: {error}"
            except BackendUnavailableError as error:
                if isinstance(error.__cause__, RefusalError):
                    raise
                trouble = str(error)
            except (BrokenError, TimeoutError) as error:
                trouble = f"the connection to the cluster broke ({str(error) or 'nothing comes'})"
            self._wait(trouble)
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE)

    async def _look(self) -> tuple[Object | None, list[Object]]:
        """Read the coordinator's Job, if it is still there, and its Pods, the newest last."""
        if self.coordinator is None:
            return None, []
        api, namespace = self.place.api, self.place.namespace
        job: Object | None = None
        try:
            found = await api.read(kubernetes_api.jobs(namespace, self.coordinator.name))
            job = found if found["metadata"]["uid"] == self.coordinator.uid else None
        except RefusalError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
        # One that is being cancelled outlives its Job for a while.
        pods = await api.listed(kubernetes_api.pods(namespace), {naming.CONTROLLED_BY: self.coordinator.uid})
        return job, sorted(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))

    async def _source(self, job: Object | None, pods: list[Object]) -> AsyncGenerator[Told]:
        running = next((pod for pod in reversed(pods) if "running" in container_state(pod)), None)
        if running is not None:
            metadata = running["metadata"]
            async with aclosing(self._from(metadata["name"], metadata["uid"])) as telling:
                async for told in telling:
                    yield told
        elif job is None or has_failed(job):
            words = last_words(pods)
            if words is not None and not words.recorded and self.after is None:
                yield words.ended
                return
            reading = read(self.place, self.job_id, lambda: self._follow(""), self.start_seconds)
            async with aclosing(reading) as messages:
                async for message in messages:
                    read_here = self._understood(message, "")
                    if isinstance(read_here, Ended) and read_here.outcome is None and words is not None:
                        yield words.ended
                    elif read_here is not None:
                        yield read_here

    async def _from(self, pod: str, uid: str) -> AsyncGenerator[Told]:
        async with aclosing(heard(self.place, pod, self._follow(uid))) as messages:
            async for message in messages:
                told = self._understood(message, uid)
                if isinstance(told, Ended) and not told.is_final:
                    self.announce(f"the coordinator failed, and is begun again: {told.error}")
                elif told is not None:
                    yield told

    def _follow(self, uid: str) -> Follow:
        coordinator = self.coordinator.uid if self.coordinator else ""
        said = self._said.get(uid, 0)
        return Follow(job_id=self.job_id, where=self.place.where, uid=coordinator, after=self.after, said=said)

    def _understood(self, message: Message | bytes, uid: str) -> Told | None:
        match message:
            case bytes():
                event = decode(message)
                self.after = event.position
                return Recorded(event, message)
            case Beat():
                return None
            case Began():
                self.after = message.after if self.after is None else self.after
            case Remark():
                self._said[uid] = message.number
            case Ended():
                pass
        return message

    async def _trouble(self, job: Object | None, pods: list[Object]) -> str:
        """Say why no Pod runs yet, or not again; nothing where one runs or none will.

        Raises:
            BackendError: none ever will.
        """
        if job is None or has_failed(job) or any("running" in container_state(pod) for pod in pods):
            return ""
        pod = pods[-1] if pods else None
        if pod is not None and has_ended(pod):
            words = last_words(pods)
            if words is None or words.ended.is_final:
                return ""
            return f"the coordinator ended, and the cluster begins it again: {words.ended.error}"
        name = job["metadata"]["name"] if pod is None else pod["metadata"]["name"]
        self._warnings = self._warnings or Warnings(self.place.api, self.place.namespace)
        waits = waiting(pod, job, await self._warnings.about(name))
        if waits.hope is Hope.NONE:
            message = f"the coordinator {name} cannot start: {waits.message}; {self._still_there()}"
            raise BackendError(message)
        return f"the coordinator waits: {waits.message}"

    def _still_there(self) -> str:
        return f"its Job is still there, until {command_about(self.place.where, 'cancel', self.job_id)}"

    def _wait(self, trouble: str) -> None:
        """Say what takes long, once, and give up where it takes too long.

        Raises:
            BackendError: it does.
        """
        now = asyncio.get_running_loop().time()
        self._waits_since = self._waits_since or now
        waited = now - self._waits_since
        if trouble.startswith("the coordinator waits") and waited > self.start_seconds:
            message = f"{trouble}; after {self.start_seconds:.0f} s nobody waits for it any more; {self._still_there()}"
            raise BackendError(message)
        if waited > _PATIENCE_SECONDS and trouble and trouble != self._last_word:
            self._last_word = trouble
            self.announce(trouble)
