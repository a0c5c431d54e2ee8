"""What is found out about a job before anything of it starts. Pure."""

from collections.abc import Iterable, Iterator

from orchestrator.errors import ConfigError, MissingEnvError
from orchestrator.plan import Job, reachable
from orchestrator.wire.expert import Expert
from orchestrator.wire.identity import identify
from orchestrator.wire.job import JobRecord
from orchestrator.wire.skill import StdioSkill


def check(job: Job) -> None:
    """Find what would fail later, before anything is started.

    Raises:
        MissingEnvError: variables that skills or `--env` declare have no value; names each with its skill.
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
    """See that all variables have a value that the skills of `experts` and `--env` declare.

    Raises:
        MissingEnvError: some have none; names each with its skill.
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
                "set them where the job is submitted, or have them put into the Secret that skillSecret of the chart"
                " names: what envSecret has is for the provider alone"
            )
        message = f"environment variables without a value: {listed}; {remedy}"
        raise MissingEnvError(message)


def missing_variables(job: Job, experts: Iterable[Expert]) -> Iterator[tuple[str, str | None, str]]:
    """Give each variable that was declared and has no value, with Expert and skill; `--env` has no skill."""
    for expert in experts:
        for skill in expert.skills:
            if isinstance(skill, StdioSkill):
                yield from ((expert.key, skill.name, name) for name in skill.required_env if not job.env.get(name))
    yield from ((job.expert_key, None, name) for name in job.env_names if not job.env.get(name))


def digests(job: Job) -> dict[str, str]:
    """What identifies the Experts that the job can reach, by key: another digest is another Expert."""
    return {expert.key: identify(expert.to_json().decode()) for expert in reachable(job)}


def check_unchanged(job: Job, record: JobRecord) -> None:
    """See that a job goes on with the Experts it began with, as its `record` says.

    Raises:
        ConfigError: it is another one, or some were changed; names them.
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
            "restore perstack.toml to go on, or start a new job"
        )
        raise ConfigError(message)
