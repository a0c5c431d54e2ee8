"""The descriptions of the built-in providers."""

import subprocess
import sys

import pytest

from orchestrator.errors import ConfigError
from orchestrator.providers import PROVIDERS, ProviderSpec, require_known
from orchestrator.providers.prices import LIST_PRICES

SPECS = {spec.name: spec for spec in PROVIDERS.all_builtin()}


@pytest.fixture(params=SPECS)
def spec(request: pytest.FixtureRequest) -> ProviderSpec:
    """Give every built-in provider in turn."""
    return SPECS[request.param]


def test_every_builtin_provider_has_its_own_name() -> None:
    """The table's name and the description's name are the same."""
    assert tuple(SPECS) == PROVIDERS.builtin


def test_keys_that_a_spec_mentions_are_in_its_setting(spec: ProviderSpec) -> None:
    """A misspelt key would allow or require nothing."""
    assert {*spec.one_of, *spec.harmless, *spec.address_of} <= spec.setting_keys()


def test_a_tier_names_a_model_whose_size_is_known(spec: ProviderSpec) -> None:
    """Each tier of a provider is one of its models."""
    assert set(spec.tiers.values()) <= set(spec.models)
    assert not spec.tiers or set(spec.tiers) == {"low", "middle", "high"}


def test_every_model_with_a_price_has_a_size() -> None:
    """Prices and sizes list the same models, under the same names."""
    assert {(provider, model) for provider, model in LIST_PRICES if model not in SPECS[provider].models} == set()


def test_describing_all_providers_imports_no_sdk() -> None:
    """Config validation must not wait for an SDK."""
    program = (
        "import sys; from orchestrator.providers import PROVIDERS; list(PROVIDERS.all_builtin()); print(*sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert {"anthropic", "openai", "google.genai", "httpx2"} & set(ran.stdout.split()) == set()
    assert "orchestrator.providers.google.provider" in ran.stdout.split()


@pytest.mark.parametrize(
    ("name", "meant"), [("amazon-bedrock", ""), ("google-vertex", ""), ("openia", "; did you mean 'openai'?")]
)
def test_a_provider_that_no_run_can_use_is_refused(name: str, meant: str) -> None:
    """The sentence lists those that a Run can use."""
    with pytest.raises(ConfigError) as caught:
        require_known(name)
    usable = "anthropic, azure-openai, deepseek, google, ollama, openai, scripted"
    assert str(caught.value) == f"provider {name!r} is not supported; use one of: {usable}{meant}"
