"""Events as lines."""

import json
import re
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import WireError
from orchestrator.wire.checkpoint import CheckpointHead, Status, Step
from orchestrator.wire.event import (
    AnyEvent,
    ContinueToNextStep,
    PlatformEvent,
    ResolveToolResults,
    StartGeneration,
    StateEvent,
    StreamingEvent,
)
from orchestrator.wire.expert import ExpertId
from orchestrator.wire.frozen import tag_of
from orchestrator.wire.line import LINE_BYTES, decode, encode
from orchestrator.wire.message import ImageInlinePart, TextPart, ToolCall, ToolMessage, ToolResult, ToolResultPart
from orchestrator.wire.run import EventDetail
from orchestrator.wire.usage import Usage

GOLDEN = Path(__file__).parent / "golden" / "events.jsonl"
BOUND = LINE_BYTES[EventDetail.DEFAULT]


def _types(union: object) -> set[str]:
    return set(map(tag_of, get_args(union)))


def _result(text: str) -> ResolveToolResults:
    part = TextPart(id="p", text=text)
    result = ToolResult(id="c", skill_name="@perstack/base", tool_name="exec", result=(part,))
    return ResolveToolResults(
        id="e",
        timestamp=1,
        job_id="j",
        run_id="r",
        attempt=1,
        seq=1,
        expert_key="x",
        step_number=1,
        tool_results=(result,),
    )


def test_golden_file_has_every_type_once() -> None:
    """The golden file contains each event type once, so that a new type cannot be forgotten."""
    types = [json.loads(line)["type"] for line in GOLDEN.read_text().splitlines()]
    assert sorted(types) == sorted(_types(StateEvent) | _types(StreamingEvent) | _types(PlatformEvent))


@pytest.mark.parametrize("line", GOLDEN.read_text().splitlines(), ids=lambda line: json.loads(line)["type"])
def test_golden_lines_survive_reading_and_writing(line: str) -> None:
    """A line as Perstack writes it is decoded completely and encoded with the same keys and values."""
    written = json.loads(encode(decode(line), EventDetail.FULL))
    assert written == json.loads(line)


@pytest.mark.parametrize(
    "line",
    ["", "null", "[]", "42", '"x"', "{}", '{"type":"nonsense"}', '{"type":"startRun"}', "\x00", "[" * 100_000],
)
def test_what_is_no_event_is_one_sentence(line: str) -> None:
    """Any other line is a WireError with a one-line message."""
    with pytest.raises(WireError) as caught:
        decode(line)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=200), st.integers(0, 40_000))
def test_lines_are_ascii_and_bounded(text: str, times: int) -> None:
    """The event of any tool result is one ASCII line within the limit, and can be decoded."""
    line = encode(_result(text * times))
    assert line.isascii()
    assert line.count(b"\n") == 1
    assert len(line) <= BOUND
    assert decode(line).id == "e"


@pytest.mark.parametrize("timestamp", ["-1", "253402300800000", "1" + "0" * 400])
def test_a_time_that_no_date_can_tell_is_no_event_s(timestamp: str) -> None:
    """A timestamp comes from a container; one that is not a valid date is refused."""
    line = encode(_result("")).decode()
    with pytest.raises(WireError, match="timestamp"):
        decode(re.sub(r'(?<="timestamp":)\d+', timestamp, line))


@pytest.mark.parametrize(
    ("text", "written"), [("a\ud800b", "a\ufffdb"), ("\ud83d\ude00", "😀"), ("\udc00\ud800", "\ufffd\ufffd")]
)
def test_halves_of_characters_do_not_stop_an_event(text: str, written: str) -> None:
    """Unpaired surrogates become U+FFFD; two halves of a pair become the character."""
    assert decode(encode(_result(text))) == _result(written)


def test_text_is_cut_only_beyond_the_bound_and_gets_a_mark() -> None:
    """A line that just fits is unchanged; one byte more is cut and the mark contains the size."""
    room = BOUND - len(encode(_result("")))
    assert decode(encode(_result("a" * room))) == _result("a" * room)
    cut = decode(encode(_result("a" * (room + 1))))
    assert isinstance(cut, ResolveToolResults)
    part = cut.tool_results[0].result[0]
    assert isinstance(part, TextPart)
    assert part.text.endswith(f"[cut: {room + 1} characters in all]")


def test_full_detail_cuts_nothing() -> None:
    """With full detail a large result is complete."""
    assert decode(encode(_result("a" * 2 * BOUND), EventDetail.FULL)) == _result("a" * 2 * BOUND)


def _step(results: int, parts: int, args: object) -> ContinueToNextStep:
    """A step with this number of results and parts of each, whose calls have these arguments."""
    (result,) = _result("said").tool_results
    answers = (result.with_(result=result.result * parts),) * results
    asked = (ToolCall(id="c", skill_name="s", tool_name="t", args={"given": args}),) * results
    head = CheckpointHead(
        id="h", job_id="j", run_id="r", status=Status.PROCEEDING, step_number=1, usage=Usage(),
        expert=ExpertId(key="x", name="x", version="1"), pending_tool_calls=asked, metadata={"todos": args},
    )  # fmt: skip
    message = ToolMessage(
        id="m",
        contents=tuple(
            ToolResultPart(id="p", tool_call_id="c", tool_name="t", contents=each.result) for each in answers
        ),
    )
    step = Step(
        step_number=1, started_at=1, new_messages=(message,) * min(results, 9), tool_calls=asked, tool_results=answers,
        pending_tool_calls=asked, partial_tool_results=answers,
    )  # fmt: skip
    return ContinueToNextStep(
        id="e", timestamp=1, job_id="j", run_id="r", attempt=1, seq=7, expert_key="x", step_number=1,
        checkpoint=head, step=step, next_checkpoint=head,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("results", "parts", "args"),
    [
        (1, 500, "few"),
        (2000, 1, "few"),
        (30, 60, "few"),
        (1, 1, list(range(40_000))),
        (3, 9, {f"{'key' * 50}{number}": number for number in range(4000)}),
        (1, 1, [[[{"todo": "x"}] * 30] * 30] * 30),
    ],
)
def test_an_event_of_many_small_values_stays_an_event(results: int, parts: int, args: object) -> None:
    """If cutting text is not enough, items are left out; the line is still a valid event."""
    event = _step(results, parts, args)
    line = encode(event)
    assert len(line) <= BOUND
    read = decode(line)
    assert isinstance(read, ContinueToNextStep)
    assert (read.id, read.seq, read.next_checkpoint.id) == ("e", 7, "h")
    assert json.loads(line)["cut"] > BOUND
    assert decode(encode(event, EventDetail.FULL)) == event


def test_bytes_of_files_are_not_in_lines() -> None:
    """Bytes of files are left out even if they are few; text that only looks like them stays."""
    text = TextPart(id="p", text='"encodedData":"YWJj"')
    image = ImageInlinePart(id="i", encoded_data="YWJj" * 5, mime_type="image/png")
    (result,) = _result("").tool_results
    event = _result("").with_(tool_results=(result.with_(result=(image, text)),))
    read = decode(encode(event))
    assert isinstance(read, ResolveToolResults)
    assert read.tool_results[0].result == (image.with_(encoded_data="[cut: 20 characters in all]"), text)
    assert decode(encode(event, EventDetail.FULL)) == event


def test_absent_fields_are_left_out() -> None:
    """Optional fields without a value are not in the line (docs/reference/perstack.md#event-families)."""
    event: AnyEvent = StartGeneration(id="a", timestamp=1, job_id="j", run_id="r", expert_key="e", step_number=1)
    assert json.loads(encode(event)) == {
        "type": "startGeneration",
        "id": "a",
        "timestamp": 1,
        "jobId": "j",
        "runId": "r",
        "expertKey": "e",
        "stepNumber": 1,
    }
