"""Follows a job from outside its cluster: by position, across broken connections.

While a coordinator's Pod runs, it sends the events; when its Job is over, a Job that reads the records does.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from http import HTTPStatus

from orchestrator.backends.cluster_settings import START_SECONDS, Owner
from orchestrator.backends.kubernetes import client
from orchestrator.backends.kubernetes.client import ANSWER_SECONDS, Object, refused
from orchestrator.backends.kubernetes.informer import WarningEvents
from orchestrator.backends.kubernetes.pod_state import StartProspect, container_state, has_ended, has_failed, waiting
from orchestrator.cluster.client import ClusterClient, command_about
from orchestrator.cluster.protocol import Heartbeat, JobEnded, JobStarted, LogMessage, Message, Subscribe
from orchestrator.cluster.reader import read_records, subscribe
from orchestrator.cluster.termination_message import read_termination_message
from orchestrator.errors import BackendError, BackendUnavailableError
from orchestrator.http.errors import ConnectionBrokenError, StatusError
from orchestrator.log import get_logger
from orchestrator.sandbox import naming
from orchestrator.wire.line import EventLine, decode

_log = get_logger(__name__)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 3.0
_PATIENCE_SECONDS = 3.0
"""How long something may take before the user sees the reason."""

_PERMANENT = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}

JobMessage = EventLine | JobStarted | LogMessage | JobEnded


@dataclass(slots=True)
class JobFollower:
    """Follows the job `job_id`; `coordinator` is the Job that works it, if known.

    `after` is the position of the last known event, None for the position where this coordinator began. A Pod
    that does not start within `start_seconds` is given up. The reason of a delay is logged.
    """

    cluster: ClusterClient
    job_id: str
    coordinator: Owner | None
    after: int | None
    start_seconds: float = START_SECONDS
    _log_numbers: dict[str, int] = field(default_factory=dict)
    _waits_since: float | None = None
    _last_trouble: str = ""
    _warnings: WarningEvents | None = None

    async def messages(self) -> AsyncGenerator[JobMessage]:
        """Yield events after the position, each once, and the other messages; the last is a `JobEnded`.

        Raises:
            BackendError: the coordinator does not start, or its records cannot be read.
        """
        pause = _FIRST_PAUSE
        while True:
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    job, pods = await self._read_objects()
                    trouble = await self._delay_reason(job, pods)
                async with aclosing(self._source(job, pods)) as source:
                    async for message in source:
                        self._waits_since, pause = None, _FIRST_PAUSE
                        yield message
                        if isinstance(message, JobEnded):
                            return
            except StatusError as error:
                if error.status in _PERMANENT:
                    doing = f"follow the job {self.job_id}"
                    raise refused(doing, error) from error
                trouble = f"the cluster refuses to let this command follow it: {error}"
            except BackendUnavailableError as error:
                if isinstance(error.__cause__, StatusError):
                    raise
                trouble = str(error)
            except (ConnectionBrokenError, TimeoutError) as error:
                trouble = f"the connection to the cluster broke ({str(error) or 'no data'})"
            self._log_delay(trouble)
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE)

    async def _read_objects(self) -> tuple[Object | None, list[Object]]:
        """Read the coordinator's Job, if it exists, and its Pods, the newest last."""
        if self.coordinator is None:
            return None, []
        api, namespace = self.cluster.api, self.cluster.namespace
        job: Object | None = None
        try:
            found = await api.read(client.jobs(namespace, self.coordinator.name))
            job = found if found["metadata"]["uid"] == self.coordinator.uid else None
        except StatusError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
        # The Pod of a job that is being cancelled outlives its Job for a while.
        pods = await api.listed(client.pods(namespace), {naming.CONTROLLED_BY: self.coordinator.uid})
        return job, sorted(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))

    async def _source(self, job: Object | None, pods: list[Object]) -> AsyncGenerator[JobMessage]:
        running = next((pod for pod in reversed(pods) if "running" in container_state(pod)), None)
        if running is not None:
            metadata = running["metadata"]
            async with aclosing(self._stream_from(metadata["name"], metadata["uid"])) as reports:
                async for reported in reports:
                    yield reported
        elif job is None or has_failed(job):
            final_message = read_termination_message(pods)
            if final_message is not None and not final_message.recorded and self.after is None:
                yield final_message.ended
                return
            reading = read_records(self.cluster, self.job_id, lambda: self._follow(""), self.start_seconds)
            async with aclosing(reading) as messages:
                async for message in messages:
                    read_here = self._parse(message, "")
                    if isinstance(read_here, JobEnded) and read_here.outcome is None and final_message is not None:
                        yield final_message.ended
                    elif read_here is not None:
                        yield read_here

    async def _stream_from(self, pod: str, uid: str) -> AsyncGenerator[JobMessage]:
        async with aclosing(subscribe(self.cluster, pod, self._follow(uid))) as messages:
            async for message in messages:
                parsed = self._parse(message, uid)
                if isinstance(parsed, JobEnded) and not parsed.is_final:
                    _log.info("the coordinator failed, and the cluster restarts it: %s", parsed.error)
                elif parsed is not None:
                    yield parsed

    def _follow(self, uid: str) -> Subscribe:
        coordinator = self.coordinator.uid if self.coordinator else ""
        last_log_number = self._log_numbers.get(uid, 0)
        return Subscribe(
            job_id=self.job_id,
            where=self.cluster.where,
            uid=coordinator,
            after=self.after,
            last_log_number=last_log_number,
        )

    def _parse(self, message: Message | bytes, uid: str) -> JobMessage | None:
        match message:
            case bytes():
                event = decode(message)
                self.after = event.position
                return EventLine(event, message)
            case Heartbeat():
                return None
            case JobStarted():
                self.after = message.after if self.after is None else self.after
            case LogMessage():
                self._log_numbers[uid] = message.number
            case JobEnded():
                pass
        return message

    async def _delay_reason(self, job: Object | None, pods: list[Object]) -> str:
        """Return the reason why no Pod runs yet, or again; empty if one runs or none will.

        Raises:
            BackendError: no Pod will ever run.
        """
        if job is None or has_failed(job) or any("running" in container_state(pod) for pod in pods):
            return ""
        pod = pods[-1] if pods else None
        if pod is not None and has_ended(pod):
            final_message = read_termination_message(pods)
            if final_message is None or final_message.ended.is_final:
                return ""
            return f"the coordinator ended, and the cluster restarts it: {final_message.ended.error}"
        name = job["metadata"]["name"] if pod is None else pod["metadata"]["name"]
        self._warnings = self._warnings or WarningEvents(self.cluster.api, self.cluster.namespace)
        waits = waiting(pod, job, await self._warnings.about(name))
        if waits.prospect is StartProspect.NONE:
            message = f"the coordinator {name} cannot start: {waits.message}; {self._job_remains()}"
            raise BackendError(message)
        return f"the coordinator waits: {waits.message}"

    def _job_remains(self) -> str:
        return f"the Job still exists, remove it with {command_about(self.cluster.where, 'cancel', self.job_id)}"

    def _log_delay(self, trouble: str) -> None:
        """Log a delay, once, and give up if it lasts too long.

        Raises:
            BackendError: it lasted too long.
        """
        now = asyncio.get_running_loop().time()
        self._waits_since = self._waits_since or now
        waited = now - self._waits_since
        if trouble.startswith("the coordinator waits") and waited > self.start_seconds:
            message = f"{trouble}; gave up after {self.start_seconds:.0f} s; {self._job_remains()}"
            raise BackendError(message)
        if waited > _PATIENCE_SECONDS and trouble and trouble != self._last_trouble:
            self._last_trouble = trouble
            _log.info("%s", trouble)
