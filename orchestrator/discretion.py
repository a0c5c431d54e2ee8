"""A model whose words are masked on their way: a reply is shown as it comes, in pieces that may cut a secret in two."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Literal

from orchestrator.providers import ModelRequest, OnDelta, Provider
from orchestrator.wire.generation import Failure, Reply
from orchestrator.wire.masking import Flow

Open = Callable[[], AbstractAsyncContextManager[Provider]]


def discreet(provider: Open, secrets: tuple[str, ...]) -> Open:
    """The same provider, with `secrets` masked in the pieces of its replies; the whole reply is the Expert's own."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Provider]:
        async with provider() as behind:
            yield _Discreet(behind, secrets)

    return opened if secrets else provider


class _Discreet:
    def __init__(self, behind: Provider, secrets: tuple[str, ...]) -> None:
        self._behind = behind
        self._secrets = secrets

    async def generate(self, request: ModelRequest, on_delta: OnDelta) -> Reply | Failure:
        pieces = _Pieces(on_delta, self._secrets)
        outcome = await self._behind.generate(request, pieces.add)
        pieces.end()
        return outcome


class _Pieces:
    """Pieces of one reply, those of one kind after those of another."""

    def __init__(self, on_delta: OnDelta, secrets: tuple[str, ...]) -> None:
        self._on_delta = on_delta
        self._flow = Flow(secrets)
        self._kind: Literal["reasoning", "text"] = "reasoning"

    def add(self, kind: Literal["reasoning", "text"], text: str) -> None:
        if kind != self._kind:
            self.end()
            self._kind = kind
        self._tell(self._flow.feed(text))

    def end(self) -> None:
        self._tell(self._flow.rest())

    def _tell(self, text: str) -> None:
        if text:
            self._on_delta(self._kind, text)
