"""Run a program for a user in the place of `exec` or of a skill, to show what it can access."""

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

from orchestrator.runtime.confinement import ConfinedProcess, ConfinedTool, confine_exec, confine_skill
from orchestrator.runtime.link import Link
from orchestrator.runtime.tool_context import ToolContext
from orchestrator.wire.frames import frame, read_frame
from orchestrator.wire.run import Grant
from orchestrator.wire.terminal import INWARD, ProgramEnded, Resized, Shell, Shown, Stream, TerminalInfo, Typed

_SHELLS = ("bash", "sh")
_CHUNK = 64 * 1024
_REMAINING_OUTPUT_SECONDS = 0.25
_NOT_FOUND, _NOT_RUNNABLE, _SIGNALLED = 127, 126, 128

# Makes the pseudoterminal the controlling one, so that Ctrl-C sends a signal; then executes the program.
_SESSION_LEADER = (
    "import errno, fcntl, os, sys, termios\n"
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    "try: os.execvp(sys.argv[1], sys.argv[1:])\n"
    "except OSError as error:\n"
    "    print(f'{sys.argv[1]}: {error.strerror}', file=sys.stderr)\n"
    "    sys.exit(127 if error.errno == errno.ENOENT else 126)\n"
)


async def work(shell: Shell, link: Link, context: ToolContext) -> None:
    """Start the program, forward its input and output, and report its exit code.

    Raises:
        OSError, asyncio.IncompleteReadError: the broker is unreachable.
        WireError: the broker refuses.
    """
    reader, writer = await link.open_terminal()
    with closing(writer):
        async with _confined(shell, context) as tool:
            code = await _forward(shell, tool, reader, writer)
        writer.write(frame(ProgramEnded(code=code)))
        with suppress(OSError):
            await reader.read()  # Until the peer has read it: the connection closes with this process.


def _confined(shell: Shell, context: ToolContext) -> AbstractAsyncContextManager[ConfinedTool]:
    if shell.skill_name is None:
        return confine_exec(context, shell.run.exec_grant)
    return confine_skill(shell.skill_name, context, shell.run.grants.get(shell.skill_name, Grant()))


async def _forward(shell: Shell, tool: ConfinedTool, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
    command = shell.command or _shell(tool)
    starting = _on_pipes(command, tool) if shell.screen is None else _on_terminal(command, tool, shell.screen)
    try:
        async with starting as program, asyncio.TaskGroup() as tasks:
            input_task = tasks.create_task(_forward_input(reader, program))
            forwarders = [_OutputForwarder(source, stream, writer) for source, stream in program.outputs]
            forwarding = {tasks.create_task(forwarder.forward()) for forwarder in forwarders}
            code = await program.child.wait()
            await _wait_for_output(forwarding, forwarders)
            input_task.cancel()
    except (FileNotFoundError, PermissionError, ValueError) as error:
        message = f"{command[0]}: {getattr(error, 'strerror', None) or error}\n"
        writer.write(frame(Shown(stream="stderr", data=message.encode(errors="replace"))))
        return _NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_RUNNABLE
    return code if code >= 0 else _SIGNALLED - code


def _shell(tool: ConfinedTool) -> tuple[str, ...]:
    found = (shutil.which(name, path=tool.env["PATH"]) for name in _SHELLS)
    return (next((path for path in found if path is not None), _SHELLS[-1]),)


@dataclass(frozen=True, slots=True)
class _Program:
    """A started program: its input, its outputs, and a function that resizes its terminal."""

    child: ConfinedProcess
    stdin: asyncio.StreamWriter
    outputs: tuple[tuple[asyncio.StreamReader, Stream], ...]
    resize: Callable[[int, int], None]
    ends_input: bool


@asynccontextmanager
async def _on_pipes(command: Sequence[str], tool: ConfinedTool) -> AsyncIterator[_Program]:
    directory = tool.open_directory()
    try:
        child = await tool.spawner.start(command, env=tool.env, cwd=directory, line_bytes=_CHUNK)
    finally:
        os.close(directory)
    if child.stdin is None:
        message = "a program on pipes must have an input"
        raise RuntimeError(message)
    outputs: tuple[tuple[asyncio.StreamReader, Stream], ...] = ((child.stdout, "stdout"), (child.stderr, "stderr"))
    yield _Program(child, child.stdin, outputs, lambda _rows, _columns: None, ends_input=True)


@asynccontextmanager
async def _on_terminal(command: Sequence[str], tool: ConfinedTool, terminal: TerminalInfo) -> AsyncIterator[_Program]:
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
        # A separate descriptor: asyncio closes the others when no process has the terminal open.
        sized = os.dup(leader)
        stack.callback(os.close, sized)
        resize = partial(_resize, sized)
        resize(terminal.rows, terminal.columns)
        directory = tool.open_directory()
        try:
            child = await tool.spawner.start(
                (sys.executable, "-I", "-S", "-c", _SESSION_LEADER, *command),
                env={**tool.env, "TERM": terminal.kind},
                cwd=directory,
                terminal=follower,
            )
        finally:
            os.close(directory)
            os.close(follower)
        stdin = asyncio.StreamWriter(sink, protocol, None, loop)
        yield _Program(child, stdin, ((output, "stdout"),), resize, ends_input=False)


def _resize(terminal: int, rows: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


async def _forward_input(reader: asyncio.StreamReader, program: _Program) -> None:
    """Forward input to the program; kill it if the connection breaks."""
    try:
        while True:
            match await read_frame(reader, INWARD):
                case Resized(rows=rows, columns=columns):
                    with suppress(OSError):  # The terminal is closed; the program may still run.
                        program.resize(rows, columns)
                case Typed(data=b""):
                    if program.ends_input:
                        program.stdin.close()
                case Typed(data=data):
                    program.stdin.write(data)
                    with suppress(OSError):  # Its input is closed; its output is still forwarded.
                        await program.stdin.drain()
    except (OSError, asyncio.IncompleteReadError):
        program.child.signal(SIGKILL)


class _OutputForwarder:
    """Forwards one output stream of a program; `busy` while data is waiting to be sent."""

    def __init__(self, source: asyncio.StreamReader, stream: Stream, writer: asyncio.StreamWriter) -> None:
        self.busy = False
        self._source = source
        self._stream = stream
        self._writer = writer

    async def forward(self) -> None:
        """Forward until the stream ends."""
        with suppress(OSError):  # Linux returns EIO when no process has the terminal open.
            while chunk := await self._source.read(_CHUNK):
                self.busy = True
                self._writer.write(frame(Shown(stream=self._stream, data=chunk)))
                await self._writer.drain()
                self.busy = False


async def _wait_for_output(forwarding: set[asyncio.Task[None]], forwarders: Sequence[_OutputForwarder]) -> None:
    """Wait until all output of the program is forwarded. Processes it left behind may keep its streams open forever."""
    while forwarding:
        done, forwarding = await asyncio.wait(forwarding, timeout=_REMAINING_OUTPUT_SECONDS)
        if not done and not any(forwarder.busy for forwarder in forwarders):
            break
    for task in forwarding:
        task.cancel()
