"""Where a submitted `[provider.setting]` may send an operator's key."""

from typing import Any

import pytest

from orchestrator.errors import ConfigError
from orchestrator.providers import PROVIDERS
from orchestrator.providers.destinations import ANY, Destinations

LISTED = "https://gateway.example/v1 https://mine.openai.azure.com/openai/"
ALLOWED = Destinations.parse(LISTED, "X-Team anthropic-beta")
MEANT: dict[str, Any] = {
    "baseUrl": "https://evil.example",
    "headers": {"X-Forward-To": "https://evil.example"},
    "resourceName": "evil",
    "region": "evil",
    "location": "evil",
    "organization": "o",
    "project": "p",
    "name": "n",
    "apiVersion": "v1",
    "useDeploymentBasedUrls": True,
    "replies": "replies.json",
}
"""A value for every key of any provider's setting."""

KEYS = frozenset().union(*(spec.setting_keys() for spec in PROVIDERS.all_builtin()))
HARMLESS = {"organization", "project", "name", "apiVersion", "useDeploymentBasedUrls", "replies"}


@pytest.mark.parametrize(
    "setting",
    [
        {},
        {"baseUrl": "https://gateway.example/v1"},
        {"baseUrl": "https://gateway.example/v1/", "headers": {"x-team": "a", "Anthropic-Beta": "b"}},
        {"resourceName": "mine"},
        {"baseUrl": "https://mine.openai.azure.com/openai"},
        {"headers": {}},
    ],
)
def test_what_is_listed_is_taken(setting: dict[str, Any]) -> None:
    """Listed addresses match completely, except for a final slash; resources by their URL; headers in any case."""
    ALLOWED.check("azure-openai", setting)


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example",
        "https://gateway.example",
        "https://gateway.example/v1/../evil",
        "https://gateway.example/v1?to=evil",
        "https://gateway.example/v1@evil.example",
        "https://gateway.example@evil.example/v1",
        "https://gateway.example.evil.example/v1",
        "https://GATEWAY.example/v1",
        "http://gateway.example/v1",
        "https://gateway.example:444/v1",
        ANY,
        "",
    ],
)
def test_what_only_looks_like_it_is_refused(url: str) -> None:
    """An address that only resembles a listed one is refused."""
    with pytest.raises(ConfigError, match="would send its key to"):
        ALLOWED.check("anthropic", {"baseUrl": url})


@pytest.mark.parametrize("key", sorted(KEYS))
def test_every_key_of_a_setting_is_judged(key: str) -> None:
    """By default no key that may affect the address is allowed, and unknown keys count as such."""
    for name in (spec.name for spec in PROVIDERS.all_builtin() if key in spec.setting_keys()):
        if key in HARMLESS:
            Destinations().check(name, {key: MEANT[key]})
            continue
        with pytest.raises(ConfigError, match=f"provider.setting.{key}"):
            Destinations().check(name, {key: MEANT[key]})


def test_a_refusal_names_the_address_and_what_would_allow_it() -> None:
    """The error contains the address, what is allowed, and the chart's value."""
    with pytest.raises(ConfigError) as caught:
        Destinations.parse("", "").check("anthropic", {"baseUrl": "https://evil.example"})
    assert str(caught.value) == (
        "provider.setting.baseUrl 'https://evil.example' would send its key to https://evil.example, and this"
        " installation allows none in a submitted perstack.toml: remove it, or ask the operator to add the address to"
        " provider.baseUrls of the chart"
    )
    with pytest.raises(ConfigError) as caught:
        ALLOWED.check("anthropic", {"headers": {"X-Forward-To": "a", "Host": "b", "X-Team": "c"}})
    assert str(caught.value) == (
        "provider.setting.headers sets Host, X-Forward-To, and this installation allows anthropic-beta, x-team in a"
        " submitted perstack.toml: remove them, or ask the operator to add their names to provider.headers of the"
        " chart"
    )


def test_the_operator_s_own_file_may_name_any() -> None:
    """A run defined in the chart sets `*` instead of addresses."""
    Destinations.parse(ANY, "").check("anthropic", MEANT)
