"""From a Job to what runs it, purely: what each Sandbox is, and what each Run is granted."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.backends.naming import labels, sandbox_name
from orchestrator.broker.authority import Authority, EgressLimits, SkillHosts
from orchestrator.config import Config, reasoning_tokens
from orchestrator.config.registries import Registries
from orchestrator.keys import proxy_credential
from orchestrator.mounting import COPIES
from orchestrator.prewarm import WAIT_SECONDS
from orchestrator.providers.prices import Price
from orchestrator.sandbox import STATE_ROOT, BrokerAddress, Limits, SandboxSpec
from orchestrator.shelf import Shelf
from orchestrator.wire.checkpoint import Checkpoint, Status
from orchestrator.wire.expert import Expert
from orchestrator.wire.granted import Bounds, Granted, Reach
from orchestrator.wire.identity import identify
from orchestrator.wire.message import ToolResult
from orchestrator.wire.run import Delegate, EventDetail, Grant, Run, RunSetting, Start
from orchestrator.wire.skill import BASE_SKILL, InteractiveSkill, SkillWay, SseSkill, StdioSkill
from orchestrator.wire.usage import Usage
from orchestrator.workspace import Workspace

DEADLINE_SECONDS = 24 * 60 * 60
"""How long a Sandbox may live whose Run has no limit of its own; then anybody of its instance may remove it."""

_LONGEST_SECONDS = 2**31

_GENERATIONS_PER_STEP = 2


@dataclass(frozen=True, slots=True)
class Job:
    """One `perstack-orch run`, every default filled in.

    `env` holds the values of all variables that may be granted, `env_names` are those of `--env`, `secrets` are the
    values that no record may show. `host_env` is what no Expert is granted: the provider's key and what else belongs to
    whoever runs the orchestrator; None where `env` is that too.
    `allowed` are the hosts of `--allow-domain` by skill; where somebody `asks` about
    others, every skill has a proxy. `runtime_class` and `limits` are each Sandbox's, `egress` is each skill's in a Run.
    `timeout_ms` is for one generation. `slots` is how many Sandboxes may work at once, `prewarm` how many more are kept
    warm, None to decide by what the Experts may need. `run_seconds` bounds one attempt of a Run, `job_seconds`
    everything from now on; None is no bound. A Sandbox is given no Run later than `wait_seconds` after its launch.
    Packages of skills are fetched from `registries`, for the backend `platform`; `shelf` says where they are installed.
    `price` is the model's, where it is known. `state_root` is above the state directories, `packages_root` where
    packages are installed; None is in the store. Orchestrators with one `locks_root` take turns at the files of one
    workspace; with None they do not.
    """

    id: str
    instance: str
    config: Config
    expert_key: str
    query: str
    workspace: Workspace
    image: str
    provider_name: str
    model: str
    reasoning_budget: str | int
    max_steps: int
    max_retries: int
    timeout_ms: int
    context_window: int | None = None
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    host_env: Mapping[str, str] | None = field(default=None, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    env_names: tuple[str, ...] = ()
    allowed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    asks: bool = False
    runtime_class: str | None = None
    limits: Limits = Limits()
    egress: EgressLimits = EgressLimits()
    slots: int = 8
    prewarm: int | None = None
    events: EventDetail = EventDetail.DEFAULT
    verbose: bool = False
    run_seconds: float | None = None
    job_seconds: float | None = None
    wait_seconds: float = WAIT_SECONDS
    registries: Registries = field(default_factory=Registries)
    platform: str = "docker"
    shelf: Shelf = field(default_factory=Shelf)
    price: Price | None = None
    state_root: Path = STATE_ROOT
    locks_root: Path | None = None
    packages_root: Path | None = None

    @property
    def expert(self) -> Expert:
        """The coordinator.

        Raises:
            ConfigError: perstack.toml does not declare it.
        """
        return self.config.expert(self.expert_key)


def reachable(job: Job) -> tuple[Expert, ...]:
    """List the Experts that the job could run: the coordinator and whatever can be delegated to from it."""
    found = {job.expert.key: job.expert}
    waiting = [job.expert]
    while waiting:
        for key in waiting.pop().delegates:
            if key not in found:
                found[key] = job.config.expert(key)
                waiting.append(found[key])
    return tuple(found.values())


def sandbox_spec(job: Job, ordinal: int, state: Path, now: int, broker: BrokerAddress | None = None) -> SandboxSpec:
    """Describe the job's Sandbox number `ordinal`; `now` is Unix seconds. Nothing in it tells which Run it will get.

    `broker` is where it reaches its broker, if not at a socket in `state`.
    """
    name = sandbox_name(job.id, ordinal, job.instance)
    deadline = now + _lives(job)
    return SandboxSpec(
        name=name,
        image=job.image,
        workspace=job.workspace.path,
        state=state,
        user=job.workspace.user,
        deadline=deadline,
        limits=job.limits,
        labels=labels(job.id, sandbox=name, instance=job.instance, deadline=deadline),
        read_only=job.workspace.read_only,
        hidden=job.workspace.hidden,
        copies=state.parent / COPIES,
        packages=job.shelf.directory,
        runtime_class=job.runtime_class,
        ways=_ways(job),
        urgent=ordinal > 1,
        broker=broker,
    )


def _lives(job: Job) -> int:
    """How many seconds a Sandbox may live: as long as it may wait for its Run, and as long as that may take."""
    if job.run_seconds is None:
        return DEADLINE_SECONDS
    return math.ceil(min(job.wait_seconds + job.run_seconds, _LONGEST_SECONDS))


def _ways(job: Job) -> tuple[SkillWay, ...]:
    skills = [skill for expert in reachable(job) for skill in expert.skills]
    started = any(isinstance(skill, StdioSkill) and skill.name != BASE_SKILL for skill in skills)
    remote = any(isinstance(skill, SseSkill) for skill in skills)
    return (*([SkillWay.STDIO] if started else []), *([SkillWay.HTTP] if remote else []))


def first(job: Job) -> Start:
    """Where the coordinator's first Run begins."""
    run_id = identify(job.id, "run")
    checkpoint = Checkpoint(
        id=identify(run_id, "start"),
        job_id=job.id,
        run_id=run_id,
        status=Status.INIT,
        step_number=1,
        messages=(),
        expert=job.expert.identity,
        usage=Usage(),
    )
    return Start(checkpoint=checkpoint, query=job.query)


def granted(job: Job, expert: Expert) -> Granted:
    """What each Run of an Expert is granted, wherever in the tree it stands: all of it its own, and named."""
    own = job.env_names if expert.key == job.expert_key else ()
    skills = {skill.name: _reach(job, skill, own) for skill in expert.skills if not isinstance(skill, InteractiveSkill)}
    limits, user = job.limits, job.workspace.user
    return Granted(
        exec=skills.pop(BASE_SKILL, Reach(env=own)),
        skills=skills,
        delegates=expert.delegates,
        image=job.image,
        user=f"{user.uid}:{user.gid}",
        read_only=tuple(map(str, job.workspace.read_only)),
        hidden=tuple(map(str, job.workspace.hidden)),
        bounds=Bounds(memory=limits.memory, tmp=limits.tmp, cpus=limits.cpus, pids=limits.pids, files=limits.files),
        run_seconds=job.run_seconds,
    )


def _reach(job: Job, skill: StdioSkill | SseSkill, own: tuple[str, ...]) -> Reach:
    allowed = (*skill.allowed_domains, *job.allowed.get(skill.name, ()))
    if isinstance(skill, SseSkill):
        # It runs nowhere here, so no variable would reach it.
        return Reach(hosts=tuple(dict.fromkeys((urlsplit(skill.endpoint).hostname or "", *allowed))))
    return Reach(env=tuple(dict.fromkeys((*own, *skill.required_env))), hosts=tuple(dict.fromkeys(allowed)))


@dataclass(frozen=True, slots=True)
class Plan:
    """One Run three times: as its Sandbox gets it, as the broker enforces it, as the store keeps it."""

    run: Run
    authority: Authority
    setting: RunSetting

    def again(self, attempt: int, since: Checkpoint | None, results: tuple[ToolResult, ...]) -> "Plan":
        """The same Run begun once more, from its last acknowledged checkpoint if it had come to one."""
        reached = {} if since is None else {"checkpoint": since.following, "query": None, "answered": None}
        return replace(self, run=self.run.with_(attempt=attempt, known_results=results, **reached))


def plan(job: Job, start: Start, key: bytes, now: int) -> Plan:
    """Plan the Run that begins at `start`; secrets derive from the job's `key`, `now` is Unix milliseconds."""
    run_id = start.checkpoint.run_id
    expert = _with_base(job.config.expert(start.checkpoint.expert.key), job.config.base_skill_command)
    given = granted(job, expert)
    reaches = {BASE_SKILL: given.exec, **given.skills}
    keys = {
        name: proxy_credential(key, run_id, name)
        for name, reach in reaches.items()
        if reach.hosts or (job.asks and name in {skill.name for skill in expert.skills})
    }
    programs = {skill.name: job.shelf.program(skill) for skill in expert.skills if isinstance(skill, StdioSkill)}
    grants = {
        name: Grant(
            env={name: job.env[name] for name in reach.env},
            proxy_credential=keys.get(name),
            program=programs.get(name),
        )
        for name, reach in reaches.items()
    }
    run = Run(
        job_id=job.id,
        run_id=run_id,
        expert=expert,
        delegates=tuple(_delegate(job.config.expert(key)) for key in expert.delegates),
        known_experts=tuple(job.config.experts),
        checkpoint=start.checkpoint,
        query=start.query,
        answered=start.answered,
        model=job.model,
        max_steps=job.max_steps,
        max_retries=job.max_retries,
        timeout_ms=job.timeout_ms,
        context_window=job.context_window,
        started_at=now,
        grants={name: grant for name, grant in grants.items() if name != BASE_SKILL},
        known_tools=job.config.known_tools.get(expert.key, {}),
        exec_grant=grants[BASE_SKILL],
        events=job.events,
    )
    authority = Authority(
        expert_key=expert.key,
        delegates=frozenset(expert.delegates),
        model=job.model,
        reasoning_tokens=reasoning_tokens(job.reasoning_budget),
        timeout_seconds=job.timeout_ms / 1000,
        generations=start.generations,
        max_generations=_GENERATIONS_PER_STEP * job.max_steps + job.max_retries,
        hosts={credential: SkillHosts(name, reaches[name].hosts) for name, credential in keys.items()},
        egress=job.egress,
    )
    parent = start.checkpoint.delegated_by
    setting = RunSetting(
        job_id=job.id,
        run_id=run_id,
        expert_key=expert.key,
        parent_run_id=parent.run_id if parent else None,
        query=start.query,
        model=job.model,
        provider_name=job.provider_name,
        reasoning_budget=job.reasoning_budget,
        max_steps=job.max_steps,
        max_retries=job.max_retries,
        timeout_ms=job.timeout_ms,
        env=tuple(sorted({name for grant in grants.values() for name in grant.env})),
        granted=given,
        generations=start.generations,
        started_at=now,
        updated_at=now,
    )
    return Plan(run, authority, setting)


def _with_base(expert: Expert, command: tuple[str, ...] | None) -> Expert:
    """The Expert, its unversioned base skill started from `perstackBaseSkillCommand` where there is one (spec 6.4)."""
    if not command:
        return expert
    return expert.with_(
        skills=tuple(
            skill.with_(command=command[0], args=command[1:], package_name=None)
            if isinstance(skill, StdioSkill) and BASE_SKILL in (skill.package_name, *skill.args)
            else skill
            for skill in expert.skills
        )
    )


def _delegate(expert: Expert) -> Delegate:
    return Delegate(key=expert.key, name=expert.name, version=expert.version, description=expert.description)
