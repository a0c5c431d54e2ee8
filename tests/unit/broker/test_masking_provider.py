"""Pieces of a reply on their way to watchers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

import pytest

from orchestrator.broker.masking_provider import with_masking
from orchestrator.providers import ModelRequest, OnDelta, Provider
from orchestrator.wire.generation import Failure, Reply

Kind = Literal["reasoning", "text"]
REQUEST = ModelRequest(
    expert_key="e", generation=0, model="m", messages=(), tools=(), reasoning_tokens=0, timeout=1.0
)  # fmt: skip
REPLY = Reply(text="the key is canary-key-1")


@dataclass
class InPieces:
    """An API that streams the given pieces."""

    pieces: list[tuple[Kind, str]] = field(default_factory=list)

    async def generate(self, _request: ModelRequest, on_delta: OnDelta) -> Reply | Failure:
        """Stream the pieces, then answer."""
        for kind, text in self.pieces:
            on_delta(kind, text)
        return REPLY


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        (
            [("text", "the key is can"), ("text", "ary-k"), ("text", "ey-1, keep it")],
            [("text", "the key is "), ("text", "[masked], keep it")],
        ),
        ([("text", "can"), ("text", "oe")], [("text", "canoe")]),
        ([("text", "I can")], [("text", "I "), ("text", "can")]),
        (
            [("reasoning", "it is can"), ("text", "ary-key-1")],
            [("reasoning", "it is "), ("reasoning", "can"), ("text", "ary-key-1")],
        ),
        ([("reasoning", "canary-key-1"), ("text", "")], [("reasoning", "[masked]")]),
    ],
)
async def test_a_secret_cut_in_two_is_not_shown(pieces: list[tuple[Kind, str]], shown: list[tuple[Kind, str]]) -> None:
    """A possible beginning of a secret waits; kinds stay apart, no piece is lost, and the reply itself is unmasked."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Provider]:
        yield InPieces(pieces)

    seen: list[tuple[Kind, str]] = []
    async with with_masking(opened, ("canary-key-1",))() as provider:
        reply = await provider.generate(REQUEST, lambda kind, text: seen.append((kind, text)))
    assert (seen, reply) == (shown, REPLY)
