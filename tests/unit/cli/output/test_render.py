"""Events fold into what a person sees."""

import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cli.output.render import JobView, RunActivity, fit, plain, receipt_lines, status_text
from orchestrator.jobs.receipt import Hop, Receipt
from orchestrator.wire.checkpoint import CheckpointHead, DelegatedBy, Status, Step
from orchestrator.wire.event import CallTools, CompleteRun, Event, StartGeneration, StartRun, StopRunByDelegate
from orchestrator.wire.expert import ExpertId
from orchestrator.wire.message import ExpertMessage, ToolCall
from orchestrator.wire.usage import Usage

BOSS = ExpertId(key="boss", name="boss", version="1.0.0")
AIDE = ExpertId(key="aide", name="aide", version="1.0.0")


def _head(expert: ExpertId, tokens: int, by: DelegatedBy | None = None) -> CheckpointHead:
    return CheckpointHead(
        id="c",
        job_id="j",
        run_id="r",
        status=Status.PROCEEDING,
        step_number=1,
        expert=expert,
        usage=Usage(total_tokens=tokens),
        delegated_by=by,
    )


def _common(run_id: str, expert: ExpertId, step: int) -> dict[str, Any]:
    return {
        "id": "e",
        "timestamp": 1000,
        "job_id": "j",
        "run_id": run_id,
        "expert_key": expert.key,
        "step_number": step,
    }


def _start(run_id: str, expert: ExpertId, by: DelegatedBy | None = None, tokens: int = 0, step: int = 1) -> StartRun:
    return StartRun(
        **_common(run_id, expert, step) | {"initial_checkpoint": _head(expert, tokens, by), "input_messages": ()}
    )


def _calls(run_id: str, expert: ExpertId, step: int, tool: str, tokens: int) -> CallTools:
    call = ToolCall(id="t", skill_name="s", tool_name=tool, args={})
    message = ExpertMessage(id="m", contents=())
    usage = Usage(total_tokens=tokens)
    return CallTools(**_common(run_id, expert, step), new_message=message, tool_calls=(call,), usage=usage)


def _end(run_id: str, expert: ExpertId, tokens: int, kind: type[StopRunByDelegate | CompleteRun]) -> Event:
    step = Step(step_number=1, started_at=1)
    done: dict[str, Any] = {} if kind is StopRunByDelegate else {"text": "done", "usage": Usage()}
    return kind(**_common(run_id, expert, 1), checkpoint=_head(expert, tokens), step=step, **done)


BY = DelegatedBy(expert=BOSS, tool_call_id="t", tool_name="aide", checkpoint_id="c", run_id="r1")


def _fold(*events: Event) -> JobView:
    view = JobView()
    for event in events:
        view = view.with_event(event)
    return view


def test_the_line_shows_where_and_what() -> None:
    """The line shows the path in the tree, the step, the activity, tokens and time."""
    view = _fold(_start("r1", BOSS), _calls("r1", BOSS, 3, "exec", 1200))
    assert status_text(view, 200, 13_000) == "boss · step 3 · calling exec · 1.2k tokens · 0:12"


def test_delegates_stand_below_their_coordinator() -> None:
    """A child's path leads through its parent, even if that has ended; other active Runs are counted."""
    view = _fold(
        _start("r1", BOSS),
        _end("r1", BOSS, 100, StopRunByDelegate),
        _start("r2", AIDE, BY),
        _start("r3", AIDE, BY),
    )
    assert status_text(view, 200, 1000) == "boss > aide (+1) · step 1 · starting · 100 tokens · 0:00"
    assert view.working == {"r2": RunActivity(("boss", "aide"), 1), "r3": RunActivity(("boss", "aide"), 1)}


def test_tokens_are_counted_once() -> None:
    """The earlier usage of a resumed Run, delegates included, is not counted again."""
    view = _fold(
        _start("r1", BOSS),
        _calls("r1", BOSS, 1, "exec", 60),
        _end("r1", BOSS, 100, StopRunByDelegate),
        _start("r2", AIDE, BY),
        _end("r2", AIDE, 50, CompleteRun),
        _start("r4", BOSS, tokens=150),
        _end("r4", BOSS, 170, CompleteRun),
    )
    assert view.tokens == 170
    assert view.working == {}


def test_folding_leaves_the_old_view_alone() -> None:
    """A JobView is a value."""
    before = _fold(_start("r1", BOSS))
    after = before.with_event(StartGeneration(**_common("r1", BOSS, 2)))
    assert before.working == {"r1": RunActivity(("boss",), 1, "starting")}
    assert after.working == {"r1": RunActivity(("boss",), 2, "calling the model")}


def test_the_receipt() -> None:
    """One line for the job and one for each hop."""
    receipt = Receipt(
        containers=3,
        usage=Usage(total_tokens=950),
        hosts=("api.example.com",),
        seconds=1.44,
        hops=(Hop("aide", 0.0124),),
    )
    assert receipt_lines(receipt, "container") == (
        "3 containers · 0 keys inside · 1 host (api.example.com) · 950 tokens · 1.4 s",
        "  hop to aide: 12 ms",
    )
    assert receipt_lines(Receipt(containers=1), "process")[0].startswith("1 process · ")


def test_the_receipt_names_the_variables_inside() -> None:
    """A few granted variables are named; many are only counted."""
    assert "· 1 key inside (EXA_API_KEY) ·" in receipt_lines(Receipt(variables=("EXA_API_KEY",)), "container")[0]
    assert "· 4 keys inside · 0 hosts ·" in receipt_lines(Receipt(variables=tuple("ABCD")), "container")[0]


def test_many_hops_are_one_line() -> None:
    """Many hops become one summary line, so that the result stays visible."""
    hops = tuple(Hop("aide", milliseconds / 1000) for milliseconds in range(1, 101))
    lines = receipt_lines(Receipt(hops=hops), "container")
    assert lines[1:] == ("  100 hops: median 51 ms, longest 100 ms to aide",)


@pytest.mark.parametrize("text", ["\x1b[31mred", "\x1b]0;title\x07", "\x9b2J", "a\rb", "a\u202eb", "a\nb", "\u2028"])
def test_text_of_a_container_cannot_control_the_terminal(text: str) -> None:
    """Escapes, control and direction characters become spaces, in tool names too."""
    shown = status_text(_fold(_start("r1", BOSS), _calls("r1", BOSS, 1, text, 1)), 200, 1000)
    assert plain(shown) == shown
    assert all(character.isprintable() for character in shown)


@given(text=st.text(), width=st.integers(0, 40))
def test_a_line_never_wraps(text: str, width: int) -> None:
    """Combining marks take no column; cut text ends with an ellipsis."""
    shown = fit(plain(text), width)
    assert sum(not unicodedata.combining(character) for character in shown) <= width
    assert shown in {plain(text), ""} or shown.endswith("…")


def test_wide_characters_count_two() -> None:
    """Six columns hold two wide characters and the ellipsis."""
    assert fit("日本語です", 6) == "日本…"
    assert fit("日本語", 6) == "日本語"
