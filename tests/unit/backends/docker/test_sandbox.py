from typing import Any

import pytest

from orchestrator.backends.docker.sandbox import exit_of
from orchestrator.sandbox.api import Exit, Reason


@pytest.mark.parametrize(
    ("state", "leaving", "expected"),
    [
        ({"ExitCode": 0, "OOMKilled": False}, False, Exit(0, Reason.COMPLETED)),
        ({"ExitCode": 0, "OOMKilled": True}, False, Exit(0, Reason.COMPLETED)),
        ({"ExitCode": 0, "OOMKilled": False}, True, Exit(0, Reason.COMPLETED)),
        ({"ExitCode": 137, "OOMKilled": True}, True, Exit(137, Reason.OUT_OF_MEMORY, "words")),
        ({"ExitCode": 137, "OOMKilled": False}, True, Exit(137, Reason.CANCELLED, "words")),
        ({"ExitCode": 137, "OOMKilled": False}, False, Exit(137, Reason.LOST, "its container was killed from outside")),
        ({"ExitCode": 75, "OOMKilled": False}, False, Exit(75, Reason.ERROR, "words")),
        # A tool was killed, which is not why the Sandbox ended.
        ({"ExitCode": 75, "OOMKilled": True}, False, Exit(75, Reason.ERROR, "words")),
        ({"ExitCode": 143, "OOMKilled": False}, True, Exit(143, Reason.CANCELLED, "words")),
    ],
)
def test_how_a_container_ended(state: dict[str, Any], leaving: bool, expected: Exit) -> None:  # noqa: FBT001 # a column
    """A clean exit counts even while we stop the container; a kill is classified by who did it."""
    assert exit_of(state, leaving=leaving, stderr="words") == expected


def test_the_engines_own_words_stand_in_for_stderr() -> None:
    """If the program never ran, the engine's own error is reported."""
    state = {"ExitCode": 127, "OOMKilled": False, "Error": "exec: not found"}
    assert exit_of(state, leaving=False, stderr="") == Exit(127, Reason.ERROR, "exec: not found")
