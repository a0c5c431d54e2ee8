"""Addresses of APIs, and what a call must carry (docs/reference/perstack.md#provider-variables)."""

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import ConfigError, MissingEnvError
from orchestrator.providers import ModelRequest, ProviderSetting, open_provider
from orchestrator.providers.http_client import base_url, http_client, option
from orchestrator.testing.leak_check import nothing_left
from orchestrator.wire.generation import Failure, Reply
from orchestrator.wire.message import TextPart, UserMessage
from tests.support.fake_http import Events, Plain, fake_http
from tests.support.fake_openai import stop

KEYS = {
    "openai": "OPENAI_API_KEY",
    "azure-openai": "AZURE_API_KEY",
    "deepseek": "DEEPSEEK_API_KEY",
    "google": "GOOGLE_GENERATIVE_AI_API_KEY",
}
DEFAULT = "https://api.example/v1"


def given(name: str = "openai", env: Mapping[str, str] | None = None, **setting: Any) -> ProviderSetting:
    """A provider's setting."""
    return ProviderSetting(name, setting, env or {}, Path("/"))


async def opened(setting: ProviderSetting) -> None:
    """Open a provider and close it."""
    async with open_provider(setting):
        pass


@pytest.mark.behaviour("A7")
@pytest.mark.parametrize("name", KEYS)
async def test_a_missing_key_is_named(name: str) -> None:
    """The error has the variable and what to do."""
    sentence = f"{KEYS[name]} is not set; provider '{name}' needs it in the environment or in an env file"
    with pytest.raises(MissingEnvError, match=sentence):
        await opened(given(name, baseUrl="https://a.example"))


@pytest.mark.behaviour("A7")
@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({}, r"needs provider.setting.resourceName \(AZURE_RESOURCE_NAME\) or baseUrl"),
        ({"resourceName": "evil.example/#"}, "resource name 'evil.example/#' of provider 'azure-openai' is not usable"),
    ],
)
async def test_azure_needs_a_resource(setting: dict[str, Any], sentence: str) -> None:
    """It takes a resource name or a base URL is required; a resource name is not a host."""
    with pytest.raises(ConfigError, match=sentence):
        await opened(given("azure-openai", {"AZURE_API_KEY": "k"}, **setting))


@pytest.mark.behaviour("A7")
@pytest.mark.parametrize(
    ("env", "setting", "url"),
    [
        ({}, {}, DEFAULT),
        ({"BASE": "https://b.example/"}, {}, "https://b.example"),
        ({"BASE": "https://b.example"}, {"baseUrl": "https://c.example"}, "https://c.example"),
        ({}, {"baseUrl": "http://127.0.0.1:1/v1"}, "http://127.0.0.1:1/v1"),
        ({}, {"baseUrl": "http://[::1]:1"}, "http://[::1]:1"),
        ({}, {"baseUrl": "http://localhost"}, "http://localhost"),
        ({"BASE": "http://localhost.:1"}, {}, "http://localhost.:1"),
    ],
)
def test_the_setting_goes_before_the_environment_and_the_default(
    env: dict[str, str], setting: dict[str, str], url: str
) -> None:
    """The setting takes precedence over the environment, and that over the default."""
    assert base_url(given(env=env, **setting), "BASE", DEFAULT) == url


@pytest.mark.parametrize(
    "url",
    [
        "http://a.example",
        "http://localhost.a.example",
        "ftp://a",
        "a.example",
        "https://",
        "https://a:b",
        "https://[",
        "https://a.example\\@b.example",
        "https://a.example /v1",
    ],
)
def test_a_base_url_must_keep_keys_safe(url: str) -> None:
    """A URL that would send keys unencrypted, or is not a URL, is refused."""
    with pytest.raises(ConfigError, match="of provider 'openai' is not usable: use https, or http on loopback"):
        base_url(given(baseUrl=url), "BASE", DEFAULT)


def test_ollama_may_be_anywhere() -> None:
    """Ollama may be on any host of the user's network, by http."""
    assert base_url(given(baseUrl="http://gpu.lan:1"), "BASE", DEFAULT, http_anywhere=True) == "http://gpu.lan:1"


@pytest.mark.parametrize("path", ["", "/", "/api", "/v1", "/v1/"])
async def test_ollama_is_found_under_each_of_its_urls(path: str) -> None:
    """The server's URL, that of its own API (as in Perstack), and that of this format all work."""
    async with (
        fake_http(Events(stop("stop"))) as api,
        open_provider(given("ollama", baseUrl=api.url + path)) as provider,
    ):
        await provider.generate(ModelRequest("coach", 0, "m", (), (), 0, 5), lambda _kind, _piece: None)
    assert api.received[0].target == "/v1/chat/completions"


@pytest.mark.parametrize(("tokens", "effort"), [(0, {"reasoning_effort": "none"}), (2048, {})])
async def test_ollama_gets_the_option_not_to_think(tokens: int, effort: dict[str, str]) -> None:
    """The effort is `none` for budget 0, and absent otherwise."""
    request = ModelRequest("coach", 0, "m", (), (), tokens, 5)
    async with (
        fake_http(Events(stop("stop"))) as api,
        open_provider(given("ollama", baseUrl=api.url)) as provider,
    ):
        await provider.generate(request, lambda _kind, _piece: None)
    sent = api.received[0].body
    assert {name: sent[name] for name in ("reasoning_effort", "think") if name in sent} == effort


def test_option_prefers_the_setting() -> None:
    """The setting takes precedence over the environment."""
    env = {"OPENAI_PROJECT": "env"}
    assert option(given(env=env), "project", "OPENAI_PROJECT") == "env"
    assert option(given(env=env, project="toml"), "project", "OPENAI_PROJECT") == "toml"
    assert option(given(), "project", "OPENAI_PROJECT") is None


async def test_headers_must_be_strings() -> None:
    """A number is refused with a sentence."""
    with pytest.raises(ConfigError, match=r"provider.setting.headers must be a table of strings"):
        await opened(given("openai", {"OPENAI_API_KEY": "k"}, headers={"x": 1}))


@pytest.mark.parametrize(
    ("url", "env", "trusts"),
    [
        ("https://a.example", {}, False),
        ("https://a.example", {"HTTPS_PROXY": ""}, False),
        ("https://a.example", {"HTTPS_PROXY": "http://p.example"}, True),
        ("https://a.example", {"SSL_CERT_FILE": "/ca.pem"}, True),
        ("http://127.0.0.1:1", {"HTTPS_PROXY": "http://p.example"}, False),
    ],
)
async def test_the_environment_counts_where_it_is_wanted(url: str, env: dict[str, str], *, trusts: bool) -> None:
    """The environment is used for a proxy or certificates, but never for loopback."""
    async with http_client(url, env) as client:
        assert client.trust_env is trusts


async def test_calls_go_through_the_proxy_of_perstack(monkeypatch: pytest.MonkeyPatch) -> None:
    """PERSTACK_PROXY_URL is used if the API is not on this machine."""
    monkeypatch.setenv("NO_PROXY", "*")
    async with fake_http() as proxy:
        env = {"PERSTACK_PROXY_URL": proxy.url}
        async with http_client("http://a.example", env) as client:
            (transport,) = client._mounts.values()  # noqa: SLF001 httpx2 shows it nowhere else
    assert proxy.url.removeprefix("http://127.0.0.1:") in repr(vars(transport)["_pool"]._proxy_url)  # noqa: SLF001


HTTPS = {**KEYS, "anthropic": "ANTHROPIC_API_KEY"}


async def _asked(setting: ProviderSetting) -> Reply | Failure:
    hello = UserMessage(id="m", contents=(TextPart(id="p", text="Hello"),))
    async with nothing_left(), asyncio.timeout(60), open_provider(setting) as provider:
        return await provider.generate(ModelRequest("coach", 0, "m", (hello,), (), 0, 5), lambda _kind, _piece: None)


@pytest.mark.parametrize("name", HTTPS)
async def test_each_provider_goes_through_the_proxy_of_perstack(name: str) -> None:
    """The proxy gets a request for the API's host, with every SDK."""
    asked: list[bytes] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.write(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as proxy:
        env = {HTTPS[name]: "k", "PERSTACK_PROXY_URL": f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"}
        outcome = await _asked(given(name, env, baseUrl="https://model.invalid"))
    assert asked == [b"CONNECT model.invalid:443 HTTP/1.1\r\n"]
    assert isinstance(outcome, Failure)


@pytest.mark.parametrize("name", HTTPS)
async def test_no_provider_follows_a_redirect(name: str) -> None:
    """A redirect is not followed, since it would send keys and the conversation to another address."""
    async with fake_http() as elsewhere:
        there = {"location": f"{elsewhere.url}/elsewhere"}
        async with fake_http(Plain(307, "", there)) as api:
            outcome = await _asked(given(name, {HTTPS[name]: "k"}, baseUrl=api.url))
        assert (len(api.received), elsewhere.received) == (1, [])
    assert isinstance(outcome, Failure)


@pytest.mark.parametrize(
    ("name", "module"),
    [("openai", "openai"), ("ollama", "openai"), ("google", "google.genai"), ("anthropic", "anthropic")],
)
async def test_a_missing_sdk_is_named(name: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is one sentence with the module's name."""
    monkeypatch.setitem(sys.modules, module, None)
    env = dict.fromkeys((*KEYS.values(), "ANTHROPIC_API_KEY"), "k")
    with pytest.raises(
        ConfigError, match=rf"^provider '{name}' needs the package {module}, which is missing; install it again$"
    ):
        await opened(given(name, env))
