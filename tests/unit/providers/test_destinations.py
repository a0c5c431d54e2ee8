"""Where a submitted `[provider.setting]` may send an operator's key."""

from typing import Any

import pytest

from orchestrator.config.provider_table import SETTING_KEYS
from orchestrator.errors import ConfigError
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
"""A value for every key that a provider knows."""
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
    """Whole, but for a slash at its end; a resource by the address that it leads to; names of headers in any case."""
    ALLOWED.check(setting)


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
    """An address is one that is listed, or none."""
    with pytest.raises(ConfigError, match="would send its key to"):
        ALLOWED.check({"baseUrl": url})


@pytest.mark.parametrize("key", sorted(SETTING_KEYS))
def test_every_key_of_a_setting_is_judged(key: str) -> None:
    """By default nothing is allowed that may say where a request goes, and a key that comes later is one of those."""
    if key in HARMLESS:
        Destinations().check({key: MEANT[key]})
        return
    with pytest.raises(ConfigError, match=f"provider.setting.{key}"):
        Destinations().check({key: MEANT[key]})


def test_a_refusal_says_what_and_what_would_allow_it() -> None:
    """The address, what is allowed, and the value of the chart."""
    with pytest.raises(ConfigError) as caught:
        Destinations.parse("", "").check({"baseUrl": "https://evil.example"})
    assert str(caught.value) == (
        "provider.setting.baseUrl 'https://evil.example' would send its key to https://evil.example, and this"
        " installation allows none in a submitted perstack.toml: leave it out, or have the operator add the address to"
        " provider.baseUrls of the chart"
    )
    with pytest.raises(ConfigError) as caught:
        ALLOWED.check({"headers": {"X-Forward-To": "a", "Host": "b", "X-Team": "c"}})
    assert str(caught.value) == (
        "provider.setting.headers sets Host, X-Forward-To, and this installation allows anthropic-beta, x-team in a"
        " submitted perstack.toml: leave them out, or have the operator add their names to provider.headers of the"
        " chart"
    )


def test_the_operator_s_own_file_may_name_any() -> None:
    """A run of the chart says so in place of addresses."""
    Destinations.parse(ANY, "").check(MEANT)
