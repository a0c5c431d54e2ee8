"""The package's log records, as lines of a command's output."""

import logging
from contextlib import AbstractContextManager
from typing import Protocol

from orchestrator.log import CallbackHandler, attach


class LogOutput(Protocol):
    """Where a command writes lines for the user; each output decides which details it shows."""

    def info(self, text: str) -> None:
        """Write a message."""

    def warn(self, text: str) -> None:
        """Write a warning."""

    def note(self, text: str) -> None:
        """Write a detail."""


def show_log(output: LogOutput) -> AbstractContextManager[None]:
    """Write the package's log records to `output` during the block, in the thread that enters it."""

    def write(level: int, text: str) -> None:
        method = output.warn if level >= logging.WARNING else output.info if level >= logging.INFO else output.note
        method(text)

    return attach(CallbackHandler(write))
