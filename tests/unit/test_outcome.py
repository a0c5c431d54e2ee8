"""Verdicts about Sandboxes that ended without saying so: the table of reliability 3.4."""

from typing import Any

import pytest

from orchestrator.outcome import Again, Broken, broken, conclude, is_committed
from orchestrator.sandbox import Exit, Reason
from orchestrator.telling import terminal_event
from orchestrator.wire.checkpoint import Checkpoint, RunError, Status
from orchestrator.wire.conversation import user_message
from orchestrator.wire.message import ToolResult
from tests.support.broker_world import RUN, a_checkpoint

LOST = Exit(None, Reason.LOST, "no container of that name")
STOPPED = a_checkpoint(status=Status.COMPLETED)
PROCEEDING = a_checkpoint(status=Status.PROCEEDING)


@pytest.mark.parametrize(
    ("ended", "message"),
    [
        (LOST, "the Sandbox was lost, and so were those before it: no container of that name"),
        (Exit(137, Reason.EVICTED), "the Sandbox was evicted, and those before it were lost (exit code 137)"),
        (Exit(75, Reason.ERROR), "the Sandbox ended without a final event (exit code 75)"),
    ],
    ids=["lost", "evicted", "broker gone"],
)
@pytest.mark.parametrize("acknowledged", [None, PROCEEDING])
def test_a_sandbox_that_is_not_to_blame_may_begin_anew(
    ended: Exit, message: str, acknowledged: Checkpoint | None
) -> None:
    """With the reason, for the case that this was the last try."""
    assert conclude(ended, None, acknowledged) == Again(RunError(name="SandboxError", message=message))


@pytest.mark.parametrize(
    ("ended", "name", "message"),
    [
        (Exit(0, Reason.COMPLETED), "SandboxError", "the Sandbox ended without a final event (exit code 0)"),
        (
            Exit(70, Reason.ERROR, "first\nno room left\n"),
            "SandboxError",
            "the Sandbox ended without a final event (exit code 70): no room left",
        ),
        (Exit(137, Reason.OUT_OF_MEMORY), "OutOfMemory", "the Sandbox ran out of memory (exit code 137)"),
        (Exit(143, Reason.DEADLINE), "Deadline", "the Sandbox reached its deadline (exit code 143)"),
        (Exit(124, Reason.ERROR), "Deadline", "the Sandbox ended without a final event (exit code 124)"),
        (Exit(74, Reason.ERROR), "DiskFull", "the Sandbox ended without a final event (exit code 74)"),
        (Exit(143, Reason.CANCELLED), "Cancelled", "the Sandbox was stopped from outside (exit code 143)"),
    ],
)
def test_any_other_end_is_an_error_that_names_its_reason(ended: Exit, name: str, message: str) -> None:
    """No new attempt, and one sentence with code and last words."""
    assert conclude(ended, None, PROCEEDING) == Broken(RunError(name=name, message=message))


def test_a_broken_rule_is_never_tried_again() -> None:
    """A Sandbox that broke the agreement ends its Run, however it ended itself."""
    verdict = conclude(LOST, "it named a delegate it does not have", PROCEEDING)
    assert isinstance(verdict, Broken)
    assert "it named a delegate it does not have" in verdict.error.message


@pytest.mark.parametrize("ended", [LOST, Exit(0, Reason.COMPLETED), Exit(137, Reason.OUT_OF_MEMORY)])
@pytest.mark.parametrize("violation", [None, "the event spool shrank"])
def test_a_run_whose_last_checkpoint_is_kept_is_over(ended: Exit, violation: str | None) -> None:
    """Whatever became of its Sandbox then: nothing is done twice, and only the event about it is missing."""
    assert conclude(ended, violation, STOPPED) is STOPPED


OOM = RunError(name="OutOfMemory", message="the Sandbox ran out of memory")


def test_what_the_user_said_to_a_run_that_told_nothing_stays_said() -> None:
    """Whoever goes on with the conversation finds it: the Sandbox that was to hand it over is gone."""
    run = RUN.with_(checkpoint=a_checkpoint(id="c0", status=Status.INIT), query="Important")
    checkpoint = broken(run, None, OOM)
    assert [message.to_plain() for message in checkpoint.messages] == [
        user_message(run.checkpoint, "Important").to_plain()
    ]
    assert (checkpoint.status, checkpoint.error) == (Status.STOPPED_BY_ERROR, OOM)


def test_what_it_was_to_answer_comes_before_what_the_user_said() -> None:
    """Results that waited for the Run join the conversation too: words between a call and its result break it."""
    result = ToolResult(id="t1", skill_name="delegate/trainer", tool_name="trainer", result=())
    run = RUN.with_(checkpoint=a_checkpoint(id="c0", partial_tool_results=(result,)), query="Important")
    checkpoint = broken(run, None, OOM)
    assert [message.type for message in checkpoint.messages] == ["toolMessage", "userMessage"]
    assert checkpoint.partial_tool_results is None
    unasked = broken(run.with_(query=None), None, OOM)
    assert (unasked.messages, unasked.partial_tool_results) == ((), (result,))


@pytest.mark.parametrize(
    ("query", "acknowledged"), [("Important", PROCEEDING), (None, None), (" ", None)], ids=["heard", "none", "blank"]
)
def test_nothing_is_said_twice_or_for_nothing(query: str | None, acknowledged: Checkpoint | None) -> None:
    """An acknowledged checkpoint holds what was said; without words there is nothing to hold."""
    assert broken(RUN.with_(query=query), acknowledged, OOM).messages == ()


@pytest.mark.parametrize(
    ("acknowledged", "committed"),
    [
        (STOPPED, True),
        (None, False),
        (PROCEEDING, False),
        (STOPPED.with_(id="another"), False),
        (STOPPED.with_(status=Status.STOPPED_BY_ERROR), False),
    ],
)
def test_a_terminal_event_counts_once_its_checkpoint_is_kept(
    acknowledged: Checkpoint | None, *, committed: bool
) -> None:
    """The very checkpoint it names, in the status it names."""
    assert is_committed(terminal_event(RUN, STOPPED, 1), acknowledged) is committed


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"status": Status.COMPLETED}, "completeRun"),
        ({"status": Status.STOPPED_BY_DELEGATE}, "stopRunByDelegate"),
        ({"status": Status.STOPPED_BY_INTERACTIVE_TOOL}, "stopRunByInteractiveTool"),
        ({"status": Status.STOPPED_BY_EXCEEDED_MAX_STEPS}, "stopRunByExceededMaxSteps"),
        ({"status": Status.STOPPED_BY_ERROR, "error": RunError(name="E", message="m")}, "stopRunByError"),
        ({"status": Status.STOPPED_BY_ERROR}, "stopRunByError"),
    ],
)
def test_the_host_tells_each_ending(changes: dict[str, Any], kind: str) -> None:
    """Of the Run and attempt it is about, without a number of its own and without the conversation."""
    event = terminal_event(RUN, a_checkpoint(**changes), 7)
    assert (event.type, event.run_id, event.attempt, event.seq) == (kind, RUN.run_id, RUN.attempt, None)
    assert event.checkpoint.messages is None


@pytest.mark.parametrize(
    ("detail", "words"), [("", ""), (" \n\n", ""), ("one", "one"), ("a warning\nno room left\n\n", "no room left")]
)
def test_last_words(detail: str, words: str) -> None:
    """The last line of what a Sandbox said; one that said nothing has none."""
    assert Exit(1, Reason.ERROR, detail).last_words == words
