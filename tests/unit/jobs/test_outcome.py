"""Verdicts about Sandboxes that ended without a terminal event (docs/reference/reliability.md#verdicts)."""

from typing import Any

import pytest

from orchestrator.jobs.outcome import FailedRun, RetryRun, conclude, give_up, is_committed, synthetic_terminal_event
from orchestrator.sandbox.api import Exit, Reason
from orchestrator.wire.checkpoint import Checkpoint, RunError, Status
from orchestrator.wire.conversation import user_message
from orchestrator.wire.message import ToolResult
from tests.support.broker_fixture import RUN, a_checkpoint

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
def test_a_run_starts_again_if_its_sandbox_did_not_cause_the_failure(
    ended: Exit, message: str, acknowledged: Checkpoint | None
) -> None:
    """A new attempt may start; the error is the reason in case it was the last one."""
    assert conclude(ended, None, acknowledged) == RetryRun(RunError(name="SandboxError", message=message))


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
    """No new attempt starts, and the error is one sentence with exit code and termination message."""
    assert conclude(ended, None, PROCEEDING) == FailedRun(RunError(name=name, message=message))


def test_a_broken_rule_is_never_tried_again() -> None:
    """A Sandbox that broke a rule ends its Run, however it ended itself."""
    verdict = conclude(LOST, "it named a delegate it does not have", PROCEEDING)
    assert isinstance(verdict, FailedRun)
    assert "it named a delegate it does not have" in verdict.error.message


@pytest.mark.parametrize("ended", [LOST, Exit(0, Reason.COMPLETED), Exit(137, Reason.OUT_OF_MEMORY)])
@pytest.mark.parametrize("violation", [None, "the event spool shrank"])
def test_a_run_whose_last_checkpoint_is_kept_is_over(ended: Exit, violation: str | None) -> None:
    """However the Sandbox ended, no work is repeated: only the event about its end is missing."""
    assert conclude(ended, violation, STOPPED) is STOPPED


OOM = RunError(name="OutOfMemory", message="the Sandbox ran out of memory")


def test_the_users_words_to_a_run_without_events_are_kept() -> None:
    """The query stays in the conversation for a later resume, although the Sandbox that had it is gone."""
    run = RUN.with_(checkpoint=a_checkpoint(id="c0", status=Status.INIT), query="Important")
    checkpoint = give_up(run, None, OOM)
    assert [message.to_plain() for message in checkpoint.messages] == [
        user_message(run.checkpoint, "Important").to_plain()
    ]
    assert (checkpoint.status, checkpoint.error) == (Status.STOPPED_BY_ERROR, OOM)


def test_pending_results_come_before_the_query() -> None:
    """Pending results join the conversation before the query: a message between a call and its result breaks it."""
    result = ToolResult(id="t1", skill_name="delegate/trainer", tool_name="trainer", result=())
    run = RUN.with_(checkpoint=a_checkpoint(id="c0", partial_tool_results=(result,)), query="Important")
    checkpoint = give_up(run, None, OOM)
    assert [message.type for message in checkpoint.messages] == ["toolMessage", "userMessage"]
    assert checkpoint.partial_tool_results is None
    unasked = give_up(run.with_(query=None), None, OOM)
    assert (unasked.messages, unasked.partial_tool_results) == ((), (result,))


@pytest.mark.parametrize(
    ("query", "acknowledged"), [("Important", PROCEEDING), (None, None), (" ", None)], ids=["heard", "none", "blank"]
)
def test_a_query_is_added_once_and_never_empty(query: str | None, acknowledged: Checkpoint | None) -> None:
    """An acknowledged checkpoint has the query already; without a query nothing is added."""
    assert give_up(RUN.with_(query=query), acknowledged, OOM).messages == ()


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
    """The event must name that checkpoint, with its status."""
    assert is_committed(synthetic_terminal_event(RUN, STOPPED, 1), acknowledged) is committed


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
def test_the_host_writes_an_event_for_each_ending(changes: dict[str, Any], kind: str) -> None:
    """The event names Run and attempt, and has no `seq` and no conversation."""
    event = synthetic_terminal_event(RUN, a_checkpoint(**changes), 7)
    assert (event.type, event.run_id, event.attempt, event.seq) == (kind, RUN.run_id, RUN.attempt, None)
    assert event.checkpoint.messages is None


@pytest.mark.parametrize(
    ("detail", "words"), [("", ""), (" \n\n", ""), ("one", "one"), ("a warning\nno room left\n\n", "no room left")]
)
def test_last_words(detail: str, words: str) -> None:
    """It is the last line of the output; empty if there was none."""
    assert Exit(1, Reason.ERROR, detail).last_line == words
