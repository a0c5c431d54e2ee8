"""What a Sandbox was given to do."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from orchestrator.broker.authority import Authority
from orchestrator.broker.gateway import Gateway
from orchestrator.broker.stream import Stream
from orchestrator.broker.tunnels import Tunnels
from orchestrator.wire import link
from orchestrator.wire.checkpoint import Checkpoint
from orchestrator.wire.identity import identify
from orchestrator.wire.install import Install
from orchestrator.wire.run import Run
from orchestrator.wire.shell import Shell
from orchestrator.wire.usage import Usage

Work = Run | Install | Shell

Attend = Callable[[Stream], Awaitable[None]]
"""Serves the connection of a shell: see `wire.shell`."""


@dataclass(frozen=True, slots=True)
class Past:
    """What a Run had come to before its Sandbox got it, as the records tell.

    `usage` is that of the conversation before this Run, `answered` that of each model call of this Run by request id;
    `checkpoint` is the last one that was acknowledged.
    """

    usage: Usage = Usage()
    answered: Mapping[str, Usage] = field(default_factory=dict)
    checkpoint: Checkpoint | None = None


@dataclass(frozen=True, slots=True)
class Assignment:
    """The work as it is handed over in `frame`, what it may do, its model and its tunnels, and tokens used before."""

    work: Work
    authority: Authority
    frame: link.Assigned
    gateway: Gateway
    tunnels: Tunnels
    before: Usage

    @property
    def run_id(self) -> str:
        """Under which id its accesses and model calls are kept."""
        return run_id(self.work)

    @property
    def inspects(self) -> bool:
        """Whether only the tools of its skills are wanted."""
        return self.frame.inspection is not None

    @property
    def usage(self) -> Usage:
        """Tokens of the whole conversation so far."""
        return self.before + self.gateway.usage


def run_id(work: Work) -> str:
    """The id of a Run, or one for what else is done."""
    match work:
        case Run():
            return work.run_id
        case Shell():
            return work.run.run_id
        case Install():
            return identify("install", *(package.slug for package in work.packages))
