import pytest

from orchestrator.config.credentials import check_credentials
from orchestrator.errors import MissingEnvError

AWS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}


@pytest.mark.behaviour("A7")
@pytest.mark.parametrize(
    ("provider", "setting", "env", "missing"),
    [
        ("anthropic", {}, {}, "ANTHROPIC_API_KEY is not set"),
        ("anthropic", {}, {"ANTHROPIC_API_KEY": ""}, "ANTHROPIC_API_KEY is not set"),
        ("google", {}, {}, "GOOGLE_GENERATIVE_AI_API_KEY is not set"),
        ("openai", {}, {}, "OPENAI_API_KEY is not set"),
        ("deepseek", {}, {}, "DEEPSEEK_API_KEY is not set"),
        ("azure-openai", {}, {"AZURE_API_KEY": "k"}, "AZURE_RESOURCE_NAME or AZURE_BASE_URL is not set"),
        ("azure-openai", {"baseUrl": "https://a.b"}, {}, "AZURE_API_KEY is not set"),
        ("amazon-bedrock", {}, AWS, "AWS_REGION is not set"),
        (
            "amazon-bedrock",
            {},
            {},
            "AWS_ACCESS_KEY_ID is not set, AWS_SECRET_ACCESS_KEY is not set, AWS_REGION is not set",
        ),
    ],
)
def test_missing_variables_are_named(provider: str, setting: dict[str, str], env: dict[str, str], missing: str) -> None:
    """A provider with unset variables is refused, and the error names them."""
    with pytest.raises(MissingEnvError) as raised:
        check_credentials(provider, setting, env)
    said = f"provider {provider!r} cannot be used: {missing}; set "
    assert str(raised.value).startswith(said)
    can_be_stored = missing.endswith("_API_KEY is not set")
    stored = f", store it with `perstack-orch key set {provider}`" if can_be_stored else ""
    assert str(raised.value).endswith(f"to .env{stored}, or choose another with --provider")


@pytest.mark.behaviour("A7")
@pytest.mark.parametrize(
    ("provider", "setting", "env"),
    [
        ("anthropic", {}, {"ANTHROPIC_API_KEY": "k"}),
        ("azure-openai", {"resourceName": "r"}, {"AZURE_API_KEY": "k"}),
        ("azure-openai", {}, {"AZURE_API_KEY": "k", "AZURE_BASE_URL": "https://a.b"}),
        ("amazon-bedrock", {"region": "r"}, AWS),
        ("ollama", {}, {}),
        ("google-vertex", {}, {}),
        ("scripted", {}, {}),
    ],
)
def test_required_variables_are_enough(provider: str, setting: dict[str, str], env: dict[str, str]) -> None:
    """A provider with the required variables is accepted; some providers need none."""
    check_credentials(provider, setting, env)
