"""One Job and its Pod: lines, start, end, removal."""

import asyncio
import os
import stat
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from pathlib import Path

from orchestrator.backends.kubernetes import client
from orchestrator.backends.kubernetes.client import Object
from orchestrator.backends.kubernetes.informer import InstanceInformers
from orchestrator.backends.kubernetes.logs import Mark, StampedLines, read_log
from orchestrator.backends.kubernetes.manifest import GRACE_SECONDS
from orchestrator.backends.kubernetes.pod_state import (
    StartProspect,
    exit_of,
    has_ended,
    has_failed,
    has_started,
    is_terminating,
    waiting,
)
from orchestrator.errors import BackendError, ImageNotFoundError, SandboxLostError
from orchestrator.log import get_logger
from orchestrator.sandbox.api import Exit, Reason
from orchestrator.sandbox.naming import SANDBOX
from orchestrator.wire.layout import STDERR
from orchestrator.wire.run import ExitCode

_log = get_logger(__name__)
REMOVAL_SECONDS = GRACE_SECONDS + 30.0
"""How long a deleted Pod may take to end before `remove` reports that it may still run."""

_COLLECTION_SECONDS = 120.0
"""How long the garbage collector may take from a Job to its Pod; it may have thousands of Pods to delete."""

UNREACHABLE_SECONDS = 600.0
"""How long an API server may be unreachable before its Sandboxes count as lost; they keep working meanwhile."""

_SETTLING_SECONDS = 3.0
"""How long the cluster may take to report that a container ended after its log did."""

_PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
_LATE_SECONDS = 0.25
_POLL_SECONDS = 2.0
_RECHECK_SECONDS = 30.0
_DETAIL_BYTES = 4096


class KubernetesSandbox:
    """A Sandbox in its Job's Pod. `state` is its state directory on this host; `start_seconds` bounds its start."""

    def __init__(
        self, watched: InstanceInformers, name: str, line_bytes: int, state: Path | None, start_seconds: float
    ) -> None:
        self.dropped = 0
        self.uid: str | None = None
        self._watched = watched
        self._name = name
        self._line_bytes = line_bytes
        self._state = state
        self._start_seconds = start_seconds
        self._leaving = False
        self._removed = False
        self._exit: Exit | None = None
        self._why_cut: str | None = None
        self._waiting = asyncio.Lock()
        watched.pods.expect(name)
        watched.jobs.expect(name)

    @property
    def name(self) -> str:
        """The Job's name."""
        return self._name

    async def lines(self) -> AsyncGenerator[bytes, None]:
        """Follow the log from its beginning, over several connections if needed; the spool has what is missing."""
        mark: Mark | None = None
        follow, pauses = True, iter(_PAUSES)
        while (pod := await self._logging()) is not None:
            found = StampedLines(self._line_bytes, mark)
            path = client.pods(self._watched.namespace, pod["metadata"]["name"], "log")
            try:
                async with aclosing(read_log(self._watched.api, path, found, follow=follow)) as lines:
                    async for line in lines:
                        yield line
            finally:
                self.dropped += found.dropped
            if found.fault:
                _log.debug("the log of the Sandbox %s was cut: %s", self._name, found.fault)
            if found.mark != mark:
                mark, pauses = found.mark, iter(_PAUSES)
            elif found.whole and not follow:
                for line in found.rest():
                    yield line
                return
            # A followed log may end before all of it was sent, and an ended one may still grow for a moment: read it
            # until nothing more comes.
            follow = follow and not (found.whole and await self._ends_soon())
            pause = next(pauses, None)
            if pause is None and self._has_ended():
                return
            await asyncio.sleep(pause or _PAUSES[-1])

    async def started(self) -> None:
        """Wait until its container runs or has run; log meanwhile what it waits for.

        Raises:
            ImageNotFoundError: its image cannot be pulled.
            BackendError: it does not start; the message has the cluster's reason.
        """
        clock = asyncio.get_running_loop().time
        left, reason = self._start_seconds, ""
        while True:
            began = clock()
            with suppress(TimeoutError):
                async with asyncio.timeout(_POLL_SECONDS):
                    await self._watched.pods.until(self._name, lambda pod: pod is not None and has_started(pod))
                    return
            if self._removed or self._leaving:
                return
            why = waiting(
                self._watched.pods.get(self._name), self._watched.jobs.get(self._name), await self._warnings()
            )
            if why.prospect is not StartProspect.HELD:
                left -= clock() - began
            if why.message != reason:
                reason = why.message
                _log.info("Sandbox %s waits: %s", self._name, reason)
            if why.prospect is StartProspect.NONE or left <= 0:
                late = "" if why.prospect is StartProspect.NONE else f" within {self._start_seconds:g} s"
                message = f"the Sandbox {self._name} did not start{late}: {reason}"
                raise (ImageNotFoundError if why.image else BackendError)(message)

    async def wait(self) -> Exit:
        """Wait for the Pod's end.

        Raises:
            SandboxLostError: the Pod or the API server is gone.
        """
        async with self._waiting:
            if self._exit is None:
                self._exit = await self._end()
            return self._exit

    async def cut_off(self, why: str) -> None:
        """End the Sandbox because it must not continue; `why` becomes the reason of its end.

        Raises:
            BackendError: the cluster does not delete its Job.
        """
        self._why_cut = why
        async with self._watched.api.translating_errors(f"delete the Job {self._name}"):
            await self._watched.api.delete(client.jobs(self._watched.namespace, self._name), self.uid)

    async def remove(self) -> None:
        """Delete the Job if it exists, and wait until nothing of its Pod runs.

        Raises:
            BackendError: the Pod may still run.
        """
        self._leaving = True
        watched = self._watched
        async with watched.api.translating_errors(f"delete the Job {self._name}"):
            await watched.api.delete(client.jobs(watched.namespace, self._name), self.uid)
        try:
            async with asyncio.timeout(_COLLECTION_SECONDS):
                await self._wait_for_late_pod()
                await watched.pods.until(self._name, lambda pod: pod is None or has_ended(pod) or is_terminating(pod))
            async with asyncio.timeout(REMOVAL_SECONDS):
                await watched.pods.until(self._name, lambda pod: pod is None or has_ended(pod))
        except TimeoutError as error:
            message = (
                f"the Pod of the Sandbox {self._name} may still run: its Job was deleted, but its end is not confirmed"
                f": see `kubectl get pods -l perstack.ai/sandbox={self._name}`"
            )
            raise BackendError(message) from error
        finally:
            self._removed = True
        self._exit = (
            self._exit
            or exit_of(self._watched.pods.last(self._name) or None, None, leaving=True)
            or Exit(None, Reason.CANCELLED)
        )
        watched.pods.forget(self._name)
        watched.jobs.forget(self._name)

    async def _wait_for_late_pod(self) -> None:
        """Wait for a Pod that was created while its Job was deleted; the cluster takes a moment to notice."""
        if self._watched.pods.last(self._name):
            return
        await asyncio.sleep(_LATE_SECONDS)
        path = client.pods(self._watched.namespace)
        async with self._watched.api.translating_errors("list the Pods"):
            found = await self._watched.api.listed(path, {SANDBOX: self._name})
        if found:
            await self._watched.pods.until(self._name, lambda _: bool(self._watched.pods.last(self._name)))

    async def _logging(self) -> Object | None:
        """Wait until the Pod has a log; return None if it never will, or is gone."""
        if self._removed:
            return None
        pods = self._watched.pods

        def known(pod: Object | None) -> bool:
            return self._has_ended() if pod is None else has_started(pod)

        return await pods.until(self._name, known)

    async def _ends_soon(self) -> bool:
        """Whether the log ended because the container did."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_SETTLING_SECONDS):
                await self._watched.pods.until(self._name, lambda pod: pod is None or has_ended(pod))
                return True
        return self._leaving

    async def _end(self) -> Exit:
        pods, jobs = self._watched.pods, self._watched.jobs
        await self._known()
        warned = False
        with pods.subscribe(self._name) as changed, jobs.subscribe(self._name, changed):
            while not self._has_ended():
                try:
                    async with asyncio.timeout(_RECHECK_SECONDS):
                        await changed.wait()
                        changed.clear()
                except TimeoutError:
                    warned = warned or self._warn_if_stuck()
                await self._known()
        if self._why_cut is not None:
            return Exit(ExitCode.NETWORK_OPEN, Reason.ERROR, self._why_cut)
        last = pods.last(self._name) or None
        found = exit_of(last, jobs.last(self._name) or None, leaving=self._leaving, stderr=self._stderr())
        if found is not None:
            return found
        message = f"the Pod of the Sandbox {self._name} is gone, and the cluster did not report how it ended"
        raise SandboxLostError(message)

    def _warn_if_stuck(self) -> bool:
        """Warn that a deleted Pod has not ended; return whether warned. It may still work, so its Run waits."""
        pod = self._watched.pods.get(self._name)
        if self._leaving or pod is None or not is_terminating(pod):
            return False
        # The Job keeps its Pod until the node confirms the end, so it must be deleted too.
        _log.warning(
            "Sandbox %s was deleted, but its node %s has not confirmed it; its Run waits for that: if the node is dead,"
            " run `kubectl --namespace %s delete job,pod --force --selector=%s=%s`",
            self._name,
            pod["spec"].get("nodeName"),
            self._watched.namespace,
            SANDBOX,
            self._name,
        )
        return True

    async def _known(self) -> None:
        """Wait until Pods were listed, and check that the cache is recent enough.

        Raises:
            SandboxLostError: the API server has not answered for too long.
        """
        pods = self._watched.pods
        with suppress(TimeoutError):
            async with asyncio.timeout(UNREACHABLE_SECONDS):
                await pods.synced()
        if asyncio.get_running_loop().time() - pods.synced_at > UNREACHABLE_SECONDS:
            message = f"the API server {self._watched.api.server} no longer reports on the Sandbox {self._name}"
            raise SandboxLostError(message)

    def _has_ended(self) -> bool:
        pods, jobs = self._watched.pods, self._watched.jobs
        pod, job = pods.get(self._name), jobs.get(self._name)
        if pod is not None:
            return has_ended(pod)
        if pods.last(self._name) or self._removed:
            return True
        # No Pod was seen yet; one may come, unless its Job is over or gone.
        return has_failed(job) if job is not None else bool(jobs.last(self._name))

    async def _warnings(self) -> Sequence[Object]:
        """Return the cluster's warnings about the Pod, or about the Job while no Pod exists."""
        pod = self._watched.pods.get(self._name)
        return await self._watched.warnings.about(self._name if pod is None else pod["metadata"]["name"])

    def _stderr(self) -> str:
        if self._state is None:
            return ""
        try:
            fd = os.open(self._state / STDERR.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            # A Sandbox may have put any file there; a file object of a directory would not close its descriptor.
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                os.close(fd)
                return ""
            with os.fdopen(fd, "rb") as file:
                file.seek(-min(_DETAIL_BYTES, os.fstat(fd).st_size), os.SEEK_END)
                return file.read(_DETAIL_BYTES).decode(errors="replace").strip()
        except OSError:
            return ""
