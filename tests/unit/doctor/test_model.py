"""The key, the address and the answer of a model's API."""

from pathlib import Path

import pytest

from orchestrator.config import Config
from orchestrator.config.environment import Environment
from orchestrator.doctor.finding import Area, Level, ok, problem
from orchestrator.doctor.model import endpoint_findings, key_findings
from orchestrator.providers import ProviderSetting
from tests.support import fake_anthropic
from tests.support.fake_http import Plain, fake_http

KEY = "sk-canary-1234567890"
HERE = Config(path=None, directory=Path())


def setting(url: str, name: str = "anthropic", **env: str) -> ProviderSetting:
    """Return a provider's setting."""
    return ProviderSetting(name, {"baseUrl": url}, {"ANTHROPIC_API_KEY": KEY, **env}, Path())


def test_where_keys_come_from_and_never_what_they_are() -> None:
    """The chosen provider's key, and those of others that are set."""
    env = Environment(
        {"ANTHROPIC_API_KEY": KEY, "OPENAI_API_KEY": KEY, "DEEPSEEK_API_KEY": ""},
        origins={"ANTHROPIC_API_KEY": "the keyring", "OPENAI_API_KEY": ".env"},
    )
    assert list(key_findings(HERE, env)) == [
        ok(Area.MODEL, "other key", "openai: OPENAI_API_KEY from .env"),
        ok(Area.MODEL, "key", "anthropic: ANTHROPIC_API_KEY from the keyring"),
    ]


def test_a_missing_key_is_a_problem_with_its_remedy() -> None:
    """The remedy names the variable, the env file and the keyring."""
    remedy = (
        "set it, write it to .env, store it with `perstack-orch key set anthropic`, or choose another with --provider"
    )
    assert list(key_findings(HERE, Environment({}))) == [
        problem(Area.MODEL, "key", "provider 'anthropic' cannot be used: ANTHROPIC_API_KEY is not set", remedy)
    ]
    scripted = HERE.overridden(provider_name="scripted")
    assert list(key_findings(scripted, Environment({}))) == [ok(Area.MODEL, "key", "scripted: needs no key")]


@pytest.mark.parametrize(
    ("answer", "level", "text"),
    [
        (Plain(200, '{"data": []}'), Level.OK, "accepts the key in ANTHROPIC_API_KEY"),
        (
            fake_anthropic.error(401, "authentication_error", f"invalid x-api-key {KEY}"),
            Level.PROBLEM,
            "does not accept the key in ANTHROPIC_API_KEY: the API at 127.0.0.1 answered 401",
        ),
        (Plain(503, "busy"), Level.WARNING, "the API at 127.0.0.1 answered 503"),
    ],
)
async def test_one_request_is_sent_on_demand(answer: Plain, level: Level, text: str) -> None:
    """Without the demand only the name is resolved; no finding shows the key."""
    async with fake_http(listing=answer) as api:
        (address,) = await endpoint_findings(setting(api.url), ask=False)
        assert (address.level, api.probes) == (Level.OK, [])
        _, request = await endpoint_findings(setting(api.url), ask=True)
    assert request.level is level
    assert text in request.found
    assert KEY not in f"{address}{request}"


async def test_a_name_that_cannot_be_resolved_is_a_warning() -> None:
    """A job may run later, when the network is back."""
    (only,) = await endpoint_findings(setting("https://nowhere.invalid"), ask=False)
    assert (only.level, only.check) == (Level.WARNING, "api")
    assert only.found.startswith("nowhere.invalid, for https://nowhere.invalid/v1/models, cannot be resolved: ")


async def test_the_proxy_is_named_and_resolved_instead() -> None:
    """Behind a proxy this machine need not know the API's address; a password of the proxy is not shown."""
    given = setting("https://nowhere.invalid", HTTPS_PROXY="http://user:secret@127.0.0.1:3128")
    (only,) = await endpoint_findings(given, ask=False)
    assert only == ok(
        Area.MODEL, "api", "https://nowhere.invalid/v1/models through the proxy 127.0.0.1:3128, at 127.0.0.1"
    )


async def test_a_wrong_base_url_is_a_problem() -> None:
    """The model call would be refused as well."""
    (only,) = await endpoint_findings(setting("http://example.com"), ask=True)
    assert (only.level, only.check) == (Level.PROBLEM, "api")


async def test_a_script_has_no_address() -> None:
    """The scripted provider calls nothing."""
    assert await endpoint_findings(setting("", "scripted"), ask=True) == []
