"""The person's end of a shell in a Sandbox: their terminal, handed over key by key, or pipes."""

import asyncio
import os
import re
import select
import signal
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress

from orchestrator.broker.stream import Stream
from orchestrator.cli.render import plain
from orchestrator.wire.link import frame, read_frame
from orchestrator.wire.shell import OUTWARD, Ended, Resized, Screen, Shown, Typed

_CHUNK = 64 * 1024
_STREAMS = {"stdout": 1, "stderr": 2}
_KIND = re.compile(r"[A-Za-z0-9+._-]{1,64}", re.ASCII)


class Console:
    """Where a shell is read and typed. `code` is its exit code once it is over; `unread` is set if nobody reads it."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.code: int | None = None
        self.unread = False
        self._kind = environ.get("TERM", "")

    @property
    def is_terminal(self) -> bool:
        """Whether somebody types and reads here; else there are pipes or files."""
        return sys.stdin.isatty() and sys.stdout.isatty()

    @property
    def screen(self) -> Screen | None:
        """The terminal, if there is one."""
        if not self.is_terminal:
            return None
        size = os.get_terminal_size(1)
        kind = self._kind if _KIND.fullmatch(self._kind) else "dumb"
        return Screen(kind=kind, rows=size.lines, columns=size.columns)

    async def attend(self, stream: Stream) -> None:
        """Carry what is typed to the shell and what it writes back, until it is over.

        Raises:
            asyncio.IncompleteReadError: the Sandbox is gone.
        """
        with self._handed_over(), _typing(stream), _resizing(stream, self.is_terminal):
            while self.code is None and not self.unread:
                match await read_frame(stream.reader, OUTWARD):
                    case Shown(stream=name, data=data):
                        await self._show(_STREAMS[name], data)
                    case Ended(code=code):
                        self.code = code

    async def _show(self, fd: int, data: bytes) -> None:
        try:
            await asyncio.to_thread(_write, fd, data)
        except OSError:
            self.unread = True

    def say(self, text: str) -> None:
        """Tell the person something that does not come from the shell."""
        # A terminal that was handed over does not go to the line's begin by itself.
        sys.stderr.write(f"perstack-orch: {text}\r\n" if self.is_terminal else f"perstack-orch: {text}\n")
        sys.stderr.flush()

    def warn(self, text: str) -> None:
        """Tell the person what they should know first."""
        self.say(f"warning: {plain(text)}")

    @contextmanager
    def _handed_over(self) -> Iterator[None]:
        """Have every key go to the shell, Ctrl-C too; afterwards the terminal is as it was."""
        if not self.is_terminal:
            yield
            return
        before = termios.tcgetattr(0)
        tty.setraw(0)
        try:
            yield
        finally:
            termios.tcsetattr(0, termios.TCSADRAIN, before)


@contextmanager
def _typing(stream: Stream) -> Iterator[None]:
    """Send what is typed, from a thread: a file as stdin is nothing that a loop could wait for."""
    loop = asyncio.get_running_loop()
    woken, wake = os.pipe()

    def send(data: bytes) -> "Future[None]":
        return asyncio.run_coroutine_threadsafe(stream.send(Typed(data=data)), loop)

    threading.Thread(target=_type, args=(send, woken), name="typing", daemon=True).start()
    try:
        yield
    finally:
        os.close(wake)


def _type(send: Callable[[bytes], "Future[None]"], woken: int) -> None:
    try:
        while True:
            ready, _, _ = select.select([0, woken], [], [])
            if woken in ready:
                return
            data = os.read(0, _CHUNK)
            with suppress(Exception):  # The loop is gone, or the Sandbox: whoever waits for them says so.
                send(data).result()
            if not data:
                return
    finally:
        os.close(woken)


@contextmanager
def _resizing(stream: Stream, is_terminal: bool) -> Iterator[None]:  # noqa: FBT001 - one caller
    """Tell the shell whenever the terminal has another size."""
    if not is_terminal:
        yield
        return
    loop = asyncio.get_running_loop()

    def resized() -> None:
        size = os.get_terminal_size(1)
        if not stream.writer.is_closing():
            stream.writer.write(frame(Resized(rows=size.lines, columns=size.columns)))

    loop.add_signal_handler(signal.SIGWINCH, resized)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)


def _write(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
