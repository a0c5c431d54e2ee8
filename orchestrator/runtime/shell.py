"""A program in the place of `exec` or of a skill, for a person who wants to see what it can reach."""

import asyncio
import fcntl
import os
import shutil
import struct
import sys
import termios
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass
from functools import partial
from signal import SIGKILL

from orchestrator.runtime.confine import Child
from orchestrator.runtime.enclosed import Enclosed, for_exec, for_skill
from orchestrator.runtime.link import Link
from orchestrator.runtime.surroundings import Surroundings
from orchestrator.wire.link import frame, read_frame
from orchestrator.wire.run import Grant
from orchestrator.wire.shell import INWARD, Ended, Resized, Screen, Shell, Shown, Stream, Typed

_SHELLS = ("bash", "sh")
_CHUNK = 64 * 1024
_AFTERGLOW_SECONDS = 0.25
_NOT_FOUND, _NOT_RUNNABLE, _SIGNALLED = 127, 126, 128

# Makes the pseudoterminal the controlling one, so that Ctrl-C is a signal; then becomes the program.
_IN_CHARGE = (
    "import errno, fcntl, os, sys, termios\n"
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    "try: os.execvp(sys.argv[1], sys.argv[1:])\n"
    "except OSError as error:\n"
    "    print(f'{sys.argv[1]}: {error.strerror}', file=sys.stderr)\n"
    "    sys.exit(127 if error.errno == errno.ENOENT else 126)\n"
)


async def work(shell: Shell, link: Link, surroundings: Surroundings) -> None:
    """Start the program, carry what is typed and what it writes, and tell how it ended.

    Raises:
        OSError, asyncio.IncompleteReadError: the broker is not there.
        WireError: the broker refuses.
    """
    reader, writer = await link.open_terminal()
    with closing(writer):
        async with _place(shell, surroundings) as place:
            code = await _carried(shell, place, reader, writer)
        writer.write(frame(Ended(code=code)))
        with suppress(OSError):
            await reader.read()  # Until it was heard: the connection ends with this process.


def _place(shell: Shell, surroundings: Surroundings) -> AbstractAsyncContextManager[Enclosed]:
    if shell.skill_name is None:
        return for_exec(surroundings, shell.run.exec_grant)
    return for_skill(shell.skill_name, surroundings, shell.run.grants.get(shell.skill_name, Grant()))


async def _carried(shell: Shell, place: Enclosed, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
    command = shell.command or _shell(place)
    starting = _on_pipes(command, place) if shell.screen is None else _on_terminal(command, place, shell.screen)
    try:
        async with starting as program, asyncio.TaskGroup() as tasks:
            typing = tasks.create_task(_type(reader, program))
            outlets = [_Outlet(source, stream, writer) for source, stream in program.outputs]
            showing = {tasks.create_task(outlet.show()) for outlet in outlets}
            code = await program.child.wait()
            await _shown(showing, outlets)
            typing.cancel()
    except (FileNotFoundError, PermissionError, ValueError) as error:
        said = f"{command[0]}: {getattr(error, 'strerror', None) or error}\n"
        writer.write(frame(Shown(stream="stderr", data=said.encode(errors="replace"))))
        return _NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_RUNNABLE
    return code if code >= 0 else _SIGNALLED - code


def _shell(place: Enclosed) -> tuple[str, ...]:
    found = (shutil.which(name, path=place.env["PATH"]) for name in _SHELLS)
    return (next((path for path in found if path is not None), _SHELLS[-1]),)


@dataclass(frozen=True, slots=True)
class _Program:
    """A started program: where its input goes, where its output comes from, how its terminal is given another size."""

    child: Child
    into: asyncio.StreamWriter
    outputs: tuple[tuple[asyncio.StreamReader, Stream], ...]
    resize: Callable[[int, int], None]
    ends_input: bool


@asynccontextmanager
async def _on_pipes(command: Sequence[str], place: Enclosed) -> AsyncIterator[_Program]:
    directory = place.open_directory()
    try:
        child = await place.enclosure.start(command, env=place.env, cwd=directory, line_bytes=_CHUNK)
    finally:
        os.close(directory)
    if child.stdin is None:
        message = "a program that is spoken to has an input"
        raise RuntimeError(message)
    outputs: tuple[tuple[asyncio.StreamReader, Stream], ...] = ((child.stdout, "stdout"), (child.stderr, "stderr"))
    yield _Program(child, child.stdin, outputs, lambda _rows, _columns: None, ends_input=True)


@asynccontextmanager
async def _on_terminal(command: Sequence[str], place: Enclosed, screen: Screen) -> AsyncIterator[_Program]:
    leader, follower = os.openpty()
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        output = asyncio.StreamReader()
        source, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(output), os.fdopen(leader, "rb", buffering=0)
        )
        stack.callback(source.close)
        sink, protocol = await loop.connect_write_pipe(
            lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), os.fdopen(os.dup(leader), "wb", buffering=0)
        )
        stack.callback(sink.close)
        # A number of its own: asyncio closes the others when nobody has the terminal open any more.
        sized = os.dup(leader)
        stack.callback(os.close, sized)
        resize = partial(_resize, sized)
        resize(screen.rows, screen.columns)
        directory = place.open_directory()
        try:
            child = await place.enclosure.start(
                (sys.executable, "-I", "-S", "-c", _IN_CHARGE, *command),
                env={**place.env, "TERM": screen.kind},
                cwd=directory,
                terminal=follower,
            )
        finally:
            os.close(directory)
            os.close(follower)
        into = asyncio.StreamWriter(sink, protocol, None, loop)
        yield _Program(child, into, ((output, "stdout"),), resize, ends_input=False)


def _resize(terminal: int, rows: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


async def _type(reader: asyncio.StreamReader, program: _Program) -> None:
    """Pass on what is typed; where nobody is there any more to type, the program is over."""
    try:
        while True:
            match await read_frame(reader, INWARD):
                case Resized(rows=rows, columns=columns):
                    with suppress(OSError):  # It is no longer at its terminal; that is no reason to end it.
                        program.resize(rows, columns)
                case Typed(data=b""):
                    if program.ends_input:
                        program.into.close()
                case Typed(data=data):
                    program.into.write(data)
                    with suppress(OSError):  # It has closed its input; what it writes is still shown.
                        await program.into.drain()
    except (OSError, asyncio.IncompleteReadError):
        program.child.signal(SIGKILL)


class _Outlet:
    """Shows what a program writes to one of its streams; `busy` while it has something to pass on."""

    def __init__(self, source: asyncio.StreamReader, stream: Stream, writer: asyncio.StreamWriter) -> None:
        self.busy = False
        self._source = source
        self._stream = stream
        self._writer = writer

    async def show(self) -> None:
        """Go on until the stream ends."""
        with suppress(OSError):  # Linux says EIO when nobody has a terminal open any more.
            while chunk := await self._source.read(_CHUNK):
                self.busy = True
                self._writer.write(frame(Shown(stream=self._stream, data=chunk)))
                await self._writer.drain()
                self.busy = False


async def _shown(showing: set[asyncio.Task[None]], outlets: Sequence[_Outlet]) -> None:
    """Wait until all is shown that the program wrote. What it left running may hold its streams open for ever."""
    while showing:
        done, showing = await asyncio.wait(showing, timeout=_AFTERGLOW_SECONDS)
        if not done and not any(outlet.busy for outlet in outlets):
            break
    for task in showing:
        task.cancel()
