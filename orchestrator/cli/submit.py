"""A job that the cluster works: `run` and `resume` with `--coordinator cluster`."""

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from orchestrator.cli import request as requests
from orchestrator.cli.cluster import UNENFORCED
from orchestrator.cli.options import RunOptions
from orchestrator.cli.place import opened_place
from orchestrator.cli.watching import Watching
from orchestrator.config import Config
from orchestrator.config.lock import LOCK_BYTES, LOCK_NAME
from orchestrator.disk.plain_file import read_plain
from orchestrator.errors import ConfigError
from orchestrator.request import declared
from orchestrator.wire.frozen import ascii_json
from orchestrator.wire.identity import identify
from orchestrator.wire.job_request import CONFIG, ENVIRONMENT, LOCK, PRICES, REPLIES, REQUEST, JobRequest

_OF_LOCAL = ("claim", "claim_mount", "broker_address", "broker_port", "pod_setting")
"""Options for where this process is the coordinator: the chart says what they would."""


def submit(options: RunOptions, environ: Mapping[str, str]) -> int:
    """Leave the job that `options` ask for to the cluster, and follow it to its end; give the exit code.

    Raises:
        OrchestratorError: it could not be left there, or not be worked.
    """
    requests.check(options)
    _check(options)
    cwd = Path.cwd()
    config = requests.configure(options, cwd)
    if options.expert_key:
        config.expert(options.expert_key)
    env = requests.environment(options, config, environ, cwd)
    values = {name: env.values[name] for name in sorted(declared(config, options.env)) if name in env.values}
    job_id = options.continue_job or options.job_id or identify(secrets.token_hex(16))
    files = files_of(options, config, cwd) | {
        REQUEST: _request(options, job_id).to_json(),
        ENVIRONMENT: ascii_json(values),
    }
    watching = Watching(job_id, options, environ, tuple(values.values()), options.expert_key)
    warnings = (*config.notes, *env.notes, *((UNENFORCED,) if options.allow_unenforced_network else ()))
    return asyncio.run(_submit(options, job_id, files, watching, warnings, environ))


async def _submit(  # noqa: PLR0913, PLR0917 - what a job is made of
    options: RunOptions,
    job_id: str,
    files: Mapping[str, bytes],
    watching: Watching,
    warnings: tuple[str, ...],
    environ: Mapping[str, str],
) -> int:
    async with opened_place(options, options.user, environ) as place:
        with watching.reported(verbose=options.verbose) as report:
            for text in warnings:
                report.warn(text)
            owner = await place.submit(job_id, files, options.env_secret)
            return await watching.follow(place, owner, options.after, report, options.start_seconds)


def _check(options: RunOptions) -> None:
    """Find options that mean nothing where a coordinator in the cluster works the job."""
    given = [name for name in _OF_LOCAL if getattr(options, name)]
    if given:
        named = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        message = f"{named} is for --coordinator local; for jobs that the cluster works the chart says such things"
        raise ConfigError(message)
    if options.workspaces is not None:
        message = "--workspaces is not usable: in a cluster each --user has a claim"
        raise ConfigError(message)
    if options.continue_latest:
        message = (
            "--continue is not usable: name the job with --continue-job JOB, which one is the latest is not known here"
        )
        raise ConfigError(message)


def _request(options: RunOptions, job_id: str) -> JobRequest:
    names = {field.name for field in fields(RunOptions)} & set(JobRequest.__struct_fields__)
    given: dict[str, Any] = {name: getattr(options, name) for name in names}
    return JobRequest(**given | {"job_id": job_id, "go_on": options.continue_job is not None})


def files_of(options: RunOptions, config: Config, cwd: Path) -> dict[str, bytes]:
    """Give the files that a coordinator needs beside what was asked for, by name.

    Raises:
        ConfigError: one cannot be read, or is no such file.
    """
    files = {CONFIG: _config_text(options, config)}
    lock = config.directory / LOCK_NAME
    # One that was not used here must not be used there, where it would seem to be named.
    if config.path is not None and config.known_tools and lock.is_file():
        files[LOCK] = _content(lock)
    if config.provider_name == "scripted":
        files[REPLIES] = _content(config.directory / str(config.provider_setting.get("replies", REPLIES)))
    if options.prices is not None:
        requests.prices(options.prices, cwd)
        files[PRICES] = _content(cwd / options.prices)
    return files


def _config_text(options: RunOptions, config: Config) -> bytes:
    if config.path is not None:
        return _content(config.path)
    from orchestrator.config import remote  # noqa: PLC0415 - it takes long to import, see `config.load`

    return remote.download(str(options.config))


def _content(path: Path) -> bytes:
    try:
        return read_plain(path, LOCK_BYTES)
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}"
        raise ConfigError(message) from error
    except ValueError as error:
        message = f"{path} {error}, so it is not read; replace it"
        raise ConfigError(message) from error
