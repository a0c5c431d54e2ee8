"""Events out of the Sandbox: first into the spool, which is the truth, then onto stdout, which is fast."""

import errno
import os
import select
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.version import VERSION
from orchestrator.wire.any_event import AnyEvent, RunEvent
from orchestrator.wire.identity import identify
from orchestrator.wire.line import encode
from orchestrator.wire.link import SPOOL_NAME
from orchestrator.wire.platform_event import InitializeRuntime
from orchestrator.wire.run import Run

_MASKED_CHARACTERS = 12
"""Of shorter values the mark may be longer than what it replaces, and a line has a bound. The host masks those too."""

_PATIENCE_MS = 50
"""How long a reader that kept up so far may hold up the Expert, per event."""


class SpoolFullError(Exception):
    """There is no room for events; the Sandbox must end, because what it does could no longer be told."""


class Emitter:
    """Writes the events of one attempt of one Run, numbered from 1.

    A line that stdout cannot take at once is left to the spool, from which the host fills the gap: a slow reader never
    stops the Expert. A line is never torn: the rest of one that was taken in part goes out before the next.

    What the Run was given as secret is masked already here: engines keep what a container writes, and clusters carry it
    to other places.

    Args:
        run: whose events these are.
        state: the directory that holds the spool, which exists.
        event_fd: where lines go besides, set non-blocking here.
    """

    def __init__(self, run: Run, state: Path, event_fd: int) -> None:
        self.step_number = run.checkpoint.step_number
        self._run = run
        self._seq = 0
        self._event_fd = event_fd
        self._unwritten = b""
        self._behind = False
        self._mask = _masking(run)
        self._spool_fd = os.open(state / SPOOL_NAME, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        os.set_blocking(event_fd, False)

    def emit(self, kind: type[AnyEvent], **fields: Any) -> None:
        """Write one event; what all events have is filled in.

        Raises:
            SpoolFullError: the disk is full.
        """
        run = self._run
        self._seq += 1
        common: dict[str, Any] = {
            "id": identify(run.run_id, run.attempt, self._seq),
            "timestamp": time.time_ns() // 1_000_000,
            "job_id": run.job_id,
            "run_id": run.run_id,
            "attempt": run.attempt,
            "seq": self._seq,
        }
        if issubclass(kind, RunEvent):
            common |= {"expert_key": run.expert.key, "step_number": self.step_number}
        line = self._mask(encode(kind(**common, **fields), run.events))
        self._append(line)
        self._show(line)

    def sync(self) -> None:
        """Return once every event so far would survive the machine.

        Raises:
            SpoolFullError: the disk is full.
        """
        try:
            os.fdatasync(self._spool_fd)
        except OSError as error:
            raise _translate(error) from error

    def _append(self, line: bytes) -> None:
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[os.write(self._spool_fd, rest) :]
        except OSError as error:
            raise _translate(error) from error

    def _show(self, line: bytes) -> None:
        try:
            if not self._behind:
                self._wait()
            if self._unwritten:
                self._unwritten = self._unwritten[os.write(self._event_fd, self._unwritten) :]
            if not self._unwritten:
                self._unwritten = line[os.write(self._event_fd, line) :]
            self._behind = False
        except OSError:
            self._behind = True  # Nobody reads, or not now: the spool has it.

    def _wait(self) -> None:
        waiting = select.poll()
        waiting.register(self._event_fd, select.POLLOUT)
        waiting.poll(_PATIENCE_MS)


def greet(run: Run, emitter: Emitter) -> None:
    """Tell that a Sandbox took its Run."""
    emitter.emit(
        InitializeRuntime,
        runtime_version=VERSION,
        expert_name=run.expert.name,
        experts=run.known_experts,
        model=run.model,
        max_steps=run.max_steps,
        max_retries=run.max_retries,
        timeout=run.timeout_ms,
        query=run.query,
        interactive_tool_call=None if run.answered is None else run.answered.to_plain(),
    )


def _masking(run: Run) -> Callable[[bytes], bytes]:
    grants = (*run.grants.values(), run.exec_grant)
    secrets = {value for grant in grants for value in grant.env.values() if len(value) >= _MASKED_CHARACTERS}
    if not secrets:
        return bytes
    from orchestrator.wire.masking import mask  # noqa: PLC0415 - most Runs are given no secret

    masked = mask(sorted(secrets))
    return lambda line: masked(line.rstrip(b"\n")) + b"\n"


def _translate(error: OSError) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return SpoolFullError("the disk that holds the event spool is full; free space on the host and run again")
    return error
