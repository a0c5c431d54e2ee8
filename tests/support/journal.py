"""A file with the outcome of each test, written when the test ends, for the process that runs several pytests."""

import json
from pathlib import Path
from typing import Literal

import pytest

Outcome = Literal["passed", "failed", "skipped", "error"]


class Journal:
    """A plugin of pytest that appends one JSON object a line: `test`, `outcome`, and `text` that explains a failure."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write down an outcome as soon as it is known."""
        if (outcome := outcome_of(report)) is not None:
            self._write(report, outcome)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Write down a file whose tests could not be collected."""
        if report.failed:
            self._write(report, "error")

    def _write(self, report: pytest.TestReport | pytest.CollectReport, outcome: Outcome) -> None:
        text = ""
        if outcome in {"failed", "error"}:
            text = "\n".join((report.longreprtext, *(f"--- {name}\n{content}" for name, content in report.sections)))
        with self._path.open("a") as file:
            file.write(json.dumps({"test": report.nodeid, "outcome": outcome, "text": text}) + "\n")


def outcome_of(report: pytest.TestReport) -> Outcome | None:
    """Return the outcome that one phase reports for its test; None if another phase decides."""
    if report.when == "call":
        return report.outcome
    if report.failed:
        return "error"
    return "skipped" if report.skipped else None
