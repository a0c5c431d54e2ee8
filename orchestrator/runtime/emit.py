"""Write events: first to the spool, which is the authoritative log, then to stdout, the faster, lossy copy."""

import errno
import os
import select
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec.structs import asdict

from orchestrator.version import VERSION
from orchestrator.wire.event import AnyEvent, InitializeRuntime, RunEvent
from orchestrator.wire.layout import SPOOL_NAME
from orchestrator.wire.line import encode
from orchestrator.wire.run import Run

_MASKED_CHARACTERS = 12
"""For shorter values the mask may be longer than the value, and lines have a size limit. The host masks those too."""

_STDOUT_WAIT_MS = 50
"""How long, in milliseconds, one event may wait for a reader of stdout that has kept up so far."""


class SpoolFullError(Exception):
    """No room is left for events; the Sandbox must exit, because its work could no longer be reported."""


class StdoutCopy:
    """Copies the lines of events to stdout.

    A line that stdout cannot take at once is left to the spool, from which the host fills the gap: a slow reader never
    stops the Expert. Lines are never torn: the rest of a partly written line is written before the next one.

    Args:
        event_fd: where the lines go; set to non-blocking here.
    """

    def __init__(self, event_fd: int) -> None:
        self._event_fd = event_fd
        self._unwritten = b""
        self._is_blocked = False
        os.set_blocking(event_fd, False)

    def write(self, line: bytes) -> None:
        """Write a line, or leave it to the spool."""
        try:
            if not self._is_blocked:
                self._wait()
            if self._unwritten:
                self._unwritten = self._unwritten[os.write(self._event_fd, self._unwritten) :]
            if not self._unwritten:
                self._unwritten = line[os.write(self._event_fd, line) :]
            self._is_blocked = False
        except OSError:
            self._is_blocked = True  # No reader, or a slow one: the spool has the line.

    def _wait(self) -> None:
        waiting = select.poll()
        waiting.register(self._event_fd, select.POLLOUT)
        waiting.poll(_STDOUT_WAIT_MS)


class Emitter:
    """Writes the events of one attempt of one Run, numbered from 1.

    The Run's secrets are masked here already, since engines store the output of containers and clusters forward it.

    Args:
        run: the Run that the events belong to.
        state: the directory that holds the existing spool.
        show: called with each line once the spool has it, as `StdoutCopy.write`.
    """

    def __init__(self, run: Run, state: Path, show: Callable[[bytes], None]) -> None:
        self.step_number = run.checkpoint.step_number
        self._run = run
        self._attempt = run.attempt_ref
        self._of_attempt = asdict(self._attempt)
        self._seq = 0
        self._show = show
        self._mask = _mask_of(run)
        self._spool_fd = os.open(state / SPOOL_NAME, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)

    def emit(self, kind: type[AnyEvent], **fields: Any) -> None:
        """Write one event; the common fields are filled in.

        Raises:
            SpoolFullError: the disk is full.
        """
        run = self._run
        self._seq += 1
        common: dict[str, Any] = {
            **self._of_attempt,
            "id": self._attempt.identify(self._seq),
            "timestamp": time.time_ns() // 1_000_000,
            "seq": self._seq,
        }
        if issubclass(kind, RunEvent):
            common |= {"expert_key": run.expert.key, "step_number": self.step_number}
        line = self._mask(encode(kind(**common, **fields), run.events))
        self._append(line)
        self._show(line)

    def sync(self) -> None:
        """Return once every event so far would survive a power loss.

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


def emit_initialize(run: Run, emitter: Emitter) -> None:
    """Report that a Sandbox received its Run."""
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


def _mask_of(run: Run) -> Callable[[bytes], bytes]:
    grants = (*run.grants.values(), run.exec_grant)
    secrets = {value for grant in grants for value in grant.env.values() if len(value) >= _MASKED_CHARACTERS}
    if not secrets:
        return bytes
    from orchestrator.wire.masking import mask  # noqa: PLC0415 - most Runs have no secrets

    masked = mask(sorted(secrets))
    return lambda line: masked(line.rstrip(b"\n")) + b"\n"


def _translate(error: OSError) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return SpoolFullError("the disk that holds the event spool is full; free space on the host and run again")
    return error
