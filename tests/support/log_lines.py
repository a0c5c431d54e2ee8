"""The package's log, collected for a test."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.log import CallbackHandler, attach


@contextmanager
def collect_log(
    messages: list[str] | None = None, details: list[str] | None = None, *, job_id: str | None = None
) -> Iterator[None]:
    """Append what the block logs, DEBUG records to `details` and others to `messages`; of one job, if it is given."""

    def tell(level: int, text: str) -> None:
        lines = messages if level >= logging.INFO else details
        if lines is not None:
            lines.append(text)

    handler = CallbackHandler(tell)
    if job_id is not None:
        handler.addFilter(lambda record: getattr(record, "job_id", None) == job_id)
    with attach(handler):
        yield
