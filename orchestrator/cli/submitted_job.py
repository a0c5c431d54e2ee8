"""A job that was submitted to the cluster: this Pod reads it from /job and works it."""

import asyncio
import socket
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from msgspec.json import Decoder

from orchestrator.backends.cluster_settings import Claim, ClusterSetting
from orchestrator.backends.kubernetes.auth import find_credentials
from orchestrator.backends.kubernetes.client import KubernetesClient
from orchestrator.cli.build_job import build_job_in, load_config
from orchestrator.cli.cluster_options import UNENFORCED, parse_ports, read_pod_setting, split_list
from orchestrator.cli.command_line import format_location
from orchestrator.cli.job_report import exit_code_of
from orchestrator.cli.options import RunOptions
from orchestrator.cli.output.logfmt import JobLog
from orchestrator.cli.output.stdout import Stdout
from orchestrator.cli.signals import exit_on_sigterm
from orchestrator.cluster.client import RECORDS, unnamed_job_id
from orchestrator.cluster.coordinator import Coordinator, PodOutput
from orchestrator.cluster.job_request import (
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
    REQUEST,
    SKILL_PREFIX,
    JobRequest,
)
from orchestrator.cluster.protocol import JobEnded
from orchestrator.cluster.self_pod import SelfPod, addresses, find_self
from orchestrator.cluster.termination_message import write_termination_message
from orchestrator.config import Config
from orchestrator.config.environment import Environment, merge
from orchestrator.errors import ConfigError, OrchestratorError, StoreError, WireError
from orchestrator.jobs.outcome import Outcome
from orchestrator.plan.job import Job
from orchestrator.plan.job_options import JobOptions
from orchestrator.providers import require_known
from orchestrator.providers.destinations import Destinations
from orchestrator.sandbox.naming import coordinator_labels
from orchestrator.store import Recorded, Store
from orchestrator.wire.frozen import read_json
from orchestrator.wire.masking import mask
from orchestrator.wire.name_servers import name_servers

_REQUEST = Decoder(JobRequest)
_ENVIRONMENT = Decoder(dict[str, str])
_FILES, _CLAIM = Path(DIRECTORY), Path(CLAIM_DIRECTORY)


def work_submitted(options: RunOptions, environ: Mapping[str, str]) -> int:
    """Run the job; `options` are the installation's. Return the exit code.

    Raises:
        OrchestratorError: the job could not be started; the termination message has the reason too.
    """
    exit_on_sigterm()
    try:
        return asyncio.run(_coordinate(options, environ))
    except OrchestratorError as error:
        write_termination_message(JobEnded(code=error.exit_code, error=str(error)), recorded=False)
        raise


async def _coordinate(options: RunOptions, environ: Mapping[str, str]) -> int:
    request = _read_file(REQUEST, _REQUEST)
    access = await find_credentials(environ)
    api = KubernetesClient(access)
    try:
        own = await find_self(api, access.namespace, environ.get("POD_NAME") or socket.gethostname())
        job_id = request.job_id or unnamed_job_id(own.job.uid)
        options = _apply_request(options, _with_expert(request, job_id))
        ports = parse_ports(options.broker_port) if options.broker_port else BROKER_PORTS
        hosts = await addresses(api, own, coordinator_labels(job_id, own.claim), ports)
        setting = _cluster_setting(options, own, hosts, ports)
        config = _load_config(options, environ)
        env, host_env = _environment(environ), _host_environment(environ)
        job = replace(build_job_in(options, config, env.values, _FILES, setting, host_env), id=job_id)
        key = _FILES / KEY
        coordinator = Coordinator(
            api,
            own,
            job,
            request,
            setting,
            key.read_bytes() if key.exists() else None,
            environ,
            format_location(request),
            _pod_output(job),
        )
        return await coordinator.run((*config.notes, *env.notes, *(() if setting.enforced else (UNENFORCED,))))
    finally:
        api.close()


def _pod_output(job: Job) -> PodOutput:
    log = JobLog(sys.stderr, "container", job_id=job.id, mask=mask(job.secrets), verbose=job.options.verbose)
    stdout = Stdout()

    async def publish(recorded: Recorded) -> None:
        await stdout.write(recorded.line)
        await log.prepare()
        log.event(recorded.event)

    def finish(outcome: Outcome) -> int:
        log.finish(outcome)
        return exit_code_of(outcome)

    return PodOutput(log.info, log.warn, log.note, publish, finish)


def _read_file(name: str, decoder: "Decoder[Any]") -> Any:
    try:
        return read_json(decoder, (_FILES / name).read_bytes())
    except (OSError, WireError) as error:
        message = f"{_FILES / name} cannot be used ({error}); submit the job with the command or chart of this version"
        raise ConfigError(message) from error


def _with_expert(request: JobRequest, job_id: str) -> JobRequest:
    """Return the request with the job's Expert, which a request to resume does not name."""
    if request.expert_key:
        return request
    record = Store(_CLAIM / RECORDS).job(job_id)
    if record is None:
        message = f"job {job_id!r} is not in the records on the claim; see perstack-orch log --jobs"
        raise StoreError(message)
    return request.with_(expert_key=record.coordinator_expert_key)


def _apply_request(options: RunOptions, request: JobRequest) -> RunOptions:
    """Replace the installation's options by those of the request."""
    # What the request leaves out, the chart may have set.
    given = {
        name: value for name in JobOptions.__struct_fields__ if (value := getattr(request, name)) not in (None, ())
    }
    prices = _FILES / PRICES
    return options.with_(
        **given,
        expert_key=request.expert_key,
        query=request.query,
        backend="kubernetes",
        config=str(_FILES / CONFIG),
        storage=str(_CLAIM / RECORDS),
        prices=str(prices) if prices.exists() else None,
    )


def _cluster_setting(
    options: RunOptions, own: SelfPod, hosts: tuple[str, ...], ports: tuple[int, int]
) -> ClusterSetting:
    return ClusterSetting(
        namespace=own.namespace,
        claim=Claim(own.claim, _CLAIM),
        hosts=hosts,
        port=ports[0],
        forbidden=ports[1],
        outside=tuple(split_list(options.outside)),
        name_servers=name_servers(),
        coordinator=own.job,
        start_seconds=options.start_seconds,
        enforced=not options.allow_unenforced_network,
        pod=read_pod_setting(options.pod_setting, _FILES),
    )


def _load_config(options: RunOptions, environ: Mapping[str, str]) -> Config:
    config = load_config(options, _FILES)
    allowed = Destinations.parse(environ.get(BASE_URLS, ""), environ.get(HEADERS, ""))
    allowed.check(config.provider_name, config.provider_setting)
    files = require_known(config.provider_name).files
    sent = {key: name for key, name in files.items() if (_FILES / name).exists()}
    return replace(config, provider_setting=MappingProxyType({**config.provider_setting, **sent}))


def _environment(environ: Mapping[str, str]) -> Environment:
    """Return the variables for Experts: the operator's for skills, and the submitted ones, which take precedence."""
    declared = _read_file(ENVIRONMENT, _ENVIRONMENT) if (_FILES / ENVIRONMENT).exists() else {}
    return merge({**_strip_prefix(SKILL_PREFIX, environ), **declared}, (), _FILES)


def _host_environment(environ: Mapping[str, str]) -> Mapping[str, str]:
    """Return the operator's variables, none of them submitted: the provider's and the Pod's own."""
    own = {name: value for name, value in environ.items() if not name.startswith((PROVIDER_PREFIX, SKILL_PREFIX))}
    return own | _strip_prefix(PROVIDER_PREFIX, environ)


def _strip_prefix(prefix: str, environ: Mapping[str, str]) -> dict[str, str]:
    return {name.removeprefix(prefix): value for name, value in environ.items() if name.startswith(prefix)}
