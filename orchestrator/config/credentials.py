"""Which variables each provider needs (spec 10.1), so that a job that cannot work is refused before it starts."""

from collections.abc import Mapping
from typing import Any

from orchestrator.errors import MissingEnvError

_REQUIRED = {
    "anthropic": ("ANTHROPIC_API_KEY",),
    "google": ("GOOGLE_GENERATIVE_AI_API_KEY",),
    "openai": ("OPENAI_API_KEY",),
    "azure-openai": ("AZURE_API_KEY",),
    "amazon-bedrock": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    "deepseek": ("DEEPSEEK_API_KEY",),
}
# One of these settings, or the variable that stands in for it.
_ONE_OF = {
    "azure-openai": {"resourceName": "AZURE_RESOURCE_NAME", "baseUrl": "AZURE_BASE_URL"},
    "amazon-bedrock": {"region": "AWS_REGION"},
}


def check_credentials(
    provider_name: str, setting: Mapping[str, Any], env: Mapping[str, str], *, apart: bool = False
) -> None:
    """Check that the provider has what it needs; an empty value is none.

    `apart` says that its variables are kept apart from those of Experts, as in a coordinator.

    Raises:
        MissingEnvError: it has not; names the variables.
    """
    missing = [name for name in _REQUIRED.get(provider_name, ()) if not env.get(name)]
    choice = _ONE_OF.get(provider_name, {})
    if choice and not any(setting.get(key) or env.get(name) for key, name in choice.items()):
        missing.append(" or ".join(choice.values()))
    if missing:
        unset = ", ".join(f"{name} is not set" for name in missing)
        what = "it" if len(missing) == 1 else "them"
        remedy = f"set {what}, or write {what} to .env"
        if apart:
            remedy = f"have {what} put into the Secret that envSecret of the chart or --env-secret names"
        message = f"provider {provider_name!r} cannot be used: {unset}; {remedy}, or choose another by --provider"
        raise MissingEnvError(message)
