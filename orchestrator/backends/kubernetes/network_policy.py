"""The live NetworkPolicies of a job's Sandboxes: one for each broker, and no other that allows more.

Policies are checked before each start, and regularly while Sandboxes work.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus

from orchestrator.backends.cluster_settings import ClusterSetting
from orchestrator.backends.kubernetes import client
from orchestrator.backends.kubernetes.client import KubernetesClient, Object
from orchestrator.backends.kubernetes.manifest import GRACE_SECONDS, network_policy, pod_labels
from orchestrator.backends.kubernetes.pod_state import has_ended
from orchestrator.backends.kubernetes.policy_rules import allow_dns, wider_policies
from orchestrator.errors import BackendError, BackendUnavailableError
from orchestrator.http.errors import StatusError
from orchestrator.sandbox import naming
from orchestrator.sandbox.api import SandboxSpec

_ENDING_SECONDS = GRACE_SECONDS + 5.0
"""How long a deleted Pod takes to end, if its node answers."""

_POLL_SECONDS = 0.25
_JOB_LABELS = (naming.MANAGED_BY, naming.JOB, naming.INSTANCE)
CHECK_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class _Watched:
    """A running Sandbox: its Pod's labels, its job's policy, and the function that cuts it off."""

    labels: Mapping[str, str]
    policy: str
    cut_off: Callable[[str], Awaitable[None]]


@dataclass(slots=True)
class JobNetworkPolicies:
    """Restricts the network of Sandboxes before they are launched, and deletes the policies afterwards.

    Every `check_seconds` it checks that the network of running Sandboxes is still restricted.
    """

    api: KubernetesClient
    setting: ClusterSetting
    check_seconds: float = CHECK_SECONDS
    _applied: dict[str, Object] = field(default_factory=dict)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _policies: dict[str, Object] = field(default_factory=dict)
    _listed_at: float = float("-inf")
    _watched: dict[str, _Watched] = field(default_factory=dict)
    _checker: "asyncio.Task[None] | None" = None

    async def ensure_policy(self, spec: SandboxSpec) -> None:
        """Make sure that the policy for this Sandbox's broker exists, and that no other lets the Sandbox reach more.

        Raises:
            BackendUnavailableError: another policy does; the message names it.
            BackendError: the cluster refuses it.
        """
        if spec.broker is None:
            return
        ours = network_policy(spec, self.setting)
        requested_at = asyncio.get_running_loop().time()
        async with self._lock:
            await self._refresh(requested_at)
            labels = pod_labels(spec, self.setting)
            others = wider_policies(self._policies.values(), ours, labels) if self.setting.enforced else []
            if others := [name for name in others if not await self._supersede(name, ours)]:
                raise BackendUnavailableError(self._why_open(others, self._policies))
            await self._apply(ours)

    @asynccontextmanager
    async def watch(
        self, name: str, labels: Mapping[str, str], policy: str | None, cut_off: Callable[[str], Awaitable[None]]
    ) -> AsyncIterator[None]:
        """Call `cut_off`, with the reason, if policies let a Sandbox reach more than its job's policy does."""
        if policy is None or not self.setting.enforced:
            yield
            return
        self._watched[name] = _Watched(labels, policy, cut_off)
        # A plain task: a TaskGroup would cancel the caller's own block.
        self._checker = self._checker or asyncio.ensure_future(self._check_periodically())
        try:
            yield
        finally:
            del self._watched[name]

    async def stop(self) -> None:
        """Stop checking."""
        if self._checker is not None:
            self._checker.cancel()
            await asyncio.wait((self._checker,))

    async def _check_periodically(self) -> None:
        while True:
            await asyncio.sleep(self.check_seconds)
            # Ignored: calls that need the API server report its failure. The API server may be back by the next check.
            with suppress(BackendError):
                if self._watched:
                    await self._check_running({str(each["metadata"]["name"]): each for each in await self._listed({})})

    async def _check_running(self, found: Mapping[str, Object]) -> None:
        for sandbox in tuple(self._watched.values()):
            no_rules: Object = {"metadata": {"name": sandbox.policy}, "spec": {"egress": []}}
            current = found.get(sandbox.policy, no_rules)
            ours = self._applied.get(sandbox.policy, current)
            others = wider_policies(found.values(), ours, sandbox.labels)
            if any(rule not in ours["spec"]["egress"] for rule in current["spec"].get("egress") or ()):
                others.append(sandbox.policy)
            if others:
                # If one cannot be cut off now, the others still are; the next check tries it again.
                with suppress(BackendError):
                    await sandbox.cut_off(f"its network was opened while it worked: {self._why_open(others, found)}")

    def _why_open(self, others: Iterable[str], found: Mapping[str, Object]) -> str:
        dns = ", DNS included" if allow_dns(found[name] for name in others) else ""
        return (
            f"NetworkPolicy {', '.join(others)} in the namespace {self.setting.namespace} lets Sandboxes reach more"
            f" than their broker{dns}: have it select other Pods, or accept it with --allow-unenforced-network"
        )

    async def delete_policies(self) -> None:
        """Delete the policies that were created here for jobs that have no running Sandbox."""
        for name, policy in self._applied.items():
            await self._delete(name, policy["metadata"]["labels"])

    async def prune(self, labels: Mapping[str, str], keep: Callable[[Mapping[str, str]], bool]) -> None:
        """Delete policies that carry all `labels`, except what `keep` returns True for and those of running jobs."""
        for policy in await self._listed({naming.MANAGED_BY: naming.MANAGER, **labels}):
            if not keep(policy["metadata"]["labels"]):
                await self._delete(policy["metadata"]["name"], policy["metadata"]["labels"])

    async def _refresh(self, since: float) -> None:
        """List all policies, unless a list was started after `since`: concurrent callers share one list."""
        if self._listed_at < since:
            started_at = asyncio.get_running_loop().time()
            self._policies = {str(policy["metadata"]["name"]): policy for policy in await self._listed({})}
            self._listed_at = started_at

    async def _apply(self, ours: Object) -> None:
        name = ours["metadata"]["name"]
        current = self._policies.get(name)
        if current is None:
            async with self.api.translating_errors(f"create the NetworkPolicy {name}"):
                try:
                    await self.api.create(client.policies(self.setting.namespace), ours, idempotent=True)
                except StatusError as error:
                    # An earlier request of ours may have succeeded though its answer was lost.
                    if error.status != HTTPStatus.CONFLICT:
                        raise
        elif _comparable_spec(current) != _comparable_spec(ours):
            async with self.api.translating_errors(f"replace the NetworkPolicy {name}"):
                await self.api.replace(client.policies(self.setting.namespace, name), ours, idempotent=True)
        self._applied[name] = self._policies[name] = ours

    async def _listed(self, labels: Mapping[str, str]) -> list[Object]:
        async with self.api.translating_errors("list the NetworkPolicies"):
            return await self.api.listed(client.policies(self.setting.namespace), labels)

    async def _supersede(self, name: str, ours: Object) -> bool:
        """Delete the policy of an earlier broker of the same job: a one-off Sandbox's, or a gone orchestrator's."""
        labels, wanted = self._policies[name]["metadata"].get("labels") or {}, ours["metadata"]["labels"]
        same = all(labels.get(key) == wanted.get(key) for key in _JOB_LABELS)
        if not same or not await self._delete(name, labels):
            return False
        del self._policies[name]
        self._applied.pop(name, None)
        return True

    async def _delete(self, name: str, labels: Mapping[str, str]) -> bool:
        """Delete a policy if nothing of its job runs; return whether it did."""
        if not await self._is_idle(labels):
            return False
        async with self.api.translating_errors(f"delete the NetworkPolicy {name}"):
            await self.api.delete(client.policies(self.setting.namespace, name))
        return True

    async def _is_idle(self, labels: Mapping[str, str]) -> bool:
        """Whether nothing of a job runs or may start: without its policy it would have a network.

        Pods whose Job is gone end soon, so wait for them: the process that deleted the Job may have been killed, and no
        other would come back for the policy.
        """
        wanted = {key: labels[key] for key in _JOB_LABELS if key in labels}
        clock = asyncio.get_running_loop().time
        until = clock() + _ENDING_SECONDS
        while True:
            async with self.api.translating_errors("list what is left of a job"):
                jobs = await self.api.listed(client.jobs(self.setting.namespace), wanted)
                pods = await self.api.listed(client.pods(self.setting.namespace), wanted)
            if jobs or all(has_ended(pod) for pod in pods):
                return not jobs
            if clock() > until:
                return False
            await asyncio.sleep(_POLL_SECONDS)


def _comparable_spec(policy: Object) -> Object:
    """Return a policy's spec in the form in which two are compared: the cluster leaves empty fields out."""
    spec: Object = policy["spec"]
    return {"ingress": []} | spec
