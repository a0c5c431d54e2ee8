"""The model's API: its key, its address, and on demand one request that costs nothing."""

import socket
from collections.abc import Iterator, Mapping
from functools import partial
from urllib.parse import urlsplit

from orchestrator.aio import in_daemon_thread
from orchestrator.config import Config
from orchestrator.config.credentials import check_credentials
from orchestrator.config.environment import Environment
from orchestrator.doctor.finding import Area, Finding, of_error, ok, problem, warning
from orchestrator.errors import ConfigError
from orchestrator.providers import PROVIDERS, ProbeRequest, ProviderSetting
from orchestrator.providers.http_client import find_proxy
from orchestrator.providers.probe import ProbeResult, Verdict, refusal_of, send_probe

_RESOLVE_SECONDS = 5
_ANSWER_SECONDS = 10
_NETWORK = "check the network of this machine, its name servers, and the proxy in HTTPS_PROXY"


def key_findings(config: Config, env: Environment) -> Iterator[Finding]:
    """Yield whether the provider of `config` has its key, and which other providers have theirs; no value is shown."""
    for spec in PROVIDERS.all_builtin():
        origins = {name: env.origin_of(name) for name in spec.required}
        if spec.name == config.provider_name or not origins or None in origins.values():
            continue
        yield ok(Area.MODEL, "other key", f"{spec.name}: {_listed(origins)}")
    name = config.provider_name
    try:
        check_credentials(name, config.provider_setting, env.values)
    except ConfigError as error:
        yield of_error(Area.MODEL, "key", error)
        return
    spec = PROVIDERS.get(name)
    yield ok(Area.MODEL, "key", f"{name}: {_listed({each: env.origin_of(each) for each in spec.required})}")


async def endpoint_findings(setting: ProviderSetting, *, ask: bool) -> list[Finding]:
    """Find whether the API's address is known, and with `ask` whether the API accepts the key."""
    spec = PROVIDERS.get(setting.name)
    if spec.probe is None:
        return []
    try:
        request = spec.probe(setting)
    except ConfigError as error:
        # Without a key there is nothing to send, and `key_findings` has it.
        return [] if spec.required and not setting.env.get(spec.required[0]) else [of_error(Area.MODEL, "api", error)]
    found = await _address_finding(request, setting.env)
    if not ask:
        return [found]
    return [found, answer_finding(setting.name, request, await send_probe(request, setting.env, _ANSWER_SECONDS))]


def answer_finding(provider: str, request: ProbeRequest, result: ProbeResult) -> Finding:
    """Return what the answer of the API means."""
    host = urlsplit(request.url).hostname
    match result.verdict:
        case Verdict.ACCEPTED:
            accepts = "answers" if request.variable is None else f"accepts the key in {request.variable}"
            return ok(Area.MODEL, "request", f"the API at {host} {accepts}")
        case Verdict.REFUSED:
            remedy = f"set {request.variable} to a valid key, or store one with `perstack-orch key set {provider}`"
            return problem(Area.MODEL, "request", refusal_of(provider, request, result), remedy)
    return warning(Area.MODEL, "request", f"the API at {host} {result.why}", _NETWORK)


async def _address_finding(request: ProbeRequest, env: Mapping[str, str]) -> Finding:
    parts = urlsplit(request.url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    try:
        proxy = find_proxy(request.url, env)
        if proxy is not None:
            host, port = proxy.host, proxy.port
        addresses = await in_daemon_thread(partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM))
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        return warning(Area.MODEL, "api", f"{host}, for {request.url}, cannot be resolved: {why}", _NETWORK)
    way = f" through the proxy {proxy}" if proxy is not None else ""
    return ok(Area.MODEL, "api", f"{request.url}{way}, at {addresses[0][4][0]}")


def _listed(origins: Mapping[str, str | None]) -> str:
    return ", ".join(f"{name} from {origin}" for name, origin in origins.items()) or "needs no key"
