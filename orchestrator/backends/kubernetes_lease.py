"""A fence by a Lease: of all Pods that may work on a job, one does, and one that cannot say so any more stops.

A Pod is replaced when its node does not answer, and may run on all the same. Whoever holds the Lease renews it; who has
not managed to for a while stops before anybody else may take it, by its own clock. A clock of another machine is never
believed: a Lease is free when it has not changed for as long as it says, seen from here (as client-go does).
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus

from orchestrator.backends import kubernetes_api
from orchestrator.backends.http import RefusalError
from orchestrator.backends.kubernetes_api import Api, Object
from orchestrator.backends.kubernetes_coordinator import owned_by
from orchestrator.backends.kubernetes_own import Own
from orchestrator.backends.kubernetes_state import has_ended
from orchestrator.errors import BackendError, OrchestratorError

HELD_SECONDS = 30
_RENEW_SECONDS = 5.0
_SAFE_SECONDS = 22.0
"""How long what was renewed is relied on: well below `HELD_SECONDS`, for whoever waits counts from when it saw it."""

_LOOK_SECONDS = 1.0


class FencedError(OrchestratorError):
    """Somebody else may work on the job by now."""


@dataclass(slots=True)
class Fence:
    """Whether the Lease is held; `holder` names us in it."""

    api: Api
    own: Own
    name: str
    labels: dict[str, str]
    holder: str
    _until: float = float("-inf")

    def check(self) -> None:
        """See that nobody else may work on the job yet.

        Raises:
            FencedError: somebody may.
        """
        if asyncio.get_running_loop().time() > self._until:
            message = f"the Lease {self.name} could not be renewed, so another coordinator may have taken the job up"
            raise FencedError(message)

    async def take(self, announce: Callable[[str], None]) -> None:
        """Take the Lease once it is free.

        Raises:
            BackendError: the cluster does not let us.
        """
        clock = asyncio.get_running_loop().time
        seen, since = None, clock()
        while True:
            async with self.api.asked(f"take the Lease {self.name}"):
                found = await self._read()
                spec = None if found is None else found["spec"]
                is_old = spec is not None and spec == seen and clock() - since > HELD_SECONDS
                if found is None or is_old or await self._is_free(found):
                    if await self._write(found):
                        return
                    continue
            if seen is None:
                announce(f"another coordinator ({found['spec']['holderIdentity']}) has this job: waiting for it to end")
            if spec != seen:
                seen, since = spec, clock()
            await asyncio.sleep(_LOOK_SECONDS)

    async def keep(self) -> None:
        """Renew the Lease, until it cannot be relied on any more.

        Raises:
            FencedError: another has it, or nobody answers for too long.
        """
        while True:
            # Whatever it waits for then, for its turn or for an answer: the end comes when it must.
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._until):
                    await asyncio.sleep(_RENEW_SECONDS)
                    await self._renew()
            self.check()

    async def release(self) -> None:
        """Let others have it at once. It frees itself where that cannot be said."""
        with suppress(BackendError):
            async with self.api.asked(f"delete the Lease {self.name}", _RENEW_SECONDS):
                found = await self._read()
                if found is not None and found["spec"].get("holderIdentity") == self.holder:
                    path = kubernetes_api.leases(self.own.namespace, self.name)
                    await self.api.delete(path, found["metadata"]["uid"])
        self._until = float("-inf")

    async def _renew(self) -> None:
        with suppress(BackendError):
            async with self.api.asked(f"renew the Lease {self.name}", _RENEW_SECONDS):
                found = await self._read()
                if found is not None and found["spec"].get("holderIdentity") != self.holder:
                    self._until = float("-inf")
                else:
                    await self._write(found)

    async def _read(self) -> Object | None:
        try:
            return await self.api.read(kubernetes_api.leases(self.own.namespace, self.name))
        except RefusalError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            return None

    async def _is_free(self, lease: Object) -> bool:
        """Whether whoever holds it has a kubelet that says that nothing of it runs any more."""
        name, _, uid = (lease["spec"].get("holderIdentity") or "").partition("/")
        try:
            pod = await self.api.read(kubernetes_api.pods(self.own.namespace, name))
        except RefusalError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            # Deleted by force it may still run: the Lease has to run out.
            return False
        return bool(pod["metadata"]["uid"] == uid and has_ended(pod))

    async def _write(self, found: Object | None) -> bool:
        """Write that it is ours; whether nobody else wrote meanwhile."""
        sent = asyncio.get_running_loop().time()
        time = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": self.holder, "leaseDurationSeconds": HELD_SECONDS, "renewTime": time}
        lease: Object = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": self.name,
                "labels": self.labels,
                "ownerReferences": [owned_by(self.own.job)],
                **({} if found is None else {"resourceVersion": found["metadata"]["resourceVersion"]}),
            },
            "spec": spec,
        }
        try:
            if found is None:
                await self.api.create(kubernetes_api.leases(self.own.namespace), lease)
            else:
                await self.api.replace(kubernetes_api.leases(self.own.namespace, self.name), lease)
        except RefusalError as error:
            if error.status not in (HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND):
                raise
            return False
        self._until = sent + _SAFE_SECONDS
        return True


@asynccontextmanager
async def fenced(  # noqa: PLR0913, PLR0917 - a Lease, and who is told about it
    api: Api, own: Own, name: str, labels: dict[str, str], announce: Callable[[str], None], lost: Callable[[str], None]
) -> AsyncIterator[Fence]:
    """Hold the Lease for as long as the block lasts; once it is lost, `lost` is told, which should not return.

    Raises:
        BackendError: the cluster does not let us.
    """
    fence = Fence(api, own, name, labels, f"{own.pod}/{own.uid}")
    await fence.take(announce)

    async def keep() -> None:
        try:
            await fence.keep()
        except FencedError as error:
            lost(str(error))

    # A TaskGroup here would wrap whatever the block raises in a group of its own.
    keeping = asyncio.create_task(keep())
    try:
        yield fence
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])
        await fence.release()
