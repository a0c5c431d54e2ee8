"""A lock by a Lease: of all Pods that may work a job only one does, and one that cannot renew its Lease stops.

A Pod is replaced when its node does not answer, but may still run. The holder renews the Lease; if it cannot for a
while, it stops before another Pod may take the Lease, measured by its own clock. Clocks of other machines are not
trusted: a Lease is free once it has not changed for its duration, as observed from here (as client-go does).
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus

from orchestrator.backends.kubernetes import client
from orchestrator.backends.kubernetes.client import KubernetesClient, Object
from orchestrator.backends.kubernetes.pod_state import has_ended
from orchestrator.cluster.self_pod import SelfPod
from orchestrator.errors import BackendError, OrchestratorError
from orchestrator.http.errors import StatusError
from orchestrator.log import get_logger

_log = get_logger(__name__)
HELD_SECONDS = 30
_RENEW_SECONDS = 5.0
_SAFE_SECONDS = 22.0
"""How long a renewal counts: well below `HELD_SECONDS`, because a waiting Pod measures from when it saw the renewal."""

_POLL_SECONDS = 1.0


class LeaseLostError(OrchestratorError):
    """Another coordinator may work on the job by now."""


@dataclass(slots=True)
class LeaseLock:
    """Whether the Lease is held; `holder` is our identity in it."""

    api: KubernetesClient
    own: SelfPod
    name: str
    labels: dict[str, str]
    holder: str
    _until: float = float("-inf")

    def check(self) -> None:
        """Check that no other coordinator may work on the job yet.

        Raises:
            LeaseLostError: another may.
        """
        if asyncio.get_running_loop().time() > self._until:
            message = f"the Lease {self.name} could not be renewed, so another coordinator may have taken over the job"
            raise LeaseLostError(message)

    async def acquire(self) -> None:
        """Acquire the Lease once it is free.

        Raises:
            BackendError: the cluster refuses it.
        """
        clock = asyncio.get_running_loop().time
        seen, since = None, clock()
        while True:
            async with self.api.translating_errors(f"take the Lease {self.name}"):
                found = await self._read()
                spec = None if found is None else found["spec"]
                is_old = spec is not None and spec == seen and clock() - since > HELD_SECONDS
                if found is None or is_old or await self._is_free(found):
                    if await self._write(found):
                        return
                    continue
            if seen is None:
                holder = found["spec"]["holderIdentity"]
                _log.info("another coordinator (%s) has this job: waiting for it to end", holder)
            if spec != seen:
                seen, since = spec, clock()
            await asyncio.sleep(_POLL_SECONDS)

    async def renew_until_lost(self) -> None:
        """Renew the Lease until it is lost.

        Raises:
            LeaseLostError: another coordinator has it, or the API server did not answer for too long.
        """
        while True:
            # The timeout also ends a renewal that waits for its turn or for an answer.
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._until):
                    await asyncio.sleep(_RENEW_SECONDS)
                    await self._renew()
            self.check()

    async def release(self) -> None:
        """Free the Lease at once. If the API server cannot be reached, it expires."""
        with suppress(BackendError):
            async with self.api.translating_errors(f"delete the Lease {self.name}", _RENEW_SECONDS):
                found = await self._read()
                if found is not None and found["spec"].get("holderIdentity") == self.holder:
                    path = client.leases(self.own.namespace, self.name)
                    await self.api.delete(path, found["metadata"]["uid"])
        self._until = float("-inf")

    async def _renew(self) -> None:
        with suppress(BackendError):
            async with self.api.translating_errors(f"renew the Lease {self.name}", _RENEW_SECONDS):
                found = await self._read()
                if found is not None and found["spec"].get("holderIdentity") != self.holder:
                    self._until = float("-inf")
                else:
                    await self._write(found)

    async def _read(self) -> Object | None:
        try:
            return await self.api.read(client.leases(self.own.namespace, self.name))
        except StatusError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            return None

    async def _is_free(self, lease: Object) -> bool:
        """Whether the holder's kubelet has reported that nothing of its Pod runs."""
        name, _, uid = (lease["spec"].get("holderIdentity") or "").partition("/")
        try:
            pod = await self.api.read(client.pods(self.own.namespace, name))
        except StatusError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            # A Pod deleted by force may still run: wait for the Lease to expire.
            return False
        return bool(pod["metadata"]["uid"] == uid and has_ended(pod))

    async def _write(self, found: Object | None) -> bool:
        """Write ourselves as the holder; return whether no other coordinator wrote meanwhile."""
        sent = asyncio.get_running_loop().time()
        time = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": self.holder, "leaseDurationSeconds": HELD_SECONDS, "renewTime": time}
        lease: Object = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": self.name,
                "labels": self.labels,
                "ownerReferences": [self.own.job.reference],
                **({} if found is None else {"resourceVersion": found["metadata"]["resourceVersion"]}),
            },
            "spec": spec,
        }
        try:
            if found is None:
                await self.api.create(client.leases(self.own.namespace), lease)
            else:
                await self.api.replace(client.leases(self.own.namespace, self.name), lease)
        except StatusError as error:
            if error.status not in (HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND):
                raise
            return False
        self._until = sent + _SAFE_SECONDS
        return True


@asynccontextmanager
async def hold_lease(
    api: KubernetesClient,
    own: SelfPod,
    name: str,
    labels: dict[str, str],
    lost: Callable[[str], None],
) -> AsyncIterator[LeaseLock]:
    """Hold the Lease during the block; call `lost` once it is lost, which should not return.

    Raises:
        BackendError: the cluster refuses it.
    """
    lease_lock = LeaseLock(api, own, name, labels, f"{own.pod}/{own.uid}")
    await lease_lock.acquire()

    async def keep() -> None:
        try:
            await lease_lock.renew_until_lost()
        except LeaseLostError as error:
            lost(str(error))

    # A TaskGroup here would wrap the block's exceptions in a group.
    keeping = asyncio.create_task(keep())
    try:
        yield lease_lock
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])
        await lease_lock.release()
