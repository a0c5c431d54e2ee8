"""Makes a Job from a Config, an environment and options, for the command line and for embedding."""

import re
import secrets
import warnings
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator.backends import find_backend
from orchestrator.backends.cluster_settings import ClusterSetting, pod_limits
from orchestrator.backends.docker.endpoint import engine_sockets
from orchestrator.config import Config
from orchestrator.config.config import DEFAULT_MODEL
from orchestrator.config.credentials import check_credentials
from orchestrator.config.registries import find_registries
from orchestrator.disk.caller import state_of_caller
from orchestrator.disk.directory import unwritable_remedy
from orchestrator.disk.system import real_path
from orchestrator.errors import ConfigError
from orchestrator.plan.job import WAIT_SECONDS, Job
from orchestrator.plan.job_options import NO_OPTIONS, JobOptions
from orchestrator.plan.option_values import (
    check_values,
    override,
    parse_allowed,
    parse_events,
    parse_prewarm,
    parse_user,
)
from orchestrator.providers import PROVIDERS, Provider, ProviderSetting, open_provider, require_known
from orchestrator.providers.models import context_window
from orchestrator.providers.prices import LIST_PRICES, Prices
from orchestrator.sandbox.api import DEFAULT_LIMITS, STATE_ROOT
from orchestrator.wire.identity import identify, is_job_id
from orchestrator.wire.skill import StdioSkill
from orchestrator.workspace.workspace import Workspace, in_volume, keep_store_apart, prepare

# PWD alone is the shell's directory, and would be masked in every message that names a file.
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|(?:^|_)PAT$|_PWD$", re.IGNORECASE)


def make_job(  # noqa: PLR0913 - a job's options, all but three with defaults
    expert_key: str,
    query: str,
    *,
    config: Config,
    env: Mapping[str, str],
    options: JobOptions = NO_OPTIONS,
    host_env: Mapping[str, str] | None = None,
    backend: str = "docker",
    workspace: Path | None = None,
    volume: str | None = None,
    store: Path = Path("perstack"),
    job_id: str | None = None,
    prices: Prices = LIST_PRICES,
    cluster: ClusterSetting | None = None,
    packages: Path | None = None,
    **old: Any,
) -> Job:
    """Fill in all defaults of a job that runs `expert_key` with `query`.

    `env` has the provider's key and the values of variables that skills declare, and of those that `options.env`
    names. With `host_env` the provider's key is there, with all else that is not for Experts (proxies, registries, the
    engine), and `env` has nothing of it. `options` take precedence over the Config. The default `workspace` is
    ./workspace, made if it is missing; `volume` names an engine's volume to use in its place. `store` is where the
    job's records will be, `prices` are those of models. `cluster` is where the backend `kubernetes` runs: then the
    workspace is `ws` on its claim, which also has all else that Sandboxes mount. `packages` has the packages of skills
    already, in an image of `perstack-orch build`. `old` are arguments that `options` replaces; they go with the next
    release.

    Raises:
        ConfigError: no such Expert, provider or backend exists, or an option, workspace or store cannot be used.
        MissingEnvError: the provider's key has no value.
    """
    options = _with_old_arguments(options, old)
    check_values(options)
    config = override(config, options)
    config.expert(expert_key)
    spec = find_backend(backend)
    require_known(config.provider_name)
    host = env if host_env is None else host_env
    check_credentials(config.provider_name, config.provider_setting, host, is_coordinator=host_env is not None)
    if job_id is not None and not is_job_id(job_id):
        message = f"job id {job_id!r} is not usable: use 1 to 63 lower-case letters, digits and inner hyphens"
        raise ConfigError(message)
    directory = workspace or (Path("workspace") if cluster is None else cluster.claim.root / "ws")
    if volume is not None:
        found = in_volume(volume, parse_user(options.run_as))
    else:
        found = prepare_directory(directory, backend, options, store, host, make=workspace is None)
    if cluster is not None:
        found = replace(found, remedy=unwritable_remedy(cluster.claim.root))
    model = config.model or DEFAULT_MODEL
    return Job(
        id=job_id or identify(secrets.token_hex(16)),
        instance=instance_of(store, cluster),
        config=config,
        expert_key=expert_key,
        query=query,
        workspace=found,
        image=options.image or spec.default_image(),
        provider_name=config.provider_name,
        model=model,
        reasoning_budget=config.reasoning_budget,
        max_steps=config.max_steps,
        max_retries=config.max_retries,
        timeout_ms=config.timeout_ms,
        context_window=context_window(config.provider_name, model),
        env=dict(env),
        host_env=None if host_env is None else dict(host_env),
        secrets=tuple(dict.fromkeys((*_secrets(config, env, options.env), *_secrets(config, host, ())))),
        options=options,
        allowed=parse_allowed(options.allow_domain),
        limits=DEFAULT_LIMITS if cluster is None else pod_limits(cluster.pod),
        events=parse_events(options.events),
        prewarm=parse_prewarm("off" if _is_queued(cluster) and options.prewarm == "auto" else options.prewarm),
        wait_seconds=WAIT_SECONDS + (0 if cluster is None else cluster.start_seconds),
        registries=find_registries(host),
        platform=backend,
        price=prices.get((config.provider_name, model)),
        state_root=state_root_of(cluster),
        locks_root=locks_root_of(cluster),
        packages_root=None if cluster is None else cluster.claim.root / "packages",
        shipped_packages=packages,
    )


def _with_old_arguments(options: JobOptions, old: Mapping[str, Any]) -> JobOptions:
    """Return the options with the values of arguments that `make_job` had before it took `options`."""
    if not old:
        return options
    warnings.warn("make_job takes options=JobOptions(...) in place of " + ", ".join(old), DeprecationWarning, 3)
    values = dict(old)
    env, allowed = values.pop("env_names", None), values.pop("allowed", None)
    run_as, prewarm = values.pop("run_as", None), values.pop("prewarm", None)
    if env is not None:
        values["env"] = tuple(env)
    if allowed is not None:
        values["allow_domain"] = tuple(f"{skill}={host}" for skill, hosts in allowed.items() for host in hosts)
    if run_as is not None:
        values["run_as"] = f"{run_as.uid}:{run_as.gid}"
    if prewarm is not None:
        values["prewarm"] = str(prewarm)
    return options.with_(**values)


def _is_queued(cluster: ClusterSetting | None) -> bool:
    """Whether Sandboxes wait in a queue, where a warm one would keep its place from one that has work."""
    return cluster is not None and cluster.pod.queue_name is not None


def instance_of(store: Path, cluster: ClusterSetting | None = None) -> str:
    """Return the instance id of a store: the commands that use the store own its Sandboxes.

    On a claim it does not depend on the mount point, and differs between claims.
    """
    real = real_path(store)
    if cluster is None:
        return identify("store", str(real))
    root = real_path(cluster.claim.root)
    within = real.relative_to(root) if real.is_relative_to(root) else real
    return identify("store", cluster.namespace, cluster.claim.name, str(within))


def state_root_of(cluster: ClusterSetting | None) -> Path:
    """Return the directory above the state directories of all jobs."""
    return STATE_ROOT if cluster is None else cluster.claim.root / "state"


def prepare_directory(  # noqa: PLR0913 - the directory, and what it is checked against
    directory: Path, backend: str, options: JobOptions, store: Path, environ: Mapping[str, str], *, make: bool
) -> Workspace:
    """Check a directory as the workspace of a job; one that is missing is made later if `make`.

    Raises:
        ConfigError: it cannot be used.
    """
    isolated = find_backend(backend).isolates
    if isolated:
        keep_store_apart(directory, store)
    user, sockets = parse_user(options.run_as), engine_sockets(environ)
    return prepare(directory, user, make=make, isolated=isolated, sockets=sockets)


def locks_root_of(cluster: ClusterSetting | None) -> Path | None:
    """Return the directory of the workspace locks: for all jobs of the caller on this machine, or of one claim."""
    above = state_of_caller() if cluster is None else state_root_of(cluster)
    return above and above / "locks"


def declared(config: Config, env_names: tuple[str, ...]) -> frozenset[str]:
    """Return the variables whose values Experts get: those that skills declare, and those of `--env`."""
    skills = (skill for expert in config.experts.values() for skill in expert.skills)
    return frozenset(env_names).union(*(skill.required_env for skill in skills if isinstance(skill, StdioSkill)))


def provider_of(job: Job) -> Callable[[], AbstractAsyncContextManager[Provider]]:
    """Return a function that opens the API that `job` calls."""
    return partial(open_provider, provider_setting(job))


def key_check_of(job: Job) -> Callable[[], Awaitable[None]]:
    """Return a function that raises a ConfigError if the API that `job` calls refuses the key."""

    async def check() -> None:
        spec = PROVIDERS.find(job.provider_name)
        if spec is not None and spec.probe is not None:
            # Jobs that send no request do not wait for the import of the HTTP client.
            from orchestrator.providers.probe import KeyMemory, check_key  # noqa: PLC0415

            setting, in_cluster = provider_setting(job), job.host_env is not None
            await check_key(setting, KeyMemory.of_caller(), is_coordinator=in_cluster)

    return check


def provider_setting(job: Job) -> ProviderSetting:
    """Return how `job` reaches its API."""
    env = job.env if job.host_env is None else job.host_env
    return ProviderSetting(job.provider_name, job.config.provider_setting, env, job.config.directory)


def _secrets(config: Config, env: Mapping[str, str], env_names: tuple[str, ...]) -> Iterator[str]:
    """Yield every value that no record may show: granted ones, those with a secret's name, headers of the API."""
    granted = declared(config, env_names)
    for name, value in env.items():
        if name in granted or _SECRET_NAME.search(name):
            yield value
    headers = config.provider_setting.get("headers")
    if isinstance(headers, Mapping):
        yield from (str(value) for value in headers.values())
