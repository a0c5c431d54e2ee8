"""From a Config, an environment and a few wishes to a Job, for the command line and for whoever embeds us."""

import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path

from orchestrator.backends import isolates, require_known_backend
from orchestrator.backends.docker_address import engine_sockets
from orchestrator.backends.kubernetes_setting import ClusterSetting, pod_limits
from orchestrator.backends.naming import is_image_name
from orchestrator.caller import state_of_caller
from orchestrator.config import Config
from orchestrator.config.config import DEFAULT_MODEL
from orchestrator.config.credentials import check_credentials
from orchestrator.config.registries import find_registries
from orchestrator.errors import ConfigError
from orchestrator.plan import Job
from orchestrator.prewarm import WAIT_SECONDS
from orchestrator.providers import Provider, ProviderSetting, open_provider, require_known
from orchestrator.providers.models import context_window
from orchestrator.providers.prices import LIST_PRICES, Prices
from orchestrator.sandbox import STATE_ROOT, Limits, User
from orchestrator.state import unwritable
from orchestrator.version import VERSION
from orchestrator.wire.identity import identify, is_job_id
from orchestrator.wire.run import EventDetail
from orchestrator.wire.skill import StdioSkill
from orchestrator.workspace import keep_store_apart, prepare

# PWD alone is where a shell is, and would be masked in every message that names a file.
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|(?:^|_)PAT$|_PWD$", re.IGNORECASE)


def make_job(  # noqa: PLR0913 - what may be wished for, all but three by default
    expert_key: str,
    query: str,
    *,
    config: Config,
    env: Mapping[str, str],
    host_env: Mapping[str, str] | None = None,
    backend: str = "docker",
    workspace: Path | None = None,
    store: Path = Path("perstack"),
    job_id: str | None = None,
    env_names: tuple[str, ...] = (),
    allowed: Mapping[str, tuple[str, ...]] | None = None,
    image: str | None = None,
    runtime_class: str | None = None,
    run_as: User | None = None,
    events: EventDetail = EventDetail.DEFAULT,
    verbose: bool = False,
    prewarm: int | None = None,
    run_seconds: float | None = None,
    job_seconds: float | None = None,
    prices: Prices = LIST_PRICES,
    cluster: ClusterSetting | None = None,
) -> Job:
    """Fill in every default of a job that runs `expert_key` with `query`.

    `env` holds the provider's key and the values of variables that skills declare; `env_names` are those of it that
    the Expert's skills and `exec` get besides. With `host_env` the provider's key is there, with whatever else is not
    for Experts (proxies, registries, the engine), and nothing of it is in `env`.
    Without `workspace` it is ./workspace, made if it is not there.
    `store` is where the job's records will be. `allowed` are hosts by skill, beside those that skills declare.
    `image` is the runtime image, `runtime_class` what runs it in the engine, `run_as` goes before the workspace's
    owner. `prewarm` is how many Sandboxes are kept ready, None to decide by need. `run_seconds` and `job_seconds` are
    limits, `prices` those of models. `cluster` is where the backend `kubernetes` runs: then the workspace is `ws` on
    its claim, which also holds all else that Sandboxes mount.

    Raises:
        ConfigError: there is no such Expert, provider or backend, or the id, workspace or store cannot be used.
        MissingEnvError: the provider's key has no value.
    """
    config.expert(expert_key)
    require_known_backend(backend)
    require_known(config.provider_name)
    host = env if host_env is None else host_env
    check_credentials(config.provider_name, config.provider_setting, host, apart=host_env is not None)
    if job_id is not None and not is_job_id(job_id):
        message = f"job id {job_id!r} is not usable: use 1 to 63 lower-case letters, digits and inner hyphens"
        raise ConfigError(message)
    if image is not None and not is_image_name(image):
        message = f"image {image!r} is not usable: give NAME, NAME:TAG or NAME@DIGEST"
        raise ConfigError(message)
    directory = workspace or (Path("workspace") if cluster is None else cluster.claim.root / "ws")
    isolated = isolates(backend)
    if isolated:
        keep_store_apart(directory, store)
    found = prepare(directory, run_as, make=workspace is None, isolated=isolated, sockets=engine_sockets(host))
    if cluster is not None:
        found = replace(found, remedy=unwritable(cluster.claim.root))
    model = config.model or DEFAULT_MODEL
    return Job(
        id=job_id or identify(secrets.token_hex(16)),
        instance=instance_of(store, cluster),
        config=config,
        expert_key=expert_key,
        query=query,
        workspace=found,
        image=image or f"perstack-orch-runtime:{VERSION}",
        provider_name=config.provider_name,
        model=model,
        reasoning_budget=config.reasoning_budget,
        max_steps=config.max_steps,
        max_retries=config.max_retries,
        timeout_ms=config.timeout_ms,
        context_window=context_window(config.provider_name, model),
        env=dict(env),
        host_env=None if host_env is None else dict(host_env),
        secrets=tuple(dict.fromkeys((*_secrets(config, env, env_names), *_secrets(config, host, ())))),
        env_names=env_names,
        allowed=allowed or {},
        runtime_class=runtime_class,
        limits=Limits() if cluster is None else pod_limits(cluster.pod),
        events=events,
        verbose=verbose,
        prewarm=prewarm,
        run_seconds=run_seconds,
        job_seconds=job_seconds,
        wait_seconds=WAIT_SECONDS + (0 if cluster is None else cluster.start_seconds),
        registries=find_registries(host),
        platform=backend,
        price=prices.get((config.provider_name, model)),
        state_root=state_root_of(cluster),
        locks_root=_locks_root(cluster),
        packages_root=None if cluster is None else cluster.claim.root / "packages",
    )


def instance_of(store: Path, cluster: ClusterSetting | None = None) -> str:
    """Name the instance that a store is: whoever uses it answers for its Sandboxes.

    On a claim it is the same wherever the claim is mounted, and another on every claim.
    """
    real = store.resolve()
    if cluster is None:
        return identify("store", str(real))
    root = cluster.claim.root.resolve()
    within = real.relative_to(root) if real.is_relative_to(root) else real
    return identify("store", cluster.namespace, cluster.claim.name, str(within))


def state_root_of(cluster: ClusterSetting | None) -> Path:
    """Where the state directories of all jobs are."""
    return STATE_ROOT if cluster is None else cluster.claim.root / "state"


def _locks_root(cluster: ClusterSetting | None) -> Path | None:
    """Where the locks of workspaces are: for all jobs of the caller on this machine, or of one claim."""
    above = state_of_caller() if cluster is None else state_root_of(cluster)
    return above and above / "locks"


def declared(config: Config, env_names: tuple[str, ...]) -> frozenset[str]:
    """Name the variables whose values Experts are given: what skills declare, and those of `--env`."""
    skills = (skill for expert in config.experts.values() for skill in expert.skills)
    return frozenset(env_names).union(*(skill.required_env for skill in skills if isinstance(skill, StdioSkill)))


def provider_of(job: Job) -> Callable[[], AbstractAsyncContextManager[Provider]]:
    """Give what opens the API that `job` calls, when it is time."""
    env = job.env if job.host_env is None else job.host_env
    setting = ProviderSetting(job.provider_name, job.config.provider_setting, env, job.config.directory)
    return partial(open_provider, setting)


def _secrets(config: Config, env: Mapping[str, str], env_names: tuple[str, ...]) -> Iterator[str]:
    """Give every value that no record may show: what is granted, what is named like a secret, headers of the API."""
    granted = declared(config, env_names)
    for name, value in env.items():
        if name in granted or _SECRET_NAME.search(name):
            yield value
    headers = config.provider_setting.get("headers")
    if isinstance(headers, Mapping):
        yield from (str(value) for value in headers.values())
