"""Installs the packages of all skills, and writes their tools to perstack.lock.

See docs/reference/perstack.md#install.
"""

import asyncio
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import tomli_w

from orchestrator.backends import isolates, open_backend
from orchestrator.cli.build_job import (
    build_job,
    check_options,
    load_config,
    load_environment,
    without_model,
)
from orchestrator.cli.cluster_options import read_cluster_setting
from orchestrator.cli.options import RunOptions
from orchestrator.cli.output.log_lines import show_log
from orchestrator.cli.output.notices import Notices, write_message
from orchestrator.cli.output.render import plain
from orchestrator.cli.signals import stop_on_signals
from orchestrator.cli.user_dirs import resolve_user_dirs
from orchestrator.config import Config
from orchestrator.config.lock_file import LOCK_BYTES, LOCK_NAME, SkillTools, lock_document
from orchestrator.disk.directory import make_below
from orchestrator.disk.whole_file import write_atomically
from orchestrator.errors import ConfigError
from orchestrator.packages.inspect_tools import inspect
from orchestrator.packages.skill_packages import install_packages
from orchestrator.plan.job import Job
from orchestrator.plan.make_job import instance_of, state_root_of
from orchestrator.pool.state_directories import job_directory
from orchestrator.sandbox.api import User
from orchestrator.workspace.workspace import NOBODY


def install_skills(options: RunOptions, environ: Mapping[str, str]) -> int:
    """Install the packages of all skills, and write the lock next to perstack.toml; return the exit code.

    Raises:
        OrchestratorError: an option or perstack.toml is invalid, or a package or a skill cannot be used.
    """
    check_options(options)
    options = resolve_user_dirs(options, with_files=False)
    cwd = Path.cwd()
    _print("Resolving experts...")
    config = replace(load_config(options, cwd), known_tools={})
    if config.path is None or not config.experts:
        message = "there is nothing to lock; install needs a local perstack.toml that declares an Expert"
        raise ConfigError(message)
    _print(f"Found {len(config.experts)} expert(s)")
    env = load_environment(options, config, environ, cwd)
    cluster = read_cluster_setting(options, cwd)
    instance, root = instance_of(cwd / options.storage, cluster), state_root_of(cluster)
    with show_log(Notices()), job_directory(instance, f"install/{os.getpid()}", root=root) as above:
        workspace = above / "workspace"
        owner = NOBODY if isolates(options.backend) else User(os.geteuid(), os.getegid())
        make_below(above, workspace.name, (owner.uid, owner.gid), 0o700)
        jobs = _build_jobs(options.with_(workspace=str(workspace)), config, env.values, cwd)
        return asyncio.run(_install(options, config.path, jobs, environ))


def _build_jobs(options: RunOptions, config: Config, env: Mapping[str, str], cwd: Path) -> list[Job]:
    options = without_model(options)
    return [build_job(options.with_(expert_key=key), config, env, cwd) for key in config.experts]


async def _install(options: RunOptions, path: Path, jobs: list[Job], environ: Mapping[str, str]) -> int:
    """Install, and write the lock next to `path`; return the exit code.

    Raises:
        OrchestratorError: a package or a skill cannot be used; then no lock is written.
    """
    with stop_on_signals(write_message) as stop:
        try:
            cluster = read_cluster_setting(options, Path.cwd())
            async with open_backend(options.backend, environ, image=jobs[0].image, cluster=cluster) as backend:
                await backend.check()
                experts = dict(jobs[0].config.experts)
                tools: dict[str, SkillTools] = {}
                store = Path.cwd() / options.storage
                installed = await install_packages(jobs[0], backend, store, tuple(experts.values()))
                for job in jobs:
                    _print(f"Collecting tool definitions for {job.expert_key}...")
                    tools[job.expert_key] = await inspect(replace(job, installed=installed.installed), backend)
        except asyncio.CancelledError:
            if stop.signal_number is None:
                raise
            return stop.exit_code
    document = lock_document(experts, tools, path.name, time.time_ns() // 1_000_000)
    _print(f"Found {sum(len(table['toolDefinitions']) for table in document['experts'].values())} tool(s)")
    lock, content = path.with_name(LOCK_NAME), tomli_w.dumps(document).encode()
    if len(content) > LOCK_BYTES:
        message = (
            f"{lock} would have {len(content)} bytes, and at most {LOCK_BYTES} are read; leave tools out with `pick` or"
            " `omit`, or work without a lock"
        )
        raise ConfigError(message)
    _replace(lock, content)
    _print(f"Generated {lock}")
    return 0


def _replace(path: Path, content: bytes) -> None:
    try:
        write_atomically(path, content, mode=None)
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror}; make its directory writable, or name another --config"
        raise ConfigError(message) from error


def _print(text: str) -> None:
    sys.stdout.write(f"{plain(text)}\n")
    sys.stdout.flush()
