"""From options, perstack.toml and the environment to a Job."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from orchestrator.backends import BACKENDS, is_cluster, isolates
from orchestrator.backends.cluster_settings import ClusterSetting
from orchestrator.cli.cluster_options import CLUSTER, LOCAL, is_submitted, read_cluster_setting
from orchestrator.cli.cwd_guard import refuse_mounted_store
from orchestrator.cli.options import RunOptions
from orchestrator.cli.untrusted_files import apply_lock, refuse_config_in_workspace, untrusted_env_files
from orchestrator.config import Config, find, load
from orchestrator.config.environment import Environment, merge, with_stored_keys
from orchestrator.config.lock_file import LOCK_BYTES
from orchestrator.disk.plain_file import read_plain
from orchestrator.errors import ConfigError
from orchestrator.jobs.resume import Resume
from orchestrator.plan.job import Job
from orchestrator.plan.make_job import make_job
from orchestrator.plan.option_values import check_values, override, parse_volume, refuse
from orchestrator.providers import PROVIDERS
from orchestrator.providers.prices import LIST_PRICES, Prices, read_prices
from orchestrator.sandbox.api import LinkKind
from orchestrator.store import Store
from orchestrator.wire.identity import is_job_id
from orchestrator.workspace.placement import WorkspaceMode


def check_options(options: RunOptions) -> None:
    """Check the options alone, before anything is read.

    Raises:
        ConfigError: an option is invalid; the message names it and what it accepts.
    """
    _check_backend(options)
    if options.job_id is not None and not is_job_id(options.job_id):
        refuse("--job-id", options.job_id, "use 1 to 63 lower-case letters, digits and inner hyphens")
    _check_continuing(options)
    _check_query(options)
    check_values(options)


def _check_backend(options: RunOptions) -> None:
    if options.backend == "local":
        refuse("--runtime", "local", "that would run without isolation; if you want that, use --backend process")
    if BACKENDS.find(options.backend) is None:
        refuse("--backend", options.backend, BACKENDS.hint(options.backend))
    if options.runtime_class is not None and not isolates(options.backend):
        refuse("--runtime-class", options.runtime_class, "plain processes have no runtime class; leave it out")
    if options.link != LinkKind.AUTO and (is_cluster(options.backend) or not isolates(options.backend)):
        refuse("--link", options.link, "only Sandboxes of --backend docker have a choice; leave it out")
    if is_cluster(options.backend) and options.workspace is not None:
        refuse("--workspace", options.workspace, "in a cluster the workspace is on the claim; leave it out")
    if is_cluster(options.backend) and options.workspace_mode != WorkspaceMode.AUTO:
        refuse("--workspace-mode", options.workspace_mode, "in a cluster the workspace is on the claim; leave it out")
    if options.coordinator not in (CLUSTER, LOCAL):
        refuse("--coordinator", options.coordinator, f"use {CLUSTER} or {LOCAL}")


def _check_continuing(options: RunOptions) -> None:
    if options.resume_from is not None and options.continue_job is None:
        refuse("--resume-from", options.resume_from, "it needs --continue-job JOB")
    if options.answers and not (options.continue_latest or options.continue_job):
        message = "-i answers a job's question; name the job with --continue-job JOB, or use --continue for the latest"
        raise ConfigError(message)


def _check_query(options: RunOptions) -> None:
    if options.query is not None and not options.answers and not options.query.strip():
        message = "the query is empty; describe the task for the Expert"
        raise ConfigError(message)


def load_config(options: RunOptions, cwd: Path) -> Config:
    """Read perstack.toml and apply the options to it.

    Raises:
        ConfigError: perstack.toml is missing or invalid, or it or the store lies where an Expert may have put it.
    """
    source = options.config if options.config is not None else refuse_config_in_workspace(find(cwd), options, cwd)
    config = apply_lock(load(source, strict=options.strict, with_lock=False), options, cwd)
    if not is_submitted(options):
        refuse_mounted_store(options.storage, cwd)
    return override(config, options)


def without_model(options: RunOptions) -> RunOptions:
    """Return the options for a command that calls no model: they take precedence, so no provider key is required."""
    return options.with_(provider="scripted")


def load_environment(options: RunOptions, config: Config, environ: Mapping[str, str], cwd: Path) -> Environment:
    """Merge the process environment and the env files.

    Raises:
        ConfigError: a file named with --env-path cannot be used.
    """
    if options.env_path:
        return merge(environ, options.env_path, cwd, named=True)
    untrusted = untrusted_env_files(config.env_path, options, cwd)
    merged = merge(environ, (path for path in config.env_path if path not in untrusted), cwd)
    notes = (
        f"{path} is in the workspace and may come from an Expert, so it is ignored; to use it, name it with --env-path"
        for path in untrusted
    )
    return replace(merged, notes=(*merged.notes, *notes))


def load_environment_with_key(
    options: RunOptions, config: Config, environ: Mapping[str, str], cwd: Path
) -> Environment:
    """Return the environment of a job that calls a model: a key that it lacks may come from the system's keyring.

    Raises:
        ConfigError: as `load_environment`.
    """
    env = load_environment(options, config, environ, cwd)
    spec = PROVIDERS.find(config.provider_name)
    return env if spec is None else with_stored_keys(env, spec.required)


def build_job(options: RunOptions, config: Config, env: Mapping[str, str], cwd: Path) -> Job:
    """Return the job; the default workspace is created if it does not exist.

    Raises:
        ConfigError: the Expert does not exist, the provider has no key, or the workspace or store cannot be used.
    """
    return build_job_in(options, config, env, cwd, read_cluster_setting(options, cwd))


def build_job_in(  # noqa: PLR0913, PLR0917 - the parts of a job
    options: RunOptions,
    config: Config,
    env: Mapping[str, str],
    cwd: Path,
    cluster: ClusterSetting | None,
    host_env: Mapping[str, str] | None = None,
) -> Job:
    """Return the job for a known cluster; Experts get nothing of `host_env`, see `make_job`.

    Raises:
        ConfigError: as for `build_job`.
    """
    volume = None if options.workspace is None else parse_volume(options.workspace)
    return make_job(
        options.expert_key,
        options.query or "",
        config=config,
        env=env,
        host_env=host_env,
        backend=options.backend,
        workspace=None if options.workspace is None or volume is not None else cwd / options.workspace,
        volume=volume,
        store=cwd / options.storage,
        job_id=options.job_id,
        options=options,
        prices=load_prices(options.prices, cwd),
        cluster=cluster,
        packages=None if options.packages is None else cwd / options.packages,
    )


def read_content(path: Path) -> bytes:
    """Return the content of a file that a job takes along.

    Raises:
        ConfigError: it cannot be read, or is not a regular file.
    """
    try:
        return read_plain(path, LOCK_BYTES)
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}"
        raise ConfigError(message) from error
    except ValueError as error:
        message = f"{path} {error}, so it is not read; replace it"
        raise ConfigError(message) from error


def load_prices(named: str | None, cwd: Path) -> Prices:
    """Return the list prices of models, overridden by those of the file `named`.

    Raises:
        ConfigError: the file cannot be used.
    """
    return LIST_PRICES if named is None else read_prices(cwd / named)


def find_continued_job(options: RunOptions, cwd: Path) -> tuple[str, Resume] | None:
    """Return the id of the job to continue, and how; None for a new job.

    Raises:
        ConfigError: no job exists that could be continued.
    """
    how = Resume(options.query, is_answer=options.answers, checkpoint_id=options.resume_from)
    if options.continue_job is not None:
        return options.continue_job, how
    if not options.continue_latest:
        return None
    last = Store(cwd / options.storage).last_used()
    if last is None:
        message = f"the store {options.storage} has no job to continue; leave --continue out"
        raise ConfigError(message)
    return last.id, how
