"""Sandboxes as Jobs of a Kubernetes cluster, each with one Pod."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path

from orchestrator.backends import kubernetes_api, naming
from orchestrator.backends.ground import Ground
from orchestrator.backends.http import BrokenError, RefusalError
from orchestrator.backends.kubernetes_access import find_access
from orchestrator.backends.kubernetes_api import ANSWER_SECONDS, Api, Object
from orchestrator.backends.kubernetes_check import check
from orchestrator.backends.kubernetes_identity import Identity
from orchestrator.backends.kubernetes_manifest import EMPTY, STATE, kube_job, pod_labels, policy_name, policy_of
from orchestrator.backends.kubernetes_network import Network
from orchestrator.backends.kubernetes_sandbox import REMOVAL_SECONDS, KubernetesSandbox
from orchestrator.backends.kubernetes_setting import ClusterSetting
from orchestrator.backends.kubernetes_state import has_ended
from orchestrator.backends.kubernetes_watching import Note, Watching
from orchestrator.backends.removal import remove_because, removed_after
from orchestrator.backends.shielded import shielded
from orchestrator.errors import BackendError, SandboxLostError
from orchestrator.sandbox import Entrance, Sandbox, SandboxSpec
from orchestrator.wire.line import LINE_BYTES
from orchestrator.wire.run import EventDetail

_LOOK_SECONDS = 0.25


class KubernetesBackend:
    """Runs each Sandbox in a Job of its own.

    `line_bytes` bounds a line of stdout, newline included. `command` replaces the image's entrypoint. `note` takes
    remarks for a log, `announce` what a person should hear at once.
    """

    def __init__(  # noqa: PLR0913 - a place and how to speak of it
        self,
        api: Api,
        setting: ClusterSetting,
        *,
        image: str,
        line_bytes: int = LINE_BYTES[EventDetail.DEFAULT],
        command: Sequence[str] | None = None,
        note: Note = lambda _: None,
        announce: Note = lambda _: None,
    ) -> None:
        self._api = api
        self._setting = setting
        self._image = image
        self._line_bytes = line_bytes
        self._command = None if command is None else tuple(command)
        self._note = note
        self._watching = Watching(api, setting.namespace, note, announce)
        self._network = Network(api, setting)
        self._identity = Identity(api, setting.namespace)

    @property
    def entrance(self) -> Entrance:
        """How Sandboxes reach their broker."""
        setting = self._setting
        return Entrance(setting.hosts, setting.port, setting.forbidden, self._identity.bearer, setting.enforced)

    async def check(self) -> None:
        """Ask whether the cluster knows us, the claim, and would take a Sandbox. That a Pod runs, only the Pod proves.

        Raises:
            BackendUnavailableError: something is missing; says what, and what to do.
        """
        await check(self._api, self._setting, self._image, self._identity)

    async def ground(self) -> Ground:
        """Ask the cluster what it is.

        Raises:
            BackendUnavailableError: it does not answer.
        """
        async with self._api.asked("tell its version"):
            version = (await self._api.read("/version"))["gitVersion"]
        return Ground(f"Kubernetes {version}")

    @asynccontextmanager
    async def launch(self, spec: SandboxSpec) -> AsyncIterator[Sandbox]:
        """Create a Job; that its Pod comes to run is awaited by `Sandbox.started`.

        Raises:
            ConfigError: a directory of it is not on the claim.
            BackendError: the cluster does not take the Job.
        """
        sandbox = await self._launched(spec)
        policy = None if spec.broker is None else policy_name(spec, spec.broker)
        held = self._network.kept_closed(spec.name, pod_labels(spec, self._setting), policy, sandbox.cut_off)
        async with removed_after(sandbox), held:
            if spec.broker is not None:
                # While its Pod starts.
                await self._identity.ready()
            yield sandbox

    @asynccontextmanager
    async def adopt(self, name: str) -> AsyncIterator[Sandbox]:
        """Take over a Job that was created before.

        Raises:
            SandboxLostError: there is none of that name.
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
        async with removed_after(sandbox), self._network.kept_closed(name, labels, policy_of(job), sandbox.cut_off):
            await self._identity.ready()
            yield sandbox

    async def prune(
        self, labels: Mapping[str, str], spare: Callable[[Mapping[str, str]], bool] = lambda _: False
    ) -> tuple[str, ...]:
        """Delete every Job of ours that carries all `labels` and that `spare` does not keep, and wait for their Pods.

        Raises:
            BackendError: some could not be deleted, or still run; the others are.
        """
        wanted = {naming.MANAGED_BY: naming.MANAGER, **labels}
        async with self._api.asked("list the Jobs"):
            found = await self._api.listed(kubernetes_api.jobs(self._setting.namespace), wanted)
        names = tuple(
            sorted(
                str(job["metadata"]["name"])
                for job in found
                if naming.SANDBOX in job["metadata"]["labels"] and not spare(job["metadata"]["labels"])
            )
        )
        failures: list[BackendError] = []
        async with asyncio.TaskGroup() as tasks:
            for name in names:
                tasks.create_task(self._prune_one(name, failures))
        await self._ended(wanted, names)
        if failures:
            raise failures[0]
        await self._network.prune(labels, spare)
        return names

    async def close(self) -> None:
        """Watch nothing any more, and leave no policy behind that nobody needs."""
        await self._network.stop()
        try:
            await shielded(self._network.open())
        except BackendError as error:
            self._note(f"a NetworkPolicy could not be deleted: {error}")
        await self._watching.close()
        self._api.close()

    async def _prune_one(self, name: str, failures: list[BackendError]) -> None:
        try:
            async with self._api.asked(f"delete the Job {name}"):
                await self._api.delete(kubernetes_api.jobs(self._setting.namespace, name))
        except BackendError as error:
            failures.append(error)

    async def _ended(self, wanted: Mapping[str, str], names: tuple[str, ...]) -> None:
        """Wait until nothing of these Sandboxes runs."""
        clock = asyncio.get_running_loop().time
        until = clock() + REMOVAL_SECONDS
        while names:
            async with self._api.asked("list the Pods"):
                pods = await self._api.listed(kubernetes_api.pods(self._setting.namespace), wanted)
            left = {pod["metadata"]["labels"].get(naming.SANDBOX) for pod in pods if not has_ended(pod)}
            if left.isdisjoint(names):
                return
            if clock() > until:
                message = (
                    f"Pods of {', '.join(sorted(left & set(names)))} may still run: their nodes do not say they ended"
                )
                raise BackendError(message)
            await asyncio.sleep(_LOOK_SECONDS)

    async def _launched(self, spec: SandboxSpec) -> KubernetesSandbox:
        watched = self._watching.of(spec.labels[naming.INSTANCE])
        sandbox = KubernetesSandbox(watched, spec.name, self._line_bytes, spec.state, self._setting.start_seconds)
        if spec.hidden:
            _make_empty(spec)
        await self._network.close(spec)
        # Not made by us, a Job of that name is not ours to remove.
        sandbox.uid = await self._created(spec, sandbox)
        return sandbox

    async def _created(self, spec: SandboxSpec, sandbox: KubernetesSandbox) -> str:
        """Create the Job; cut off in the middle, it is deleted again."""
        try:
            return await shielded(self._create(spec))
        except asyncio.CancelledError as error:
            await remove_because(error, sandbox)
            raise

    async def _create(self, spec: SandboxSpec) -> str:
        path = kubernetes_api.jobs(self._setting.namespace)
        async with self._api.asked(f"create the Job {spec.name}"):
            # Written when it is its turn, and forgotten after it: thousands may wait, and live.
            body = kube_job(spec, self._setting, int(time.time()), self._command)
            try:
                made = await self._api.create(path, body)
            except RefusalError as error:
                if error.status == HTTPStatus.CONFLICT:
                    raise self._taken(spec) from error
                raise
            except BrokenError:
                # The answer was lost, and perhaps the request: the name says whether it is there.
                made = await self._made_after_all(spec, body)
        return str(made["metadata"]["uid"])

    async def _made_after_all(self, spec: SandboxSpec, body: Object) -> Object:
        for _ in range(round(ANSWER_SECONDS)):
            try:
                return await self._api.create(kubernetes_api.jobs(self._setting.namespace), body)
            except RefusalError as error:
                if error.status != HTTPStatus.CONFLICT:
                    raise
                return await self._api.read(kubernetes_api.jobs(self._setting.namespace, spec.name))
            except BrokenError:
                await asyncio.sleep(1.0)
        return await self._api.create(kubernetes_api.jobs(self._setting.namespace), body)

    def _taken(self, spec: SandboxSpec) -> BackendError:
        return BackendError(
            f"a Job named {spec.name} is there already: another orchestrator runs this job, or one left it behind and"
            f" `kubectl --namespace {self._setting.namespace} delete job {spec.name}` removes it"
        )

    async def _find(self, name: str) -> Object:
        found: Object = {}
        async with self._api.asked(f"look for the Job {name}"):
            try:
                found = await self._api.read(kubernetes_api.jobs(self._setting.namespace, name))
            except RefusalError as error:
                if error.status != HTTPStatus.NOT_FOUND:
                    raise
        if not found or found["metadata"].get("labels", {}).get(naming.MANAGED_BY) != naming.MANAGER:
            message = f"there is no Sandbox {name} in the namespace {self._setting.namespace}"
            raise SandboxLostError(message)
        return found

    def _state_of(self, job: Object) -> Path | None:
        mounts = job["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
        sub_path = next((mount.get("subPath") for mount in mounts if mount["mountPath"] == STATE), None)
        return None if sub_path is None else self._setting.claim.root / sub_path


@asynccontextmanager
async def connect(  # noqa: PLR0913 - as the backend itself
    environ: Mapping[str, str],
    setting: ClusterSetting,
    image: str,
    *,
    line_bytes: int = LINE_BYTES[EventDetail.DEFAULT],
    command: Sequence[str] | None = None,
    note: Note = lambda _: None,
    announce: Note = lambda _: None,
) -> AsyncIterator[KubernetesBackend]:
    """Give the cluster that KUBECONFIG, the Pod's account or ~/.kube/config names.

    Nothing is sent before the first call; `check` says whether anybody is there.

    Raises:
        BackendUnavailableError: no cluster is named.
    """
    api = Api(await find_access(environ))
    backend = KubernetesBackend(
        api, setting, image=image, line_bytes=line_bytes, command=command, note=note, announce=announce
    )
    try:
        yield backend
    finally:
        await backend.close()


def _make_empty(spec: SandboxSpec) -> None:
    """Make the file that stands in for those that are hidden."""
    path = spec.state.parent / EMPTY
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o444))
