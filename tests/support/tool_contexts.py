"""What skills and tools see of a Sandbox, without a broker: a real spool, a proxy that leads nowhere."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from itertools import count
from pathlib import Path

from orchestrator.runtime.emit import Emitter
from orchestrator.runtime.tool_context import ToolContext
from orchestrator.wire.checkpoint import Checkpoint, Status
from orchestrator.wire.event import Event
from orchestrator.wire.expert import Expert
from orchestrator.wire.layout import SPOOL_NAME
from orchestrator.wire.line import decode
from orchestrator.wire.run import Run
from orchestrator.wire.usage import Usage

_EXPERT = Expert(key="tester", name="tester", instruction="Test.")
_CHECKPOINT = Checkpoint(
    id="c",
    job_id="j",
    run_id="r",
    status=Status.INIT,
    step_number=1,
    messages=(),
    expert=_EXPERT.identity,
    usage=Usage(),
)
RUN = Run(
    job_id="j",
    run_id="r",
    expert=_EXPERT,
    checkpoint=_CHECKPOINT,
    model="m",
    max_steps=1,
    max_retries=0,
    timeout_ms=1000,
    started_at=0,
)


@asynccontextmanager
async def no_proxy(_credential: str) -> AsyncIterator[int]:
    """Give the port of a forwarder that is not there: nothing listens at it."""
    yield 9


def context(root: Path) -> ToolContext:
    """Make a workspace and a state directory below `root`."""
    workspace, state = root / "workspace", root / "state"
    for directory in (workspace, state):
        directory.mkdir()
    (state / SPOOL_NAME).touch()
    numbers = count(1)
    emitter = Emitter(RUN, state, lambda _: None)
    return ToolContext(
        workspace=workspace,
        state=state,
        emitter=emitter,
        new_part_id=lambda: f"p{next(numbers)}",
        open_forwarder=no_proxy,
        lock_files=nullcontext,
    )


def events(inside: ToolContext) -> list[Event]:
    """All events so far."""
    return [decode(line) for line in (inside.state / SPOOL_NAME).read_bytes().splitlines()]
