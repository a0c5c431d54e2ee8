"""Masks secrets in a model's streamed reply, whose pieces may cut a secret in two."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Literal

from orchestrator.providers import ModelRequest, OnDelta, Provider
from orchestrator.wire.generation import Failure, Reply
from orchestrator.wire.masking import StreamMasker

OpenProvider = Callable[[], AbstractAsyncContextManager[Provider]]


def with_masking(provider: OpenProvider, secrets: tuple[str, ...]) -> OpenProvider:
    """Wrap a provider to mask `secrets` in the pieces of its replies; the Expert gets the whole reply unmasked."""

    @asynccontextmanager
    async def open_masking() -> AsyncIterator[Provider]:
        async with provider() as inner:
            yield _MaskingProvider(inner, secrets)

    return open_masking if secrets else provider


class _MaskingProvider:
    def __init__(self, inner: Provider, secrets: tuple[str, ...]) -> None:
        self._inner = inner
        self._secrets = secrets

    async def generate(self, request: ModelRequest, on_delta: OnDelta) -> Reply | Failure:
        pieces = _MaskedDeltas(on_delta, self._secrets)
        outcome = await self._inner.generate(request, pieces.add)
        pieces.end()
        return outcome


class _MaskedDeltas:
    """Masks the pieces of one reply. All reasoning arrives before all text."""

    def __init__(self, on_delta: OnDelta, secrets: tuple[str, ...]) -> None:
        self._on_delta = on_delta
        self._masker = StreamMasker(secrets)
        self._kind: Literal["reasoning", "text"] = "reasoning"

    def add(self, kind: Literal["reasoning", "text"], text: str) -> None:
        if kind != self._kind:
            self.end()
            self._kind = kind
        self._forward(self._masker.feed(text))

    def end(self) -> None:
        self._forward(self._masker.rest())

    def _forward(self, text: str) -> None:
        if text:
            self._on_delta(self._kind, text)
