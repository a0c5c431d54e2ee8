"""The variables that each provider needs, checked so that a job without them fails before it starts.

See docs/reference/perstack.md#provider-variables.
"""

from collections.abc import Mapping
from typing import Any

from orchestrator.errors import MissingEnvError
from orchestrator.providers import PROVIDERS


def check_credentials(
    provider_name: str, setting: Mapping[str, Any], env: Mapping[str, str], *, is_coordinator: bool = False
) -> None:
    """Check that the provider has what it needs; an empty value is none, and an unknown provider needs nothing.

    `is_coordinator`: the provider's variables come from the operator's Secret, not from the variables of Experts.

    Raises:
        MissingEnvError: some are unset; the message names them.
    """
    spec = PROVIDERS.find(provider_name)
    if spec is None:
        return
    missing = [name for name in spec.required if not env.get(name)]
    choice = spec.one_of
    if choice and not any(setting.get(key) or env.get(name) for key, name in choice.items()):
        missing.append(" or ".join(choice.values()))
    if missing:
        unset = ", ".join(f"{name} is not set" for name in missing)
        what = "it" if len(missing) == 1 else "them"
        remedy = f"set {what}, write {what} to .env"
        if spec.connect is not None and set(missing) <= set(spec.required):
            remedy += f", store {what} with `perstack-orch key set {provider_name}`"
        if is_coordinator:
            remedy = f"add {what} to the Secret that the chart's envSecret or --env-secret names"
        message = f"provider {provider_name!r} cannot be used: {unset}; {remedy}, or choose another with --provider"
        raise MissingEnvError(message)
