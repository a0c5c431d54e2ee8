"""The scripted provider: how replies are selected, and the errors for an invalid script."""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import ConfigError
from orchestrator.providers import ModelRequest, ProviderSetting, open_provider
from orchestrator.wire.generation import Failure, FinishReason, Reply
from orchestrator.wire.message import InstructionMessage, TextPart, UserMessage


def request(generation: int = 0, query: str = "Hello", expert: str = "coach") -> ModelRequest:
    """A model call."""
    messages = (
        InstructionMessage(id="i", contents=(TextPart(id="p", text="legs"),)),
        UserMessage(id="u", contents=(TextPart(id="p", text=query),)),
    )
    return ModelRequest(expert, generation, "m", messages, (), 0, 1)


async def ask(directory: Path, asked: ModelRequest, **given: Any) -> Reply | Failure:
    """Call the scripted model."""
    async with open_provider(ProviderSetting("scripted", given, {}, directory)) as provider:
        return await provider.generate(asked, lambda _kind, _piece: None)


def write(directory: Path, script: Any, name: str = "replies.json") -> None:
    """Write a script."""
    (directory / name).write_text(script if isinstance(script, str) else json.dumps(script))


async def test_reply_is_the_one_of_the_generation(tmp_path: Path) -> None:
    """The n-th call of a conversation gets the n-th reply, from the file in the setting."""
    write(tmp_path, {"coach": [{"text": "one"}, {"text": "two", "finishReason": "length"}]}, "other.json")
    outcome = await ask(tmp_path, request(1), replies="other.json")
    assert outcome == Reply(text="two", finish_reason=FinishReason.LENGTH)


async def test_conversations_differ_by_their_query(tmp_path: Path) -> None:
    """The first `when` that occurs in the first user message decides; the instruction does not count."""
    branches = [{"when": "legs", "replies": [{"text": "squats"}]}, {"replies": [{"text": "anything"}]}]
    write(tmp_path, {"coach": branches})
    assert await ask(tmp_path, request(query="Train my legs")) == Reply(text="squats")
    assert await ask(tmp_path, request(query="Train my arms")) == Reply(text="anything")


async def test_call_ids_differ_between_calls_generations_and_conversations(tmp_path: Path) -> None:
    """Ids are derived, equal in every run, and never shared."""
    reply = {"toolCalls": [{"name": "a"}, {"name": "a"}]}
    write(tmp_path, {"coach": [reply, reply], "boss": [reply]})
    seen = []
    for asked in (request(), request(1), request(query="Other"), request(expert="boss")):
        outcome = await ask(tmp_path, asked)
        assert isinstance(outcome, Reply)
        assert await ask(tmp_path, asked) == outcome
        seen += [call.id for call in outcome.tool_calls]
    assert len(set(seen)) == 8


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (request(1), "the script for Expert 'coach' has only 1 reply"),
        (request(expert="boss"), "the script replies.json has no replies for Expert 'boss'"),
        (request(expert="picky"), "no `when` of Expert 'picky' in the script replies.json occurs in its query"),
    ],
)
async def test_a_script_that_ends_is_a_failure(tmp_path: Path, asked: ModelRequest, message: str) -> None:
    """A call that is not in the script fails, and is not retryable."""
    write(tmp_path, {"coach": [{"text": "one"}], "picky": [{"when": "legs", "replies": [{"text": "x"}]}]})
    assert await ask(tmp_path, asked) == Failure(name="ScriptExhausted", message=message)


async def test_a_scripted_error_is_whole(tmp_path: Path) -> None:
    """Every field of a failure can be scripted."""
    error = {"name": "E", "message": "m", "statusCode": 429, "isRetryable": True, "retryAfterMs": 5}
    write(tmp_path, {"coach": [{"error": error}]})
    expected = Failure(name="E", message="m", status_code=429, is_retryable=True, retry_after_ms=5)
    assert await ask(tmp_path, request()) == expected


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("{", "is not JSON"),
        ([], "must be one JSON object"),
        ({"coach": [{"text": 1}]}, r"coach\.0\.text: "),
        ({"coach": [{}, {"toolcalls": []}]}, r"coach\.1\.toolcalls: Extra inputs"),
        ({"coach": [{"toolCalls": [{"args": {}}]}]}, r"coach\.0\.toolCalls\.0\.name: Field required"),
        ({"coach": [{"when": "x", "replies": [{"delayMs": -1}]}]}, r"coach\.0\.replies\.0\.delayMs: "),
        ({"coach": "hello"}, "coach: "),
    ],
)
async def test_the_error_of_an_unusable_script_has_the_place(tmp_path: Path, script: Any, problem: str) -> None:
    """The error contains the file and the dotted path."""
    write(tmp_path, script)
    with pytest.raises(ConfigError, match=problem) as raised:
        await ask(tmp_path, request())
    assert str(tmp_path / "replies.json") in str(raised.value)


async def test_the_error_of_a_missing_script_has_the_remedy(tmp_path: Path) -> None:
    """The error contains the file and the remedy."""
    with pytest.raises(ConfigError, match=r"replies\.json, is missing; create it, or choose another --provider"):
        await ask(tmp_path, request())
