"""What every provider must do: tests that a provider passes, wherever it comes from.

Subclass `ProviderContract` and define `open`. The tests need pytest-asyncio in its mode `auto`; register this module
with `pytest.register_assert_rewrite` for readable failures.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.providers import ModelRequest, Provider
from orchestrator.testing.leak_check import nothing_left
from orchestrator.wire.generation import Failure, FinishReason, Reasoning, Reply, RequestedCall, ToolDefinition
from orchestrator.wire.message import TextPart, UserMessage
from orchestrator.wire.usage import Usage

REQUEST = ModelRequest(
    expert_key="coach",
    generation=0,
    model="m",
    messages=(UserMessage(id="m", contents=(TextPart(id="p", text="Hello"),)),),
    tools=(ToolDefinition(name="read", description="Reads.", input_schema={"type": "object"}),),
    reasoning_tokens=2048,
    timeout=5,
)


@dataclass(frozen=True, slots=True)
class Scene:
    """What the model does: text, reasoning, calls (name, arguments), or an error (name, status, retryable)."""

    text: str = ""
    reasoning: str = ""
    calls: Sequence[tuple[str, dict[str, Any]]] = ()
    error: tuple[str, int, bool] | None = None

    def outcome(self) -> Reply | Failure:
        """Return what the provider must make of it, apart from the message of an error and the ids of calls."""
        if self.error is not None:
            name, status, retryable = self.error
            return Failure(name=name, message="no", status_code=status, is_retryable=retryable)
        return Reply(
            text=self.text,
            reasoning=(Reasoning(text=self.reasoning),) if self.reasoning else (),
            tool_calls=tuple(
                RequestedCall(id=f"call-{number}", name=name, args=args)
                for number, (name, args) in enumerate(self.calls)
            ),
            usage=Usage(input_tokens=10, output_tokens=7, total_tokens=17),
            finish_reason=FinishReason.TOOL_CALLS if self.calls else FinishReason.STOP,
        )


class ProviderContract:
    """What every provider must do, tried with one conversation."""

    def open(self, scene: Scene, directory: Path, /) -> AbstractAsyncContextManager[Provider]:
        """Open the provider in front of a model that does what `scene` has, at each call.

        Files may be made in `directory`. Each reply uses 10 tokens of input and 7 of output.
        """
        raise NotImplementedError

    async def _ask(self, scene: Scene, directory: Path) -> tuple[Reply | Failure, dict[str, str]]:
        received = {"reasoning": "", "text": ""}

        def on_delta(kind: str, piece: str) -> None:
            received[kind] += piece

        async with nothing_left(), self.open(scene, directory) as provider:
            outcome = await provider.generate(REQUEST, on_delta)
        return outcome, received

    async def test_text_is_streamed_and_whole(self, tmp_path: Path) -> None:
        """Pieces join to the text; tokens are counted; the model stopped by itself."""
        text = "A plan for today: squats, rows, planks — and rest."
        outcome, received = await self._ask(Scene(text=text), tmp_path)
        usage = Usage(input_tokens=10, output_tokens=7, total_tokens=17)
        assert outcome == Reply(text=text, usage=usage, finish_reason=FinishReason.STOP)
        assert received == {"reasoning": "", "text": text}

    async def test_reasoning_is_streamed_and_whole(self, tmp_path: Path) -> None:
        """Reasoning is separate from text."""
        outcome, received = await self._ask(Scene(text="Yes.", reasoning="Let me think about it first."), tmp_path)
        assert isinstance(outcome, Reply)
        assert outcome.reasoning == (Reasoning(text="Let me think about it first."),)
        assert received == {"reasoning": "Let me think about it first.", "text": "Yes."}

    async def test_tool_calls_keep_order_and_arguments(self, tmp_path: Path) -> None:
        """Several calls of one reply, each with its own id; their arguments are no text."""
        calls: tuple[tuple[str, dict[str, Any]], ...] = (
            ("read", {"path": "ä/b", "deep": {"list": [1, None, 2.5]}}),
            ("read", {}),
        )
        outcome, received = await self._ask(Scene(text="Reading.", calls=calls), tmp_path)
        assert isinstance(outcome, Reply)
        assert tuple((call.name, call.args) for call in outcome.tool_calls) == calls
        assert len({call.id for call in outcome.tool_calls}) == 2
        assert (outcome.text, outcome.finish_reason) == ("Reading.", FinishReason.TOOL_CALLS)
        assert received["text"] == "Reading."

    @pytest.mark.parametrize(
        ("name", "status", "retryable"), [("RateLimitError", 429, True), ("AuthenticationError", 401, False)]
    )
    async def test_an_error_is_a_failure(self, tmp_path: Path, name: str, status: int, *, retryable: bool) -> None:
        """A refusal of the API is a value that states whether another try may help."""
        outcome, received = await self._ask(Scene(error=(name, status, retryable)), tmp_path)
        assert isinstance(outcome, Failure)
        assert (outcome.name, outcome.status_code, outcome.is_retryable) == (name, status, retryable)
        assert "no" in outcome.message
        assert received == {"reasoning": "", "text": ""}

    async def test_one_call_gives_the_same_calls_again(self, tmp_path: Path) -> None:
        """Ids of tool calls come from the model and are never made up at random."""
        scene = Scene(calls=(("read", {}),))
        first, _ = await self._ask(scene, tmp_path)
        second, _ = await self._ask(scene, tmp_path)
        assert first == second
        assert isinstance(first, Reply)
        assert first.tool_calls == (RequestedCall(id=first.tool_calls[0].id, name="read", args={}),)
