"""The network of a job's Sandboxes in a cluster: a NetworkPolicy for each broker, and none beside it that widens it.

Policies are looked at before each start, and again from time to time while Sandboxes work.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus

from orchestrator.backends import kubernetes_api, naming
from orchestrator.backends.http import RefusalError
from orchestrator.backends.kubernetes_api import Api, Object
from orchestrator.backends.kubernetes_manifest import GRACE_SECONDS, network_policy, pod_labels
from orchestrator.backends.kubernetes_policies import allow_names, widening
from orchestrator.backends.kubernetes_setting import ClusterSetting
from orchestrator.backends.kubernetes_state import has_ended
from orchestrator.errors import BackendError, BackendUnavailableError
from orchestrator.sandbox import SandboxSpec

_ENDING_SECONDS = GRACE_SECONDS + 5.0
"""In which a Pod that is deleted ends, if its node answers."""

_LOOK_SECONDS = 0.25
_OF_A_JOB = (naming.MANAGED_BY, naming.JOB, naming.INSTANCE)
LOOK_AGAIN_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class _Held:
    """A Sandbox that works: the labels of its Pod, the policy of its job, and how it is cut off."""

    labels: Mapping[str, str]
    policy: str
    cut_off: Callable[[str], Awaitable[None]]


@dataclass(slots=True)
class Network:
    """Closes the network of Sandboxes before they are launched, and forgets about it after them.

    Every `look_again_seconds` it looks whether it is still closed to those that work.
    """

    api: Api
    setting: ClusterSetting
    look_again_seconds: float = LOOK_AGAIN_SECONDS
    _closed: dict[str, Object] = field(default_factory=dict)
    _closing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _found: dict[str, Object] = field(default_factory=dict)
    _found_at: float = float("-inf")
    _held: dict[str, _Held] = field(default_factory=dict)
    _looking: "asyncio.Task[None] | None" = None

    async def close(self, spec: SandboxSpec) -> None:
        """See that the policy for this Sandbox's broker is there, and that no other lets the Sandbox reach more.

        Raises:
            BackendUnavailableError: one does; names it.
            BackendError: the cluster does not let us.
        """
        if spec.broker is None:
            return
        ours = network_policy(spec, self.setting)
        asked_at = asyncio.get_running_loop().time()
        async with self._closing:
            await self._look(asked_at)
            labels = pod_labels(spec, self.setting)
            others = widening(self._found.values(), ours, labels) if self.setting.enforced else []
            if others := [name for name in others if not await self._supersede(name, ours)]:
                raise BackendUnavailableError(self._why_open(others, self._found))
            await self._make(ours)

    @asynccontextmanager
    async def kept_closed(
        self, name: str, labels: Mapping[str, str], policy: str | None, cut_off: Callable[[str], Awaitable[None]]
    ) -> AsyncIterator[None]:
        """Have a Sandbox `cut_off`, with a sentence, should policies let it reach more than that of its job does."""
        if policy is None or not self.setting.enforced:
            yield
            return
        self._held[name] = _Held(labels, policy, cut_off)
        # Kept by hand: whatever a TaskGroup would cancel is the caller's own block.
        self._looking = self._looking or asyncio.ensure_future(self._look_again())
        try:
            yield
        finally:
            del self._held[name]

    async def stop(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait((self._looking,))

    async def _look_again(self) -> None:
        while True:
            await asyncio.sleep(self.look_again_seconds)
            # An API server that is away says so where somebody waits for it; next time it may be back.
            with suppress(BackendError):
                if self._held:
                    await self._judge({str(each["metadata"]["name"]): each for each in await self._listed({})})

    async def _judge(self, found: Mapping[str, Object]) -> None:
        for held in tuple(self._held.values()):
            nothing: Object = {"metadata": {"name": held.policy}, "spec": {"egress": []}}
            there = found.get(held.policy, nothing)
            ours = self._closed.get(held.policy, there)
            others = widening(found.values(), ours, held.labels)
            if any(rule not in ours["spec"]["egress"] for rule in there["spec"].get("egress") or ()):
                others.append(held.policy)
            if others:
                # One that cannot be cut off now keeps no other from it, and is found again at the next look.
                with suppress(BackendError):
                    await held.cut_off(f"its network was opened while it worked: {self._why_open(others, found)}")

    def _why_open(self, others: Iterable[str], found: Mapping[str, Object]) -> str:
        names = ", DNS included" if allow_names(found[name] for name in others) else ""
        return (
            f"NetworkPolicy {', '.join(others)} in the namespace {self.setting.namespace} lets Sandboxes reach more"
            f" than their broker{names}: have it select other Pods, or accept it with --allow-unenforced-network"
        )

    async def open(self) -> None:
        """Delete the policies that were made here, of those jobs of which nothing runs any more."""
        for name, policy in self._closed.items():
            await self._delete(name, policy["metadata"]["labels"])

    async def prune(self, labels: Mapping[str, str], spare: Callable[[Mapping[str, str]], bool]) -> None:
        """Delete policies that carry all `labels`, that `spare` does not keep, and of whose jobs nothing runs."""
        for policy in await self._listed({naming.MANAGED_BY: naming.MANAGER, **labels}):
            if not spare(policy["metadata"]["labels"]):
                await self._delete(policy["metadata"]["name"], policy["metadata"]["labels"])

    async def _look(self, since: float) -> None:
        """List all policies, unless that was begun after `since`: many who ask at once share one list."""
        if self._found_at < since:
            began = asyncio.get_running_loop().time()
            self._found = {str(policy["metadata"]["name"]): policy for policy in await self._listed({})}
            self._found_at = began

    async def _make(self, ours: Object) -> None:
        name = ours["metadata"]["name"]
        there = self._found.get(name)
        if there is None:
            async with self.api.asked(f"create the NetworkPolicy {name}"):
                try:
                    await self.api.create(kubernetes_api.policies(self.setting.namespace), ours, twice=True)
                except RefusalError as error:
                    # Another request of ours may have been carried out whose answer was lost.
                    if error.status != HTTPStatus.CONFLICT:
                        raise
        elif _meaning(there) != _meaning(ours):
            async with self.api.asked(f"write the NetworkPolicy {name} anew"):
                await self.api.replace(kubernetes_api.policies(self.setting.namespace, name), ours, twice=True)
        self._closed[name] = self._found[name] = ours

    async def _listed(self, labels: Mapping[str, str]) -> list[Object]:
        async with self.api.asked("list the NetworkPolicies"):
            return await self.api.listed(kubernetes_api.policies(self.setting.namespace), labels)

    async def _supersede(self, name: str, ours: Object) -> bool:
        """Delete a policy of an earlier broker of the same job: of its errand, or of an orchestrator that is gone."""
        labels, wanted = self._found[name]["metadata"].get("labels") or {}, ours["metadata"]["labels"]
        same = all(labels.get(key) == wanted.get(key) for key in _OF_A_JOB)
        if not same or not await self._delete(name, labels):
            return False
        del self._found[name]
        self._closed.pop(name, None)
        return True

    async def _delete(self, name: str, labels: Mapping[str, str]) -> bool:
        """Delete a policy if nothing runs of its job; say whether it did."""
        if not await self._is_idle(labels):
            return False
        async with self.api.asked(f"delete the NetworkPolicy {name}"):
            await self.api.delete(kubernetes_api.policies(self.setting.namespace, name))
        return True

    async def _is_idle(self, labels: Mapping[str, str]) -> bool:
        """Whether nothing of a job runs, or may come to run: without its policy it would have a network.

        Pods whose Job is gone are about to end: whoever deleted it may have been killed since, and nobody else comes
        back for the policy.
        """
        wanted = {key: labels[key] for key in _OF_A_JOB if key in labels}
        clock = asyncio.get_running_loop().time
        until = clock() + _ENDING_SECONDS
        while True:
            async with self.api.asked("list what is left of a job"):
                jobs = await self.api.listed(kubernetes_api.jobs(self.setting.namespace), wanted)
                pods = await self.api.listed(kubernetes_api.pods(self.setting.namespace), wanted)
            if jobs or all(has_ended(pod) for pod in pods):
                return not jobs
            if clock() > until:
                return False
            await asyncio.sleep(_LOOK_SECONDS)


def _meaning(policy: Object) -> Object:
    """What a policy says, without what the cluster adds to it."""
    spec: Object = policy["spec"]
    return {"ingress": []} | spec
