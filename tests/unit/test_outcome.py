"""Verdicts about Sandboxes that ended without saying so (reliability 3.4)."""

import pytest

from orchestrator.outcome import MAX_ATTEMPTS, Again, Broken, conclude
from orchestrator.sandbox import Exit, Reason


@pytest.mark.parametrize(
    "ended",
    [Exit(None, Reason.LOST), Exit(137, Reason.EVICTED), Exit(75, Reason.ERROR)],
    ids=["lost", "evicted", "broker gone"],
)
def test_what_was_lost_tries_again_within_the_bound(ended: Exit) -> None:
    """A Sandbox that is not to blame begins anew, at most twice."""
    assert [conclude(ended, attempt, None) for attempt in range(1, MAX_ATTEMPTS)] == [Again(), Again()]
    assert isinstance(conclude(ended, MAX_ATTEMPTS, None), Broken)


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
    ],
)
def test_any_other_end_is_an_error_that_names_its_reason(ended: Exit, name: str, message: str) -> None:
    """No new attempt, and one sentence with code and last words."""
    verdict = conclude(ended, 1, None)
    assert isinstance(verdict, Broken)
    assert (verdict.error.name, verdict.error.message) == (name, message)


def test_a_broken_rule_is_never_tried_again() -> None:
    """A Sandbox that broke the agreement ends its Run, however it ended itself."""
    verdict = conclude(Exit(None, Reason.LOST), 1, "it named a delegate it does not have")
    assert isinstance(verdict, Broken)
    assert "it named a delegate it does not have" in verdict.error.message
