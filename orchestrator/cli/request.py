"""From options, perstack.toml and the environment to a Job."""

import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

from orchestrator.cli.options import RunOptions
from orchestrator.config import Config, find, load, parse_reasoning_budget
from orchestrator.config.config import DEFAULT_MODEL
from orchestrator.config.credentials import check_credentials
from orchestrator.config.domains import parse_pattern
from orchestrator.config.environment import Environment, merge
from orchestrator.config.variables import is_protected, is_variable_name
from orchestrator.errors import ConfigError
from orchestrator.plan import Job
from orchestrator.providers import require_known
from orchestrator.providers.models import context_window
from orchestrator.sandbox import User
from orchestrator.wire.identity import identify, is_job_id
from orchestrator.wire.run import EventDetail
from orchestrator.wire.skill import StdioSkill
from orchestrator.workspace import prepare, refuse_store_inside

BACKENDS = ("docker", "process")

_USER = re.compile(r"([0-9]{1,9})(?::([0-9]{1,9}))?", re.ASCII)
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|(?:^|_)(?:PAT|PWD)$", re.IGNORECASE)


def check(options: RunOptions) -> None:
    """Find what is wrong with the options alone, before anything is read.

    Raises:
        ConfigError: names the option and what it takes.
    """
    if options.backend == "local":
        _refuse("--runtime", "local", "that would run without isolation; if you mean it, say --backend process")
    if options.backend not in BACKENDS:
        _refuse("--backend", options.backend, f"use one of {', '.join(BACKENDS)}")
    if options.job_id is not None and not is_job_id(options.job_id):
        _refuse("--job-id", options.job_id, "use 1 to 63 lower-case letters, digits and inner hyphens")
    if options.events not in set(EventDetail):
        _refuse("--events", options.events, f"use one of {', '.join(EventDetail)}")
    for name in options.env:
        if not is_variable_name(name):
            _refuse("--env", name, "give the NAME of a variable, its value is taken from the environment")
        if is_protected(name):
            _refuse("--env", name, "it decides which code runs, so no Expert is given it")
    _user(options.run_as)
    _allowed(options.allow_domain)
    if options.reasoning_budget is not None:
        parse_reasoning_budget(options.reasoning_budget)


def configure(options: RunOptions, cwd: Path) -> Config:
    """Read perstack.toml and lay the options over it.

    Raises:
        ConfigError: it is not there, or not valid.
    """
    config = load(options.config if options.config is not None else find(cwd), strict=options.strict)
    budget = options.reasoning_budget
    return config.overridden(
        provider_name=options.provider,
        model=options.model,
        reasoning_budget=None if budget is None else parse_reasoning_budget(budget),
        max_steps=options.max_steps,
        max_retries=options.max_retries,
        timeout_ms=options.timeout_ms,
    )


def environment(options: RunOptions, config: Config, environ: Mapping[str, str], cwd: Path) -> Environment:
    """Join the process environment and the env files.

    Raises:
        ConfigError: a file that was named cannot be used.
    """
    named = bool(options.env_path)
    return merge(environ, options.env_path if named else config.env_path, cwd, named=named)


def job(options: RunOptions, config: Config, env: Mapping[str, str], cwd: Path) -> Job:
    """Translate; the default workspace is made if it is not there.

    Raises:
        ConfigError: there is no such Expert, the provider has no key, or the workspace or store cannot be used.
    """
    config.expert(options.expert_key)
    require_known(config.provider_name)
    check_credentials(config.provider_name, config.provider_setting, env)
    workspace = cwd / (options.workspace or "workspace")
    store = cwd / options.storage
    if options.backend != "process":
        refuse_store_inside(workspace, store)
    return Job(
        id=options.job_id or identify(secrets.token_hex(16)),
        instance=identify("store", str(store.resolve())),
        config=config,
        expert_key=options.expert_key,
        query=options.query,
        workspace=prepare(
            workspace,
            _user(options.run_as),
            make=options.workspace is None,
            isolated=options.backend != "process",
        ),
        image=options.image or f"perstack-orch-runtime:{metadata.version('perstack-orch')}",
        provider_name=config.provider_name,
        model=config.model or DEFAULT_MODEL,
        reasoning_budget=config.reasoning_budget,
        max_steps=config.max_steps,
        max_retries=config.max_retries,
        timeout_ms=config.timeout_ms,
        context_window=context_window(config.provider_name, config.model or DEFAULT_MODEL),
        env=env,
        secrets=tuple(dict.fromkeys(_secrets(options, config, env))),
        env_names=options.env,
        allowed=_allowed(options.allow_domain),
        events=EventDetail(options.events),
        verbose=options.verbose,
    )


def _user(text: str | None) -> User | None:
    if text is None:
        return None
    match = _USER.fullmatch(text)
    if match is None:
        _refuse("--run-as", text, "give a numeric UID or UID:GID")
    uid, gid = match.groups()
    if int(uid) == 0:
        _refuse("--run-as", text, "Experts never run as root")
    return User(int(uid), int(gid if gid is not None else uid))


def _allowed(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    allowed: dict[str, tuple[str, ...]] = {}
    for text in texts:
        skill, equals, pattern = text.partition("=")
        if not (skill and equals):
            _refuse("--allow-domain", text, "give SKILL=HOST")
        try:
            allowed[skill] = (*allowed.get(skill, ()), parse_pattern(pattern))
        except ValueError as error:
            message = f"--allow-domain {text!r} is not usable: {error}"
            raise ConfigError(message) from error
    return allowed


def _secrets(options: RunOptions, config: Config, env: Mapping[str, str]) -> Iterator[str]:
    """Give every value that no record may show: what is granted, what is named like a secret, headers of the API."""
    granted = {name for expert in config.experts.values() for skill in expert.skills for name in _required(skill)}
    for name, value in env.items():
        if name in granted or name in options.env or _SECRET_NAME.search(name):
            yield value
    headers = config.provider_setting.get("headers")
    if isinstance(headers, Mapping):
        yield from (str(value) for value in headers.values())


def _required(skill: Any) -> tuple[str, ...]:
    return skill.required_env if isinstance(skill, StdioSkill) else ()


def _refuse(option: str, value: str, remedy: str) -> NoReturn:
    message = f"{option} {value!r} is not usable: {remedy}"
    raise ConfigError(message)
