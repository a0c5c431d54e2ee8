"""From a Job to its parts: the spec of each Sandbox, and the authority of each Run; pure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.config import reasoning_tokens
from orchestrator.plan.job import Job, reachable
from orchestrator.sandbox.api import BrokerAddress, LinkKind, SandboxSpec
from orchestrator.sandbox.authority import Authority, SkillHosts
from orchestrator.sandbox.keys import proxy_credential
from orchestrator.sandbox.naming import labels, sandbox_name
from orchestrator.wire.checkpoint import Checkpoint
from orchestrator.wire.expert import Expert
from orchestrator.wire.grant_record import GrantRecord, SkillAccess
from orchestrator.wire.identity import first_run
from orchestrator.wire.message import ToolResult
from orchestrator.wire.run import Delegate, Grant, Run, RunSetting, Start
from orchestrator.wire.skill import BASE_SKILL, InteractiveSkill, SkillTransport, SseSkill, StdioSkill
from orchestrator.workspace.mount import COPIES

DEADLINE_SECONDS = 24 * 60 * 60
"""How long a Sandbox may live whose Run has no limit; then any process of its instance may remove it."""

_LONGEST_SECONDS = 2**31

_GENERATIONS_PER_STEP = 2


def sandbox_spec(job: Job, ordinal: int, state: Path, now: int, broker: BrokerAddress | None = None) -> SandboxSpec:
    """Describe the job's Sandbox number `ordinal`; `now` is Unix seconds. It does not show which Run it will get.

    `broker` is the address of its broker, if it does not use a socket in `state`.
    """
    name = sandbox_name(job.id, ordinal, job.instance)
    deadline = now + _lifetime(job)
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
        packages=job.installed.directory,
        package_volumes=job.installed.volumes,
        runtime_class=job.options.runtime_class,
        transports=_transports(job),
        urgent=ordinal > 1,
        broker=broker,
        link=LinkKind(job.options.link),
        volume=None if job.workspace.volume is None else job.workspace.volume.name,
    )


def _lifetime(job: Job) -> int:
    """Return how many seconds a Sandbox may live: its longest wait for a Run plus the Run's limit."""
    if job.options.run_seconds is None:
        return DEADLINE_SECONDS
    return math.ceil(min(job.wait_seconds + job.options.run_seconds, _LONGEST_SECONDS))


def _transports(job: Job) -> tuple[SkillTransport, ...]:
    skills = [skill for expert in reachable(job) for skill in expert.skills]
    started = any(isinstance(skill, StdioSkill) and skill.name != BASE_SKILL for skill in skills)
    remote = any(isinstance(skill, SseSkill) for skill in skills)
    return (*([SkillTransport.STDIO] if started else []), *([SkillTransport.HTTP] if remote else []))


def first(job: Job) -> Start:
    """Return the start of the coordinator Expert's first Run."""
    checkpoint = Checkpoint.initial(job.id, first_run(job.id), job.expert.identity, step_number=1)
    return Start(checkpoint=checkpoint, query=job.query)


def grant_record(job: Job, expert: Expert) -> GrantRecord:
    """Return what each Run of an Expert is granted, anywhere in the tree: only its own declarations, by name."""
    own = job.options.env if expert.key == job.expert_key else ()
    skills = {
        skill.name: _skill_access(job, skill, own) for skill in expert.skills if not isinstance(skill, InteractiveSkill)
    }
    user = job.workspace.user
    return GrantRecord(
        exec=skills.pop(BASE_SKILL, SkillAccess(env=own)),
        skills=skills,
        delegates=expert.delegates,
        image=job.image,
        user=f"{user.uid}:{user.gid}",
        read_only=tuple(map(str, job.workspace.read_only)),
        hidden=tuple(map(str, job.workspace.hidden)),
        limits=job.limits,
        run_seconds=job.options.run_seconds,
    )


def _skill_access(job: Job, skill: StdioSkill | SseSkill, own: tuple[str, ...]) -> SkillAccess:
    # A remote skill does not run here, so it could get no variable.
    env = () if isinstance(skill, SseSkill) else tuple(dict.fromkeys((*own, *skill.required_env)))
    return SkillAccess(env=env, hosts=tuple(allowed_hosts(job, skill)))


def allowed_hosts(job: Job, skill: StdioSkill | SseSkill) -> dict[str, str]:
    """Return the hosts that a skill may reach, and what allows each: `endpoint`, `declared` or `--allow-domain`."""
    allowed = dict.fromkeys(job.allowed.get(skill.name, ()), "--allow-domain")
    declared = dict.fromkeys(skill.allowed_domains, "declared")
    endpoint = {urlsplit(skill.endpoint).hostname or "": "endpoint"} if isinstance(skill, SseSkill) else {}
    hosts: dict[str, str] = {}
    for causes in (endpoint, declared, allowed):
        for host, cause in causes.items():
            # Of a host that is allowed twice, the first cause counts.
            hosts.setdefault(host, cause)
    return hosts


@dataclass(frozen=True, slots=True)
class Plan:
    """One Run in three forms: for its Sandbox, for the broker that enforces it, for the store.

    All are derived from the record of what is granted, which has names only. Values are in the first alone.
    """

    run: Run
    authority: Authority
    setting: RunSetting

    def next_attempt(self, attempt: int, since: Checkpoint | None, results: tuple[ToolResult, ...]) -> "Plan":
        """Return the same Run as a new attempt, from its last acknowledged checkpoint if it has one."""
        reached = {} if since is None else {"checkpoint": since.following, "query": None, "answered": None}
        return replace(self, run=self.run.with_(attempt=attempt, known_results=results, **reached))


def plan(job: Job, start: Start, key: bytes, now: int) -> Plan:
    """Plan the Run that begins at `start`; secrets derive from the job's `key`, `now` is Unix milliseconds."""
    run_id = start.checkpoint.run_id
    expert = _with_base(job.config.expert(start.checkpoint.expert.key), job.config.base_skill_command)
    granted = grant_record(job, expert)
    credentials = {
        name: proxy_credential(key, run_id, name)
        for name, access in granted.by_name.items()
        if access.hosts or (job.asks and name in {skill.name for skill in expert.skills})
    }
    grants = _grants(job, expert, granted, credentials)
    run = Run(
        job_id=job.id,
        run_id=run_id,
        expert=expert,
        delegates=tuple(Delegate.of(job.config.expert(key)) for key in granted.delegates),
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
        grants={name: grants[name] for name in granted.skills},
        known_tools=job.config.known_tools.get(expert.key, {}),
        exec_grant=grants[BASE_SKILL],
        events=job.events,
    )
    authority = Authority(
        expert_key=expert.key,
        delegates=frozenset(granted.delegates),
        model=job.model,
        reasoning_tokens=reasoning_tokens(job.reasoning_budget),
        timeout_seconds=job.timeout_ms / 1000,
        generations=start.generations,
        max_generations=_GENERATIONS_PER_STEP * job.max_steps + job.max_retries,
        hosts={each: SkillHosts(name, granted.by_name[name].hosts) for name, each in credentials.items()},
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
        env=granted.variables,
        granted=granted,
        generations=start.generations,
        started_at=now,
        updated_at=now,
    )
    return Plan(run, authority, setting)


def _grants(job: Job, expert: Expert, granted: GrantRecord, credentials: Mapping[str, str]) -> dict[str, Grant]:
    """Join the record with values, credentials and programs, for the Sandbox alone."""
    programs = {skill.name: job.installed.program(skill) for skill in expert.skills if isinstance(skill, StdioSkill)}
    return {
        name: Grant(
            env={variable: job.env[variable] for variable in access.env},
            proxy_credential=credentials.get(name),
            program=programs.get(name),
        )
        for name, access in granted.by_name.items()
    }


def _with_base(expert: Expert, command: tuple[str, ...] | None) -> Expert:
    """Return the Expert, its unversioned base skill started from `perstackBaseSkillCommand` if set."""
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
