"""Looking at a job without running it: `perstack-orch explain`."""

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from orchestrator.backends import look, open_backend
from orchestrator.backends.kubernetes_setting import ClusterSetting
from orchestrator.cli import request
from orchestrator.cli.cluster import cluster_of
from orchestrator.cli.explained import lines
from orchestrator.cli.options import RunOptions
from orchestrator.cli.own import own
from orchestrator.cli.render import plain
from orchestrator.config.credentials import check_credentials
from orchestrator.errand import errand
from orchestrator.errors import MissingEnvError, OrchestratorError
from orchestrator.explanation import Found
from orchestrator.explanation import explain as explained
from orchestrator.plan import Job

_LOOKING_SECONDS = 60


def explain(options: RunOptions, environ: Mapping[str, str], *, as_json: bool) -> int:
    """Write what the job could do that `options` ask for; what is missing is shown, and no error.

    Raises:
        ConfigError: perstack.toml or an option is not usable.
    """
    request.check(options)
    options = own(options)
    cwd = Path.cwd()
    config = request.configure(options, cwd)
    env = request.environment(options, config, environ, cwd)
    cluster = cluster_of(options.backend, options, cwd)
    job = replace(
        request.job_in(options, request.without_model(config), env.values, cwd, cluster),
        provider_name=config.provider_name,
    )
    for note in (*config.notes, *env.notes):
        _warn(note)
    try:
        check_credentials(config.provider_name, config.provider_setting, env.values)
        missing_key = None
    except MissingEnvError as error:
        missing_key = str(error)
    found = replace(asyncio.run(_look(options.backend, job, environ, cluster)), missing_key=missing_key)
    told = explained(job, found)
    text = told.to_json().decode() if as_json else "\n".join(plain(line) for line in lines(told))
    sys.stdout.write(f"{text}\n")
    return 0


async def _look(name: str, job: Job, environ: Mapping[str, str], cluster: ClusterSetting | None) -> Found:
    """Ask the engine, and a Sandbox that is given nothing to do."""
    found = Found(None, None, cluster=cluster)
    try:
        found = replace(found, ground=await look(name, environ, cluster))
        async with open_backend(name, environ, image=job.image, cluster=cluster) as backend:
            await backend.check()
            async with errand(job, backend, seconds=_LOOKING_SECONDS, packages=None, announce=_warn) as (session, _):
                return replace(found, facts=session.facts)
    except OrchestratorError as error:
        return replace(found, problem=str(error))


def _warn(text: str) -> None:
    sys.stderr.write(f"perstack-orch: warning: {plain(text)}\n")
