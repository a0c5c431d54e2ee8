"""Addresses of APIs, and what a call must carry (docs/reference/perstack.md#provider-variables)."""

import asyncio
import json
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import ConfigError, MissingEnvError
from orchestrator.providers import ModelRequest, ProviderSetting, open_provider
from orchestrator.providers.http_client import base_url, option
from orchestrator.testing.leak_check import nothing_left
from orchestrator.wire.generation import Failure, Reply
from orchestrator.wire.message import TextPart, UserMessage
from tests.support import fake_anthropic, fake_google
from tests.support.certificates import issue
from tests.support.fake_http import Events, Plain, fake_http
from tests.support.fake_openai import stop
from tests.support.raw_server import answering, head_of, serving

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


HTTPS = {**KEYS, "anthropic": "ANTHROPIC_API_KEY"}


HELLO = ModelRequest("coach", 0, "m", (UserMessage(id="m", contents=(TextPart(id="p", text="Hello"),)),), (), 0, 5)


def _chunked(*data: str) -> bytes:
    body = "".join(f"data: {each}\n\n" for each in data).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


_MESSAGES = [fake_anthropic.start(), *fake_anthropic.text(0, "Hi"), *fake_anthropic.stop("end_turn")]
_REPLIES = dict.fromkeys(KEYS, _chunked(*stop("stop"))) | {
    "anthropic": _chunked(*map(json.dumps, _MESSAGES)),
    "google": _chunked(*fake_google.stop("STOP")),
}


async def _asked(setting: ProviderSetting) -> Reply | Failure:
    async with nothing_left(), asyncio.timeout(60), open_provider(setting) as provider:
        return await provider.generate(HELLO, lambda _kind, _piece: None)


@pytest.mark.parametrize("name", HTTPS)
async def test_each_provider_goes_through_the_proxy_of_perstack(name: str) -> None:
    """The proxy gets a request for the API's host, with every provider."""
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


@pytest.mark.parametrize("name", HTTPS)
async def test_a_named_certificate_is_trusted_and_no_other(name: str, tmp_path: Path) -> None:
    """SSL_CERT_FILE of the given environment has the authority of a company, whose gateway stands before the API."""
    authority = issue(tmp_path, "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    refusal = b"HTTP/1.1 418 -\r\ncontent-length: 0\r\n\r\n"
    async with serving(answering(refusal), context) as server:
        url = f"https://127.0.0.1:{server.port}"
        trusted = await _asked(given(name, {HTTPS[name]: "k", "SSL_CERT_FILE": str(authority)}, baseUrl=url))
        untrusted = await _asked(given(name, {HTTPS[name]: "k"}, baseUrl=url))
    assert isinstance(trusted, Failure)
    assert trusted.status_code == 418
    assert isinstance(untrusted, Failure)
    assert (untrusted.name, untrusted.is_retryable) == ("ConnectionError", True)
    assert untrusted.message.startswith("the model's API at 127.0.0.1 could not be reached: [SSL: CERTIFICATE_VERIFY")


async def test_a_proxy_gets_its_credentials_and_the_api_the_key() -> None:
    """An API without TLS is reached by its whole URL."""
    async with fake_http(Events(stop("stop"))) as proxy:
        env = {"HTTP_PROXY": proxy.url.replace("http://", "http://me:p%40ss@"), "NO_PROXY": "other.invalid"}
        setting = given("ollama", env, baseUrl="http://gpu.invalid:11434", headers={"X-Key": "k"})
        assert isinstance(await _asked(setting), Reply)
    (received,) = proxy.received
    assert received.target == "http://gpu.invalid:11434/v1/chat/completions"
    sent = {name: received.headers[name] for name in ("host", "proxy-authorization", "x-key")}
    assert sent == {"host": "gpu.invalid:11434", "proxy-authorization": "Basic bWU6cEBzcw==", "x-key": "k"}


async def test_no_proxy_is_obeyed() -> None:
    """The host is reached directly, which fails here, since there is no such host."""
    async with fake_http() as proxy:
        env = {"HTTP_PROXY": proxy.url, "NO_PROXY": ".invalid"}
        outcome = await _asked(given("ollama", env, baseUrl="http://gpu.invalid:11434"))
        assert proxy.received == []
    assert isinstance(outcome, Failure)
    assert outcome.name == "ConnectionError"


async def test_a_proxy_that_refuses_is_named_without_its_password() -> None:
    """The error has what a person must correct."""
    async with fake_http(Plain(407, "log in first")) as proxy:
        env = {"HTTPS_PROXY": proxy.url.replace("http://", "http://me:canary-0123@"), "OPENAI_API_KEY": "k"}
        outcome = await _asked(given("openai", env, baseUrl="https://api.invalid"))
    assert isinstance(outcome, Failure)
    assert outcome.message == (
        f"the model's API at api.invalid could not be reached: the proxy {proxy.url.removeprefix('http://')} does not"
        " connect to https://api.invalid (407: log in first)"
    )


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        ({"HTTPS_PROXY": "socks5://p.example"}, "its URL must begin with http:// or https://"),
        ({"SSL_CERT_FILE": "/absent.pem"}, "No such file or directory"),
    ],
)
async def test_an_environment_that_cannot_be_used_is_an_error(env: dict[str, str], sentence: str) -> None:
    """Before any model is called."""
    with pytest.raises(ConfigError, match=f"the API of provider 'openai' cannot be reached: .*{sentence}"):
        await opened(given("openai", {"OPENAI_API_KEY": "k", **env}))


@pytest.mark.parametrize(
    ("key", "headers", "name"),
    [
        ("k\n", {}, "Authorization"),
        ("schlüssel", {}, "Authorization"),
        ("k", {"x-team": "a\r\nb: c"}, "x-team"),
        ("k", {"x team": "a"}, "x team"),
        ("k", {"": "a"}, ""),
    ],
)
async def test_a_header_that_cannot_be_sent_is_an_error(key: str, headers: dict[str, str], name: str) -> None:
    """The error has its name and never its value."""
    with pytest.raises(ConfigError, match=f"the header {name!r} of provider 'openai' cannot be sent") as caught:
        await opened(given("openai", {"OPENAI_API_KEY": key}, headers=headers))
    assert key == "k" or key not in str(caught.value)


@pytest.mark.parametrize("name", ["Content-Length", "transfer-encoding", "Connection"])
async def test_a_header_of_the_connection_is_an_error(name: str) -> None:
    """The request would end elsewhere than its body does."""
    with pytest.raises(ConfigError, match=f"the header '{name}' of provider 'openai' cannot be set: it belongs to the"):
        await opened(given("openai", {"OPENAI_API_KEY": "k"}, headers={name: "5"}))


async def test_a_user_in_the_url_is_sent_as_curl_does() -> None:
    """A server of one's own may stand behind a password, which no failure shows in any of its forms."""
    answer = '{"error": "canary-0123, canary%2D0123 and bWU6Y2FuYXJ5LTAxMjM= is wrong"}'
    async with fake_http(Plain(400, answer)) as api:
        url = api.url.replace("http://", "http://me:canary%2D0123@")
        outcome = await _asked(given("ollama", baseUrl=url))
    (received,) = api.received
    assert received.headers["authorization"] == "Basic bWU6Y2FuYXJ5LTAxMjM="
    assert received.headers["host"] == api.url.removeprefix("http://")
    assert isinstance(outcome, Failure)
    assert outcome.message == "the model's API answered 400: ***, *** and *** is wrong"


@pytest.mark.parametrize("name", HTTPS)
async def test_parallel_calls_share_connections(name: str) -> None:
    """Calls after one another use one connection, and calls at once no more than there are of them."""
    together = asyncio.Barrier(2)
    bodies: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await head_of(reader)
            bodies.append(int(head.lower().partition("content-length: ")[2].split()[0]))
            await reader.readexactly(bodies[-1])
            async with together:
                writer.write(_REPLIES[name])

    async with serving(serve) as server:
        setting = given(name, {HTTPS[name]: "k"}, baseUrl=f"http://127.0.0.1:{server.port}")
        async with nothing_left(), open_provider(setting) as provider:
            for _ in range(3):
                async with asyncio.TaskGroup() as tasks:
                    calls = [tasks.create_task(provider.generate(HELLO, lambda _kind, _piece: None)) for _ in range(2)]
                assert all(isinstance(call.result(), Reply) for call in calls)
        assert (server.connections, len(bodies)) == (2, 6)
