"""What a job may read, reach and use, Expert by Expert, and what cannot be enforced; reported before anything runs.

Pure: a Job and the facts about its engine become a tree of values.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from msgspec import field

from orchestrator.backends import find_backend
from orchestrator.backends.cluster_settings import ClusterSetting
from orchestrator.backends.engine_info import EngineInfo, LinkChoice, choose_link, user_inside
from orchestrator.backends.spec import MountRow
from orchestrator.config.package_command import fetch_of
from orchestrator.errors import BackendUnavailableError
from orchestrator.explain.gaps import OPEN_NETWORK, gaps
from orchestrator.jobs.delegation import MAX_DEPTH, MAX_FAN_OUT
from orchestrator.plan.job import Job, reachable
from orchestrator.plan.run_plan import allowed_hosts, grant_record, sandbox_spec
from orchestrator.sandbox.api import BrokerAddress, SandboxSpec
from orchestrator.sandbox.authority import EgressLimits
from orchestrator.wire.expert import Expert
from orchestrator.wire.facts import Facts
from orchestrator.wire.frozen import Frozen
from orchestrator.wire.grant_record import ResourceLimits
from orchestrator.wire.skill import BASE_SKILL, SseSkill, StdioSkill

_MADE = "(made for each)"
_STATE = Path("/") / _MADE


class HostAccess(Frozen):
    """A host or a pattern, and what allows it: `declared`, `endpoint` or `--allow-domain`."""

    name: str
    allowed_by: str


class ToolAccess(Frozen):
    """`exec` or one skill, in its own domain.

    `env` are names of variables, `missing` those without a value. `package` is the package it is started from, with
    its registry. `remote` skills run elsewhere, and the runtime connects to them.
    """

    name: str
    env: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    hosts: tuple[HostAccess, ...] = ()
    package: str | None = None
    remote: bool = False


class ExpertAccess(Frozen):
    """One Expert, in its own Sandbox each time that it runs."""

    key: str
    delegates: tuple[str, ...]
    places: tuple[ToolAccess, ...]


class EgressLimitsView(Frozen):
    """Limits of the network use of one skill of one Run: connections at once and in total, bytes, seconds."""

    connections: int
    connections_in_all: int
    sent: int
    received: int
    idle_seconds: float
    connection_seconds: float

    @classmethod
    def of(cls, limits: EgressLimits) -> "EgressLimitsView":
        """Return the limits that matter to a user."""
        return cls(**{name: getattr(limits, name) for name in cls.__struct_fields__})


class WorkLimits(Frozen):
    """Limits of the whole job; seconds are None where no limit exists. `keys` are variables, and where each is set."""

    provider: str
    model: str
    keys: Mapping[str, str] = field(default_factory=dict)
    missing_key: str | None = None
    max_steps: int
    generation_seconds: float
    run_seconds: float | None
    job_seconds: float | None
    max_depth: int = MAX_DEPTH
    max_fan_out: int = MAX_FAN_OUT


class Explanation(Frozen):
    """The output of `explain`. `user` is the user of a Sandbox's processes outside, `user_inside` the one inside.

    `link` is what joins a Sandbox and its broker, None if there is no choice. `facts` were found in a Sandbox without
    work.
    """

    expert_key: str
    backend: str
    engine: str | None
    runtime_class: str | None
    image: str | None
    user: str
    user_inside: str
    network: str
    link: LinkChoice | None = None
    mounts: tuple[MountRow, ...]
    limits: ResourceLimits = field(name="bounds")
    egress: EgressLimitsView
    work: WorkLimits
    experts: tuple[ExpertAccess, ...]
    facts: Facts | None
    unenforced: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Findings:
    """Facts about the engine that runs Sandboxes; `problem` is the reason if one of them is missing.

    `missing_key` is what the model's provider lacks, `key_origins` are its variables that have a value, and where each
    comes from. `cluster` is the cluster, if Sandboxes run in one.
    """

    engine_info: EngineInfo | None
    facts: Facts | None
    problem: str | None = None
    missing_key: str | None = None
    key_origins: Mapping[str, str] = dataclasses.field(default_factory=dict)
    cluster: ClusterSetting | None = None


def explain(job: Job, found: Findings) -> Explanation:
    """Describe what `job` may do where it would run."""
    isolated = find_backend(job.platform).isolates
    granted, user = grant_record(job, job.expert), job.workspace.user
    problem, cluster = found.problem, found.cluster
    inside = user
    try:
        inside = user if found.engine_info is None else user_inside(user, found.engine_info)
    except BackendUnavailableError as error:
        problem = problem or str(error)
    spec = _spec(job, cluster)
    link = None if found.engine_info is None else choose_link(spec.link, spec.runtime_class, found.engine_info)
    return Explanation(
        expert_key=job.expert_key,
        backend=job.platform,
        engine=None if found.engine_info is None else found.engine_info.name,
        runtime_class=job.options.runtime_class or (None if cluster is None else cluster.pod.runtime_class_name),
        image=job.image if isolated else None,
        user=granted.user,
        user_inside=f"{inside.uid}:{inside.gid}",
        network=_network(cluster, isolated=isolated),
        link=link,
        mounts=tuple(_mounts(job, cluster, link)),
        limits=granted.limits,
        egress=EgressLimitsView.of(job.egress),
        work=WorkLimits(
            provider=job.provider_name,
            model=job.model,
            keys=dict(found.key_origins),
            missing_key=found.missing_key,
            max_steps=job.max_steps,
            generation_seconds=job.timeout_ms / 1000,
            run_seconds=job.options.run_seconds,
            job_seconds=job.options.job_seconds,
        ),
        experts=tuple(_expert_access(job, expert) for expert in reachable(job)),
        facts=found.facts,
        unenforced=(
            *([] if cluster is None or cluster.enforced else [OPEN_NETWORK]),
            *gaps(found.engine_info, found.facts, granted.limits, problem),
        ),
    )


def _network(cluster: ClusterSetting | None, *, isolated: bool) -> str:
    if cluster is None:
        return "none" if isolated else "this machine's"
    return "a Pod's own, closed by a policy but for its broker" if cluster.enforced else "a Pod's own, open"


def _spec(job: Job, cluster: ClusterSetting | None) -> SandboxSpec:
    if cluster is None:
        state, broker = _STATE, None
    else:
        state, broker = job.state_root / _MADE, BrokerAddress(cluster.hosts, cluster.port, cluster.forbidden, pin="")
    # Show the user's own files, not the copies they are mounted from.
    return replace(sandbox_spec(job, 1, state, 0, broker), copies=None)


def _mounts(job: Job, cluster: ClusterSetting | None, link: LinkChoice | None) -> Iterator[MountRow]:
    spec = _spec(job, cluster)
    if link is not None:
        spec = replace(spec, link=link.link)
    for row in find_backend(job.platform).describe_mounts(spec, cluster):
        source = "made for each" if row.source.startswith(str(_STATE)) else row.source
        yield replace(row, source=source)


def _expert_access(job: Job, expert: Expert) -> ExpertAccess:
    granted = grant_record(job, expert)
    by_name = {skill.name: skill for skill in expert.skills if isinstance(skill, StdioSkill | SseSkill)}
    places = []
    for name, access in granted.by_name.items():
        skill = by_name.get(name)
        causes = {} if skill is None else allowed_hosts(job, skill)
        places.append(
            ToolAccess(
                name="exec" if name == BASE_SKILL else name,
                env=access.env,
                missing=tuple(each for each in access.env if not job.env.get(each)),
                hosts=tuple(HostAccess(name=host, allowed_by=causes[host]) for host in access.hosts),
                package=_package(job, skill),
                remote=isinstance(skill, SseSkill),
            )
        )
    return ExpertAccess(key=expert.key, delegates=granted.delegates, places=tuple(places))


def _package(job: Job, skill: StdioSkill | SseSkill | None) -> str | None:
    fetch = fetch_of(skill) if isinstance(skill, StdioSkill) else None
    return None if fetch is None else f"{fetch.spec} from {job.registries.urls[fetch.kind]}"
