"""`exec`: runs a command in the workspace, in its own domain, without a shell.

See docs/reference/perstack.md#built-in-tools.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from orchestrator.runtime.confinement import ConfinedProcess, ConfinedSpawner, confine_exec
from orchestrator.runtime.tool_context import ToolContext
from orchestrator.runtime.tool_environment import without_protected
from orchestrator.runtime.tools import ToolError, check, define, to_json
from orchestrator.runtime.tools.paths import open_in_workspace
from orchestrator.wire.run import Grant

OUTPUT_BYTES = 10 * 1024 * 1024
"""The most bytes that a command may write, both streams together."""
_TIMEOUT_MS = 60_000
_AFTERGLOW_SECONDS = 0.25
_CHUNK_BYTES = 64 * 1024
_SAMPLE_CHARACTERS = 4096
_NO_OUTPUT = "The command succeeded and wrote no output."

DEFINITION = define(
    "exec",
    "Run a program in the workspace and wait for its end. There is no shell: pass the program and its arguments, or "
    "run sh -c yourself. Output is limited to 10 MiB.",
    required=("command", "args", "env", "cwd", "stdout", "stderr"),
    command={"type": "string", "description": "The program, by name or path"},
    args={"type": "array", "items": {"type": "string"}, "description": "Its arguments"},
    env={
        "type": "object",
        "additionalProperties": {"type": "string"},
        "description": "Environment variables besides the standard ones",  # words: a tool definition
    },
    cwd={"type": "string", "description": "The directory to run it in, inside the workspace"},
    stdout={"type": "boolean", "description": "Whether to return what it writes to stdout"},
    stderr={"type": "boolean", "description": "Whether to return what it writes to stderr"},
    timeout={"type": "number", "description": "Milliseconds until it is killed; 60000 if not given"},
)

Execute = Callable[[Mapping[str, Any]], Awaitable[str]]
"""Runs one command with its arguments; returns JSON text, or raises ToolError."""


async def execute(args: Mapping[str, Any], context: ToolContext, grant: Grant) -> str:
    """Run one command in a separate spawner, which no other command can send signals into.

    Raises:
        ToolError: it failed, took too long, wrote too much, or could not be started.
    """
    async with connect(context, grant) as run:
        return await run(args)


@asynccontextmanager
async def connect(context: ToolContext, grant: Grant) -> AsyncIterator[Execute]:
    """Open the spawner that all commands of a Run share, so that a later one can stop processes of an earlier one."""
    async with confine_exec(context, grant) as tool:

        async def run(args: Mapping[str, Any]) -> str:
            check(DEFINITION, args)
            return await _run(args, context, tool.spawner, tool.env)

        yield run


class Commands:
    """The commands of one Run, in one spawner that the first of them opens."""

    def __init__(self, context: ToolContext, grant: Grant) -> None:
        self._connection = connect(context, grant)
        self._stack = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._run: Execute | None = None

    async def __call__(self, args: Mapping[str, Any]) -> str:
        """Run one command.

        Raises:
            ToolError: it failed, took too long, wrote too much, or could not be started.
        """
        async with self._opening:
            if self._run is None:
                self._run = await self._stack.enter_async_context(self._connection)
        return await self._run(args)

    async def close(self) -> None:
        """Kill the processes that the commands left behind."""
        await self._stack.aclose()


@dataclass(slots=True)
class _Output:
    """The output of a command so far; `room` is what is left for both streams, negative once they were cut."""

    stdout: bytearray
    stderr: bytearray
    room: int = OUTPUT_BYTES

    def selected(self, args: Mapping[str, Any]) -> dict[str, str]:
        """The requested streams, with invalid UTF-8 replaced."""
        streams = {"stdout": self.stdout, "stderr": self.stderr}
        return {name: data.decode(errors="replace") for name, data in streams.items() if args[name]}


async def _run(args: Mapping[str, Any], context: ToolContext, spawner: ConfinedSpawner, env: Mapping[str, str]) -> str:
    timeout = args.get("timeout")
    milliseconds = _TIMEOUT_MS if timeout is None else timeout
    output = _Output(bytearray(), bytearray())
    child = await _start(args, context, spawner, env)
    try:
        async with asyncio.timeout(milliseconds / 1000):
            code = await _finish(child, output)
    except TimeoutError as error:
        sentence = f"Command timed out after {milliseconds:g}ms."
        raise ToolError(sentence, kind=None, **output.selected(args)) from error
    finally:
        child.signal(signal.SIGKILL)
        child.close()
    return _result(args, code, output)


async def _start(
    args: Mapping[str, Any], context: ToolContext, spawner: ConfinedSpawner, env: Mapping[str, str]
) -> ConfinedProcess:
    command = args["command"]
    try:
        with open_in_workspace(context.workspace, args["cwd"], os.O_PATH | os.O_DIRECTORY) as cwd:
            return await spawner.start((command, *args["args"]), env={**env, **without_protected(args["env"])}, cwd=cwd)
    except FileNotFoundError as error:
        sentence = f"command {command!r} was not found; check its name, or give its path"
        raise ToolError(sentence, kind=None) from error
    except OSError as error:
        sentence = f"command {command!r} cannot be run: {error.strerror}"
        raise ToolError(sentence, kind=None) from error
    except ValueError as error:
        sentence = f"command {command!r} cannot be run: {error}"
        raise ToolError(sentence, kind=None) from error


async def _finish(child: ConfinedProcess, output: _Output) -> int:
    async with asyncio.TaskGroup() as streams:
        pairs = ((child.stdout, output.stdout), (child.stderr, output.stderr))
        reading = [streams.create_task(_read(child, stream, kept, output)) for stream, kept in pairs]
        code = await child.wait()
        # Processes it left behind may keep its streams open forever; its own output has already arrived.
        await asyncio.wait(reading, timeout=_AFTERGLOW_SECONDS)
        for task in reading:
            task.cancel()
    return code


async def _read(child: ConfinedProcess, stream: asyncio.StreamReader, kept: bytearray, output: _Output) -> None:
    while output.room >= 0 and (chunk := await stream.read(_CHUNK_BYTES)):
        kept += chunk[: output.room]
        output.room -= len(chunk)
    if output.room < 0:
        child.signal(signal.SIGKILL)


def _result(args: Mapping[str, Any], code: int, output: _Output) -> str:
    streams = output.selected(args)
    if output.room < 0:
        sentence = f"the command was stopped: it wrote more than {OUTPUT_BYTES // 2**20} MiB; write to a file instead"
        raise ToolError(sentence, kind=None, **{name: text[:_SAMPLE_CHARACTERS] for name, text in streams.items()})
    if code != 0:
        how = f"was ended by signal {-code}" if code < 0 else f"failed with exit code {code}"
        sentence = f"command {args['command']!r} {how}"
        raise ToolError(sentence, kind=None, **streams)
    text = "".join(streams.values())
    return to_json({"output": text if text.strip() else _NO_OUTPUT})
