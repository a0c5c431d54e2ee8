"""Model calls of one Run: each is made once, counted, and stored before it is delivered."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.broker.run_records import RunRecords
from orchestrator.providers import ModelRequest, OnDelta, Provider
from orchestrator.sandbox.authority import Authority
from orchestrator.wire.generation import Failure, GenerationRequest, Reply, calls_made
from orchestrator.wire.usage import Usage

GenerationOutcome = Reply | Failure


@dataclass(frozen=True, slots=True)
class GatewayContext:
    """The dependencies of a gateway.

    `provider` opens the model's API on first use; `start` completes a call even if the caller is cancelled.
    """

    provider: Callable[[], Awaitable[Provider]]
    run_records: RunRecords
    start: Callable[[Coroutine[Any, Any, GenerationOutcome]], asyncio.Task[GenerationOutcome]]


class Gateway:
    """The model API, within one Run's authority."""

    def __init__(
        self, context: GatewayContext, run_id: str, authority: Authority, recorded_usage: Mapping[str, Usage]
    ) -> None:
        self._context = context
        self._run_id = run_id
        self._authority = authority
        self._calls: dict[str, asyncio.Task[GenerationOutcome]] = {}
        self._request_ids = set(recorded_usage)
        self._used = dict(recorded_usage)

    @property
    def generations(self) -> int:
        """How many model calls this Run has made, in all its attempts, as far as this session knows."""
        return calls_made(self._request_ids)

    @property
    def usage(self) -> Usage:
        """Tokens of this Run, in all its attempts."""
        return sum(self._used.values(), Usage())

    @property
    def busy_with(self) -> str | None:
        """The id of the call in flight."""
        return next((id_ for id_, task in self._calls.items() if not task.done()), None)

    def call(self, request: GenerationRequest, on_delta: OnDelta) -> asyncio.Task[GenerationOutcome]:
        """Call the model, or join the call of the same id that is in flight or has failed in this session.

        At most one may be in flight: see `busy_with`. `on_delta` is not called for a joined call.
        """
        task = self._calls.get(request.id)
        if task is None:
            task = self._calls[request.id] = self._context.start(self._answer(request, on_delta))
        return task

    async def _answer(self, request: GenerationRequest, on_delta: OnDelta) -> GenerationOutcome:
        if self._over_limit(request):
            del self._calls[request.id]
            return self._limit_failure()
        self._request_ids.add(request.id)
        outcome: GenerationOutcome | None = await self._context.run_records.reply(self._run_id, request.id)
        if outcome is None:
            outcome = await self._generate(request, on_delta)
            if isinstance(outcome, Reply):
                await self._context.run_records.keep_reply(self._run_id, request.id, outcome)
        if isinstance(outcome, Reply):
            self._used[request.id] = outcome.usage
            # From here on `run_records` has it.
            del self._calls[request.id]
        return outcome

    def _over_limit(self, request: GenerationRequest) -> bool:
        limit = self._authority.max_generations
        return request.number >= limit or (len(self._request_ids) >= limit and request.id not in self._request_ids)

    def _limit_failure(self) -> Failure:
        limit = self._authority.max_generations
        message = f"Expert {self._authority.expert_key!r} asked for more than {limit} model calls in one Run"
        return Failure(name="TooManyGenerations", message=message)

    async def _generate(self, request: GenerationRequest, on_delta: OnDelta) -> GenerationOutcome:
        provider = await self._context.provider()
        authority = self._authority
        model_request = ModelRequest(
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
                return await provider.generate(model_request, on_delta)
        except TimeoutError:
            if not limit.expired():
                raise
            milliseconds = round(authority.timeout_seconds * 1000)
            message = f"model {authority.model!r} did not answer within {milliseconds} ms"
            return Failure(name="Timeout", message=message, is_retryable=True)
