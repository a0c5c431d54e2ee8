"""One Job and its Pod: lines, start, end, removal."""

import asyncio
import os
import stat
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from pathlib import Path

from orchestrator.backends import kubernetes_api
from orchestrator.backends.kubernetes_api import Object
from orchestrator.backends.kubernetes_log import Mark, StampedLines, read_log
from orchestrator.backends.kubernetes_manifest import GRACE_SECONDS, STDERR
from orchestrator.backends.kubernetes_state import (
    Hope,
    exit_of,
    has_ended,
    has_failed,
    has_started,
    is_leaving,
    waiting,
)
from orchestrator.backends.kubernetes_watching import Watched
from orchestrator.backends.naming import SANDBOX
from orchestrator.errors import BackendError, ImageNotFoundError, SandboxLostError
from orchestrator.sandbox import Exit, Reason
from orchestrator.wire.exit_code import ExitCode

REMOVAL_SECONDS = GRACE_SECONDS + 30.0
"""How long a Pod may take to end after it was deleted, before it is told that it may still be there."""

_COLLECTION_SECONDS = 120.0
"""How long the cluster's garbage collector may take from a Job to its Pod, of which it may have thousands to delete."""

AWAY_SECONDS = 600.0
"""How long an API server may be away before its Sandboxes count as lost; they work on meanwhile."""

_SETTLING_SECONDS = 3.0
"""How long the cluster may take to know that a container ended whose log has."""

_PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
_LATE_SECONDS = 0.25
_LOOK_SECONDS = 2.0
_LOOK_AGAIN_SECONDS = 30.0
_DETAIL_BYTES = 4096


class KubernetesSandbox:
    """A Sandbox in a Pod of a Job of its own. `state` is its state directory here; `start_seconds` bounds its start."""

    def __init__(self, watched: Watched, name: str, line_bytes: int, state: Path | None, start_seconds: float) -> None:
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
        """Follow the log from its beginning, over as many connections as it takes; what is missing is in the spool."""
        mark: Mark | None = None
        follow, pauses = True, iter(_PAUSES)
        while (pod := await self._logging()) is not None:
            found = StampedLines(self._line_bytes, mark)
            path = kubernetes_api.pods(self._watched.namespace, pod["metadata"]["name"], "log")
            try:
                async with aclosing(read_log(self._watched.api, path, found, follow=follow)) as lines:
                    async for line in lines:
                        yield line
            finally:
                self.dropped += found.dropped
            if found.fault:
                self._watched.note(f"the log of the Sandbox {self._name} was cut: {found.fault}")
            if found.mark != mark:
                mark, pauses = found.mark, iter(_PAUSES)
            elif found.whole and not follow:
                for line in found.rest():
                    yield line
                return
            # What is followed may end before all of it was given, and what ended may be written on for a moment: it is
            # read until there is no more.
            follow = follow and not (found.whole and await self._ends_soon())
            pause = next(pauses, None)
            if pause is None and self._has_ended():
                return
            await asyncio.sleep(pause or _PAUSES[-1])

    async def started(self) -> None:
        """Wait until its container runs, or has; say meanwhile what it waits for.

        Raises:
            ImageNotFoundError: its image cannot be had.
            BackendError: it does not come to run; in the cluster's own words why.
        """
        clock = asyncio.get_running_loop().time
        left, said = self._start_seconds, ""
        while True:
            began = clock()
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._watched.pods.until(self._name, lambda pod: pod is not None and has_started(pod))
                    return
            if self._removed or self._leaving:
                return
            why = waiting(
                self._watched.pods.now(self._name), self._watched.jobs.now(self._name), await self._warnings()
            )
            if why.hope is not Hope.HELD:
                left -= clock() - began
            if why.message != said:
                said = why.message
                self._watched.announce(f"Sandbox {self._name} waits: {said}")
            if why.hope is Hope.NONE or left <= 0:
                late = "" if why.hope is Hope.NONE else f" within {self._start_seconds:g} s"
                message = f"the Sandbox {self._name} did not start{late}: {said}"
                raise (ImageNotFoundError if why.image else BackendError)(message)

    async def wait(self) -> Exit:
        """Wait for the Pod's end.

        Raises:
            SandboxLostError: it or the API server went away.
        """
        async with self._waiting:
            if self._exit is None:
                self._exit = await self._end()
            return self._exit

    async def cut_off(self, why: str) -> None:
        """End it because it must not go on: `why` is then how it ended.

        Raises:
            BackendError: the cluster does not delete its Job.
        """
        self._why_cut = why
        async with self._watched.api.asked(f"delete the Job {self._name}"):
            await self._watched.api.delete(kubernetes_api.jobs(self._watched.namespace, self._name), self.uid)

    async def remove(self) -> None:
        """Delete the Job if it is there, and wait until nothing of its Pod runs.

        Raises:
            BackendError: it may still run.
        """
        self._leaving = True
        watched = self._watched
        async with watched.api.asked(f"delete the Job {self._name}"):
            await watched.api.delete(kubernetes_api.jobs(watched.namespace, self._name), self.uid)
        try:
            async with asyncio.timeout(_COLLECTION_SECONDS):
                await self._sees_a_late_pod()
                await watched.pods.until(self._name, lambda pod: pod is None or has_ended(pod) or is_leaving(pod))
            async with asyncio.timeout(REMOVAL_SECONDS):
                await watched.pods.until(self._name, lambda pod: pod is None or has_ended(pod))
        except TimeoutError as error:
            message = (
                f"the Pod of the Sandbox {self._name} may still run: its Job is deleted, and nobody says that it ended"
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

    async def _sees_a_late_pod(self) -> None:
        """Wait for a Pod that is made while its Job is deleted, which takes the cluster a moment to notice."""
        if self._watched.pods.last(self._name):
            return
        await asyncio.sleep(_LATE_SECONDS)
        path = kubernetes_api.pods(self._watched.namespace)
        async with self._watched.api.asked("list the Pods"):
            found = await self._watched.api.listed(path, {SANDBOX: self._name})
        if found:
            await self._watched.pods.until(self._name, lambda _: bool(self._watched.pods.last(self._name)))

    async def _logging(self) -> Object | None:
        """Wait until the Pod has a log; None where it never will, or is gone."""
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
        told = False
        with pods.telling(self._name) as changed, jobs.telling(self._name, changed):
            while not self._has_ended():
                try:
                    async with asyncio.timeout(_LOOK_AGAIN_SECONDS):
                        await changed.wait()
                        changed.clear()
                except TimeoutError:
                    told = told or self._tell_if_stuck()
                await self._known()
        if self._why_cut is not None:
            return Exit(ExitCode.NETWORK_OPEN, Reason.ERROR, self._why_cut)
        last = pods.last(self._name) or None
        found = exit_of(last, jobs.last(self._name) or None, leaving=self._leaving, stderr=self._stderr())
        if found is not None:
            return found
        message = f"the Pod of the Sandbox {self._name} is gone, and nobody says how it ended"
        raise SandboxLostError(message)

    def _tell_if_stuck(self) -> bool:
        """Say that the Pod should have ended long ago. Whether it works on nobody can know, so its Run must wait."""
        pod = self._watched.pods.now(self._name)
        if self._leaving or pod is None or not is_leaving(pod):
            return False
        # The Job holds its Pod until the node says that it ended, so it has to go too.
        self._watched.announce(
            f"Sandbox {self._name} was to end, and its node {pod['spec'].get('nodeName')} does not say that it has; its"
            " Run waits for that: if the node is dead, say so with `kubectl --namespace"
            f" {self._watched.namespace} delete job,pod --force --selector={SANDBOX}={self._name}`"
        )
        return True

    async def _known(self) -> None:
        """Wait until the cluster has told anything about Pods, and not too long ago.

        Raises:
            SandboxLostError: it does not any more.
        """
        pods = self._watched.pods
        with suppress(TimeoutError):
            async with asyncio.timeout(AWAY_SECONDS):
                await pods.synced()
        if asyncio.get_running_loop().time() - pods.synced_at > AWAY_SECONDS:
            message = f"the API server {self._watched.api.server} no longer says how the Sandbox {self._name} is"
            raise SandboxLostError(message)

    def _has_ended(self) -> bool:
        pods, jobs = self._watched.pods, self._watched.jobs
        pod, job = pods.now(self._name), jobs.now(self._name)
        if pod is not None:
            return has_ended(pod)
        if pods.last(self._name) or self._removed:
            return True
        # There was no Pod yet; one may come, unless its Job is over or gone.
        return has_failed(job) if job is not None else bool(jobs.last(self._name))

    async def _warnings(self) -> Sequence[Object]:
        """What the cluster warned of about the Pod, or about the Job while there is none."""
        pod = self._watched.pods.now(self._name)
        return await self._watched.warnings.about(self._name if pod is None else pod["metadata"]["name"])

    def _stderr(self) -> str:
        if self._state is None:
            return ""
        try:
            fd = os.open(self._state / STDERR, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            # A Sandbox may have put anything there; a file object of a directory would not close its descriptor.
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                os.close(fd)
                return ""
            with os.fdopen(fd, "rb") as file:
                file.seek(-min(_DETAIL_BYTES, os.fstat(fd).st_size), os.SEEK_END)
                return file.read(_DETAIL_BYTES).decode(errors="replace").strip()
        except OSError:
            return ""
