"""Where APIs are, and what a call must carry (spec 10.1)."""

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import ConfigError, MissingEnvError
from orchestrator.providers import ModelRequest, ProviderSetting, open_provider
from orchestrator.providers.endpoint import base_url, http_client, option
from orchestrator.wire.generation import Failure, Reply
from orchestrator.wire.message import TextPart, UserMessage
from tests.support.fake_http import Events, Plain, fake_http
from tests.support.fake_openai import stop
from tests.support.tidy import nothing_left

KEYS = {
    "openai": "OPENAI_API_KEY",
    "azure-openai": "AZURE_API_KEY",
    "deepseek": "DEEPSEEK_API_KEY",
    "google": "GOOGLE_GENERATIVE_AI_API_KEY",
}
DEFAULT = "https://api.example/v1"


def given(name: str = "openai", env: Mapping[str, str] | None = None, **setting: Any) -> ProviderSetting:
    """A setting."""
    return ProviderSetting(name, setting, env or {}, Path("/"))


async def opened(setting: ProviderSetting) -> None:
    """Open a provider and close it."""
    async with open_provider(setting):
        pass


@pytest.mark.parametrize("name", KEYS)
async def test_a7_a_missing_key_is_named(name: str) -> None:
    """The variable, and what to do."""
    sentence = f"{KEYS[name]} is not set; provider '{name}' needs it in the environment or in an env file"
    with pytest.raises(MissingEnvError, match=sentence):
        await opened(given(name, baseUrl="https://a.example"))


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({}, r"needs provider.setting.resourceName \(AZURE_RESOURCE_NAME\) or baseUrl"),
        ({"resourceName": "evil.example/#"}, "resource name 'evil.example/#' of provider 'azure-openai' is not usable"),
    ],
)
async def test_a7_azure_needs_a_resource(setting: dict[str, Any], sentence: str) -> None:
    """A resource's name, or a base URL; a name is not a host."""
    with pytest.raises(ConfigError, match=sentence):
        await opened(given("azure-openai", {"AZURE_API_KEY": "k"}, **setting))


@pytest.mark.parametrize(
    ("env", "setting", "url"),
    [
        ({}, {}, DEFAULT),
        ({"BASE": "https://b.example/"}, {}, "https://b.example"),
        ({"BASE": "https://b.example"}, {"baseUrl": "https://c.example"}, "https://c.example"),
        ({}, {"baseUrl": "http://127.0.0.1:1/v1"}, "http://127.0.0.1:1/v1"),
        ({}, {"baseUrl": "http://[::1]:1"}, "http://[::1]:1"),
        ({}, {"baseUrl": "http://localhost"}, "http://localhost"),
    ],
)
def test_a7_base_url(env: dict[str, str], setting: dict[str, str], url: str) -> None:
    """The setting, else the environment, else the default."""
    assert base_url(given(env=env, **setting), "BASE", DEFAULT) == url


@pytest.mark.parametrize(
    "url",
    ["http://a.example", "http://localhost.a.example", "ftp://a", "a.example", "https://", "https://a:b", "https://["],
)
def test_a_base_url_must_keep_keys_safe(url: str) -> None:
    """Keys travel encrypted, or not at all; what is no URL is refused."""
    with pytest.raises(ConfigError, match="of provider 'openai' is not usable: use https, or http on loopback"):
        base_url(given(baseUrl=url), "BASE", DEFAULT)


def test_ollama_may_be_anywhere() -> None:
    """On one's own network, by http."""
    assert base_url(given(baseUrl="http://gpu.lan:1"), "BASE", DEFAULT, http_anywhere=True) == "http://gpu.lan:1"


@pytest.mark.parametrize("path", ["", "/", "/api", "/v1", "/v1/"])
async def test_ollama_is_found_under_each_of_its_urls(path: str) -> None:
    """The server's, that of its own API, which Perstack wants, and that of the format spoken here."""
    async with (
        fake_http(Events(stop("stop"))) as api,
        open_provider(given("ollama", baseUrl=api.url + path)) as provider,
    ):
        await provider.generate(ModelRequest("coach", 0, "m", (), (), 0, 5), lambda _kind, _piece: None)
    assert api.received[0].target == "/v1/chat/completions"


@pytest.mark.parametrize(("tokens", "effort"), [(0, {"reasoning_effort": "none"}), (2048, {})])
async def test_ollama_is_told_not_to_think(tokens: int, effort: dict[str, str]) -> None:
    """In this format's own words; what can think does so unasked, and what cannot would refuse to."""
    request = ModelRequest("coach", 0, "m", (), (), tokens, 5)
    async with (
        fake_http(Events(stop("stop"))) as api,
        open_provider(given("ollama", baseUrl=api.url)) as provider,
    ):
        await provider.generate(request, lambda _kind, _piece: None)
    sent = api.received[0].body
    assert {name: sent[name] for name in ("reasoning_effort", "think") if name in sent} == effort


def test_option_prefers_the_setting() -> None:
    """And takes the environment where there is none."""
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
    """For a proxy or certificates of one's own, and never towards loopback."""
    async with http_client(url, env) as client:
        assert client.trust_env is trusts


async def test_calls_go_through_the_proxy_of_perstack(monkeypatch: pytest.MonkeyPatch) -> None:
    """PERSTACK_PROXY_URL, where the API is not on this machine."""
    monkeypatch.setenv("NO_PROXY", "*")
    async with fake_http() as proxy:
        env = {"PERSTACK_PROXY_URL": proxy.url}
        async with http_client("http://a.example", env) as client:
            (transport,) = client._mounts.values()  # noqa: SLF001 httpx2 tells it nowhere else
    assert proxy.url.removeprefix("http://127.0.0.1:") in repr(vars(transport)["_pool"]._proxy_url)  # noqa: SLF001


HTTPS = {**KEYS, "anthropic": "ANTHROPIC_API_KEY"}


async def _asked(setting: ProviderSetting) -> Reply | Failure:
    hello = UserMessage(id="m", contents=(TextPart(id="p", text="Hello"),))
    async with nothing_left(), asyncio.timeout(20), open_provider(setting) as provider:
        return await provider.generate(ModelRequest("coach", 0, "m", (hello,), (), 0, 5), lambda _kind, _piece: None)


@pytest.mark.parametrize("name", HTTPS)
async def test_each_provider_goes_through_the_proxy_of_perstack(name: str) -> None:
    """It is asked for the API's host, whoever's SDK is used."""
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
    """It would carry keys and the conversation elsewhere."""
    async with fake_http() as elsewhere:
        there = {"location": f"{elsewhere.url}/elsewhere"}
        async with fake_http(Plain(307, "", there)) as api:
            outcome = await _asked(given(name, {HTTPS[name]: "k"}, baseUrl=api.url))
        assert (len(api.received), elsewhere.received) == (1, [])
    assert isinstance(outcome, Failure)


@pytest.mark.parametrize(("name", "module"), [("openai", "openai"), ("ollama", "openai"), ("google", "google.genai")])
async def test_a_missing_sdk_says_what_to_install(name: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence with the extra's name."""
    monkeypatch.setitem(sys.modules, module, None)
    extra = module.partition(".")[0]
    env = dict.fromkeys(KEYS.values(), "k")
    with pytest.raises(ConfigError, match=rf"^provider '{name}' needs its package; install perstack-orch\[{extra}\]$"):
        await opened(given(name, env))
