"""Model calls of one Run: each is made once, counted, and kept before it is delivered."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.broker.authority import Authority
from orchestrator.broker.ledger import Ledger
from orchestrator.providers import ModelRequest, OnDelta, Provider
from orchestrator.wire.generation import Failure, GenerationRequest, Reply, calls_made
from orchestrator.wire.usage import Usage

Outcome = Reply | Failure


@dataclass(frozen=True, slots=True)
class Means:
    """What a gateway works with.

    `provider` opens the model's API on first use; `start` runs a call on, whatever becomes of who asked for it.
    """

    provider: Callable[[], Awaitable[Provider]]
    ledger: Ledger
    start: Callable[[Coroutine[Any, Any, Outcome]], asyncio.Task[Outcome]]


class Gateway:
    """The model, as one Run may call it."""

    def __init__(self, means: Means, run_id: str, authority: Authority, answered: Mapping[str, Usage]) -> None:
        self._means = means
        self._run_id = run_id
        self._authority = authority
        self._calls: dict[str, asyncio.Task[Outcome]] = {}
        self._asked = set(answered)
        self._used = dict(answered)

    @property
    def generations(self) -> int:
        """How many model calls this Run has made, in all its attempts, as far as this session was told."""
        return calls_made(self._asked)

    @property
    def usage(self) -> Usage:
        """Tokens of this Run, in all its attempts."""
        return sum(self._used.values(), Usage())

    @property
    def busy_with(self) -> str | None:
        """The id of the call in flight."""
        return next((id_ for id_, task in self._calls.items() if not task.done()), None)

    def call(self, request: GenerationRequest, on_delta: OnDelta) -> asyncio.Task[Outcome]:
        """Call the model, or join the call of the same id that is in flight or has failed in this session.

        At most one may be in flight: see `busy_with`. `on_delta` hears nothing of a call that was only joined.
        """
        task = self._calls.get(request.id)
        if task is None:
            task = self._calls[request.id] = self._means.start(self._answer(request, on_delta))
        return task

    async def _answer(self, request: GenerationRequest, on_delta: OnDelta) -> Outcome:
        if self._over_limit(request):
            del self._calls[request.id]
            return self._too_many()
        self._asked.add(request.id)
        outcome: Outcome | None = await self._means.ledger.reply(self._run_id, request.id)
        if outcome is None:
            outcome = await self._generate(request, on_delta)
            if isinstance(outcome, Reply):
                await self._means.ledger.keep_reply(self._run_id, request.id, outcome)
        if isinstance(outcome, Reply):
            self._used[request.id] = outcome.usage
            # The ledger has it from here on.
            del self._calls[request.id]
        return outcome

    def _over_limit(self, request: GenerationRequest) -> bool:
        limit = self._authority.max_generations
        return request.number >= limit or (len(self._asked) >= limit and request.id not in self._asked)

    def _too_many(self) -> Failure:
        limit = self._authority.max_generations
        message = f"Expert {self._authority.expert_key!r} asked for more than {limit} model calls in one Run"
        return Failure(name="TooManyGenerations", message=message)

    async def _generate(self, request: GenerationRequest, on_delta: OnDelta) -> Outcome:
        provider = await self._means.provider()
        authority = self._authority
        asked = ModelRequest(
            expert_key=authority.expert_key,
            generation=authority.generations + request.number,
            model=authority.model,
            messages=request.messages,
            tools=request.tools,
            reasoning_tokens=authority.reasoning_tokens,
            timeout=authority.timeout_seconds,
        )
        try:
            async with asyncio.timeout(authority.timeout_seconds) as limit:
                return await provider.generate(asked, on_delta)
        except TimeoutError:
            if not limit.expired():
                raise
            milliseconds = round(authority.timeout_seconds * 1000)
            message = f"model {authority.model!r} did not answer within {milliseconds} ms"
            return Failure(name="Timeout", message=message, is_retryable=True)
