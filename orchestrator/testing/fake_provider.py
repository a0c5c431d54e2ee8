"""A provider in memory: it returns given replies, and keeps the requests."""

from collections.abc import Iterable, Iterator

from orchestrator.providers import ModelRequest, OnDelta
from orchestrator.wire.generation import Failure, Reply


class FakeProvider:
    """Returns `replies` one after the other, whatever the request; `requests` are the calls so far.

    Each reply is streamed in two pieces. A call without a reply left is a Failure that another try cannot help.
    """

    def __init__(self, replies: Iterable[Reply | Failure]) -> None:
        self._replies = iter(replies)
        self.requests: list[ModelRequest] = []

    async def generate(self, request: ModelRequest, on_delta: OnDelta) -> Reply | Failure:
        """Return the next reply."""
        self.requests.append(request)
        outcome = next(self._replies, None)
        if outcome is None:
            return Failure(name="NoReplyLeft", message=f"the fake provider has no reply number {len(self.requests)}")
        if isinstance(outcome, Reply):
            for reasoning in outcome.reasoning:
                for piece in _halves(reasoning.text):
                    on_delta("reasoning", piece)
            for piece in _halves(outcome.text):
                on_delta("text", piece)
        return outcome


def _halves(text: str) -> Iterator[str]:
    middle = len(text) // 2
    yield from filter(None, (text[:middle], text[middle:]))
