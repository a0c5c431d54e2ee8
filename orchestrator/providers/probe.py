"""One cheap request to a provider's API, which shows whether the API answers and accepts the key."""

import asyncio
import hashlib
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from orchestrator.disk.caller import state_of_caller
from orchestrator.errors import ConfigError
from orchestrator.http.errors import ConnectionBrokenError, StatusError
from orchestrator.http.headers import merged
from orchestrator.providers import PROVIDERS
from orchestrator.providers.api import ProviderSetting
from orchestrator.providers.http_client import connector, user_header
from orchestrator.providers.spec import ProbeRequest

CHECK_SECONDS = 2.0
"""How long a job may wait for the answer. An API that takes longer gets the key with the first model call."""

_REMEMBERED_SECONDS = 24 * 3600
_KEYS = "keys"


class Verdict(StrEnum):
    """What a probe has shown about the key: the API took it, refused it, or nothing was learned."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The result of a probe.

    `why` completes the sentence "the API at HOST …" and has nothing of the key. `content` is the body of an answer.
    `is_lasting` is whether the same request would get this result tomorrow too.
    """

    verdict: Verdict
    why: str
    content: Any = field(default=None, repr=False)
    is_lasting: bool = False


async def check_key(setting: ProviderSetting, memory: "KeyMemory", *, is_coordinator: bool = False) -> None:
    """Ask the API of `setting` whether it accepts the key, unless `memory` has that it did lately.

    An API that does not answer within `CHECK_SECONDS`, or does not tell, is no reason to stop. `is_coordinator`: the
    key comes from the operator's Secret.

    Raises:
        ConfigError: the API refuses the key, or it cannot be a key; the message has nothing of it.
    """
    spec = PROVIDERS.find(setting.name)
    if spec is None or spec.probe is None:
        return
    request = spec.probe(setting)
    if request.variable is None:
        return
    if memory.has(request):
        return
    result = await send_probe(request, setting.env, CHECK_SECONDS)
    if result.verdict is Verdict.REFUSED:
        remedy = f"set {request.variable} to a valid key, or store one with `perstack-orch key set {setting.name}`"
        if is_coordinator:
            remedy = "correct it in the Secret that the chart's envSecret or --env-secret names"
        message = f"{refusal_of(setting.name, request, result)}; {remedy}"
        raise ConfigError(message)
    if result.is_lasting:
        memory.keep(request)


async def send_probe(request: ProbeRequest, env: Mapping[str, str], seconds: float) -> ProbeResult:
    """Send `request`, through the proxy that `env` names; never raises for what the network or the API does."""
    unsendable = _why_unsendable(request)
    if unsendable is not None:
        return unsendable
    try:
        async with asyncio.timeout(seconds):
            return await _send(request, env)
    except StatusError as error:
        return _of_status(request, error)
    except TimeoutError:
        return ProbeResult(Verdict.UNKNOWN, f"did not answer within {seconds:g} s")
    except ConnectionBrokenError as error:
        cause = error.__cause__
        reason = getattr(cause, "strerror", None) or str(cause or error)
        return ProbeResult(Verdict.UNKNOWN, f"cannot be reached: {reason}")
    except (ValueError, OSError) as error:
        return ProbeResult(Verdict.UNKNOWN, f"was not asked: {error}")


def refusal_of(provider: str, request: ProbeRequest, result: ProbeResult) -> str:
    """Return what failed if the API refused the key, without a remedy."""
    host = urlsplit(request.url).hostname
    return f"provider {provider!r} does not accept the key in {request.variable}: the API at {host} {result.why}"


@dataclass(frozen=True, slots=True)
class KeyMemory:
    """Remembers for a day, by digest, which keys an API accepted; without a `directory` it remembers nothing.

    A failure of the disk is not reported: the next job asks the API again.
    """

    directory: Path | None

    @classmethod
    def of_caller(cls) -> "KeyMemory":
        """Return the memory in the caller's state directory."""
        above = state_of_caller()
        return cls(above and above / _KEYS)

    def has(self, request: ProbeRequest) -> bool:
        """Whether the API accepted this key lately, or cannot check keys."""
        if self.directory is None:
            return False
        try:
            age = time.time() - (self.directory / _digest(request)).lstat().st_mtime
        except OSError:
            return False
        return 0 <= age < _REMEMBERED_SECONDS

    def keep(self, request: ProbeRequest) -> None:
        """Remember that the API accepted this key now, and forget what is too old."""
        if self.directory is None:
            return
        with suppress(OSError):
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = self.directory / _digest(request)
            os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
            os.utime(file)
            for each in self.directory.iterdir():
                if time.time() - each.lstat().st_mtime >= _REMEMBERED_SECONDS:
                    each.unlink()


async def _send(request: ProbeRequest, env: Mapping[str, str]) -> ProbeResult:
    # Imported here: making a Job needs no client.
    from orchestrator.http.connection_pool import ConnectionPool  # noqa: PLC0415

    pool = ConnectionPool(await asyncio.to_thread(connector, request.url, env), keep=0)
    headers = merged(request.headers, user_header(request.url))
    async with pool.request("GET", "", request.query, headers=headers) as response:
        if response.status >= HTTPStatus.MULTIPLE_CHOICES:
            return ProbeResult(Verdict.UNKNOWN, f"answered {response.status}")
        content = await response.json()
        return ProbeResult(Verdict.ACCEPTED, f"answered {response.status}", content, is_lasting=True)


def _why_unsendable(request: ProbeRequest) -> ProbeResult | None:
    if request.key is not None and not _is_sendable(request.key):
        return ProbeResult(Verdict.REFUSED, "cannot get it: it has spaces, line breaks or other characters of no key")
    if not all(map(_is_sendable, request.headers.values())):
        return ProbeResult(Verdict.UNKNOWN, "was not asked: provider.setting.headers has characters of no header")
    return None


def _of_status(request: ProbeRequest, error: StatusError) -> ProbeResult:
    if request.is_refusal(error.status, str(error)):
        return ProbeResult(Verdict.REFUSED, f"answered {error.status}")
    # Many gateways have no list of models, and will have none tomorrow.
    is_lasting = error.status in {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}
    return ProbeResult(Verdict.UNKNOWN, f"answered {error.status}", is_lasting=is_lasting)


def _is_sendable(value: str) -> bool:
    return value.isascii() and value.isprintable() and value == value.strip()


def _digest(request: ProbeRequest) -> str:
    sent = "\n".join((request.url, *(f"{name}: {value}" for name, value in sorted(request.headers.items()))))
    return hashlib.sha256(sent.encode()).hexdigest()
