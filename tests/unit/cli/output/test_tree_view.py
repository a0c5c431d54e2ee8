"""Events fold into a tree of Runs, and that into lines."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cli.output.render import fit
from orchestrator.cli.output.transcript import full_lines, transcript_lines
from orchestrator.cli.output.tree_view import NOT_STARTED, WAITING, Node, TreeView, tree_lines
from orchestrator.wire.checkpoint import CheckpointHead, DelegatedBy, DelegateTo, RunError, Status, Step
from orchestrator.wire.event import (
    CallTools,
    CompleteRun,
    DockerContainerStatus,
    Event,
    InitializeRuntime,
    ProxyAccess,
    ResolveToolResults,
    StartGeneration,
    StartRun,
    StopRunByDelegate,
    StopRunByError,
)
from orchestrator.wire.expert import ExpertId
from orchestrator.wire.identity import delegated_run, resumed_run
from orchestrator.wire.message import ExpertMessage, TextPart, ToolCall, ToolResult
from orchestrator.wire.usage import Usage

ARGS = {"a": "\x1b[2J\u202e"}
STEP = Step(step_number=1, started_at=0)
LEFT = delegated_run("r", "call-left")
RIGHT = delegated_run("r", "call-right")


def _id(key: str) -> ExpertId:
    return ExpertId(key=key, name=key, version="1.0.0")


def _head(run_id: str, expert: str, tokens: int, **fields: Any) -> CheckpointHead:
    common: dict[str, Any] = {
        "id": "c", "job_id": "j", "run_id": run_id, "status": Status.PROCEEDING, "step_number": 1,
        "expert": _id(expert), "usage": Usage(total_tokens=tokens),
    }  # fmt: skip
    return CheckpointHead(**common | fields)


def _event(
    kind: Callable[..., Event], run_id: str, expert: str, timestamp: int, number: int = 1, **fields: object
) -> Event:
    common: dict[str, Any] = {"id": "e", "timestamp": timestamp, "job_id": "j", "run_id": run_id}
    return kind(**common | {"expert_key": expert, "step_number": number} | fields)


def _launched(run_id: str, expert: str, timestamp: int, container: str) -> list[Event]:
    status = DockerContainerStatus(
        id="s", timestamp=timestamp, job_id="j", run_id=run_id, status="running", service=container
    )
    begun = InitializeRuntime(
        id="i", timestamp=timestamp, job_id="j", run_id=run_id, runtime_version="1", expert_name=expert, experts=(),
        model="m", max_retries=1, timeout=1,
    )  # fmt: skip
    return [status, begun]


def _started(  # noqa: PLR0913 - what the tree takes from it
    run_id: str, expert: str, timestamp: int, *, tokens: int = 0, step: int = 1, by: str | None = None
) -> Event:
    parent = DelegatedBy(expert=_id("boss"), tool_call_id="t", tool_name="n", checkpoint_id="c", run_id=by or "")
    head = _head(run_id, expert, tokens, delegated_by=parent if by else None)
    return _event(StartRun, run_id, expert, timestamp, step, initial_checkpoint=head, input_messages=())


def _called(run_id: str, expert: str, timestamp: int, tokens: int, *names: str) -> Event:
    calls = tuple(ToolCall(id=name, skill_name="s", tool_name=name, args=ARGS) for name in names)
    message = ExpertMessage(id="m", contents=())
    usage = Usage(total_tokens=tokens)
    return _event(CallTools, run_id, expert, timestamp, new_message=message, tool_calls=calls, usage=usage)


def _delegated(timestamp: int, tokens: int, *keys: str) -> Event:
    to = tuple(DelegateTo(expert=_id(key), tool_call_id=f"call-{key}", tool_name=key, query="q") for key in keys)
    head = _head("r", "boss", tokens, delegate_to=to)
    return _event(StopRunByDelegate, "r", "boss", timestamp, checkpoint=head, step=STEP)


def _completed(run_id: str, expert: str, timestamp: int, tokens: int) -> Event:
    head = _head(run_id, expert, tokens)
    return _event(CompleteRun, run_id, expert, timestamp, 2, checkpoint=head, step=STEP, text="done", usage=Usage())


def _view(*events: Event) -> TreeView:
    view = TreeView()
    for event in events:
        view = view.with_event(event)
    return view


TEAM = (
    *_launched("r", "boss", 1_000, "j-s1"),
    _started("r", "boss", 1_100),
    _called("r", "boss", 1_200, 10, "left"),
    _delegated(1_300, 12, "left", "right"),
)


def test_delegates_stand_below_their_coordinator_before_they_start() -> None:
    """Delegates appear when their parent stops for them; the parent's tokens come from the checkpoint."""
    assert _view(*TEAM).nodes == {
        "r": Node("boss", None, "waiting for delegates", 1, settled=12, began=1_000, container="j-s1"),
        LEFT: Node("left", "r", WAITING),
        RIGHT: Node("right", "r", WAITING),
    }


def test_a_coordinator_that_resumes_is_the_same_node() -> None:
    """Its tokens exclude its delegates'; a delegate that never started counts as refused."""
    again = resumed_run("r")
    view = _view(
        *TEAM,
        *_launched(LEFT, "left", 1_400, "j-s2"),
        _started(LEFT, "left", 1_500, step=2, by="r"),
        _event(StartGeneration, LEFT, "left", 1_600, 2),
        _called(LEFT, "left", 1_700, 5, "exec"),
        _completed(LEFT, "left", 1_800, 7),
        *_launched(again, "boss", 1_900, "j-s3"),
        _started(again, "boss", 2_000, tokens=19, step=3),
        _called(again, "boss", 2_100, 4, "exec"),
    )
    assert view.nodes == {
        "r": Node("boss", None, "calling exec", 1, settled=12, running=4, before=19, began=1_000, container="j-s3"),
        LEFT: Node("left", "r", "completed", 2, settled=7, began=1_400, ended=1_800, container="j-s2"),
        RIGHT: Node("right", "r", NOT_STARTED),
    }
    assert view.with_event(_completed(again, "boss", 2_200, 25)).nodes["r"].tokens == 12 + 25 - 19
    assert (view.expert(again), view.is_coordinator(again), view.is_coordinator(LEFT)) == ("boss", True, False)


def test_a_delegate_without_an_earlier_call_has_its_place() -> None:
    """A continued job may start in the middle: a delegate's first event names its parent."""
    view = _view(_started("r", "boss", 1), *_launched("x", "left", 2, "j-s2"), _started("x", "left", 3, by="r"))
    assert view.nodes["x"] == Node("left", "r", "starting", 1, began=2, container="j-s2")


def test_each_node_is_one_line() -> None:
    """Depth is indented; a Node that has not started shows no numbers."""
    view = _view(*TEAM, *_launched(LEFT, "left", 1_400, "j-s2"), _started(LEFT, "left", 1_500, step=2, by="r"))
    assert tree_lines(view, 100, 66_400) == (
        "boss · step 1 · waiting for delegates · 12 tokens · 1:05 · j-s1",
        "└ left · step 2 · starting · 0 tokens · 1:05 · j-s2",
        "└ right · waiting for a container",
    )


def test_a_low_terminal_shows_active_nodes_first() -> None:
    """Nodes that ended are left out first, and the last line counts them."""
    done = (*_launched(LEFT, "left", 1, "j-s2"), _started(LEFT, "left", 2, by="r"), _completed(LEFT, "left", 3, 1))
    view = _view(*TEAM, *done)
    lines = tree_lines(view, 100, 1_000, 2)
    assert lines == ("boss · step 1 · waiting for delegates · 12 tokens · 0:00 · j-s1", "… and 2 more")


@given(st.text(max_size=40), st.integers(1, 60))
def test_no_line_is_too_wide_or_controls_the_terminal(key: str, width: int) -> None:
    """Any name of an Expert fits the width and is harmless."""
    view = TreeView({"r": Node(key, began=0), "x": Node(key, "r")})
    for line in tree_lines(view, width, 10):
        assert fit(line, width) == line
        assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in line)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (_called("r", "boss", 1, 1, "exec", "attemptCompletion"), ['boss · exec(a="\\u001b[2J ")']),
        (_delegated(1, 1, "left"), []),
        (_completed("r", "boss", 1, 1), ["boss: done"]),
        (
            ProxyAccess(id="a", timestamp=1, job_id="j", run_id="r", action="blocked", domain="a\x1b.org", port=1),
            ["warning: a .org:1 was blocked: the host is not declared"],
        ),
        (
            _event(
                ResolveToolResults, "r", "boss", 1,
                tool_results=(
                    ToolResult(
                        id="t", skill_name="s", tool_name="exec", is_error=True,
                        result=(TextPart(id="p", text="\x1b]0;x\x07no\nmore"),),
                    ),
                ),
            ),
            ["  exec failed: ]0;x no more"],
        ),
        (_event(StartGeneration, "r", "boss", 1), []),
        (
            _event(
                StopRunByError, "r", "boss", 1, checkpoint=_head("r", "boss", 1), step=STEP,
                error=RunError(name="E", message="away"),
            ),
            ["boss stopped with an error: away"],
        ),
    ],
)  # fmt: skip
def test_an_event_becomes_transcript_lines(event: Event, expected: list[str]) -> None:
    """Tool calls, results, errors and blocked hosts become lines that cannot control the terminal."""
    assert list(transcript_lines(event, "boss", is_coordinator=False)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("short", ((), "short")),
        ("a\nb", (("a",), "b")),
        ("one two three", (("one two",), "three")),
        ("abcdefghijkl", (("abcdefghi",), "jkl")),
    ],
)
def test_streamed_text_is_split_at_spaces(text: str, expected: tuple[tuple[str, ...], str]) -> None:
    """Lines of ten columns break at spaces; a wider word is cut."""
    assert full_lines(text, 10) == expected
