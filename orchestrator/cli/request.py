"""From options, perstack.toml and the environment to a Job."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from orchestrator.backends import BACKENDS
from orchestrator.backends.kubernetes_setting import ClusterSetting
from orchestrator.cli.cluster import CLUSTER, LOCAL, cluster_of, is_submitted
from orchestrator.cli.options import RunOptions
from orchestrator.cli.outside import refuse_found_store
from orchestrator.cli.planted import of_experts, refuse_found, with_lock
from orchestrator.config import Config, find, load, parse_reasoning_budget
from orchestrator.config.domains import parse_pattern
from orchestrator.config.environment import Environment, merge
from orchestrator.config.variables import is_variable_name
from orchestrator.continuation import GoOn
from orchestrator.errors import ConfigError
from orchestrator.plan import Job
from orchestrator.providers.prices import LIST_PRICES, Prices, read_prices
from orchestrator.request import make_job
from orchestrator.sandbox import User
from orchestrator.store import Store
from orchestrator.wire.identity import is_job_id
from orchestrator.wire.protected import is_protected
from orchestrator.wire.run import EventDetail

_MOST_PREWARMED = 64
_USER = re.compile(r"([0-9]{1,9})(?::([0-9]{1,9}))?", re.ASCII)


def check(options: RunOptions) -> None:
    """Find what is wrong with the options alone, before anything is read.

    Raises:
        ConfigError: names the option and what it takes.
    """
    _check_backend(options)
    if options.job_id is not None and not is_job_id(options.job_id):
        _refuse("--job-id", options.job_id, "use 1 to 63 lower-case letters, digits and inner hyphens")
    if options.events not in set(EventDetail):
        _refuse("--events", options.events, f"use one of {', '.join(EventDetail)}")
    for name in options.env:
        if not is_variable_name(name):
            _refuse("--env", name, "give the NAME of a variable, its value is taken from the environment")
        if is_protected(name):
            _refuse("--env", name, "it decides which code runs, so no Expert is given it; leave it out")
    _check_continuing(options)
    _check_query(options)
    parse_user(options.run_as)
    _allowed(options.allow_domain)
    _prewarm(options.prewarm)
    if options.reasoning_budget is not None:
        parse_reasoning_budget(options.reasoning_budget)


def _check_backend(options: RunOptions) -> None:
    if options.backend == "local":
        _refuse("--runtime", "local", "that would run without isolation; if you mean it, say --backend process")
    if options.backend not in BACKENDS:
        _refuse("--backend", options.backend, f"use one of {', '.join(BACKENDS)}")
    if options.runtime_class is not None and options.backend == "process":
        _refuse("--runtime-class", options.runtime_class, "plain processes have no runtime; leave it out")
    if options.backend == "kubernetes" and options.workspace is not None:
        _refuse("--workspace", options.workspace, "in a cluster the workspace is on the claim")
    if options.coordinator not in (CLUSTER, LOCAL):
        _refuse("--coordinator", options.coordinator, f"use {CLUSTER} or {LOCAL}")


def _check_continuing(options: RunOptions) -> None:
    if options.resume_from is not None and options.continue_job is None:
        _refuse("--resume-from", options.resume_from, "it goes with --continue-job JOB")
    if options.answers and not (options.continue_latest or options.continue_job):
        message = "-i answers a question of a job; name it with --continue-job JOB, or --continue for the latest"
        raise ConfigError(message)


def _check_query(options: RunOptions) -> None:
    if options.query is not None and not options.answers and not options.query.strip():
        message = "the query is empty; say what the Expert is to do"
        raise ConfigError(message)


def configure(options: RunOptions, cwd: Path) -> Config:
    """Read perstack.toml and lay the options over it.

    Raises:
        ConfigError: it is not there, or not valid, or was found where an Expert may have put it; or so was the store.
    """
    source = options.config if options.config is not None else refuse_found(find(cwd), options, cwd)
    config = with_lock(load(source, strict=options.strict, with_lock=False), options, cwd)
    if not is_submitted(options):
        refuse_found_store(options.storage, cwd)
    budget = options.reasoning_budget
    return config.overridden(
        provider_name=options.provider,
        model=options.model,
        reasoning_budget=None if budget is None else parse_reasoning_budget(budget),
        max_steps=options.max_steps,
        max_retries=options.max_retries,
        timeout_ms=options.timeout_ms,
    )


def without_model(config: Config) -> Config:
    """The same for what calls no model, so that no provider needs its key."""
    return replace(config, provider_name="scripted", provider_setting={})


def environment(options: RunOptions, config: Config, environ: Mapping[str, str], cwd: Path) -> Environment:
    """Join the process environment and the env files.

    Raises:
        ConfigError: a file that was named cannot be used.
    """
    if options.env_path:
        return merge(environ, options.env_path, cwd, named=True)
    planted = of_experts(config.env_path, options, cwd)
    merged = merge(environ, (path for path in config.env_path if path not in planted), cwd)
    notes = (f"{path} is in the workspace and may be an Expert's; ignored; --env-path names it" for path in planted)
    return replace(merged, notes=(*merged.notes, *notes))


def job(options: RunOptions, config: Config, env: Mapping[str, str], cwd: Path) -> Job:
    """Translate; the default workspace is made if it is not there.

    Raises:
        ConfigError: there is no such Expert, the provider has no key, or the workspace or store cannot be used.
    """
    return job_in(options, config, env, cwd, cluster_of(options.backend, options, cwd))


def job_in(  # noqa: PLR0913, PLR0917 - what a job is made of
    options: RunOptions,
    config: Config,
    env: Mapping[str, str],
    cwd: Path,
    cluster: ClusterSetting | None,
    host_env: Mapping[str, str] | None = None,
) -> Job:
    """Do the same for a cluster that is known already; `host_env` is what no Expert is granted, as for `make_job`.

    Raises:
        ConfigError: as `job`.
    """
    # A Sandbox that waits for work would hold its place in the queue against those that have some.
    is_queued = cluster is not None and cluster.pod.queue_name is not None
    return make_job(
        options.expert_key,
        options.query or "",
        config=config,
        env=env,
        host_env=host_env,
        backend=options.backend,
        workspace=None if options.workspace is None else cwd / options.workspace,
        store=cwd / options.storage,
        job_id=options.job_id,
        env_names=options.env,
        allowed=_allowed(options.allow_domain),
        image=options.image,
        runtime_class=options.runtime_class,
        run_as=parse_user(options.run_as),
        events=EventDetail(options.events),
        verbose=options.verbose,
        run_seconds=options.run_seconds,
        job_seconds=options.job_seconds,
        prewarm=_prewarm("off" if is_queued and options.prewarm == "auto" else options.prewarm),
        prices=prices(options.prices, cwd),
        cluster=cluster,
    )


def prices(named: str | None, cwd: Path) -> Prices:
    """Give the prices of models: the list, with those of the file `named` laid over it.

    Raises:
        ConfigError: the file cannot be used.
    """
    return LIST_PRICES if named is None else read_prices(cwd / named)


def going_on(options: RunOptions, cwd: Path) -> tuple[str, GoOn] | None:
    """Which job to go on with, and how; None for a new one.

    Raises:
        ConfigError: there is no job to go on with.
    """
    how = GoOn(options.query, is_answer=options.answers, checkpoint_id=options.resume_from)
    if options.continue_job is not None:
        return options.continue_job, how
    if not options.continue_latest:
        return None
    last = Store(cwd / options.storage).last_used()
    if last is None:
        message = f"there is no job in the store {options.storage} to go on with; leave --continue out"
        raise ConfigError(message)
    return last.id, how


def parse_user(text: str | None) -> User | None:
    """Read UID or UID:GID.

    Raises:
        ConfigError: it is neither, or root.
    """
    if text is None:
        return None
    match = _USER.fullmatch(text)
    if match is None:
        _refuse("--run-as", text, "give a numeric UID or UID:GID")
    uid, gid = match.groups()
    if int(uid) == 0:
        _refuse("--run-as", text, "Experts never run as root; name another user")
    return User(int(uid), int(gid if gid is not None else uid))


def _prewarm(text: str) -> int | None:
    if text == "auto":
        return None
    if text == "off":
        return 0
    if not (text.isascii() and text.isdigit() and int(text) <= _MOST_PREWARMED):
        _refuse("--prewarm", text, f"say auto, off, or how many, at most {_MOST_PREWARMED}")
    return int(text)


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


def _refuse(option: str, value: str, remedy: str) -> NoReturn:
    message = f"{option} {value!r} is not usable: {remedy}"
    raise ConfigError(message)
