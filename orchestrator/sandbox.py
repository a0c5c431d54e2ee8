"""The seam between jobs and the places where Sandboxes run."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol, runtime_checkable

from orchestrator.wire.skill import SkillWay

MIB = 1024 * 1024
STATE_ROOT = Path("/tmp")  # noqa: S108 - a socket's path has 107 bytes at most; a name that somebody else took is refused
"""Above the state directories of Sandboxes that see this machine's files."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one Sandbox may use: bytes of memory (swap included) and of each tmpfs, cores, processes, open files.

    Files are those of each process. `pids` is None where nobody here can bound them.
    """

    memory: int = 2048 * MIB
    tmp: int = 512 * MIB
    cpus: float = 2.0
    pids: int | None = 256
    files: int = 4096


@dataclass(frozen=True, slots=True)
class User:
    """The numeric user and group that a Sandbox runs as."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where a broker is reached over a network; secrets of it are nobody's here.

    `hosts` are IP addresses, one of each family. At `port` it speaks TLS with the certificate whose SHA-256 is `pin`,
    in hex. At `forbidden` it listens too, for whoever has a network that no policy closes.
    """

    hosts: tuple[str, ...]
    port: int
    forbidden: int
    pin: str


@dataclass(frozen=True, slots=True)
class Bearer:
    """Who shows a token: a Sandbox, and the Pod that it is, with the addresses that it comes from."""

    sandbox: str
    uid: str
    addresses: frozenset[str]


class StrangerError(Exception):
    """A token is not one of a Sandbox of ours; the text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Entrance:
    """How Sandboxes are to reach a broker with which they share no socket.

    `hosts` are its IP addresses as they see them; a port that is 0 is chosen. `identify` says who shows a token, and
    raises StrangerError. Unless `enforced`, Sandboxes may reach more than the broker.
    """

    hosts: tuple[str, ...]
    port: int
    forbidden: int
    identify: Callable[[str], Awaitable[Bearer]]
    enforced: bool = True


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """All there is to know about a Sandbox before it is given a Run: no Expert, no query, no environment.

    `state` is the host directory mounted at /run/perstack; the spool is in it, and the gate to the broker's socket,
    which is mounted read-only. Where the broker has an address, it is reached there instead.
    `read_only` and `hidden` are files below the workspace, relative to it: mounted read-only, and shown empty. What is
    mounted of the first is their copies in `copies`, which no other job can put anything else in the place of.
    `packages` is mounted at /packages, read-only but for the Sandbox that installs.
    `deadline` is Unix seconds; past it the Sandbox may be removed by anybody of its instance. `runtime_class` names
    what runs it in place of the engine's own choice: a kernel of its own, as gVisor or Kata give it. `ways` are those
    in which its job's Experts may speak to skills, to be made ready while it waits. One is `urgent` that a job which
    has begun waits for: where not all can start at once, it comes before those of jobs that have yet to begin.
    """

    name: str
    image: str
    workspace: Path
    state: Path
    user: User
    deadline: int
    limits: Limits = Limits()
    labels: Mapping[str, str] = field(default_factory=dict)
    read_only: tuple[Path, ...] = ()
    hidden: tuple[Path, ...] = ()
    copies: Path | None = None
    packages: Path | None = None
    installs: bool = False
    runtime_class: str | None = None
    ways: tuple[SkillWay, ...] = ()
    urgent: bool = False
    broker: BrokerAddress | None = None


def runtime_arguments(spec: SandboxSpec, *, has_deadline: bool = True) -> tuple[str, ...]:
    """What the runtime is told when it starts, wherever that is; without a deadline where something else ends it."""
    ways = ("--ways", ",".join(spec.ways)) if spec.ways else ()
    return (*(("--deadline", str(spec.deadline)) if has_deadline else ()), *ways)


class Reason(StrEnum):
    """How a Sandbox ended."""

    COMPLETED = "completed"
    ERROR = "error"
    OUT_OF_MEMORY = "out-of-memory"
    DEADLINE = "deadline"
    EVICTED = "evicted"
    CANCELLED = "cancelled"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Exit:
    """How a Sandbox ended: its exit code where one is known, and a sentence where there is more to say.

    `detail` may hold the last lines of the Sandbox's stderr.
    """

    code: int | None
    reason: Reason
    detail: str = ""

    @property
    def last_words(self) -> str:
        """The last line of `detail`, in which a Sandbox says why it ended; empty where it said nothing."""
        lines = self.detail.strip().splitlines()
        return lines[-1] if lines else ""


class Sandbox(Protocol):
    """One live container, Kubernetes Job or process."""

    @property
    def name(self) -> str:
        """The name it was launched under."""

    def lines(self) -> AsyncGenerator[bytes, None]:
        """Lines of its stdout in order, without the newline, perhaps with gaps, repeats or an early end.

        A line longer than `wire.line.LINE_BYTES` allows is dropped up to its newline; memory stays bounded.
        Ends when the Sandbox's stdout does.
        """

    async def started(self) -> None:
        """Wait until its program runs, or has; an engine that starts what it launches does so before.

        Raises:
            BackendError: it does not come to run; says why.
        """

    async def wait(self) -> Exit:
        """Wait for its end. May be called again, and gives the same answer.

        Raises:
            SandboxLostError: it went away without saying how it ended.
        """


class Backend(Protocol):
    """A place where Sandboxes run."""

    async def check(self) -> None:
        """Prove that Sandboxes can run here, at no cost worth naming.

        Raises:
            BackendUnavailableError: no engine answers, or it lacks what is needed; says the remedy.
            ImageNotFoundError: the runtime image is not there; says how to get it.
        """

    def launch(self, spec: SandboxSpec) -> AbstractAsyncContextManager[Sandbox]:
        """Start a Sandbox. Left by return, error or cancellation, it is stopped and removed within a bounded grace.

        Raises:
            BackendError: it could not be started.
        """

    def adopt(self, name: str) -> AbstractAsyncContextManager[Sandbox]:
        """The same for one that was launched before, by this process or another.

        Raises:
            SandboxLostError: there is none of that name.
        """

    async def prune(
        self, labels: Mapping[str, str], spare: Callable[[Mapping[str, str]], bool] = lambda _: False
    ) -> tuple[str, ...]:
        """Stop and remove every Sandbox that carries all `labels`; give the names removed.

        `spare` is asked with all labels of each one found, after it was found, and keeps those it says True to.
        """


@runtime_checkable
class NetworkedBackend(Protocol):
    """A backend whose Sandboxes reach their broker over a network: what it has beside a Backend's verbs."""

    @property
    def entrance(self) -> Entrance:
        """How they do."""
