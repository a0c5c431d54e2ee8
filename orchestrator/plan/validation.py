"""Checks of a job before anything of it starts; pure."""

from collections.abc import Iterable, Iterator

from orchestrator.errors import ConfigError, MissingEnvError
from orchestrator.plan.job import Job, reachable
from orchestrator.wire.expert import Expert
from orchestrator.wire.identity import identify
from orchestrator.wire.job_record import JobRecord
from orchestrator.wire.skill import StdioSkill


def check(job: Job) -> None:
    """Find faults that would otherwise appear later.

    Raises:
        MissingEnvError: variables that skills or `--env` declare have no value; the message names each with its skill.
        ConfigError: `--allow-domain` names a skill that no reachable Expert has.
    """
    experts = reachable(job)
    check_environment(job, experts)
    known = {skill.name for expert in experts for skill in expert.skills}
    unknown = sorted(set(job.allowed) - known)
    if unknown:
        message = (
            f"--allow-domain names no skill of this job: {', '.join(unknown)}; known are {', '.join(sorted(known))}"
        )
        raise ConfigError(message)


def check_environment(job: Job, experts: Iterable[Expert]) -> None:
    """Check that all variables that the skills of `experts` and `--env` declare have a value.

    Raises:
        MissingEnvError: some have none; the message names each with its skill.
    """
    missing = [
        f"{name} ({f'skill {skill!r} of Expert {expert!r}' if skill else '--env'})"
        for expert, skill, name in missing_variables(job, experts)
    ]
    if missing:
        listed = ", ".join(dict.fromkeys(missing))
        remedy = "set them or write them to .env"
        if job.host_env is not None:
            remedy = (
                "set them where you submit the job, or add them to the Secret that the chart's skillSecret names;"
                " envSecret is only for the provider"
            )
        message = f"environment variables without a value: {listed}; {remedy}"
        raise MissingEnvError(message)


def missing_variables(job: Job, experts: Iterable[Expert]) -> Iterator[tuple[str, str | None, str]]:
    """Yield each declared variable without a value, with Expert and skill; `--env` has no skill."""
    for expert in experts:
        for skill in expert.skills:
            if isinstance(skill, StdioSkill):
                yield from ((expert.key, skill.name, name) for name in skill.required_env if not job.env.get(name))
    yield from ((job.expert_key, None, name) for name in job.options.env if not job.env.get(name))


def digests(job: Job) -> dict[str, str]:
    """Return a digest of each Expert that the job can reach, by key; it changes with the Expert's definition."""
    return {expert.key: identify(expert.to_json().decode()) for expert in reachable(job)}


def check_unchanged(job: Job, record: JobRecord) -> None:
    """Check that a job continues with the Experts it began with, as its `record` has them.

    Raises:
        ConfigError: it has another coordinator Expert, or some Experts changed; the message names them.
    """
    coordinator = record.coordinator_expert_key
    if job.expert.key != coordinator:
        message = f"job {job.id!r} is one of Expert {coordinator!r}, not of {job.expert.key!r}; name that Expert"
        raise ConfigError(message)
    before, now = record.experts, digests(job)
    changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    if changed:
        message = (
            f"job {job.id!r} began with other definitions of {', '.join(changed)}; "
            "restore perstack.toml to continue, or start a new job"
        )
        raise ConfigError(message)
