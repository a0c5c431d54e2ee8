"""What each output of a command makes of a log record."""

import io
from collections.abc import Callable

import pytest

from orchestrator.cli.output.live_view import LiveView
from orchestrator.cli.output.log_lines import LogOutput, show_log
from orchestrator.cli.output.logfmt import JobLog
from orchestrator.cli.output.notices import Notices
from orchestrator.cli.output.shell_terminal import ShellTerminal
from orchestrator.cli.output.status_line import StatusLine
from orchestrator.log import get_logger
from orchestrator.wire.masking import hide, mask

LOGGER = get_logger("orchestrator.pool.pool")
SECRETS = ("sk-canary-123456",)
STREAM = io.StringIO()


def status_line(*, verbose: bool) -> LogOutput:
    """The output of `run` at a terminal."""
    return StatusLine(STREAM, "container", expert_key="e", hide=hide(SECRETS), live=False, verbose=verbose)


def job_log(*, verbose: bool) -> LogOutput:
    """The output of `run` into a file."""
    return JobLog(STREAM, "container", job_id="j", mask=mask(SECRETS), verbose=verbose)


def live_view(*, verbose: bool) -> LogOutput:
    """The output of `start`."""
    return LiveView(STREAM, "container", mask=mask(SECRETS), verbose=verbose)


@pytest.mark.parametrize(
    ("output", "lines"),
    [
        (
            lambda: status_line(verbose=False),
            ["perstack-orch: installing [masked]", "perstack-orch: warning: d is left over"],
        ),
        (
            lambda: status_line(verbose=True),
            [
                "perstack-orch: the watch ended",
                "perstack-orch: installing [masked]",
                "perstack-orch: warning: d is left over",
            ],
        ),
        (
            lambda: job_log(verbose=False),
            [
                'level=info event="the watch ended" job=j',
                'level=info event="installing [masked]" job=j',
                'level=warning event="d is left over" job=j',
            ],
        ),
        (lambda: live_view(verbose=False), ["installing [masked]", "warning: d is left over"]),
        (lambda: live_view(verbose=True), ["the watch ended", "installing [masked]", "warning: d is left over"]),
        (
            Notices,
            ["perstack-orch: installing sk-canary-123456", "perstack-orch: warning: d is left over"],
        ),
        (
            lambda: ShellTerminal({}),
            ["perstack-orch: installing sk-canary-123456", "perstack-orch: warning: d is left over"],
        ),
    ],
    ids=["status", "status-verbose", "logfmt", "view", "view-verbose", "notices", "shell"],
)
def test_an_output_shows_records_by_their_level(
    monkeypatch: pytest.MonkeyPatch, output: Callable[[], LogOutput], lines: list[str]
) -> None:
    """A message always, a warning as such, and a detail in log files, or if the user wants it; each on one line."""
    STREAM.seek(0)
    STREAM.truncate()
    monkeypatch.setattr("sys.stderr", STREAM)
    with show_log(output()):
        LOGGER.debug("the watch\x1bended")
        LOGGER.info("installing %s", *SECRETS)
        LOGGER.warning("%s is left over", "d")
    LOGGER.warning("after the command")
    found = STREAM.getvalue().splitlines()
    assert [line.partition(" ")[2] if line.startswith("timestamp=") else line for line in found] == lines
