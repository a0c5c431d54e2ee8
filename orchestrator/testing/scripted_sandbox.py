"""The runtime's side of a Sandbox, for scripts: takes a Run from the broker, reports events, hands over checkpoints."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from msgspec.json import Decoder

from orchestrator.jobs.delegation import last_text
from orchestrator.sandbox.api import Exit, SandboxSpec
from orchestrator.testing.script_link import BROKEN, BrokerDialer, Stream, exchange
from orchestrator.units import now
from orchestrator.version import VERSION
from orchestrator.wire import frames
from orchestrator.wire.checkpoint import Checkpoint, DelegateTo, RunError, Status, Step
from orchestrator.wire.event import (
    AnyEvent,
    CompleteRun,
    ContinueToNextStep,
    InitializeRuntime,
    RunEvent,
    StopRunByDelegate,
    StopRunByError,
    TerminalEvent,
)
from orchestrator.wire.expert import ExpertId
from orchestrator.wire.facts import Inodes
from orchestrator.wire.frozen import Frozen
from orchestrator.wire.generation import GenerationRequest
from orchestrator.wire.identity import identify
from orchestrator.wire.layout import SPOOL_NAME
from orchestrator.wire.line import encode
from orchestrator.wire.message import ExpertMessage, TextPart
from orchestrator.wire.run import Run
from orchestrator.wire.usage import Usage

T = TypeVar("T")

_CHUNK = 64 * 1024


class Guest:
    """What a script works with. `spec` is that of its Sandbox, `write` takes bytes of stdout, `shut` ends stdout.

    Events are numbered from `seq` + 1.
    """

    def __init__(self, spec: SandboxSpec, write: Callable[[bytes], None], shut: Callable[[], None]) -> None:
        self.spec = spec
        self.write = write
        self.shut = shut
        self.stderr = ""
        self.session_key = ""
        self.seq = 0
        self._run: Run | None = None
        self._checkpoint: Checkpoint | None = None
        self._dialer = BrokerDialer(spec.state)
        self._stream: Stream | None = None
        self._calls = 0

    @property
    def run(self) -> Run:
        """The Run.

        Raises:
            RuntimeError: it was not taken yet.
        """
        if self._run is None:
            message = "the script has not taken its Run yet"
            raise RuntimeError(message)
        return self._run

    @property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint of the step that is under way, or the last one of the Run."""
        return self._checkpoint or self.run.checkpoint

    async def attach(self, inodes: Inodes | None = None) -> frames.Assigned:
        """Reach the broker and wait for what it assigns; a warm Sandbox waits long.

        By default `inodes` are those of its directories.

        Raises:
            BrokerLeftError: it is not there, or went away.
        """
        await self._dial()
        assigned = await self._exchange(frames.Attach(inodes=inodes or self._inodes()), frames.ASSIGNED)
        self._run = assigned.run
        self.session_key = assigned.session_key
        return assigned

    async def reattach(self, run: Run, session_key: str) -> str | None:
        """Come back with the key of a Run that was taken before; give why the broker refuses, if it does.

        Raises:
            BrokerLeftError: it is not there, or went away.
        """
        self._run, self.session_key = run, session_key
        await self._dial()
        return (await self._exchange(frames.Reattach(session_key=session_key), frames.OPENED)).refused

    async def begin(self) -> Run:
        """Take the Run, and tell the event with which each begins.

        Raises:
            BrokerLeftError: the broker is not there, or went away.
        """
        await self.attach()
        run = self.run
        self.emit(
            InitializeRuntime,
            runtime_version=VERSION,
            expert_name=run.expert.name,
            experts=run.known_experts,
            model=run.model,
            max_steps=run.max_steps,
            max_retries=run.max_retries,
            timeout=run.timeout_ms,
            query=run.query,
        )
        return run

    def emit(self, kind: type[AnyEvent], *, shown: bool = True, **fields: Any) -> None:
        """Tell an event: in the spool, and then on stdout where it is `shown`."""
        run = self.run
        self.seq += 1
        common: dict[str, Any] = {
            "id": identify(run.run_id, run.attempt, self.seq),
            "timestamp": now(),
            "job_id": run.job_id,
            "run_id": run.run_id,
            "attempt": run.attempt,
            "seq": self.seq,
        }
        if issubclass(kind, RunEvent):
            common |= {"expert_key": run.expert.key, "step_number": self.checkpoint.step_number}
        line = encode(kind(**common, **fields), run.events)
        with (self.spec.state / SPOOL_NAME).open("ab") as spool:
            spool.write(line)
        if shown:
            self.write(line)

    async def ask(self, call: frames.Call) -> frames.Answer:
        """Make one call and give its answer, without the pieces of a reply that come before.

        Raises:
            BrokerLeftError: the broker went away.
        """
        answer = await self._exchange(call, frames.ANSWER)
        while isinstance(answer, frames.Delta):
            answer = await self._exchange(None, frames.ANSWER)
        return answer

    async def generate(self, step: int = 1, number: int = 0) -> frames.Answer:
        """Have the model called.

        Raises:
            BrokerLeftError: the broker went away.
        """
        request = GenerationRequest(id=f"{step}/{number}", number=number, messages=())
        return await self.ask(frames.Generate(id=request.id, request=request))

    async def keep(self, checkpoint: Checkpoint) -> frames.Answer:
        """Hand a checkpoint over.

        Raises:
            BrokerLeftError: the broker went away.
        """
        self._calls += 1
        return await self.ask(frames.KeepCheckpoint(id=f"checkpoint/{self._calls}", checkpoint=checkpoint))

    async def step(self) -> None:
        """Finish a step: hand its checkpoint over, and tell that the next begins.

        Raises:
            BrokerLeftError: the broker went away.
        """
        await self._reach(Status.PROCEEDING)
        following = self.checkpoint.following
        self.emit(ContinueToNextStep, **self._ending(), next_checkpoint=following.head)
        self._checkpoint = following

    async def complete(self, text: str = "", *, told: bool = True) -> None:
        """End the Run well; where it is not `told`, the last event is missing.

        Raises:
            BrokerLeftError: the broker went away.
        """
        message = ExpertMessage(id=identify(self.run.run_id, "said"), contents=(TextPart(id="text", text=text),))
        await self._reach(Status.COMPLETED, messages=(*self.checkpoint.messages, message))
        if told:
            self.emit(CompleteRun, **self._ending(), text=last_text(self.checkpoint) or "", usage=Usage())

    async def delegate(self, *calls: tuple[str, str]) -> None:
        """End the Run to call delegates, each an Expert's key and a query.

        Raises:
            BrokerLeftError: the broker went away.
        """
        known = {delegate.key: delegate for delegate in self.run.delegates}
        delegations = tuple(
            DelegateTo(
                expert=ExpertId(key=key, name=known[key].name, version=known[key].version),
                tool_call_id=f"{self.run.run_id}-call-{number}",
                tool_name=key,
                query=query,
            )
            for number, (key, query) in enumerate(calls, 1)
        )
        await self._reach(Status.STOPPED_BY_DELEGATE, delegate_to=delegations)
        self.emit(StopRunByDelegate, **self._ending())

    async def fail(self, error: RunError) -> None:
        """End the Run in error, as an Expert does that cannot continue.

        Raises:
            BrokerLeftError: the broker went away.
        """
        await self._reach(Status.STOPPED_BY_ERROR, error=error)
        self.emit(StopRunByError, **self._ending(), error=error)

    def tell_end(self, kind: type[TerminalEvent], checkpoint: Checkpoint, **fields: Any) -> None:
        """Tell a terminal event that names a checkpoint which the broker may not have."""
        self.emit(kind, **(self._ending() | {"checkpoint": checkpoint.head}), **fields)

    async def open_tunnel(self, credential: str, host: str, port: int = 443) -> str | None:
        """Ask for a connection to a host outside, and leave it; give why the broker refuses, if it does.

        Raises:
            BrokerLeftError: the broker went away.
        """
        stream = await self._dialer.dial()
        tunnel = frames.Tunnel(session_key=self.session_key, credential=credential, host=host, port=port)
        try:
            return (await exchange(stream, tunnel, frames.OPENED)).refused
        finally:
            stream[1].close()

    async def cut_off(self) -> None:
        """Wait until the broker closes the connection, which must be open."""
        with suppress(*BROKEN):
            while await self._connected[0].read(_CHUNK):
                pass

    def close(self) -> None:
        """Leave the broker."""
        self._hang_up()
        self._dialer.close()

    def _ending(self) -> dict[str, Any]:
        number = self.checkpoint.step_number
        return {"checkpoint": self.checkpoint.head, "step": Step(step_number=number, started_at=now())}

    async def _reach(self, status: Status, **changes: Any) -> None:
        self._checkpoint = self.checkpoint.with_(status=status, **changes)
        await self.keep(self._checkpoint)

    def _inodes(self) -> Inodes:
        state, workspace = self.spec.state.stat(), self.spec.workspace.stat()
        return Inodes(state=(state.st_dev, state.st_ino), workspace=(workspace.st_dev, workspace.st_ino))

    async def _dial(self) -> None:
        self._hang_up()
        self._stream = await self._dialer.dial()

    async def _exchange(self, frame: Frozen | None, decoder: Decoder[T]) -> T:
        return await exchange(self._connected, frame, decoder)

    @property
    def _connected(self) -> Stream:
        if self._stream is None:
            message = "the script has not reached its broker yet"
            raise RuntimeError(message)
        return self._stream

    def _hang_up(self) -> None:
        if self._stream is not None:
            self._stream[1].close()
            self._stream = None


Script = Callable[[Guest], Awaitable[Exit | int | None]]
"""What a Sandbox does. It gives its Exit or its exit code; None is 0."""


def by_expert(scripts: Mapping[str, Script]) -> Script:
    """A script that takes its Run and continues with the script of the Run's Expert, by the Expert's key."""

    async def script(guest: Guest) -> Exit | int | None:
        run = await guest.begin()
        return await scripts[run.expert.key](guest)

    return script
