"""Events as lines."""

import json
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import WireError
from orchestrator.wire.any_event import AnyEvent
from orchestrator.wire.event import PlatformEvent, StateEvent, StreamingEvent
from orchestrator.wire.frozen import tag_of
from orchestrator.wire.line import LINE_BYTES, decode, encode
from orchestrator.wire.message import TextPart, ToolResult
from orchestrator.wire.run import EventDetail
from orchestrator.wire.state_event import ResolveToolResults, StartGeneration

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
    """The golden file shows each event type, so a new one cannot be forgotten."""
    types = [json.loads(line)["type"] for line in GOLDEN.read_text().splitlines()]
    assert sorted(types) == sorted(_types(StateEvent) | _types(StreamingEvent) | _types(PlatformEvent))


@pytest.mark.parametrize("line", GOLDEN.read_text().splitlines(), ids=lambda line: json.loads(line)["type"])
def test_golden_lines_survive_reading_and_writing(line: str) -> None:
    """What Perstack would write is read whole and written back with the same keys and values."""
    written = json.loads(encode(decode(line)))
    assert written == json.loads(line)


@pytest.mark.parametrize(
    "line",
    ["", "null", "[]", "42", '"x"', "{}", '{"type":"nonsense"}', '{"type":"startRun"}', "\x00", "[" * 100_000],
)
def test_what_is_no_event_is_one_sentence(line: str) -> None:
    """Anything else is a WireError of one line."""
    with pytest.raises(WireError) as caught:
        decode(line)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=200), st.integers(0, 40_000))
def test_lines_are_ascii_and_bounded(text: str, times: int) -> None:
    """Whatever a tool answers, its event is one ASCII line within the bound, and reads back."""
    line = encode(_result(text * times))
    assert line.isascii()
    assert line.count(b"\n") == 1
    assert len(line) <= BOUND
    assert decode(line).id == "e"


@pytest.mark.parametrize(
    ("text", "written"), [("a\ud800b", "a\ufffdb"), ("\ud83d\ude00", "😀"), ("\udc00\ud800", "\ufffd\ufffd")]
)
def test_halves_of_characters_do_not_stop_an_event(text: str, written: str) -> None:
    """A model or a server may send half of a surrogate pair; two that belong together become the character."""
    assert decode(encode(_result(text))) == _result(written)


def test_text_is_cut_only_beyond_the_bound_and_says_so() -> None:
    """A line that just fits is whole; one byte more is cut and names the size."""
    room = BOUND - len(encode(_result("")))
    assert decode(encode(_result("a" * room))) == _result("a" * room)
    cut = decode(encode(_result("a" * (room + 1))))
    assert isinstance(cut, ResolveToolResults)
    part = cut.tool_results[0].result[0]
    assert isinstance(part, TextPart)
    assert part.text.endswith(f"[cut: {room + 1} characters in all]")


def test_full_detail_cuts_nothing() -> None:
    """With full detail a large result stands whole."""
    assert decode(encode(_result("a" * 2 * BOUND), EventDetail.FULL)) == _result("a" * 2 * BOUND)


def test_an_event_of_many_small_values_keeps_its_head() -> None:
    """Where cutting text does not help, the line still says which event it was."""
    results = _result("").tool_results * 2000
    line = encode(_result("").with_(tool_results=results))
    assert len(line) <= BOUND
    assert json.loads(line)["type"] == "resolveToolResults"
    assert json.loads(line)["cut"] > BOUND


def test_absent_fields_are_left_out() -> None:
    """Optional fields without a value do not stand in the line (spec 3.1)."""
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
