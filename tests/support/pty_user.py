"""A user at a terminal: a command behind a real pseudoterminal, its output, and keys."""

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

SECONDS = 60

# Makes the pseudoterminal the controlling one, so that Ctrl-C is a signal, as at a desk.
_IN_CHARGE = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""


@dataclass
class Typist:
    """Reads what the command shows and types; every wait ends."""

    process: "subprocess.Popen[bytes]"
    fd: int
    shown: bytes = b""
    _seen: int = field(default=0)

    def see(self, pattern: str) -> "re.Match[str]":
        """Wait until `pattern` is shown after what was seen before."""
        deadline = time.monotonic() + SECONDS
        while True:
            match = re.search(pattern, self.text[self._seen :])
            if match is not None:
                self._seen += match.end()
                return match
            assert time.monotonic() < deadline, f"{pattern!r} was not shown:\n{self.text}"
            assert self._read(), f"the command ended before it showed {pattern!r}:\n{self.text}"

    def type(self, text: str) -> None:
        """Type keys."""
        os.write(self.fd, text.encode())

    def end(self, key: str = "") -> int:
        """Read to the end, and give the exit code. `key` is typed until then, as a person would.

        A signal that comes between readline's prompt and its `select` is only seen at the next key (CPython 3.11).
        """
        deadline = time.monotonic() + SECONDS
        self.type(key)
        while self._read():
            if not self._ready():
                self.type(key)
            assert time.monotonic() < deadline, f"the command does not end:\n{self.text}"
        return self.process.wait(SECONDS)

    def hang_up(self) -> int:
        """Take the terminal away, as the end of a connection does, and give the exit code."""
        os.close(self.fd)
        self.fd = -1
        return self.process.wait(SECONDS)

    @property
    def text(self) -> str:
        """All that was shown."""
        return self.shown.decode("utf-8", "replace")

    def _ready(self) -> bool:
        return bool(select.select([self.fd], [], [], 1)[0])

    def _read(self) -> bool:
        if not self._ready():
            return True
        try:
            chunk = os.read(self.fd, 65536)
        except OSError:
            # Linux reports EIO when no process has the other end open.
            return False
        self.shown += chunk
        return bool(chunk)


@contextmanager
def typist(
    command: Sequence[str], cwd: Path, env: Mapping[str, str], *, columns: int = 100, lines: int = 30
) -> Iterator[Typist]:
    """Start `command` at a terminal of the given size; it is stopped when the block is left."""
    fd, inside = os.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", _IN_CHARGE, *command],
        cwd=cwd, env=env, stdin=inside, stdout=inside, stderr=inside, start_new_session=True,
    )  # fmt: skip
    os.close(inside)
    person = Typist(process, fd)
    try:
        yield person
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(SECONDS)
        if person.fd >= 0:
            os.close(fd)
