"""A job that runs in the cluster: `run` and `resume` with `--coordinator cluster`."""

import asyncio
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.cli.build_job import check_options, load_config, load_environment, load_prices, read_content
from orchestrator.cli.cluster_client import open_cluster_client
from orchestrator.cli.job_report import job_warnings
from orchestrator.cli.job_watcher import JobWatcher
from orchestrator.cli.options import RunOptions
from orchestrator.cluster.job_request import CONFIG, ENVIRONMENT, LOCK, PRICES, REQUEST, JobRequest
from orchestrator.config import Config
from orchestrator.config.lock_file import LOCK_NAME
from orchestrator.errors import ConfigError
from orchestrator.plan.make_job import declared
from orchestrator.providers import PROVIDERS
from orchestrator.wire.frozen import ascii_json
from orchestrator.wire.identity import identify

_LOCAL_ONLY = ("claim", "claim_mount", "broker_address", "broker_port", "pod_setting")
"""Options for a coordinator in this process; in the cluster the chart sets them."""


def submit(options: RunOptions, environ: Mapping[str, str]) -> int:
    """Submit the job that `options` describe to the cluster, and follow it until it ends; return the exit code.

    Raises:
        OrchestratorError: the job could not be submitted or run.
    """
    check_options(options)
    _refuse_local_options(options)
    cwd = Path.cwd()
    config = load_config(options, cwd)
    if options.expert_key:
        config.expert(options.expert_key)
    env = load_environment(options, config, environ, cwd)
    values = {name: env.values[name] for name in sorted(declared(config, options.env)) if name in env.values}
    job_id = options.continue_job or options.job_id or identify(secrets.token_hex(16))
    files = read_files(options, config, cwd) | {
        REQUEST: _build_request(options, job_id).to_json(),
        ENVIRONMENT: ascii_json(values),
    }
    watcher = JobWatcher(job_id, options, environ, tuple(values.values()), options.expert_key)
    warnings = job_warnings(options, config, env, environ)
    return asyncio.run(_submit(options, job_id, files, watcher, warnings, environ))


async def _submit(  # noqa: PLR0913, PLR0917 - the parts of a job
    options: RunOptions,
    job_id: str,
    files: Mapping[str, bytes],
    watcher: JobWatcher,
    warnings: tuple[str, ...],
    environ: Mapping[str, str],
) -> int:
    async with open_cluster_client(options, environ) as client:
        with watcher.report(verbose=options.verbose) as report:
            for text in warnings:
                report.warn(text)
            owner = await client.submit(job_id, files, options.env_secret)
            return await watcher.follow(client, owner, options.after, report, options.start_seconds)


def _refuse_local_options(options: RunOptions) -> None:
    """Refuse options that have no meaning for a coordinator in the cluster."""
    given = [name for name in _LOCAL_ONLY if getattr(options, name)]
    if given:
        named = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        message = f"{named} needs --coordinator local; for jobs in the cluster the chart sets it"
        raise ConfigError(message)
    if options.workspaces is not None:
        message = "--workspaces is not usable in a cluster: there each --user has a claim"
        raise ConfigError(message)
    if options.continue_latest:
        message = (
            "--continue is not usable: the latest job is known only in the cluster; name it with --continue-job JOB"
        )
        raise ConfigError(message)


def _build_request(options: RunOptions, job_id: str) -> JobRequest:
    names = set(RunOptions.__struct_fields__) & set(JobRequest.__struct_fields__)
    given: dict[str, Any] = {name: getattr(options, name) for name in names}
    return JobRequest(**given | {"job_id": job_id, "go_on": options.continue_job is not None})


def read_files(options: RunOptions, config: Config, cwd: Path) -> dict[str, bytes]:
    """Return the files that a coordinator needs in addition to the request, by name.

    Raises:
        ConfigError: a file cannot be read, or is not a regular file.
    """
    files = {CONFIG: _config_text(options, config)}
    lock = config.directory / LOCK_NAME
    # A lock that is ignored here must not be sent: the coordinator would apply it.
    if config.path is not None and config.known_tools and lock.is_file():
        files[LOCK] = read_content(lock)
    # The coordinator may know a provider that is not installed here.
    provider = PROVIDERS.find(config.provider_name)
    for key, name in provider.files.items() if provider else ():
        files[name] = read_content(config.directory / str(config.provider_setting.get(key, name)))
    if options.prices is not None:
        load_prices(options.prices, cwd)
        files[PRICES] = read_content(cwd / options.prices)
    return files


def _config_text(options: RunOptions, config: Config) -> bytes:
    if config.path is not None:
        return read_content(config.path)
    from orchestrator.config import remote  # noqa: PLC0415 - slow to import, see `config.load`

    return remote.download(str(options.config))
