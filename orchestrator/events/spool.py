"""A Sandbox's event spool, read on the host: the authoritative log; stdout is a fast copy.

See docs/reference/reliability.md#spool.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.units import amount
from orchestrator.wire.line import SPOOL_BYTES

_CHUNK = 256 * 1024


@dataclass(slots=True)
class Spool:
    """Reads whole lines from a spool as it grows, through a descriptor.

    `tampered` is the reason once the file is not as it should be: it shrank, or it or one of its lines is too long.
    """

    fd: int
    line_bytes: int
    most_bytes: int = SPOOL_BYTES
    offset: int = 0
    tampered: str | None = None
    _begun: bytearray = field(default_factory=bytearray, repr=False)

    @property
    def is_empty(self) -> bool:
        """Whether no byte was written: then no program of an Expert has run, since its first event comes before."""
        return self.tampered is None and os.fstat(self.fd).st_size == 0

    def lines(self) -> Iterator[bytes]:
        """Yield the lines written since the last call, without newlines. An incomplete last line waits for its newline.

        The iterator must be exhausted before the next call.
        """
        size = os.fstat(self.fd).st_size
        if size < self.offset:
            self.tampered = f"the event spool shrank from {self.offset} to {size} bytes"
        while self.tampered is None:
            room = self.most_bytes - self.offset
            chunk = os.pread(self.fd, min(_CHUNK, room) or 1, self.offset)
            if not chunk:
                return
            if not room:
                self.tampered = f"the event spool is over {amount(self.most_bytes)}"
                return
            self.offset += len(chunk)
            *whole, begun = chunk.split(b"\n")
            if whole:
                whole[0] = bytes(self._begun) + whole[0]
                self._begun = bytearray()
            self._begun += begun
            yield from whole
            if len(self._begun) > self.line_bytes:
                self.tampered = f"a line of the event spool is over {self.line_bytes} bytes"


def create_spool(path: Path) -> int:
    """Create an empty spool and open it for reading, before any process in a Sandbox can touch it."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)


def open_spool(path: Path) -> int | None:
    """Open a spool that a Sandbox may have touched; None if no regular file has its name."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    return None
