"""Records of processes, so that another orchestrator can find them again.

One file for each Sandbox, in a directory that only this user may enter: a Sandbox without isolation must not be able to
make us signal another user's process.
"""

import contextlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from orchestrator.disk.whole_file import remove_unfinished, write_atomically
from orchestrator.errors import BackendUnavailableError

_START_FIELD = 19
"""Field 22 of /proc/PID/stat, counted after the command's name (proc(5))."""


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """A Sandbox that runs, or will soon: then `pid` is 0, and its process is found by `state` among its arguments.

    `started` is the process's start in clock ticks since boot, which detects a reused pid.
    """

    name: str
    pid: int
    started: int
    labels: Mapping[str, str] = field(default_factory=dict)
    state: str = ""

    @property
    def alive(self) -> bool:
        """Whether the recorded process still runs, not another one with its pid."""
        return started_at(self.pid) == self.started


def started_at(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None if it does not exist or is a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[_START_FIELD])


def _process_with(argument: str) -> int:
    """Find the process that has `argument` on its command line; 0 if none has."""
    wanted = argument.encode()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted in (entry / "cmdline").read_bytes().split(b"\0"):
                return int(entry.name)
    return 0


class ProcessRecords:
    """The records in one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def prepare(self) -> None:
        """Create the directory.

        Raises:
            BackendUnavailableError: another user owns it, or may write into it.
        """
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = self._directory.lstat()
        except OSError as error:
            message = f"{self._directory} cannot be made: {error.strerror}; set XDG_RUNTIME_DIR to a directory of yours"
            raise BackendUnavailableError(message) from error
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            message = (
                f"{self._directory} is open to other users: remove it, or set XDG_RUNTIME_DIR to a directory of yours"
            )
            raise BackendUnavailableError(message)

    def keep(self, record: ProcessRecord) -> None:
        """Write a record.

        Raises:
            BackendUnavailableError: other users may access the directory.
        """
        content = json.dumps(asdict(record) | {"labels": dict(record.labels)}).encode()
        try:
            self._write(self._file(record.name), content)
        except FileNotFoundError:  # another orchestrator just removed its last Sandbox, and with it the empty directory
            self._write(self._file(record.name), content)

    def forget(self, name: str) -> None:
        """Remove a record, and the directory after the last one, with what killed processes began to write there."""
        self._file(name).unlink(missing_ok=True)
        remove_unfinished(self._directory)
        with contextlib.suppress(OSError):
            self._directory.rmdir()

    def find(self, name: str) -> ProcessRecord | None:
        """Return the record of a Sandbox that still runs."""
        record = _read(self._file(name))
        return record if record is not None and record.alive else None

    def all(self) -> list[ProcessRecord]:
        """Return all records, of Sandboxes that run and of those that ended without being removed."""
        return [record for file in sorted(self._directory.glob("*.json")) if (record := _read(file)) is not None]

    def _write(self, file: Path, content: bytes) -> None:
        self.prepare()
        write_atomically(file, content)

    def _file(self, name: str) -> Path:
        return self._directory / f"{name}.json"


def _read(file: Path) -> ProcessRecord | None:
    try:
        record = ProcessRecord(**json.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
    if record.pid or not record.state:
        return record
    pid = _process_with(record.state)
    return replace(record, pid=pid, started=(started_at(pid) or 0) if pid else -1)
