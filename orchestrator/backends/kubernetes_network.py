"""The network of a job's Sandboxes in a cluster: a NetworkPolicy for each broker, and none beside it that widens it."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from orchestrator.backends import kubernetes_api, naming
from orchestrator.backends.http import RefusalError
from orchestrator.backends.kubernetes_api import Api, Object
from orchestrator.backends.kubernetes_manifest import GRACE_SECONDS, network_policy, pod_labels
from orchestrator.backends.kubernetes_policies import widening
from orchestrator.backends.kubernetes_setting import ClusterSetting
from orchestrator.backends.kubernetes_state import has_ended
from orchestrator.errors import BackendUnavailableError
from orchestrator.sandbox import SandboxSpec

_ENDING_SECONDS = GRACE_SECONDS + 5.0
"""In which a Pod that is deleted ends, if its node answers."""

_LOOK_SECONDS = 0.25
_OF_A_JOB = (naming.MANAGED_BY, naming.JOB, naming.INSTANCE)


@dataclass(slots=True)
class Network:
    """Closes the network of Sandboxes before they are launched, and forgets about it after them."""

    api: Api
    setting: ClusterSetting
    _closed: dict[str, Object] = field(default_factory=dict)
    _closing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _found: dict[str, Object] = field(default_factory=dict)
    _found_at: float = float("-inf")

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
                message = (
                    f"NetworkPolicy {', '.join(others)} in the namespace {self.setting.namespace} lets Sandboxes reach"
                    " more than their broker: have it select other Pods, or accept it with --allow-unenforced-network"
                )
                raise BackendUnavailableError(message)
            await self._make(ours)

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
