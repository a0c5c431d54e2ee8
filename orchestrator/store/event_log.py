"""The events of a job: appended to one file per attempt, read back in the order of their positions."""

import errno
import heapq
import json
import os
from collections import OrderedDict
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from orchestrator.errors import StoreError, WireError
from orchestrator.store.files import REMEDY, is_real_directory, make_directory, path_part, translate_os_errors
from orchestrator.wire.event import Event
from orchestrator.wire.line import EventLine, decode

_OPEN_FILES = 64
_TAIL = 128 * 1024
_ATTEMPT = "attempt-"


@dataclass(frozen=True, slots=True)
class Last:
    """The last event in a file: its position in the job, its type, and the highest `seq` from a Sandbox (0 if none)."""

    position: int = 0
    seq: int = 0
    type: str = ""


class EventLog:
    """Appends to the event files of the job in `directory`. The caller holds the job's lock."""

    def __init__(self, directory: Path) -> None:
        self._runs = directory / "runs"
        self._files: OrderedDict[tuple[str, int | None], int] = OrderedDict()
        self._position = 0
        self._last: dict[Path, Last] = {}
        self._attempts: dict[str, int] = {}

    def __enter__(self) -> Self:
        for path in self._paths():
            of_attempt = path.parent.name.startswith(_ATTEMPT)
            self._last[path] = last = _drop_torn_tail(path, of_attempt=of_attempt)
            self._position = max(self._position, last.position)
            if of_attempt:
                run, number = path.parent.parent.name, int(path.parent.name.removeprefix(_ATTEMPT))
                self._attempts[run] = max(number, self._attempts.get(run, 0))
        return self

    def last(self, run_id: str, attempt: int | None) -> Last:
        """The last event of a Run's attempt when the log was opened; without `attempt`, the last one of the host."""
        return self._last.get(self._path(run_id, attempt), Last())

    def attempts(self, run_id: str) -> int:
        """The highest attempt number of a Run with stored events when the log was opened; 0 if it had none."""
        return self._attempts.get(path_part(run_id), 0)

    def host_event_types(self, run_id: str) -> set[str]:
        """The types of all events that the host wrote about a Run."""
        path = self._path(run_id, None)
        return {recorded.event.type for recorded in _read(path, strict=False)} if path.exists() else set()

    def __exit__(self, *_: object) -> None:
        while self._files:
            os.close(self._files.popitem()[1])

    def append(self, event: Event, line: bytes) -> EventLine:
        """Write an event with the next position. On return the kernel has the line, but it is not synced.

        Raises:
            StoreError: the disk refuses; no part of the line remains in the file.
        """
        position = self._position + 1
        placed = event.with_(position=position)
        if event.position is None and line.endswith(b"}"):
            # This path handles thousands of events per second, so the line is extended instead of encoded again.
            line = b'%b,"position":%d}' % (line[:-1], position)
        else:
            line = placed.to_json()
        self._write((event.run_id, event.attempt), line + b"\n")
        self._position = position
        return EventLine(placed, line)

    def events(self) -> Iterator[EventLine]:
        """Read all events by position. A torn last line, which was never acknowledged, is skipped.

        A file is open from its first event to its last, so at most as many files are open as Runs worked at the same
        time.

        Raises:
            StoreError: a line in a file is damaged; the message names the file.
        """
        waiting = sorted(((_first(path), path) for path in self._paths()), reverse=True)
        heads: list[tuple[int, Path, EventLine, Generator[EventLine, None, None]]] = []
        while waiting or heads:
            if waiting and (not heads or waiting[-1][0] <= heads[0][0]):
                path = waiting.pop()[1]
                rest = _read(path)
            else:
                _, path, recorded, rest = heapq.heappop(heads)
                yield recorded
            following = next(rest, None)
            if following is not None:
                heapq.heappush(heads, (following.event.position or 0, path, following, rest))

    def readable_events(self) -> list[EventLine]:
        """Read all events by position; damaged lines are skipped."""
        found = [recorded for path in self._paths() for recorded in _read(path, strict=False)]
        return sorted(found, key=lambda recorded: recorded.event.position or 0)

    def _write(self, key: tuple[str, int | None], line: bytes) -> None:
        fd = self._files.get(key)
        if fd is None:
            fd = self._open(key)
        else:
            self._files.move_to_end(key)
        path = self._path(*key)
        with translate_os_errors(path):
            size = os.fstat(fd).st_size
            try:
                written = os.write(fd, line)
            except OSError:
                os.ftruncate(fd, size)
                raise
            if written != len(line):
                os.ftruncate(fd, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _open(self, key: tuple[str, int | None]) -> int:
        path = self._path(*key)
        for above in (self._runs, self._runs / path_part(key[0]), path.parent):
            make_directory(above, exist_ok=True)
        with translate_os_errors(path):
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        self._files[key] = fd
        if len(self._files) > _OPEN_FILES:
            os.close(self._files.popitem(last=False)[1])
        return fd

    def _path(self, run_id: str, attempt: int | None) -> Path:
        run = self._runs / path_part(run_id)
        return (run if attempt is None else run / f"{_ATTEMPT}{attempt}") / "events.jsonl"

    def _paths(self) -> list[Path]:
        if not is_real_directory(self._runs):
            return []
        return sorted((*self._runs.glob("*/events.jsonl"), *self._runs.glob(f"*/{_ATTEMPT}*/events.jsonl")))


def _read(path: Path, *, strict: bool = True) -> Generator[EventLine, None, None]:
    with translate_os_errors(path), os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                continue
            try:
                event = _event(path, number, line)
            except StoreError:
                if strict:
                    raise
                continue
            yield EventLine(event, line[:-1])


def _first(path: Path) -> int:
    """The position of the first event in a file; 0 if the file has none."""
    with closing(_read(path)) as recorded:
        return next((each.event.position or 0 for each in recorded), 0)


def _event(path: Path, number: int, line: bytes) -> Event:
    try:
        event = decode(line)
    except WireError as error:
        message = f"{path} is damaged in line {number}: {error}; {REMEDY}"
        raise StoreError(message) from error
    if event.position is None:
        message = f"{path} is damaged in line {number}: the event has no position; {REMEDY}"
        raise StoreError(message)
    return event


def _drop_torn_tail(path: Path, *, of_attempt: bool) -> Last:
    """Cut off a torn last line, and return the last complete event, or the defaults of `Last` if no event exists.

    Events of the host may follow those of the Sandbox in the file of an attempt, but have no `seq`: then the `seq` of
    the latest event that has one is returned.
    """
    with translate_os_errors(path):
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    try:
        size = os.fstat(fd).st_size
        lines = _from_the_end(fd, size)
        torn = next(lines)
        if torn:
            os.ftruncate(fd, size - len(torn))
        line = next(lines, None)
        if line is None:
            return Last()
        last = _last(path, line)
        if last.seq or not of_attempt:
            return last
        return replace(last, seq=next((seq for line in lines if (seq := _last(path, line).seq)), 0))
    finally:
        os.close(fd)


def _from_the_end(fd: int, size: int) -> Iterator[bytes]:
    """Yield the lines of a file, last first; before them what follows the last newline, even if that is empty."""
    parts, start = list[bytes](), size
    while start > 0:
        step = min(_TAIL, start)
        start -= step
        first, *others = os.pread(fd, step, start).split(b"\n")
        if others:
            others[-1] += b"".join(reversed(parts))
            parts = []
        parts.append(first)
        yield from reversed(others)
    yield b"".join(reversed(parts))


def _last(path: Path, line: bytes) -> Last:
    try:
        event = json.loads(line)
        return Last(int(event["position"]), int(event.get("seq", 0)), str(event["type"]))
    except (ValueError, KeyError, TypeError) as error:
        message = f"{path} is damaged at its end: a line is not an event with a position; {REMEDY}"
        raise StoreError(message) from error
