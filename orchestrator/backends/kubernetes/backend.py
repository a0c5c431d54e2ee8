"""Sandboxes as Jobs of a Kubernetes cluster, each with one Pod."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path

from orchestrator.aio import cleanup_after, remove_because, shielded
from orchestrator.backends.cluster_settings import ClusterSetting
from orchestrator.backends.engine_info import EngineInfo
from orchestrator.backends.kubernetes import client
from orchestrator.backends.kubernetes.auth import find_credentials
from orchestrator.backends.kubernetes.client import ANSWER_SECONDS, KubernetesClient, Object
from orchestrator.backends.kubernetes.informer import NamespaceInformers
from orchestrator.backends.kubernetes.manifest import EMPTY, kube_job, pod_labels, policy_name, policy_of
from orchestrator.backends.kubernetes.network_policy import JobNetworkPolicies
from orchestrator.backends.kubernetes.pod_state import has_ended
from orchestrator.backends.kubernetes.pod_tokens import PodTokenVerifier
from orchestrator.backends.kubernetes.preflight import check
from orchestrator.backends.kubernetes.sandbox import REMOVAL_SECONDS, KubernetesSandbox
from orchestrator.errors import BackendError, SandboxLostError
from orchestrator.http.errors import ConnectionBrokenError, StatusError
from orchestrator.log import get_logger
from orchestrator.sandbox import naming
from orchestrator.sandbox.api import BrokerIngress, Sandbox, SandboxSpec
from orchestrator.wire.layout import STATE
from orchestrator.wire.line import LINE_BYTES
from orchestrator.wire.run import EventDetail

_log = get_logger(__name__)
_POLL_SECONDS = 0.25


class KubernetesBackend:
    """Runs each Sandbox in its own Job.

    `line_bytes` bounds a line of stdout, newline included. `command` replaces the image's entrypoint.
    """

    def __init__(
        self,
        api: KubernetesClient,
        setting: ClusterSetting,
        *,
        image: str,
        line_bytes: int = LINE_BYTES[EventDetail.DEFAULT],
        command: Sequence[str] | None = None,
    ) -> None:
        self._api = api
        self._setting = setting
        self._image = image
        self._line_bytes = line_bytes
        self._command = None if command is None else tuple(command)
        self._watching = NamespaceInformers(api, setting.namespace)
        self._network = JobNetworkPolicies(api, setting)
        self._identity = PodTokenVerifier(api, setting.namespace)

    @property
    def ingress(self) -> BrokerIngress:
        """How Sandboxes reach their broker."""
        setting = self._setting
        return BrokerIngress(setting.hosts, setting.port, setting.forbidden, self._identity.verify, setting.enforced)

    async def check(self) -> None:
        """Check our rights, the claim, and that the cluster would accept a Sandbox. Only a Pod proves that Pods run.

        Raises:
            BackendUnavailableError: something is missing; the message names it and the remedy.
        """
        await check(self._api, self._setting, self._image, self._identity)

    async def engine_info(self) -> EngineInfo:
        """Return the cluster's version.

        Raises:
            BackendUnavailableError: the API server does not answer.
        """
        async with self._api.translating_errors("report its version"):
            version = (await self._api.read("/version"))["gitVersion"]
        return EngineInfo(f"Kubernetes {version}")

    @asynccontextmanager
    async def launch(self, spec: SandboxSpec) -> AsyncIterator[Sandbox]:
        """Create a Job; `Sandbox.started` waits for its Pod to start.

        Raises:
            ConfigError: one of its directories is not on the claim.
            BackendError: the cluster refuses the Job.
        """
        sandbox = await self._start(spec)
        policy = None if spec.broker is None else policy_name(spec, spec.broker)
        held = self._network.watch(spec.name, pod_labels(spec, self._setting), policy, sandbox.cut_off)
        async with cleanup_after(sandbox), held:
            if spec.broker is not None:
                # Done here because its Pod is starting meanwhile.
                await self._identity.ready()
            yield sandbox

    @asynccontextmanager
    async def adopt(self, name: str) -> AsyncIterator[Sandbox]:
        """Take over a Job that was created before.

        Raises:
            SandboxLostError: no Job has that name.
        """
        job = await self._find(name)
        sandbox = KubernetesSandbox(
            self._watching.of(job["metadata"]["labels"].get(naming.INSTANCE, "")),
            name,
            self._line_bytes,
            self._state_of(job),
            self._setting.start_seconds,
        )
        sandbox.uid = job["metadata"]["uid"]
        labels = job["spec"]["template"]["metadata"]["labels"]
        async with cleanup_after(sandbox), self._network.watch(name, labels, policy_of(job), sandbox.cut_off):
            await self._identity.ready()
            yield sandbox

    async def prune(
        self, labels: Mapping[str, str], keep: Callable[[Mapping[str, str]], bool] = lambda _: False
    ) -> tuple[str, ...]:
        """Delete every Job of ours that carries all `labels`, except those for which `keep` returns True.

        Waits for their Pods to end.

        Raises:
            BackendError: some could not be deleted, or still run; the others are gone.
        """
        wanted = {naming.MANAGED_BY: naming.MANAGER, **labels}
        async with self._api.translating_errors("list the Jobs"):
            found = await self._api.listed(client.jobs(self._setting.namespace), wanted)
        names = tuple(
            sorted(
                str(job["metadata"]["name"])
                for job in found
                if naming.SANDBOX in job["metadata"]["labels"] and not keep(job["metadata"]["labels"])
            )
        )
        failures: list[BackendError] = []
        async with asyncio.TaskGroup() as tasks:
            for name in names:
                tasks.create_task(self._prune_one(name, failures))
        await self._wait_until_ended(wanted, names)
        if failures:
            raise failures[0]
        await self._network.prune(labels, keep)
        return names

    async def close(self) -> None:
        """Stop watching, and delete the policies that are no longer needed."""
        await self._network.stop()
        try:
            await shielded(self._network.delete_policies())
        except BackendError as error:
            _log.debug("a NetworkPolicy could not be deleted: %s", error)
        await self._watching.close()
        self._api.close()

    async def _prune_one(self, name: str, failures: list[BackendError]) -> None:
        try:
            async with self._api.translating_errors(f"delete the Job {name}"):
                await self._api.delete(client.jobs(self._setting.namespace, name))
        except BackendError as error:
            failures.append(error)

    async def _wait_until_ended(self, wanted: Mapping[str, str], names: tuple[str, ...]) -> None:
        """Wait until no Pod of these Sandboxes runs."""
        clock = asyncio.get_running_loop().time
        until = clock() + REMOVAL_SECONDS
        while names:
            async with self._api.translating_errors("list the Pods"):
                pods = await self._api.listed(client.pods(self._setting.namespace), wanted)
            left = {pod["metadata"]["labels"].get(naming.SANDBOX) for pod in pods if not has_ended(pod)}
            if left.isdisjoint(names):
                return
            if clock() > until:
                message = f"Pods of {', '.join(sorted(left & set(names)))} may still run: not confirmed by their nodes"
                raise BackendError(message)
            await asyncio.sleep(_POLL_SECONDS)

    async def _start(self, spec: SandboxSpec) -> KubernetesSandbox:
        watched = self._watching.of(spec.labels[naming.INSTANCE])
        sandbox = KubernetesSandbox(watched, spec.name, self._line_bytes, spec.state, self._setting.start_seconds)
        if spec.hidden:
            _make_empty(spec)
        await self._network.ensure_policy(spec)
        # If the create fails, a Job of that name is not ours to remove.
        sandbox.uid = await self._create_or_undo(spec, sandbox)
        return sandbox

    async def _create_or_undo(self, spec: SandboxSpec, sandbox: KubernetesSandbox) -> str:
        """Create the Job; if cancelled halfway, delete it again."""
        try:
            return await shielded(self._create(spec))
        except asyncio.CancelledError as error:
            await remove_because(error, sandbox)
            raise

    async def _create(self, spec: SandboxSpec) -> str:
        path = client.jobs(self._setting.namespace)
        async with self._api.translating_errors(f"create the Job {spec.name}"):
            # Built only when its turn comes, and dropped afterwards: thousands of Sandboxes may wait, and run.
            body = kube_job(spec, self._setting, int(time.time()), self._command)
            try:
                made = await self._api.create(path, body)
            except StatusError as error:
                if error.status == HTTPStatus.CONFLICT:
                    raise self._name_conflict(spec) from error
                raise
            except ConnectionBrokenError:
                # The answer was lost, and perhaps the request: a look-up by name shows whether the Job exists.
                made = await self._create_or_read(spec, body)
        return str(made["metadata"]["uid"])

    async def _create_or_read(self, spec: SandboxSpec, body: Object) -> Object:
        for _ in range(round(ANSWER_SECONDS)):
            try:
                return await self._api.create(client.jobs(self._setting.namespace), body)
            except StatusError as error:
                if error.status != HTTPStatus.CONFLICT:
                    raise
                return await self._api.read(client.jobs(self._setting.namespace, spec.name))
            except ConnectionBrokenError:
                await asyncio.sleep(1.0)
        return await self._api.create(client.jobs(self._setting.namespace), body)

    def _name_conflict(self, spec: SandboxSpec) -> BackendError:
        return BackendError(
            f"a Job named {spec.name} exists already: another orchestrator runs this job, or one left it behind and"
            f" `kubectl --namespace {self._setting.namespace} delete job {spec.name}` removes it"
        )

    async def _find(self, name: str) -> Object:
        found: Object = {}
        async with self._api.translating_errors(f"look for the Job {name}"):
            try:
                found = await self._api.read(client.jobs(self._setting.namespace, name))
            except StatusError as error:
                if error.status != HTTPStatus.NOT_FOUND:
                    raise
        if not found or found["metadata"].get("labels", {}).get(naming.MANAGED_BY) != naming.MANAGER:
            message = f"no Sandbox {name} exists in the namespace {self._setting.namespace}"
            raise SandboxLostError(message)
        return found

    def _state_of(self, job: Object) -> Path | None:
        mounts = job["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
        sub_path = next((mount.get("subPath") for mount in mounts if mount["mountPath"] == str(STATE)), None)
        return None if sub_path is None else self._setting.claim.root / sub_path


@asynccontextmanager
async def connect(
    environ: Mapping[str, str],
    setting: ClusterSetting,
    image: str,
    *,
    line_bytes: int = LINE_BYTES[EventDetail.DEFAULT],
    command: Sequence[str] | None = None,
) -> AsyncIterator[KubernetesBackend]:
    """Give the backend for the cluster in KUBECONFIG, of the Pod's service account, or in ~/.kube/config.

    Sends nothing before the first call; `check` finds out whether an API server answers.

    Raises:
        BackendUnavailableError: no cluster is configured.
    """
    api = KubernetesClient(await find_credentials(environ))
    backend = KubernetesBackend(api, setting, image=image, line_bytes=line_bytes, command=command)
    try:
        yield backend
    finally:
        await backend.close()


def _make_empty(spec: SandboxSpec) -> None:
    """Create the empty file that replaces hidden files."""
    path = spec.state.parent / EMPTY
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o444))
