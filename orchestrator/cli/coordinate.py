"""`perstack-orch coordinate`: what runs in a coordinator's Pod, and nobody types."""

import asyncio
import socket
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from msgspec.json import Decoder

from orchestrator.backends.kubernetes_access import find_access
from orchestrator.backends.kubernetes_api import Api
from orchestrator.backends.kubernetes_own import Own, addresses, find_own
from orchestrator.backends.kubernetes_setting import Claim, ClusterSetting
from orchestrator.backends.naming import coordinator_labels
from orchestrator.cli import request as requests
from orchestrator.cli.cluster import listed, pod_setting_of, ports_of
from orchestrator.cli.coordinator import Coordinator
from orchestrator.cli.options import RunOptions
from orchestrator.cli.signals import mortal
from orchestrator.config import Config
from orchestrator.config.environment import Environment, merge
from orchestrator.coordination.last_words import leave
from orchestrator.coordination.messages import Ended
from orchestrator.coordination.submission import RECORDS, unnamed_job_id
from orchestrator.errors import ConfigError, OrchestratorError, StoreError, WireError
from orchestrator.providers.destinations import Destinations
from orchestrator.store import Store
from orchestrator.wire.frozen import read_json
from orchestrator.wire.job_request import (
    BASE_URLS,
    BROKER_PORTS,
    CLAIM_DIRECTORY,
    CONFIG,
    DIRECTORY,
    ENVIRONMENT,
    HEADERS,
    KEY,
    PRICES,
    PROVIDER_PREFIX,
    REPLIES,
    REQUEST,
    SKILL_PREFIX,
    JobRequest,
)
from orchestrator.wire.resolvers import name_servers

_REQUEST = Decoder(JobRequest)
_ENVIRONMENT = Decoder(dict[str, str])
_NOT_LAID = {"job_id", "resume_from", "namespace", "installation"}
"""What a request says beside how its job is to be run."""

_FILES, _CLAIM = Path(DIRECTORY), Path(CLAIM_DIRECTORY)


def coordinate(options: RunOptions, environ: Mapping[str, str]) -> int:
    """Work the job that the files in /job ask for; `options` are the installation's. Give the exit code.

    Raises:
        OrchestratorError: it could not be begun.
    """
    mortal()
    try:
        return asyncio.run(_coordinate(options, environ))
    except OrchestratorError as error:
        leave(Ended(code=error.exit_code, error=str(error)), recorded=False)
        raise


async def _coordinate(options: RunOptions, environ: Mapping[str, str]) -> int:
    asked = _read_file(REQUEST, _REQUEST)
    access = await find_access(environ)
    api = Api(access)
    try:
        own = await find_own(api, access.namespace, environ.get("POD_NAME") or socket.gethostname())
        job_id = asked.job_id or unnamed_job_id(own.job.uid)
        options = _options(options, _known(asked, job_id))
        ports = ports_of(options.broker_port) if options.broker_port else BROKER_PORTS
        hosts = await addresses(api, own, coordinator_labels(job_id, own.claim), ports)
        setting = _setting(options, own, hosts, ports)
        config = _config(options, environ)
        env, host = _environment(environ), _host_environment(environ)
        job = replace(requests.job_in(options, config, env.values, _FILES, setting, host), id=job_id)
        key = _FILES / KEY
        coordinator = Coordinator(api, own, job, asked, setting, key.read_bytes() if key.exists() else None, environ)
        return await coordinator.work((*config.notes, *env.notes))
    finally:
        api.close()


def _read_file(name: str, decoder: "Decoder[Any]") -> Any:
    try:
        return read_json(decoder, (_FILES / name).read_bytes())
    except (OSError, WireError) as error:
        message = f"{_FILES / name} cannot be used ({error}): have the job submitted by this version's command or chart"
        raise ConfigError(message) from error


def _known(asked: JobRequest, job_id: str) -> JobRequest:
    """Say which Expert is meant where only the job is named."""
    if asked.expert_key:
        return asked
    record = Store(_CLAIM / RECORDS).job(job_id)
    if record is None:
        message = f"job {job_id!r} is not among the records on the claim; see perstack-orch log --jobs"
        raise StoreError(message)
    return asked.with_(expert_key=record.coordinator_expert_key)


def _options(options: RunOptions, asked: JobRequest) -> RunOptions:
    """Lay what was asked for over what the installation says."""
    names = {field.name for field in fields(RunOptions)} & set(JobRequest.__struct_fields__) - _NOT_LAID
    given = {name: value for name in names if (value := getattr(asked, name)) not in (None, ())}
    prices = _FILES / PRICES
    return replace(
        options,
        **given | {"user": None, "answers": False},
        backend="kubernetes",
        config=str(_FILES / CONFIG),
        storage=str(_CLAIM / RECORDS),
        prices=str(prices) if prices.exists() else None,
    )


def _setting(options: RunOptions, own: Own, hosts: tuple[str, ...], ports: tuple[int, int]) -> ClusterSetting:
    return ClusterSetting(
        namespace=own.namespace,
        claim=Claim(own.claim, _CLAIM),
        hosts=hosts,
        port=ports[0],
        forbidden=ports[1],
        outside=tuple(listed(options.outside)),
        name_servers=name_servers(),
        coordinator=own.job,
        start_seconds=options.start_seconds,
        enforced=not options.allow_unenforced_network,
        pod=pod_setting_of(options.pod_setting, _FILES),
    )


def _config(options: RunOptions, environ: Mapping[str, str]) -> Config:
    config = requests.configure(options, _FILES)
    allowed = Destinations.parse(environ.get(BASE_URLS, ""), environ.get(HEADERS, ""))
    allowed.check(config.provider_setting)
    if config.provider_name == "scripted" and (_FILES / REPLIES).exists():
        setting = MappingProxyType(dict(config.provider_setting) | {"replies": REPLIES})
        return replace(config, provider_setting=setting)
    return config


def _environment(environ: Mapping[str, str]) -> Environment:
    """Give what Experts may be granted: what the operator has for skills, and what was submitted, which goes first."""
    declared = _read_file(ENVIRONMENT, _ENVIRONMENT) if (_FILES / ENVIRONMENT).exists() else {}
    return merge({**_without(SKILL_PREFIX, environ), **declared}, (), _FILES)


def _host_environment(environ: Mapping[str, str]) -> Mapping[str, str]:
    """Give what belongs to the operator, of which nothing was submitted: the provider's variables and the Pod's own."""
    own = {name: value for name, value in environ.items() if not name.startswith((PROVIDER_PREFIX, SKILL_PREFIX))}
    return own | _without(PROVIDER_PREFIX, environ)


def _without(prefix: str, environ: Mapping[str, str]) -> dict[str, str]:
    return {name.removeprefix(prefix): value for name, value in environ.items() if name.startswith(prefix)}
