"""Runs the checks: independent ones at the same time, each with a limit in time."""

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.aio import in_daemon_thread
from orchestrator.backends import find_backend, inspect_engine, open_backend
from orchestrator.backends.engine_info import EngineInfo, InspectedBackend
from orchestrator.backends.spec import BackendConnection
from orchestrator.config import Config
from orchestrator.config.environment import Environment
from orchestrator.disk.caller import state_of_caller
from orchestrator.doctor.cluster import ClusterPlace, cluster_findings
from orchestrator.doctor.disk import directory_findings, read_directory
from orchestrator.doctor.engine import (
    engine_findings,
    image_finding,
    link_findings,
    network_findings,
    origin_of,
    sandbox_findings,
)
from orchestrator.doctor.finding import Area, Diagnosis, Finding, diagnose, of_error, ok, problem, warning
from orchestrator.doctor.model import endpoint_findings, key_findings
from orchestrator.doctor.probe_program import SKILL, ProbeOutput, command
from orchestrator.errors import ConfigError, OrchestratorError, WireError
from orchestrator.images.settings import REGISTRY_VARIABLE
from orchestrator.plan.job import Job
from orchestrator.plan.job_options import JobOptions
from orchestrator.plan.make_job import make_job, prepare_directory
from orchestrator.plan.run_plan import first, plan
from orchestrator.pool.one_off import drain, one_off
from orchestrator.providers import PROVIDERS, ProviderSetting
from orchestrator.sandbox.api import STATE_ROOT, Backend, LinkKind, User, VolumeBackend
from orchestrator.sandbox.keys import KEY_BYTES
from orchestrator.units import count, now
from orchestrator.version import VERSION
from orchestrator.wire.expert import Expert
from orchestrator.wire.skill import StdioSkill
from orchestrator.wire.terminal import Shell
from orchestrator.workspace.workspace import NOBODY, Workspace

_ENGINE_SECONDS = 25
"""Engines with many images take seconds when their machine is busy; one that takes longer than this hangs."""
_SANDBOX_SECONDS = 45
_OTHER_SECONDS = 20
_EXPERT = "doctor"
_USUAL_HOST = "api.anthropic.com"
_WORKSPACE = Path("workspace")
_USER_NAMESPACES = Path("/proc/sys/user/max_user_namespaces")


@dataclass(frozen=True, slots=True)
class Subject:
    """The job that is checked, as the options describe it.

    `workspace` is None for the default one, `volume` names one of the engine in its place. `cluster` is None if no
    cluster is named. `calls_model` is whether the model is called from here, with a key from here; `asks_model` allows
    one request to its API.
    """

    backend: str
    options: JobOptions
    config: Config
    env: Environment
    environ: Mapping[str, str]
    workspace: Path | None
    volume: str | None
    store: Path
    cluster: ClusterPlace | None
    calls_model: bool = True
    asks_model: bool = False


async def run_checks(subject: Subject) -> Diagnosis:
    """Check all that the job needs; no check can fail or hang the others."""
    findings: list[Finding] = []
    async with asyncio.TaskGroup() as tasks:
        if not find_backend(subject.backend).is_cluster:
            tasks.create_task(_check_engine(subject, findings))
            tasks.create_task(_bounded(Area.WORKSPACE, _check_workspace(subject, findings), findings))
        if subject.calls_model:
            tasks.create_task(_bounded(Area.MODEL, _check_model(subject, findings), findings))
        tasks.create_task(_bounded(Area.STORE, _check_store(subject, findings), findings))
        if subject.cluster is not None:
            work = cluster_findings(subject.cluster, subject.environ, findings)
            is_required = subject.cluster.required
            tasks.create_task(_bounded(Area.CLUSTER, work, findings, is_required=is_required))
    return diagnose(VERSION, findings)


async def _bounded(
    area: Area,
    work: Awaitable[None],
    findings: list[Finding],
    seconds: float = _OTHER_SECONDS,
    *,
    is_required: bool = True,
) -> bool:
    """Wait for a check; return whether it came to its end. Its errors and its lateness become findings."""
    make = problem if is_required else warning
    try:
        async with asyncio.timeout(seconds):
            await work
    except TimeoutError:
        late = f"no answer within {seconds:g} s"
        findings.append(make(area, area.value, late, f"find out what hangs: the {area.value}, or the way to it"))
    except OrchestratorError as error:
        findings.append(of_error(area, area.value, error))
    except OSError as error:
        findings.append(make(area, area.value, f"it failed: {error}", "correct what the message names"))
    else:
        return True
    return False


async def _check_engine(subject: Subject, findings: list[Finding]) -> None:
    """Check the engine, then its image, then a Sandbox in it: each needs the one before."""
    inspected: list[EngineInfo] = []
    if not await _bounded(Area.ENGINE, _inspect(subject, findings, inspected), findings, _ENGINE_SECONDS):
        return
    (info,) = inspected
    if not info.isolates:
        return
    present: list[bool] = []
    in_time = await _bounded(Area.IMAGE, _check_image(subject, findings, present), findings, _ENGINE_SECONDS)
    if not in_time or present != [True]:
        findings.extend(_link_findings(subject, info, is_tried=False))
        return
    async with open_backend(subject.backend, subject.environ, image=_image(subject)) as backend:
        tried = await _bounded(Area.ENGINE, _try_share(subject, backend), findings, _ENGINE_SECONDS)
        await _bounded(Area.SANDBOX, _check_sandbox(subject, backend, info, findings), findings, _SANDBOX_SECONDS)
        if isinstance(backend, InspectedBackend):
            with suppress(OrchestratorError):
                # The backend has found out more by now: whether it sees files, whether a Sandbox reached its socket.
                info = await backend.engine_info()
        findings.extend(_link_findings(subject, info, is_tried=tried))


async def _try_share(subject: Subject, backend: Backend) -> None:
    """Let the backend find out, as a job does, whether the engine sees the workspace."""
    if not isinstance(backend, VolumeBackend) or subject.volume is not None:
        return
    with suppress(ConfigError):
        # The check of the workspace reports what is wrong with it.
        await backend.share((await in_daemon_thread(partial(_prepare, subject))).path)


def _link_findings(subject: Subject, info: EngineInfo, *, is_tried: bool) -> Iterable[Finding]:
    wanted, runtime_class = LinkKind(subject.options.link), subject.options.runtime_class
    return link_findings(info, wanted, runtime_class, is_tried=is_tried)


async def _inspect(subject: Subject, findings: list[Finding], inspected: list[EngineInfo]) -> None:
    info = await inspect_engine(subject.backend, subject.environ)
    inspected.append(info)
    namespaces = _user_namespaces() if info.kernel == os.uname().release else None
    findings.extend(engine_findings(info, origin_of(subject.environ), subject.options.runtime_class, namespaces))


def _user_namespaces() -> int | None:
    """Return how many user namespaces the kernel of this machine allows; None where it does not tell."""
    try:
        return int(_USER_NAMESPACES.read_text())
    except (OSError, ValueError):
        return None


async def _check_image(subject: Subject, findings: list[Finding], present: list[bool]) -> None:
    spec, image = find_backend(subject.backend), _image(subject)
    is_present = spec.has_image is None or await spec.has_image(BackendConnection(subject.environ, image))
    present.append(is_present)
    registry, is_own = subject.environ.get(REGISTRY_VARIABLE) or None, image == spec.default_image()
    findings.append(image_finding(image, is_present=is_present, is_own=is_own, registry=registry))


async def _check_sandbox(subject: Subject, backend: Backend, info: EngineInfo, findings: list[Finding]) -> None:
    await backend.check()
    host = _host(subject)
    with tempfile.TemporaryDirectory(prefix="perstack-doctor-") as directory:
        job = _probe_job(subject, Path(directory), host)
        output = ProbeOutput()
        planned = plan(job, first(job), os.urandom(KEY_BYTES), now())
        shell = Shell(run=planned.run, skill_name=SKILL, command=command(host))
        authority = replace(planned.authority, max_generations=0, delegates=frozenset())
        async with one_off(job, backend, seconds=2 * _SANDBOX_SECONDS) as (session, sandbox):
            if session.facts is not None:
                findings.extend(sandbox_findings(info, session.facts, job.limits))
            await session.assign_shell(shell, authority, output.attend)
            await drain(sandbox)
    try:
        findings.extend(network_findings(output.result, host))
    except WireError:
        remedy = "use the image of this version; `perstack-orch shell EXPERT` shows what is in it"
        findings.append(warning(Area.NETWORK, "probe", f"no probe runs in {_image(subject)}", remedy))


def _probe_job(subject: Subject, directory: Path, host: str) -> Job:
    """Return a job whose one skill declares `host`, in an empty workspace of the user that Sandboxes run as."""
    user = _sandbox_user(subject)
    if os.geteuid() == 0:
        os.chown(directory, user.uid, user.gid)
    skill = StdioSkill(name=SKILL, command="true", args=("true",), allowed_domains=(host,))
    expert = Expert(key=_EXPERT, name=_EXPERT, instruction="Probe.", skills=(skill,))
    options = JobOptions(
        image=subject.options.image,
        runtime_class=subject.options.runtime_class,
        link=subject.options.link,
        run_as=f"{user.uid}:{user.gid}",
        provider="scripted",
    )
    return make_job(
        _EXPERT,
        "",
        config=Config(path=None, directory=directory, experts={_EXPERT: expert}),
        env={},
        options=options,
        backend=subject.backend,
        workspace=directory,
        store=subject.store,
    )


def _sandbox_user(subject: Subject) -> User:
    """Return the user that Sandboxes of the job run as, or would with a usable workspace."""
    try:
        return _prepare(subject).user
    except OrchestratorError:
        return NOBODY if os.geteuid() == 0 else User(os.geteuid(), os.getegid())


def _prepare(subject: Subject) -> Workspace:
    directory, make = subject.workspace or _WORKSPACE, subject.workspace is None
    return prepare_directory(directory, subject.backend, subject.options, subject.store, subject.environ, make=make)


async def _check_workspace(subject: Subject, findings: list[Finding]) -> None:
    if subject.volume is not None:
        findings.append(ok(Area.WORKSPACE, "workspace", f"the volume {subject.volume} of the engine"))
        return
    found = await in_daemon_thread(partial(_prepare, subject))
    user = f"Sandboxes run as user {found.user.uid}:{found.user.gid}"
    state = "does not exist yet; the first job makes it" if found.absent else "writable"
    findings.append(ok(Area.WORKSPACE, "workspace", f"{found.path} ({state}); {user}"))
    guarded = [*(f"{name} (read-only)" for name in found.read_only), *(f"{name} (hidden)" for name in found.hidden)]
    if guarded:
        findings.append(ok(Area.WORKSPACE, "guarded", f"{count(len(guarded), 'file', 'files')}: {', '.join(guarded)}"))
    facts = await in_daemon_thread(partial(read_directory, found.path))
    remedy = "name another workspace with --workspace"
    about = directory_findings(Area.WORKSPACE, "workspace", facts, os.geteuid(), remedy)
    # `prepare` has decided who may write, for the user of Sandboxes.
    findings.extend(each for each in about if each.check != "workspace")


async def _check_store(subject: Subject, findings: list[Finding]) -> None:
    places: list[tuple[str, Path, str]] = [
        ("records", subject.store, "name another directory with --storage"),
        ("sockets", STATE_ROOT, "repair this directory: the sockets of Sandboxes are made there"),
    ]
    if (state := state_of_caller()) is not None:
        places.append(("state", state, "name another directory with XDG_STATE_HOME"))
    for check, path, remedy in places:
        facts = await in_daemon_thread(partial(read_directory, path))
        area_findings = directory_findings(Area.STORE, check, facts, os.geteuid(), remedy)
        # Sockets do not need to survive a restart.
        findings.extend(each for each in area_findings if each.check != "sockets disk")


async def _check_model(subject: Subject, findings: list[Finding]) -> None:
    config, env = subject.config, subject.env
    findings.extend(key_findings(config, env))
    setting = _provider_setting(subject)
    findings.extend(await endpoint_findings(setting, ask=subject.asks_model))


def _provider_setting(subject: Subject) -> ProviderSetting:
    config = subject.config
    return ProviderSetting(config.provider_name, config.provider_setting, subject.env.values, config.directory)


def _image(subject: Subject) -> str:
    return subject.options.image or find_backend(subject.backend).default_image()


def _host(subject: Subject) -> str:
    """Return the host for the probe of the egress proxy: that of the model's API, which every job needs."""
    spec = PROVIDERS.find(subject.config.provider_name)
    if spec is None or spec.probe is None:
        return _USUAL_HOST
    try:
        found = urlsplit(spec.probe(_provider_setting(subject)).url)
    except OrchestratorError:
        return _USUAL_HOST
    return found.hostname if found.hostname and found.scheme == "https" else _USUAL_HOST
