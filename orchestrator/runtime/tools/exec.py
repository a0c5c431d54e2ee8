"""`exec`: runs a command in the workspace, in a domain of its own, without a shell (spec 7.3, F6)."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from orchestrator.runtime.confine import Child, Enclosure
from orchestrator.runtime.enclosed import for_exec
from orchestrator.runtime.environment import without_protected
from orchestrator.runtime.surroundings import Surroundings
from orchestrator.runtime.tools import ToolError, check, define, to_json
from orchestrator.runtime.tools.paths import opened
from orchestrator.wire.run import Grant

OUTPUT_BYTES = 10 * 1024 * 1024
"""How much a command may write, both streams together."""
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
        "description": "Environment variables besides the standard ones",
    },
    cwd={"type": "string", "description": "The directory to run it in, inside the workspace"},
    stdout={"type": "boolean", "description": "Whether to return what it writes to stdout"},
    stderr={"type": "boolean", "description": "Whether to return what it writes to stderr"},
    timeout={"type": "number", "description": "Milliseconds until it is killed; 60000 if not given"},
)

Execute = Callable[[Mapping[str, Any]], Awaitable[str]]
"""Runs one command for its arguments; gives JSON text, or raises ToolError."""


async def execute(args: Mapping[str, Any], surroundings: Surroundings, grant: Grant) -> str:
    """Run one command in an enclosure of its own, which no other command can signal into.

    Raises:
        ToolError: it failed, took too long, wrote too much, or could not be started.
    """
    async with connect(surroundings, grant) as run:
        return await run(args)


@asynccontextmanager
async def connect(surroundings: Surroundings, grant: Grant) -> AsyncIterator[Execute]:
    """Open the enclosure that all commands of a Run share, so that a later one can stop what an earlier one started."""
    async with for_exec(surroundings, grant) as place:

        async def run(args: Mapping[str, Any]) -> str:
            check(DEFINITION, args)
            return await _run(args, surroundings, place.enclosure, place.env)

        yield run


class Commands:
    """The commands of one Run, in one enclosure that is opened for the first of them."""

    def __init__(self, surroundings: Surroundings, grant: Grant) -> None:
        self._connection = connect(surroundings, grant)
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
        """End what the commands left running."""
        await self._stack.aclose()


@dataclass(slots=True)
class _Output:
    """What a command wrote so far; `room` is left for both streams, negative once they were cut."""

    stdout: bytearray
    stderr: bytearray
    room: int = OUTPUT_BYTES

    def selected(self, args: Mapping[str, Any]) -> dict[str, str]:
        """The streams asked for, with what is not UTF-8 replaced."""
        streams = {"stdout": self.stdout, "stderr": self.stderr}
        return {name: data.decode(errors="replace") for name, data in streams.items() if args[name]}


async def _run(
    args: Mapping[str, Any], surroundings: Surroundings, enclosure: Enclosure, env: Mapping[str, str]
) -> str:
    timeout = args.get("timeout")
    milliseconds = _TIMEOUT_MS if timeout is None else timeout
    output = _Output(bytearray(), bytearray())
    child = await _start(args, surroundings, enclosure, env)
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
    args: Mapping[str, Any], surroundings: Surroundings, enclosure: Enclosure, env: Mapping[str, str]
) -> Child:
    command = args["command"]
    try:
        with opened(surroundings.workspace, args["cwd"], os.O_PATH | os.O_DIRECTORY) as cwd:
            return await enclosure.start(
                (command, *args["args"]), env={**env, **without_protected(args["env"])}, cwd=cwd
            )
    except FileNotFoundError as error:
        sentence = f"command {command!r} was not found; check its name, or give its path"
        raise ToolError(sentence, kind=None) from error
    except OSError as error:
        sentence = f"command {command!r} cannot be run: {error.strerror}"
        raise ToolError(sentence, kind=None) from error
    except ValueError as error:
        sentence = f"command {command!r} cannot be run: {error}"
        raise ToolError(sentence, kind=None) from error


async def _finish(child: Child, output: _Output) -> int:
    async with asyncio.TaskGroup() as streams:
        pairs = ((child.stdout, output.stdout), (child.stderr, output.stderr))
        reading = [streams.create_task(_read(child, stream, kept, output)) for stream, kept in pairs]
        code = await child.wait()
        # What it left running may hold its streams open for ever; what it wrote itself is there already.
        await asyncio.wait(reading, timeout=_AFTERGLOW_SECONDS)
        for task in reading:
            task.cancel()
    return code


async def _read(child: Child, stream: asyncio.StreamReader, kept: bytearray, output: _Output) -> None:
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
