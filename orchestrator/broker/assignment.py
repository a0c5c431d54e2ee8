"""The work of a Sandbox."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from orchestrator.broker.gateway import Gateway
from orchestrator.egress.tunnels import Tunnels
from orchestrator.sandbox.authority import Authority
from orchestrator.sandbox.frame_stream import FrameStream
from orchestrator.wire import frames
from orchestrator.wire.checkpoint import Checkpoint
from orchestrator.wire.identity import identify
from orchestrator.wire.package import Install
from orchestrator.wire.run import Run
from orchestrator.wire.terminal import Shell
from orchestrator.wire.usage import Usage

SandboxTask = Run | Install | Shell

TerminalHandler = Callable[[FrameStream], Awaitable[None]]
"""Serves the connection of a shell: see `wire.terminal`."""


@dataclass(frozen=True, slots=True)
class PriorState:
    """What a Run had done before its Sandbox got it, from the records.

    `usage` is that of the conversation before this Run, `recorded_usage` that of each model call of this Run by request
    id; `checkpoint` is the last acknowledged one.
    """

    usage: Usage = Usage()
    recorded_usage: Mapping[str, Usage] = field(default_factory=dict)
    checkpoint: Checkpoint | None = None


@dataclass(frozen=True, slots=True)
class Assignment:
    """The work and its frame, its authority, its model and its tunnels, and the tokens used before."""

    task: SandboxTask
    authority: Authority
    frame: frames.Assigned
    gateway: Gateway
    tunnels: Tunnels
    before: Usage

    @property
    def run_id(self) -> str:
        """The id under which its accesses and model calls are stored."""
        return run_id(self.task)

    @property
    def inspects(self) -> bool:
        """Whether it only lists the tools of its skills."""
        return self.frame.inspection is not None

    @property
    def usage(self) -> Usage:
        """Tokens of the whole conversation so far."""
        return self.before + self.gateway.usage


def run_id(work: SandboxTask) -> str:
    """Return the id of a Run, or an id for other work."""
    match work:
        case Run():
            return work.run_id
        case Shell():
            return work.run.run_id
        case Install():
            return identify("install", *(package.slug for package in work.packages))
