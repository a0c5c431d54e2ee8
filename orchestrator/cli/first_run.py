"""What a user without a key can do, printed with the error about the missing key."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestrator.config import Config
from orchestrator.config.environment import Environment
from orchestrator.errors import ConfigError, MissingEnvError
from orchestrator.providers import PROVIDERS, ProviderSetting, ProviderSpec

_OLLAMA = "ollama"
_OLLAMA_SECONDS = 0.2
"""A server on this machine answers in milliseconds, and nobody waits for one that is not there."""  # words: nobody


@contextmanager
def advising_on_keys(config: Config, env: Environment) -> Iterator[None]:
    """Add to the block's error about a missing key what the user can do without it.

    Raises:
        MissingEnvError: the block's, with more lines.
    """
    try:
        yield
    except MissingEnvError as error:
        lines = first_run_lines(config.provider_name, env.values, asyncio.run(ollama_models(env.values)))
        message = "\n".join((str(error), *(f"  {line}" for line in (*env.notes, *lines))))
        raise MissingEnvError(message) from error


def first_run_lines(provider: str, values: Mapping[str, str], ollama: tuple[str, ...] | None) -> Iterator[str]:
    """Yield what works without the key of `provider`; `ollama` are the models of a server here, None without one."""
    others = [spec for spec in PROVIDERS.all_builtin() if spec.connect and spec.required and spec.name != provider]
    for spec in others:
        if all(values.get(name) for name in spec.required):
            yield f"{', '.join(spec.required)} is set: add --provider {spec.name}{_model(spec)}"
    if ollama is not None and provider != _OLLAMA:
        model = (
            f"add --provider {_OLLAMA} --model {ollama[0]}" if ollama else "it has no model yet: `ollama pull MODEL`"
        )
        yield f"Ollama answers on this machine, without a key: {model}"
    yield "without a key and a model, see an Expert work: perstack-orch demo"
    listed = ", ".join(f"{spec.name} ({', '.join(spec.required)})" for spec in others)
    yield f"other providers, with their variables: {listed}"


async def ollama_models(values: Mapping[str, str]) -> tuple[str, ...] | None:
    """Return the models of the Ollama server at its usual address, or at OLLAMA_BASE_URL; None if none answers soon."""
    # Slow import, which only an error waits for.
    from orchestrator.providers.probe import Verdict, send_probe  # noqa: PLC0415

    probe = PROVIDERS.get(_OLLAMA).probe
    if probe is None:
        return None
    try:
        request = probe(ProviderSetting(_OLLAMA, {}, values, Path()))
    except ConfigError:
        return None
    result = await send_probe(request, values, _OLLAMA_SECONDS)
    return tuple(_names(result.content)) if result.verdict is Verdict.ACCEPTED else None


def _names(content: Any) -> Iterator[str]:
    listed = content.get("data") if isinstance(content, dict) else None
    for each in listed if isinstance(listed, list) else ():
        if isinstance(each, dict) and isinstance(each.get("id"), str):
            yield each["id"]


def _model(spec: ProviderSpec) -> str:
    model = spec.tiers.get("middle") or next(iter(spec.models), None)
    return f" --model {model}" if model else " --model NAME"
