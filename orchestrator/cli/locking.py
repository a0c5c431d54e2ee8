"""Installing ahead: packages of all skills into the store, their tools into perstack.lock (spec 2.3)."""

import asyncio
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import tomli_w

from orchestrator.backends import isolates, open_backend
from orchestrator.cli import request
from orchestrator.cli.cluster import cluster_of
from orchestrator.cli.options import RunOptions
from orchestrator.cli.own import own
from orchestrator.cli.render import plain
from orchestrator.cli.signals import stoppable
from orchestrator.config import Config
from orchestrator.config.lock import LOCK_BYTES, LOCK_NAME, SkillTools, lock_document
from orchestrator.disk.directory import make_below
from orchestrator.errors import ConfigError
from orchestrator.inspection import inspect
from orchestrator.packages import with_packages
from orchestrator.plan import Job
from orchestrator.request import instance_of, state_root_of
from orchestrator.sandbox import User
from orchestrator.state import job_directory
from orchestrator.workspace import NOBODY


def install(options: RunOptions, environ: Mapping[str, str]) -> int:
    """Install and write the lock; give the exit code.

    Raises:
        OrchestratorError: a package or a skill cannot be used; no lock is written then.
    """
    request.check(options)
    options = own(options, with_files=False)
    cwd = Path.cwd()
    _say("Resolving experts...")
    config = replace(request.configure(options, cwd), known_tools={})
    if config.path is None or not config.experts:
        message = "there is nothing to lock: install needs a local perstack.toml that declares an Expert"
        raise ConfigError(message)
    _say(f"Found {len(config.experts)} expert(s)")
    env = request.environment(options, config, environ, cwd)
    cluster = cluster_of(options.backend, options, cwd)
    instance, root = instance_of(cwd / options.storage, cluster), state_root_of(cluster)
    with job_directory(instance, f"install/{os.getpid()}", root=root, note=_complain) as above:
        workspace = above / "workspace"
        owner = NOBODY if isolates(options.backend) else User(os.geteuid(), os.getegid())
        make_below(above, workspace.name, (owner.uid, owner.gid), 0o700)
        jobs = _jobs(replace(options, workspace=str(workspace)), config, env.values, cwd)
        return asyncio.run(_work(options, config.path, jobs, environ))


def _jobs(options: RunOptions, config: Config, env: Mapping[str, str], cwd: Path) -> list[Job]:
    silent = request.without_model(config)
    return [request.job(replace(options, expert_key=key), silent, env, cwd) for key in config.experts]


async def _work(options: RunOptions, path: Path, jobs: list[Job], environ: Mapping[str, str]) -> int:
    with stoppable(_complain) as stop:
        try:
            cluster = cluster_of(options.backend, options, Path.cwd())
            async with open_backend(options.backend, environ, image=jobs[0].image, cluster=cluster) as backend:
                await backend.check()
                experts = dict(jobs[0].config.experts)
                tools: dict[str, SkillTools] = {}
                installed = await with_packages(
                    jobs[0], backend, Path.cwd() / options.storage, _complain, tuple(experts.values())
                )
                for job in jobs:
                    _say(f"Collecting tool definitions for {job.expert_key}...")
                    tools[job.expert_key] = await inspect(replace(job, shelf=installed.shelf), backend, _complain)
        except asyncio.CancelledError:
            if stop.number is None:
                raise
            return stop.exit_code
    document = lock_document(experts, tools, path.name, time.time_ns() // 1_000_000)
    _say(f"Found {sum(len(table['toolDefinitions']) for table in document['experts'].values())} tool(s)")
    lock, content = path.with_name(LOCK_NAME), tomli_w.dumps(document).encode()
    if len(content) > LOCK_BYTES:
        message = (
            f"{lock} would have {len(content)} bytes, and at most {LOCK_BYTES} are read: leave tools out with `pick` or"
            " `omit`, or do without the lock"
        )
        raise ConfigError(message)
    _replace(lock, content)
    _say(f"Generated {lock}")
    return 0


def _replace(path: Path, content: bytes) -> None:
    fresh = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        fresh.write_bytes(content)
        fresh.rename(path)
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror}; make its directory writable, or name another --config"
        raise ConfigError(message) from error
    finally:
        fresh.unlink(missing_ok=True)


def _say(text: str) -> None:
    sys.stdout.write(f"{plain(text)}\n")
    sys.stdout.flush()


def _complain(text: str) -> None:
    sys.stderr.write(f"perstack-orch: {plain(text)}\n")
    sys.stderr.flush()
