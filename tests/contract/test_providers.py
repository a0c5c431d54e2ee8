"""What every provider keeps to: the same conversation over each, its API behind a real socket where it has one."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.providers import ModelRequest, Provider, ProviderSetting, open_provider
from orchestrator.wire.generation import Failure, FinishReason, Reasoning, Reply, RequestedCall, ToolDefinition
from orchestrator.wire.message import TextPart, UserMessage
from orchestrator.wire.usage import Usage
from tests.support.fake_anthropic import block, error, start, stop, stream, text, tool_use
from tests.support.fake_http import Events, Plain, fake_http
from tests.support.tidy import nothing_left

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


def _halves(whole: str) -> tuple[str, str]:
    return whole[: len(whole) // 2], whole[len(whole) // 2 :]


@asynccontextmanager
async def scripted(scene: Scene, directory: Path) -> AsyncIterator[Provider]:
    """The scripted provider in this scene."""
    reply: dict[str, Any] = {
        "text": scene.text,
        "reasoning": scene.reasoning,
        "toolCalls": [{"name": name, "args": args} for name, args in scene.calls],
        "usage": {"inputTokens": 10, "outputTokens": 7},
    }
    if scene.error:
        name, status, retryable = scene.error
        reply = {"error": {"name": name, "message": "no", "statusCode": status, "isRetryable": retryable}}
    (directory / "replies.json").write_text(json.dumps({"coach": [reply]}))
    async with open_provider(ProviderSetting("scripted", {}, {}, directory)) as provider:
        yield provider


def _messages_api(scene: Scene) -> Events | Plain:
    if scene.error:
        kinds = {"RateLimitError": "rate_limit_error", "AuthenticationError": "authentication_error"}
        return error(scene.error[1], kinds[scene.error[0]], "no")
    events = [start()]
    if scene.reasoning:
        pieces = [{"type": "thinking_delta", "thinking": half} for half in _halves(scene.reasoning)]
        events += block(0, {"type": "thinking", "thinking": "", "signature": ""}, *pieces)
    if scene.text:
        events += text(1, *_halves(scene.text))
    for index, (name, args) in enumerate(scene.calls):
        events += tool_use(2 + index, f"toolu_{index}", name, *_halves(json.dumps(args)))
    return stream([*events, *stop("tool_use" if scene.calls else "end_turn")])


@asynccontextmanager
async def anthropic(scene: Scene, directory: Path) -> AsyncIterator[Provider]:
    """Anthropic's API in this scene."""
    async with fake_http(_messages_api(scene)) as api:
        setting = ProviderSetting("anthropic", {"baseUrl": api.url}, {"ANTHROPIC_API_KEY": "sk-canary"}, directory)
        async with open_provider(setting) as provider:
            yield provider


Stage = Callable[[Scene, Path], AbstractAsyncContextManager[Provider]]


@pytest.fixture(params=[scripted, anthropic], ids=["scripted", "anthropic"])
def stage(request: pytest.FixtureRequest) -> Stage:
    """Every provider in turn."""
    found: Stage = request.param
    return found


async def _ask(stage: Stage, scene: Scene, directory: Path) -> tuple[Reply | Failure, dict[str, str]]:
    heard = {"reasoning": "", "text": ""}

    def on_delta(kind: str, piece: str) -> None:
        heard[kind] += piece

    async with nothing_left(), stage(scene, directory) as provider:
        outcome = await provider.generate(REQUEST, on_delta)
    return outcome, heard


async def test_text_is_streamed_and_whole(stage: Stage, tmp_path: Path) -> None:
    """Pieces join to the text; tokens are counted; the model stopped by itself."""
    said = "A plan for today: squats, rows, planks — and rest."
    outcome, heard = await _ask(stage, Scene(text=said), tmp_path)
    usage = Usage(input_tokens=10, output_tokens=7, total_tokens=17)
    assert outcome == Reply(text=said, usage=usage, finish_reason=FinishReason.STOP)
    assert heard == {"reasoning": "", "text": said}


async def test_reasoning_is_streamed_and_whole(stage: Stage, tmp_path: Path) -> None:
    """Reasoning is told apart from text."""
    outcome, heard = await _ask(stage, Scene(text="Yes.", reasoning="Let me think about it first."), tmp_path)
    assert isinstance(outcome, Reply)
    assert outcome.reasoning == (Reasoning(text="Let me think about it first."),)
    assert heard == {"reasoning": "Let me think about it first.", "text": "Yes."}


async def test_tool_calls_keep_order_and_arguments(stage: Stage, tmp_path: Path) -> None:
    """Several calls of one reply, each with an id of its own; their arguments are no text."""
    calls: tuple[tuple[str, dict[str, Any]], ...] = (
        ("read", {"path": "ä/b", "deep": {"list": [1, None, 2.5]}}),
        ("read", {}),
    )
    outcome, heard = await _ask(stage, Scene(text="Reading.", calls=calls), tmp_path)
    assert isinstance(outcome, Reply)
    assert tuple((call.name, call.args) for call in outcome.tool_calls) == calls
    assert len({call.id for call in outcome.tool_calls}) == 2
    assert (outcome.text, outcome.finish_reason) == ("Reading.", FinishReason.TOOL_CALLS)
    assert heard["text"] == "Reading."


@pytest.mark.parametrize(
    ("name", "status", "retryable"), [("RateLimitError", 429, True), ("AuthenticationError", 401, False)]
)
async def test_an_error_is_a_failure(stage: Stage, tmp_path: Path, name: str, status: int, *, retryable: bool) -> None:
    """An API that refuses is a value that says whether another try may help."""
    outcome, heard = await _ask(stage, Scene(error=(name, status, retryable)), tmp_path)
    assert isinstance(outcome, Failure)
    assert (outcome.name, outcome.status_code, outcome.is_retryable) == (name, status, retryable)
    assert "no" in outcome.message
    assert heard == {"reasoning": "", "text": ""}


async def test_one_call_gives_the_same_calls_again(stage: Stage, tmp_path: Path) -> None:
    """Ids of tool calls are told by the model and never made up at random."""
    scene = Scene(calls=(("read", {}),))
    first, _ = await _ask(stage, scene, tmp_path)
    second, _ = await _ask(stage, scene, tmp_path)
    assert first == second
    assert isinstance(first, Reply)
    assert first.tool_calls == (RequestedCall(id=first.tool_calls[0].id, name="read", args={}),)
