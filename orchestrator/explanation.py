"""What a job may read, reach and use, Expert by Expert, and what nobody here can enforce: said before anything runs.

Pure: a Job and what was found of the place become a tree of values.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.backends import docker_container, kubernetes_manifest
from orchestrator.backends.ground import Ground, user_inside
from orchestrator.backends.kubernetes_setting import ClusterSetting
from orchestrator.checks import missing_variables
from orchestrator.config.fetching import fetch_of
from orchestrator.delegation import MAX_DEPTH, MAX_FAN_OUT
from orchestrator.errors import BackendUnavailableError
from orchestrator.plan import Job, granted, reachable, sandbox_spec
from orchestrator.sandbox import BrokerAddress
from orchestrator.unenforced import OPEN_NETWORK, unenforced
from orchestrator.wire.expert import Expert
from orchestrator.wire.facts import Facts
from orchestrator.wire.frozen import Frozen
from orchestrator.wire.granted import Bounds, Reach
from orchestrator.wire.skill import BASE_SKILL, SseSkill, StdioSkill

_MADE = "(made for each)"
_STATE = Path("/") / _MADE


class Host(Frozen):
    """A host or a pattern, and what allows it: `declared`, `endpoint` or `--allow-domain`."""

    name: str
    allowed_by: str


class Place(Frozen):
    """`exec` or one skill, in a domain of its own.

    `env` are names of variables, `missing` those of them without a value. `package` is what it is started from, with
    its registry. `remote` skills run elsewhere, and what reaches them is the runtime.
    """

    name: str
    env: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    hosts: tuple[Host, ...] = ()
    package: str | None = None
    remote: bool = False


class Part(Frozen):
    """One Expert, in a Sandbox of its own each time that it runs."""

    key: str
    delegates: tuple[str, ...]
    places: tuple[Place, ...]


class Mounted(Frozen):
    """What a Sandbox sees at a path; `mode` is read-write, read-only, empty or memory."""

    path: str
    source: str
    mode: str


class Egress(Frozen):
    """What one skill of one Run may use of the network: connections at once and in all, bytes, seconds."""

    connections: int
    connections_in_all: int
    sent: int
    received: int
    idle_seconds: float
    connection_seconds: float


class Work(Frozen):
    """What the whole job may take; seconds are None where there is no bound."""

    provider: str
    model: str
    missing_key: str | None = None
    max_steps: int
    generation_seconds: float
    run_seconds: float | None
    job_seconds: float | None
    max_depth: int = MAX_DEPTH
    max_fan_out: int = MAX_FAN_OUT


class Explanation(Frozen):
    """All that `explain` tells. `user` is who a Sandbox's processes are outside, `user_inside` who they are inside.

    `facts` were found in a Sandbox that was given nothing to do.
    """

    expert_key: str
    backend: str
    engine: str | None
    runtime_class: str | None
    image: str | None
    user: str
    user_inside: str
    network: str
    mounts: tuple[Mounted, ...]
    bounds: Bounds
    egress: Egress
    work: Work
    experts: tuple[Part, ...]
    facts: Facts | None
    unenforced: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """What was found of the place where Sandboxes run; `problem` is why one of the others is not there.

    `missing_key` says what the model's provider lacks. `cluster` is where they run, if it is one.
    """

    ground: Ground | None
    facts: Facts | None
    problem: str | None = None
    missing_key: str | None = None
    cluster: ClusterSetting | None = None


def explain(job: Job, found: Found) -> Explanation:
    """Say what `job` may do where it would run."""
    isolated = job.platform != "process"
    given, user = granted(job, job.expert), job.workspace.user
    problem, cluster = found.problem, found.cluster
    inside = user
    try:
        inside = user if found.ground is None else user_inside(user, found.ground)
    except BackendUnavailableError as error:
        problem = problem or str(error)
    return Explanation(
        expert_key=job.expert_key,
        backend=job.platform,
        engine=None if found.ground is None else found.ground.name,
        runtime_class=job.runtime_class or (None if cluster is None else cluster.pod.runtime_class_name),
        image=job.image if isolated else None,
        user=given.user,
        user_inside=f"{inside.uid}:{inside.gid}",
        network=_network(cluster, isolated=isolated),
        mounts=tuple(_mounts(job, cluster)) if isolated else (),
        bounds=given.bounds,
        egress=Egress(
            connections=job.egress.connections,
            connections_in_all=job.egress.connections_in_all,
            sent=job.egress.sent,
            received=job.egress.received,
            idle_seconds=job.egress.idle_seconds,
            connection_seconds=job.egress.connection_seconds,
        ),
        work=Work(
            provider=job.provider_name,
            model=job.model,
            missing_key=found.missing_key,
            max_steps=job.max_steps,
            generation_seconds=job.timeout_ms / 1000,
            run_seconds=job.run_seconds,
            job_seconds=job.job_seconds,
        ),
        experts=tuple(_part(job, expert) for expert in reachable(job)),
        facts=found.facts,
        unenforced=(
            *([] if cluster is None or cluster.enforced else [OPEN_NETWORK]),
            *unenforced(found.ground, found.facts, given.bounds, problem),
        ),
    )


def _network(cluster: ClusterSetting | None, *, isolated: bool) -> str:
    if cluster is None:
        return "none" if isolated else "this machine's"
    return "a Pod's own, closed by a policy but for its broker" if cluster.enforced else "a Pod's own, open"


def _mounts(job: Job, cluster: ClusterSetting | None) -> Iterator[Mounted]:
    if cluster is not None:
        broker = BrokerAddress(cluster.hosts, cluster.port, cluster.forbidden, pin="")
        of_pod = sandbox_spec(job, 1, job.state_root / _MADE, 0, broker)
        for path, source, mode in kubernetes_manifest.mounted(of_pod, cluster):
            yield Mounted(path=path, source=source, mode=mode)
        return
    # As a person knows the files, and not from where they are mounted.
    spec = replace(sandbox_spec(job, 1, _STATE, 0), copies=None)
    for path, source, mode in docker_container.mounted(spec):
        yield Mounted(path=path, source="made for each" if source.startswith(str(_STATE)) else source, mode=mode)


def _part(job: Job, expert: Expert) -> Part:
    given = granted(job, expert)
    missing = {(skill, name) for key, skill, name in missing_variables(job, (expert,)) if key == expert.key}
    own = [skill for skill in expert.skills if skill.name in given.skills or skill.name == BASE_SKILL]
    by_name = {skill.name: skill for skill in own if isinstance(skill, StdioSkill | SseSkill)}
    reaches: dict[str, Reach] = {BASE_SKILL: given.exec, **given.skills}
    places = []
    for name, reach in reaches.items():
        skill = by_name.get(name)
        places.append(
            Place(
                name="exec" if name == BASE_SKILL else name,
                env=reach.env,
                missing=tuple(each for each in reach.env if {(name, each), (None, each)} & missing),
                hosts=tuple(_host(skill, host) for host in reach.hosts),
                package=_package(job, skill),
                remote=isinstance(skill, SseSkill),
            )
        )
    return Part(key=expert.key, delegates=given.delegates, places=tuple(places))


def _host(skill: StdioSkill | SseSkill | None, host: str) -> Host:
    if isinstance(skill, SseSkill) and host == urlsplit(skill.endpoint).hostname:
        return Host(name=host, allowed_by="endpoint")
    declared = skill is not None and host in skill.allowed_domains
    return Host(name=host, allowed_by="declared" if declared else "--allow-domain")


def _package(job: Job, skill: StdioSkill | SseSkill | None) -> str | None:
    fetch = fetch_of(skill) if isinstance(skill, StdioSkill) else None
    return None if fetch is None else f"{fetch.spec} from {job.registries.urls[fetch.kind]}"
