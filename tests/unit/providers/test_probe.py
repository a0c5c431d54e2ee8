"""The request that finds a wrong key before a job starts, against a server that answers as the APIs do."""

import asyncio
import json
import os
import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import ConfigError
from orchestrator.providers import PROVIDERS, ModelRequest, ProviderSetting, open_provider
from orchestrator.providers.probe import CHECK_SECONDS, KeyMemory, Verdict, check_key, send_probe
from orchestrator.testing.leak_check import nothing_left
from orchestrator.wire.message import TextPart, UserMessage
from tests.support import fake_anthropic, fake_openai
from tests.support.certificates import issue
from tests.support.fake_http import Events, Plain, fake_http
from tests.support.raw_server import OK, head_of, serving

KEY = "sk-canary-1234567890"
VARIABLES = {
    "anthropic": "ANTHROPIC_API_KEY",
    "openai": "OPENAI_API_KEY",
    "deepseek": "DEEPSEEK_API_KEY",
    "azure-openai": "AZURE_API_KEY",
    "google": "GOOGLE_GENERATIVE_AI_API_KEY",
}
TARGETS = {
    "anthropic": ("/v1/models?limit=1", ("authorization", f"Bearer {KEY}")),
    "openai": ("/models", ("authorization", f"Bearer {KEY}")),
    "deepseek": ("/models", ("authorization", f"Bearer {KEY}")),
    "azure-openai": ("/v1/models?api-version=v1", ("api-key", KEY)),
    "google": ("/models?pageSize=1", ("x-goog-api-key", KEY)),
}
"""What each API must receive: its list of models, with the key."""

REQUEST = ModelRequest("one", 0, "m", (UserMessage(id="1", contents=(TextPart(id="1", text="hi"),)),), (), 0, 10)

WRONG_GOOGLE_KEY = Plain(
    400,
    json.dumps(
        {
            "error": {
                "code": 400,
                "message": "API key not valid. Please pass a valid API key.",
                "status": "INVALID_ARGUMENT",
                "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}],
            }
        }
    ),
)
WRONG = {
    "anthropic": fake_anthropic.error(401, "authentication_error", f"invalid x-api-key {KEY}"),
    "openai": fake_openai.error(401, "invalid_api_key", f"Incorrect API key provided: {KEY}"),
    "deepseek": fake_openai.error(401, "authentication_error", f"your api key: {KEY} is invalid"),
    "azure-openai": fake_openai.error(401, "401", "Access denied due to invalid subscription key"),
    "google": WRONG_GOOGLE_KEY,
}


def setting(name: str, url: str, key: str = KEY, **more: Any) -> ProviderSetting:
    """Return a provider's setting for a server here."""
    env = {VARIABLES[name]: key} if name in VARIABLES else {}
    return ProviderSetting(name, {"baseUrl": url, **more}, env, Path())


def only_file(directory: Path) -> Path:
    """Return the only file of a directory."""
    (file,) = directory.iterdir()
    return file


def is_empty(directory: Path) -> bool:
    """Whether a directory has no files."""
    return not any(directory.iterdir())


@pytest.mark.parametrize("name", TARGETS)
async def test_a_probe_sends_the_key_as_the_model_call_does(name: str) -> None:
    """Each header of the probe is one that the model call sends too."""
    async with fake_http(Plain(500, "")) as api:
        given = setting(name, api.url, headers={"X-Team": "blue"})
        probe = PROVIDERS.get(name).probe
        assert probe is not None
        async with open_provider(given) as provider:
            await provider.generate(REQUEST, lambda _, __: None)
        (called,) = api.received
    for header, value in probe(given).headers.items():
        assert called.headers[header.lower()] == value


@pytest.mark.parametrize("name", TARGETS)
async def test_a_key_that_an_api_accepts_is_asked_for_once(name: str, tmp_path: Path) -> None:
    """The API gets its list request with the key; within a day it is not asked again."""
    memory = KeyMemory(tmp_path / "keys")
    async with fake_http() as api:
        for _ in range(2):
            await check_key(setting(name, api.url), memory)
        (asked,) = api.probes
    target, (header, value) = TARGETS[name]
    assert (asked.target, asked.headers[header]) == (target, value)
    file = only_file(tmp_path / "keys")
    assert (file.read_bytes(), file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (b"", 0o600, 0o700)
    assert KEY not in file.name


@pytest.mark.parametrize("name", WRONG)
async def test_a_wrong_key_is_refused_and_never_shown(name: str, tmp_path: Path) -> None:
    """The sentence names the provider, the variable and the host; the key that the API repeats is not in it."""
    async with fake_http(listing=WRONG[name]) as api:
        with pytest.raises(ConfigError) as caught:
            await check_key(setting(name, api.url), KeyMemory(tmp_path))
    status = 400 if name == "google" else 401
    assert str(caught.value) == (
        f"provider {name!r} does not accept the key in {VARIABLES[name]}: the API at 127.0.0.1 answered {status};"
        f" set {VARIABLES[name]} to a valid key, or store one with `perstack-orch key set {name}`"
    )
    assert is_empty(tmp_path)


async def test_a_coordinator_in_a_cluster_names_its_secret(tmp_path: Path) -> None:
    """A submitter cannot set the operator's key, so the remedy is the Secret."""
    async with fake_http(listing=WRONG["openai"]) as api:
        with pytest.raises(ConfigError, match="answered 401; correct it in the Secret that the chart's envSecret"):
            await check_key(setting("openai", api.url), KeyMemory(tmp_path), is_coordinator=True)


@pytest.mark.parametrize(
    ("name", "answer", "verdict", "is_lasting"),
    [
        ("anthropic", fake_anthropic.error(403, "permission_error", "no"), Verdict.REFUSED, False),
        ("openai", fake_openai.error(403, "forbidden", "Country not supported"), Verdict.REFUSED, False),
        # A restricted key may call models without listing them.
        ("openai", fake_openai.error(401, "x", "Missing scopes: api.model.read."), Verdict.UNKNOWN, False),
        ("google", Plain(400, '{"error": {"message": "bad page size"}}'), Verdict.UNKNOWN, False),
        ("anthropic", fake_anthropic.error(529, "overloaded_error", "busy"), Verdict.UNKNOWN, False),
        ("anthropic", fake_anthropic.error(429, "rate_limit_error", "slow down"), Verdict.UNKNOWN, False),
        # A gateway without a list of models has none tomorrow either.
        ("openai", Plain(404, "not found"), Verdict.UNKNOWN, True),
        ("openai", Plain(302, "", {"location": "http://127.0.0.1:1/"}), Verdict.UNKNOWN, False),
        ("openai", Plain(200, "<html>log in</html>"), Verdict.UNKNOWN, False),
    ],
)
async def test_only_a_refusal_of_the_key_counts(
    name: str, answer: Plain, verdict: Verdict, *, is_lasting: bool
) -> None:
    """All other answers leave the decision to the first model call."""
    async with fake_http(listing=answer) as api:
        given = setting(name, api.url)
        probe = PROVIDERS.get(name).probe
        assert probe is not None
        found = await send_probe(probe(given), given.env, 10)
    assert (found.verdict, found.is_lasting) == (verdict, is_lasting), found


async def test_a_network_failure_is_no_reason_to_stop(tmp_path: Path) -> None:
    """A closed port, and a server that never answers, end in time and without an error."""
    memory = KeyMemory(tmp_path)
    async with fake_http(listing=Events((), then="stall")) as api:
        began = time.monotonic()
        await check_key(setting("openai", api.url), memory)
        assert CHECK_SECONDS <= time.monotonic() - began < CHECK_SECONDS + 3
    await check_key(setting("openai", api.url), memory)
    assert is_empty(tmp_path)


@pytest.mark.parametrize("key", [f"{KEY}\n", f" {KEY}", f"{KEY}é", f"a\x1b[2J{KEY}"])
async def test_a_key_that_no_header_can_carry_is_refused_unsent(key: str, tmp_path: Path) -> None:
    """A pasted line break is found without a request, and the sentence does not show it."""
    async with fake_http() as api:
        with pytest.raises(ConfigError, match="has spaces, line breaks or other characters of no key") as caught:
            await check_key(setting("openai", api.url, key), KeyMemory(tmp_path))
        assert api.probes == []
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("headers", [{"X-Team": "é"}, {"X-Team": "a\nb"}])
async def test_an_unusable_header_does_not_blame_the_key(headers: Mapping[str, str], tmp_path: Path) -> None:
    """The model call reports it."""
    async with fake_http() as api:
        await check_key(setting("openai", api.url, headers=headers), KeyMemory(tmp_path))
        assert api.probes == []


async def test_a_key_is_forgotten_after_a_day(tmp_path: Path) -> None:
    """The API gets another request then, and an old entry of another key is removed."""
    memory = KeyMemory(tmp_path)
    async with fake_http() as api:
        given = setting("openai", api.url)
        await check_key(given, memory)
        file = only_file(tmp_path)
        make_old(file)
        await check_key(given, memory)
        await check_key(given, memory)
        assert len(api.probes) == 2
        make_old(file)
        await check_key(setting("openai", api.url, "sk-other"), memory)
        assert not file.exists()


async def test_a_wrong_key_is_refused_each_time(tmp_path: Path) -> None:
    """A refusal is not remembered: the user may have corrected the account."""
    async with fake_http(listing=WRONG["openai"]) as api:
        for _ in range(2):
            with pytest.raises(ConfigError):
                await check_key(setting("openai", api.url), KeyMemory(tmp_path))
        assert len(api.probes) == 2


def make_old(file: Path) -> None:
    """Date a file back by a day."""
    os.utime(file, (time.time() - 24 * 3600 - 1,) * 2)


@pytest.mark.parametrize("directory", [None, Path("/proc/nowhere"), Path("/dev/null/keys")])
async def test_a_memory_that_cannot_be_written_asks_each_time(directory: Path | None) -> None:
    """A home that is missing or read-only delays a job and never stops it."""
    async with fake_http() as api:
        for _ in range(2):
            await check_key(setting("anthropic", api.url), KeyMemory(directory))
        assert len(api.probes) == 2


async def test_a_provider_without_keys_is_not_asked(tmp_path: Path) -> None:
    """Ollama has no key, and a script no API."""
    async with fake_http() as api:
        for name in ("ollama", "scripted"):
            await check_key(setting(name, api.url), KeyMemory(tmp_path))
        assert api.probes == []


async def test_ollama_lists_its_models() -> None:
    """The probe of an API without keys gets its content."""
    async with fake_http(listing=Plain(200, '{"data": [{"id": "gpt-oss:20b"}]}')) as api:
        given = setting("ollama", api.url)
        probe = PROVIDERS.get("ollama").probe
        assert probe is not None
        found = await send_probe(probe(given), given.env, 10)
    assert (found.verdict, found.content) == (Verdict.ACCEPTED, {"data": [{"id": "gpt-oss:20b"}]})
    assert api.probes[0].target == "/v1/models"
    assert "authorization" not in api.probes[0].headers


async def test_a_probe_trusts_and_names_whom_the_model_call_does(tmp_path: Path) -> None:
    """The authority in SSL_CERT_FILE, and the user in the URL, with which a gateway of one's own may be reached."""
    heads: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await head_of(reader))
        writer.write(OK)

    authority = issue(tmp_path, "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    async with nothing_left(), serving(serve, context) as server:
        given = setting("openai", f"https://me:p%40ss@127.0.0.1:{server.port}")
        probe = PROVIDERS.get("openai").probe
        assert probe is not None
        trusted = await send_probe(probe(given), {"SSL_CERT_FILE": str(authority)}, CHECK_SECONDS)
        untrusted = await send_probe(probe(given), {}, CHECK_SECONDS)
        absent = await send_probe(probe(given), {"SSL_CERT_FILE": "/absent.pem"}, CHECK_SECONDS)
    assert trusted.verdict is Verdict.ACCEPTED
    assert (untrusted.verdict, "verify failed" in untrusted.why) == (Verdict.UNKNOWN, True)
    assert (absent.verdict, absent.why.startswith("was not asked: ")) == (Verdict.UNKNOWN, True)
    (head,) = heads
    assert "Authorization: Basic bWU6cEBzcw==\r\n" in head
