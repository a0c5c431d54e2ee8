"""The user's end of a shell in a Sandbox: a terminal in raw mode, or pipes."""

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

from orchestrator.cli.output.render import plain
from orchestrator.sandbox.frame_stream import FrameStream
from orchestrator.wire.frames import frame, read_frame
from orchestrator.wire.terminal import OUTWARD, ProgramEnded, Resized, Shown, TerminalInfo, Typed

_CHUNK = 64 * 1024
_STREAMS = {"stdout": 1, "stderr": 2}
_TERM = re.compile(r"[A-Za-z0-9+._-]{1,64}", re.ASCII)


class ShellTerminal:
    """Connects stdin, stdout and stderr to the shell.

    `code` is its exit code; `is_output_closed` means that its output has no reader.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.code: int | None = None
        self.is_output_closed = False
        self._term = environ.get("TERM", "")

    @property
    def is_terminal(self) -> bool:
        """Whether stdin and stdout are a terminal, not pipes or files."""
        return sys.stdin.isatty() and sys.stdout.isatty()

    @property
    def terminal_info(self) -> TerminalInfo | None:
        """The terminal's type and size; None for pipes."""
        if not self.is_terminal:
            return None
        size = os.get_terminal_size(1)
        kind = self._term if _TERM.fullmatch(self._term) else "dumb"
        return TerminalInfo(kind=kind, rows=size.lines, columns=size.columns)

    async def serve(self, stream: FrameStream) -> None:
        """Copy input to the shell and its output back, until it ends.

        Raises:
            asyncio.IncompleteReadError: the Sandbox is gone.
        """
        with self._raw_mode(), _forward_input(stream), _forward_resizes(stream, self.is_terminal):
            while self.code is None and not self.is_output_closed:
                match await read_frame(stream.reader, OUTWARD):
                    case Shown(stream=name, data=data):
                        await self._show(_STREAMS[name], data)
                    case ProgramEnded(code=code):
                        self.code = code

    async def _show(self, fd: int, data: bytes) -> None:
        try:
            await asyncio.to_thread(_write, fd, data)
        except OSError:
            self.is_output_closed = True

    def info(self, text: str) -> None:
        """Write a message that does not come from the shell."""
        # In raw mode a newline does not return to the first column.
        end = "\r\n" if self.is_terminal else "\n"
        sys.stderr.write(f"perstack-orch: {plain(text)}{end}")
        sys.stderr.flush()

    def warn(self, text: str) -> None:
        """Write a warning."""
        self.info(f"warning: {text}")

    def note(self, text: str) -> None:
        """Drop a detail."""

    @contextmanager
    def _raw_mode(self) -> Iterator[None]:
        """Send each key to the shell, Ctrl-C too; restore the terminal afterwards."""
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
def _forward_input(stream: FrameStream) -> Iterator[None]:
    """Send the input from a thread: the event loop cannot wait for stdin if it is a file."""
    loop = asyncio.get_running_loop()
    stop_reader, stop_writer = os.pipe()

    def send(data: bytes) -> "Future[None]":
        return asyncio.run_coroutine_threadsafe(stream.send(Typed(data=data)), loop)

    threading.Thread(target=_read_input, args=(send, stop_reader), name="typing", daemon=True).start()
    try:
        yield
    finally:
        os.close(stop_writer)


def _read_input(send: Callable[[bytes], "Future[None]"], stop_reader: int) -> None:
    try:
        while True:
            ready, _, _ = select.select([0, stop_reader], [], [])
            if stop_reader in ready:
                return
            data = os.read(0, _CHUNK)
            with suppress(Exception):  # The loop or the Sandbox is gone; the main task reports that.
                send(data).result()
            if not data:
                return
    finally:
        os.close(stop_reader)


@contextmanager
def _forward_resizes(stream: FrameStream, is_terminal: bool) -> Iterator[None]:  # noqa: FBT001 - private, and its one caller names the flag
    """Send the shell each new size of the terminal."""
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
