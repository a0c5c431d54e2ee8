"""The host's end of a link, with replies fixed in advance, and a runtime as a real process."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.sandbox.socket_directory import make_socket_directory
from orchestrator.wire import frames
from orchestrator.wire.checkpoint import Checkpoint, Status
from orchestrator.wire.expert import Expert
from orchestrator.wire.generation import Failure, GenerationRequest, Reply, RequestedCall
from orchestrator.wire.layout import SPOOL_NAME
from orchestrator.wire.message import ToolResult
from orchestrator.wire.run import Run
from orchestrator.wire.skill import BASE_SKILL, StdioSkill
from orchestrator.wire.usage import Usage

SECONDS = 60
KEY = "ab" * 32
USAGE = Usage(input_tokens=10, output_tokens=5, total_tokens=15)


def expert(**changes: Any) -> Expert:
    """An Expert with the base skill, whose key is `worker`."""
    base = StdioSkill(name=BASE_SKILL, command="npx", package_name="@perstack/base")
    return Expert(key="worker", name="worker", instruction="Work.", skills=(base,)).with_(**changes)


def start(**changes: Any) -> Checkpoint:
    """The checkpoint of fresh work."""
    return Checkpoint(
        id="start",
        job_id="job",
        run_id="run",
        status=Status.INIT,
        step_number=1,
        messages=(),
        expert=expert().identity,
        usage=Usage(),
    ).with_(**changes)


def a_run(**changes: Any) -> Run:
    """A Run of fresh work, which asks for "Go"."""
    return Run(
        job_id="job",
        run_id="run",
        expert=expert(),
        known_experts=("worker",),
        checkpoint=start(),
        query="Go",
        model="scripted",
        max_steps=10,
        max_retries=2,
        timeout_ms=60_000,
        started_at=1_766_000_000_000,
    ).with_(**changes)


def says(text: str, **changes: Any) -> Reply:
    """A reply of text alone."""
    return Reply(text=text, usage=USAGE).with_(**changes)


def calls(*requested: tuple[str, dict[str, Any]], text: str = "") -> Reply:
    """A reply that calls tools, with ids `c0`, `c1`, ..."""
    tool_calls = tuple(
        RequestedCall(id=f"c{index}", name=name, args=args) for index, (name, args) in enumerate(requested)
    )
    return Reply(text=text, tool_calls=tool_calls, usage=USAGE)


@dataclass
class ScriptedHost:
    """What a Sandbox requested. `replies` are given in order; past their end no call of the model is answered."""

    state: Path
    run: Run
    replies: Sequence[Reply | Failure]
    break_calls: set[str] = field(default_factory=set)
    openings: list[str] = field(default_factory=list)
    attached: list[frames.Attach] = field(default_factory=list)
    requests: list[GenerationRequest] = field(default_factory=list)
    checkpoints: list[Checkpoint] = field(default_factory=list)
    results: list[ToolResult] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    refusal: str | None = None
    refused_tunnel: str | None = None
    last_told: list[str] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.writers.append(writer)
        with suppress(OSError, asyncio.IncompleteReadError):
            opening = await frames.read_frame(reader, frames.OPENING)
            self.openings.append(opening.type)
            if isinstance(opening, frames.Attach):
                self.attached.append(opening)
                writer.write(frames.frame(frames.Assigned(run=self.run, session_key=KEY)))
            else:
                refused = self.refusal if opening.session_key == KEY else "wrong session key"
                refused = self.refused_tunnel if isinstance(opening, frames.Tunnel) else refused
                writer.write(frames.frame(frames.TunnelReply(refused=refused)))
            while True:
                call = await frames.read_frame(reader, frames.CALL)
                if call.id in self.break_calls:
                    self.break_calls.discard(call.id)
                    break
                self._answer(call, writer)
        writer.close()

    def _note_last_told(self) -> None:
        # The last event that the Sandbox had published when it stored something.
        lines = (self.state / SPOOL_NAME).read_bytes().splitlines()
        self.last_told.append(json.loads(lines[-1])["type"])

    def _answer(self, call: frames.Call, writer: asyncio.StreamWriter) -> None:
        match call:
            case frames.KeepCheckpoint():
                self._note_last_told()
                self.checkpoints.append(call.checkpoint)
                writer.write(frames.frame(frames.Kept(id=call.id)))
            case frames.KeepResult():
                self._note_last_told()
                self.results.append(call.result)
                writer.write(frames.frame(frames.Kept(id=call.id)))
            case frames.LockFiles():
                writer.write(frames.frame(frames.Locked(id=call.id)))
            case frames.UnlockFiles():
                writer.write(frames.frame(frames.Unlocked(id=call.id)))
            case frames.Generate():
                self._generate(call, writer)

    def _generate(self, call: frames.Generate, writer: asyncio.StreamWriter) -> None:
        self.requests.append(call.request)
        self.asked.set()
        if call.request.number >= len(self.replies):
            return
        reply = self.replies[call.request.number]
        if isinstance(reply, Failure):
            writer.write(frames.frame(frames.Failed(id=call.id, failure=reply)))
            return
        for block in reply.reasoning:
            writer.write(frames.frame(frames.Delta(id=call.id, kind="reasoning", text=block.text)))
        for piece in reply.text.split(" ") if reply.text else ():
            writer.write(frames.frame(frames.Delta(id=call.id, kind="text", text=piece)))
        writer.write(frames.frame(frames.Generated(id=call.id, reply=reply)))


@asynccontextmanager
async def scripted_host(
    directory: Path, run: Run, replies: Sequence[Reply | Failure] = (), **options: Any
) -> AsyncIterator[ScriptedHost]:
    """Listen in `directory`/state, with an empty spool in it and an empty workspace next to it."""
    state = directory / "state"
    state.mkdir()
    (directory / "workspace").mkdir(exist_ok=True)
    (state / SPOOL_NAME).touch()
    host = ScriptedHost(state, run, replies, **options)
    server = await asyncio.start_unix_server(host.serve, make_socket_directory(state))
    try:
        yield host
    finally:
        server.close()
        for writer in host.writers:
            writer.close()


@dataclass(frozen=True)
class Ended:
    """How a runtime ended: its exit code, the bytes of stdout and spool, and its stderr."""

    code: int
    stdout: bytes
    spool: bytes
    stderr: str

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events on stdout."""
        return [json.loads(line) for line in self.stdout.splitlines()]

    @property
    def types(self) -> list[str]:
        """Their types."""
        return [event["type"] for event in self.events]

    def event(self, kind: str) -> dict[str, Any]:
        """The first event of a type."""
        return next(event for event in self.events if event["type"] == kind)


async def start_runtime(host: ScriptedHost, *flags: str, options: Sequence[str] = ()) -> asyncio.subprocess.Process:
    """Start the runtime as a Sandbox does, in the host's directories; `flags` are the interpreter's."""
    workspace = host.state.parent / "workspace"
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *flags,
        "-I",
        "-m",
        "orchestrator.runtime",
        "--state",
        str(host.state),
        "--workspace",
        str(workspace),
        *options,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd="/",
    )


async def ended(host: ScriptedHost, process: asyncio.subprocess.Process) -> Ended:
    """Wait for a runtime's end."""
    async with asyncio.timeout(SECONDS):
        stdout, stderr = await process.communicate()
    spool = (host.state / SPOOL_NAME).read_bytes()
    return Ended(process.returncode or 0, stdout, spool, stderr.decode())


async def work(directory: Path, run: Run, *replies: Reply | Failure, **options: Any) -> tuple[Ended, ScriptedHost]:
    """Let a real runtime work `run` against scripted replies."""
    async with scripted_host(directory, run, replies, **options) as host:
        process = await start_runtime(host)
        return await ended(host, process), host
