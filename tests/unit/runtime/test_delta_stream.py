"""Pieces of a reply as events."""

import asyncio
import json
from pathlib import Path
from typing import Any, Literal

import pytest

from orchestrator.runtime.delta_stream import DeltaStream
from orchestrator.runtime.emit import Emitter
from orchestrator.wire.generation import Failure, Reasoning
from tests.support.scripted_host import a_run, says


@pytest.fixture
def emitter(tmp_path: Path) -> Emitter:
    """An emitter whose spool is in the test's directory."""
    (tmp_path / "events.jsonl").touch()
    return Emitter(a_run(), tmp_path, lambda _: None)


def _told(directory: Path) -> list[tuple[str, str | None]]:
    events: list[dict[str, Any]] = [json.loads(line) for line in (directory / "events.jsonl").read_text().splitlines()]
    return [(event["type"], event.get("delta", event.get("text"))) for event in events]


@pytest.mark.behaviour("C14")
async def test_reasoning_completes_before_the_result_starts(emitter: Emitter, tmp_path: Path) -> None:
    """Pieces in quick succession are one event, and the two kinds never overlap."""
    stream = DeltaStream(emitter, shows_text=True)
    for kind, text in (("reasoning", "a"), ("reasoning", "b"), ("text", "c"), ("text", "d" * 3000), ("text", "e")):
        stream.take("reasoning" if kind == "reasoning" else "text", text)
    stream.finish(says("c" + "d" * 3000 + "e", reasoning=(Reasoning(text="ab"),)))
    assert _told(tmp_path) == [
        ("startStreamingReasoning", None),
        ("streamReasoning", "ab"),
        ("completeStreamingReasoning", "ab"),
        ("startStreamingRunResult", None),
        ("streamRunResult", "c" + "d" * 3000),
        ("streamRunResult", "e"),
        ("completeStreamingRunResult", "c" + "d" * 3000 + "e"),
    ]


@pytest.mark.parametrize(
    ("kind", "event"), [("reasoning", "completeStreamingReasoning"), ("text", "completeStreamingRunResult")]
)
async def test_what_is_complete_is_whole(
    emitter: Emitter, tmp_path: Path, kind: Literal["reasoning", "text"], event: str
) -> None:
    """The last event has the whole text, even if pieces were lost while the link was broken."""
    stream = DeltaStream(emitter, shows_text=True)
    stream.take(kind, "one ")
    stream.finish(says("one two", reasoning=(Reasoning(text="one "), Reasoning(text="two"))))
    assert _told(tmp_path)[2] == (event, "one two")


async def test_text_outside_the_result_is_not_streamed(emitter: Emitter, tmp_path: Path) -> None:
    """Text of an ordinary step causes no events; reasoning that was never streamed is emitted as a whole."""
    stream = DeltaStream(emitter, shows_text=False)
    stream.take("text", "x")
    stream.finish(says("x", reasoning=(Reasoning(text="a"), Reasoning(text="b"))))
    assert _told(tmp_path) == [("completeStreamingReasoning", "a\nb")]


async def test_a_pause_in_the_stream_is_shown(emitter: Emitter, tmp_path: Path) -> None:
    """Pieces are emitted without waiting for more, and a failure completes the open stream."""
    stream = DeltaStream(emitter, shows_text=True)
    stream.take("text", "x")
    async with asyncio.timeout(5):
        while ("streamRunResult", "x") not in _told(tmp_path):  # noqa: ASYNC110 - what is waited for is in a file
            await asyncio.sleep(0.01)
    stream.take("text", "y")
    stream.finish(Failure(name="E", message="m"))
    assert _told(tmp_path)[2:] == [("streamRunResult", "y"), ("completeStreamingRunResult", "xy")]
