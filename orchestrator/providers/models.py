"""Sizes of models, by exact name; any other name is accepted and only lacks these figures.

Each provider lists its own in its SPEC. See docs/reference/perstack.md#known-models.
"""

from orchestrator.providers import PROVIDERS, ModelSize


def context_window(provider: str, model: str) -> int | None:
    """The largest conversation in tokens, if known."""
    size = _size(provider, model)
    return size.window if size else None


def max_output(provider: str, model: str) -> int | None:
    """The largest reply in tokens, reasoning included, if known."""
    size = _size(provider, model)
    return size.output if size else None


def _size(provider: str, model: str) -> ModelSize | None:
    spec = PROVIDERS.find(provider)
    return None if spec is None else spec.models.get(model)
