"""What a job may do, found without running it, and printed as text or JSON."""

import asyncio
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from orchestrator.backends import inspect_engine, open_backend
from orchestrator.backends.cluster_settings import ClusterSetting
from orchestrator.backends.engine_info import InspectedBackend
from orchestrator.cli.build_job import (
    build_job_in,
    check_options,
    load_config,
    load_environment_with_key,
    without_model,
)
from orchestrator.cli.cluster_options import read_cluster_setting
from orchestrator.cli.options import RunOptions
from orchestrator.cli.output.log_lines import show_log
from orchestrator.cli.output.notices import Notices, write_warning
from orchestrator.cli.output.render import plain
from orchestrator.cli.user_dirs import resolve_user_dirs
from orchestrator.config import Config
from orchestrator.config.credentials import check_credentials
from orchestrator.config.environment import Environment
from orchestrator.errors import MissingEnvError, OrchestratorError
from orchestrator.explain.report import ExpertAccess, Explanation, Findings, HostAccess, ToolAccess, explain
from orchestrator.history.grants import limits_line, listed
from orchestrator.jobs.volume_lease import require_free
from orchestrator.jobs.workspace_copy import place_workspace
from orchestrator.plan.job import Job
from orchestrator.pool.one_off import one_off
from orchestrator.providers import PROVIDERS
from orchestrator.sandbox.api import Backend
from orchestrator.units import amount

_PROBE_SECONDS = 60
_LABEL = 12
_STEP = "  "


def show_explanation(options: RunOptions, environ: Mapping[str, str], *, as_json: bool) -> int:
    """Print what the job that `options` describe may do; return the exit code.

    Raises:
        OrchestratorError: an option or perstack.toml is invalid.
    """
    check_options(options)
    options = resolve_user_dirs(options)
    cwd = Path.cwd()
    config = load_config(options, cwd)
    env = load_environment_with_key(options, config, environ, cwd)
    cluster = read_cluster_setting(options, cwd)
    job = replace(
        build_job_in(without_model(options), config, env.values, cwd, cluster),
        provider_name=config.provider_name,
    )
    for note in (*config.notes, *env.notes):
        write_warning(note)
    try:
        check_credentials(config.provider_name, config.provider_setting, env.values)
        missing_key = None
    except MissingEnvError as error:
        missing_key = str(error)
    with show_log(Notices()):
        job, found = asyncio.run(_probe(options.backend, job, environ, cluster))
    found = replace(found, missing_key=missing_key, key_origins=key_origins(config, env))
    explanation = explain(job, found)
    lines = map(plain, explanation_lines(explanation))
    text = explanation.to_json().decode() if as_json else "\n".join(lines)
    sys.stdout.write(f"{text}\n")
    return 0


def key_origins(config: Config, env: Environment) -> dict[str, str]:
    """Return where the value of each variable comes from that the provider must have; unset ones are left out."""
    spec = PROVIDERS.find(config.provider_name)
    names = () if spec is None else spec.required
    return {name: origin for name in names if (origin := env.origin_of(name)) is not None}


async def _probe(
    name: str, job: Job, environ: Mapping[str, str], cluster: ClusterSetting | None
) -> tuple[Job, Findings]:
    """Query the engine, and a one-off Sandbox; a failure becomes part of the result, and the workspace of the job."""
    found = Findings(None, None, cluster=cluster)
    try:
        found = replace(found, engine_info=await inspect_engine(name, environ, cluster))
        async with open_backend(name, environ, image=job.image, cluster=cluster) as backend:
            await backend.check()
            job = await place_workspace(job, backend)
            # Now it is known whether the engine sees the workspace, and below whether a Sandbox reached its socket.
            found = await _inspected(found, backend)
            await require_free(job, backend)
            async with one_off(job, backend, seconds=_PROBE_SECONDS) as (session, _):
                found = await _inspected(found, backend)
                return job, replace(found, facts=session.facts)
    except OrchestratorError as error:
        return job, replace(found, problem=str(error))


async def _inspected(found: Findings, backend: Backend) -> Findings:
    has_choice = found.engine_info is not None and found.engine_info.link is not None
    if not has_choice or not isinstance(backend, InspectedBackend):
        return found
    return replace(found, engine_info=await backend.engine_info())


def explanation_lines(explanation: Explanation) -> Iterator[str]:
    """Return the limits of Sandboxes, the tree of Experts, and what is not enforced, as lines of text."""
    yield f"{explanation.expert_key} on {explanation.engine or explanation.backend}"
    yield from (f"{_STEP}{label.ljust(_LABEL)}{text}" for label, text in _limits(explanation))
    yield "Experts"
    yield from _tree(explanation.expert_key, {part.key: part for part in explanation.experts}, _STEP, set())
    yield "Not enforced here" if explanation.unenforced else "All of this is enforced here"
    yield from (f"{_STEP}{sentence}" for sentence in explanation.unenforced)


def _limits(explanation: Explanation) -> Iterator[tuple[str, str]]:
    work, egress = explanation.work, explanation.egress
    if explanation.image is not None:
        yield (
            "image",
            explanation.image + (f", run by {explanation.runtime_class}" if explanation.runtime_class else ""),
        )
    inside = "" if explanation.user_inside == explanation.user else f", which is {explanation.user_inside} inside"
    yield "user", f"{explanation.user}{inside}"
    if explanation.image is not None:
        yield "network", f"{explanation.network}; skills reach the hosts below through a proxy outside, on port 443"
        if explanation.link is not None:
            yield "link", f"{explanation.link.link}: {explanation.link.reason}"
        yield "bounds", limits_line(explanation.limits)
    else:
        yield "network", explanation.network
    limits = f"{egress.connections} connections at once, {egress.connections_in_all} in a Run"
    each = f"{egress.idle_seconds:g} s idle, {egress.connection_seconds:g} s in all"
    yield "each skill", f"{limits}, {amount(egress.sent)} out, {amount(egress.received)} in; {each}"
    keys = "".join(f"; {name} from {origin}" for name, origin in work.keys.items())
    key = f"{keys}; {work.missing_key}" if work.missing_key else keys
    yield "model", f"{work.model} of {work.provider}, called from the host{key}"
    times = f"{_seconds(work.run_seconds)} for a Run, {_seconds(work.job_seconds)} for all"
    delegates = f"delegates {work.max_depth} deep, {work.max_fan_out} for one reply"
    yield "job", f"{work.max_steps} steps, {_seconds(work.generation_seconds)} for a model call, {times}; {delegates}"
    width = max((len(mount.path) for mount in explanation.mounts), default=0)
    for number, mount in enumerate(explanation.mounts):
        yield "" if number else "sees", f"{mount.path.ljust(width)}  {mount.mode.ljust(10)}  {mount.source}"


def _tree(key: str, parts: Mapping[str, ExpertAccess], indent: str, seen: set[str]) -> Iterator[str]:
    if key in seen:
        yield f"{indent}{key}: as above"
        return
    seen.add(key)
    part = parts[key]
    yield f"{indent}{key}"
    width = max(len(access.name) for access in part.places)
    for access in part.places:
        yield f"{indent}{_STEP}{access.name.ljust(width)}  {_reach(access)}"
    for delegate in part.delegates:
        yield from _tree(delegate, parts, indent + _STEP, seen)


def _reach(access: ToolAccess) -> str:
    variables = listed(f"{name} (no value)" if name in access.missing else name for name in access.env)
    text = f"variables {variables}; hosts {listed(map(_host, access.hosts))}"
    if access.package is not None:
        text += f"; package {access.package}"
    return f"remote; {text}" if access.remote else text


def _host(host: HostAccess) -> str:
    return host.name if host.allowed_by == "declared" else f"{host.name} ({host.allowed_by})"


def _seconds(seconds: float | None) -> str:
    return "no limit" if seconds is None else f"{seconds:g} s"
