"""The seam between jobs and the backends that run Sandboxes."""

from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol, runtime_checkable

from orchestrator.disk.caller import root_of_state_directories
from orchestrator.wire.grant_record import ResourceLimits
from orchestrator.wire.skill import SkillTransport

MIB = 1024 * 1024
STATE_ROOT = root_of_state_directories()
"""Above the state directories of Sandboxes that see this machine's files."""


DEFAULT_LIMITS = ResourceLimits(memory=2048 * MIB, tmp=512 * MIB, cpus=2.0, pids=256, files=4096)
"""What one Sandbox may use unless its job or its Pods' setting states otherwise."""


@dataclass(frozen=True, slots=True)
class User:
    """The numeric user and group that a Sandbox runs as."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where a broker is reached over a network; contains no secrets.

    `hosts` are IP addresses, one of each family. At `port` it uses TLS with the certificate whose SHA-256 is `pin`,
    in hex. At `forbidden` it listens too, to detect Sandboxes with a network that no policy closes.
    """

    hosts: tuple[str, ...]
    port: int
    forbidden: int
    pin: str


@dataclass(frozen=True, slots=True)
class PodIdentity:
    """The owner of a token: a Sandbox, and its Pod, with the addresses that it connects from."""

    sandbox: str
    uid: str
    addresses: frozenset[str]


class AuthenticationError(Exception):
    """A token is not one of a Sandbox of ours; the text is the reason."""


@dataclass(frozen=True, slots=True)
class BrokerIngress:
    """How Sandboxes reach a broker with which they share no socket.

    `hosts` are its IP addresses as they see them; a port of 0 means any free port. `identify` returns the owner of a
    token, and raises AuthenticationError. Unless `enforced`, Sandboxes may reach more than the broker.
    """

    hosts: tuple[str, ...]
    port: int
    forbidden: int
    identify: Callable[[str], Awaitable[PodIdentity]]
    enforced: bool = True


class LinkKind(StrEnum):
    """What joins a Sandbox and its broker. `AUTO` leaves it to the backend; one that has no choice ignores it."""

    AUTO = "auto"
    SOCKET = "socket"
    """A unix socket in a directory that both mount."""
    STREAM = "stream"
    """The Sandbox's own stdin and stdout, through its engine."""


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """The full description of a Sandbox before it gets a Run: no Expert, no query, no environment.

    `state` is the host directory mounted at /run/perstack; it contains the spool, and the socket directory of the
    broker, which is mounted read-only. Where the broker has an address, it is reached there instead. With the `link`
    STREAM, the spool is in the container, and `state` has its mirror.
    `read_only` and `hidden` are files below the workspace, relative to it: mounted read-only, and shown empty. For
    the first, their copies in `copies` are mounted, which no other job can replace.
    `volume` names the engine's volume that is the workspace in place of the directory `workspace`; an empty name is a
    new volume that goes with the Sandbox.
    `packages` is mounted at /packages, read-only except for a Sandbox that installs. In its place `package_volumes` has
    a volume of the engine for each package by its slug, the name of its directory there.
    `deadline` is Unix seconds; after it, any process of its instance may remove the Sandbox. `runtime_class` names a
    runtime other than the engine's default, such as gVisor or Kata, which have their own kernel. `transports` are those
    by which its job's Experts may reach skills; the Sandbox prepares them while it waits. `urgent` marks a Sandbox that
    a running job waits for: if not all can start at once, it starts before those of jobs that have not begun.
    """

    name: str
    image: str
    workspace: Path
    state: Path
    user: User
    deadline: int
    limits: ResourceLimits = DEFAULT_LIMITS
    labels: Mapping[str, str] = field(default_factory=dict)
    read_only: tuple[Path, ...] = ()
    hidden: tuple[Path, ...] = ()
    copies: Path | None = None
    packages: Path | None = None
    package_volumes: Mapping[str, str] = field(default_factory=dict)
    installs: bool = False
    runtime_class: str | None = None
    transports: tuple[SkillTransport, ...] = ()
    urgent: bool = False
    broker: BrokerAddress | None = None
    link: LinkKind = LinkKind.AUTO
    volume: str | None = None


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
    """How a Sandbox ended: its exit code if known, and a sentence if more is known.

    `detail` may contain the last lines of the Sandbox's stderr.
    """

    code: int | None
    reason: Reason
    detail: str = ""

    @property
    def last_line(self) -> str:
        """The last line of `detail`, which is the Sandbox's own reason for its end; empty if it gave none."""
        lines = self.detail.strip().splitlines()
        return lines[-1] if lines else ""


class Sandbox(Protocol):
    """One live container, Kubernetes Job or process."""

    @property
    def name(self) -> str:
        """The name it was launched under."""

    def lines(self) -> AsyncGenerator[bytes, None]:
        """Yield the lines of its stdout in order, without the newline, perhaps with gaps, repeats or an early end.

        A line longer than `wire.line.LINE_BYTES` allows is dropped up to its newline; memory stays bounded.
        Ends when the Sandbox's stdout does.
        """

    async def started(self) -> None:
        """Wait until its program runs or has run; on some engines it does once `launch` returns.

        Raises:
            BackendError: it does not start; the message has the reason.
        """

    async def wait(self) -> Exit:
        """Wait for its end. May be called again, and returns the same answer.

        Raises:
            SandboxLostError: it is gone and how it ended is unknown.
        """


class Backend(Protocol):
    """An engine that runs Sandboxes."""

    async def check(self) -> None:
        """Check at negligible cost that Sandboxes can run here.

        Raises:
            BackendUnavailableError: no engine answers, or it lacks what is needed; the message has the remedy.
            ImageNotFoundError: the runtime image does not exist there; the message has the remedy.
        """

    def launch(self, spec: SandboxSpec) -> AbstractAsyncContextManager[Sandbox]:
        """Start a Sandbox. When the block is left, by return, error or cancellation, stop and remove it within a bound.

        Raises:
            BackendError: it could not be started.
        """

    def adopt(self, name: str) -> AbstractAsyncContextManager[Sandbox]:
        """The same for a Sandbox that was launched before, by this process or another.

        Raises:
            SandboxLostError: no Sandbox of that name exists.
        """

    async def prune(
        self, labels: Mapping[str, str], keep: Callable[[Mapping[str, str]], bool] = lambda _: False, /
    ) -> tuple[str, ...]:
        """Stop and remove every Sandbox that carries all `labels`; return the names removed.

        `keep` is called with all labels of each one, after it was found; those for which it returns True are kept.
        """


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a machine has for Sandboxes: cores, and bytes of memory."""

    cores: int
    memory: int


@runtime_checkable
class SizedBackend(Protocol):
    """A backend whose Sandboxes may run on another machine."""

    async def capacity(self) -> Capacity | None:
        """Return what that machine has; None if it is this one.

        Raises:
            BackendUnavailableError: the engine cannot be reached.
        """


@runtime_checkable
class StreamedBackend(Protocol):
    """A backend that can link its Sandboxes by their own stdin and stdout."""

    async def choose_link(self, spec: SandboxSpec) -> LinkKind:
        """Return the link that this Sandbox must get: SOCKET or STREAM.

        Raises:
            BackendUnavailableError: the engine cannot be reached.
        """

    async def avoid_sockets(self) -> None:
        """Choose streams from now on: a Sandbox did not reach its socket."""


@runtime_checkable
class StreamedSandbox(Protocol):
    """A Sandbox that is linked by its own stdin and stdout."""

    def open_link(
        self, accept: Callable[[StreamReader, StreamWriter], None], spool: Path
    ) -> AbstractAsyncContextManager[None]:
        """Link it: `spool` becomes the mirror of its spool, and `accept` then gets the connections that it opens."""


@runtime_checkable
class NetworkedBackend(Protocol):
    """A backend whose Sandboxes reach their broker over a network, and how."""

    @property
    def ingress(self) -> BrokerIngress:
        """The broker's addresses and ports, and the check of tokens."""


@runtime_checkable
class LeasingBackend(Protocol):
    """A backend whose engine can hold a name for one of all that use it."""

    async def take_lease(self, name: str, image: str, labels: Mapping[str, str]) -> Mapping[str, str] | None:
        """Make a container of that name that never starts; return the labels of the one that exists, None if made.

        `prune` removes it.

        Raises:
            BackendError: the engine refuses for another reason.
        """


class Sharing(StrEnum):
    """How an engine's containers see the files of a directory of this machine."""

    EXACT = "exact"
    """As they are here."""
    FOLDED = "folded"
    """By other spellings of their names too: a file that is mounted over another one by its name can be evaded."""
    NONE = "none"
    """Not at all."""


@dataclass(frozen=True, slots=True)
class Share:
    """How an engine sees a directory; `engine` is the engine's own id, the same from every machine."""

    engine: str
    sharing: Sharing


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume of an engine. `image` is that of the container by which it is read and written, `user` owns its files.

    `labels` are those of the volume, if it does not exist yet, and of the container.
    """

    name: str
    image: str
    user: User
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FoundVolume:
    """A volume that exists: its labels, and the labels of the containers that have it, by their names."""

    name: str
    labels: Mapping[str, str]
    users: Mapping[str, Mapping[str, str]]


class VolumeFiles(Protocol):
    """The files of an open volume, as tar archives. `owner` is the user in the archive that its user is inside."""

    owner: User

    async def write(self, archive: AsyncIterator[bytes]) -> None:
        """Unpack an archive into it, whose names are relative to it.

        Raises:
            BackendError: the engine refuses, or is gone.
        """

    def read(self, path: str = "") -> AsyncGenerator[bytes, None]:
        """Yield an archive of it, whose names begin with that of the directory `workspace`; or of a file at `path`.

        Raises:
            BackendError: the engine refuses, or is gone; the archive may be incomplete.
        """


@runtime_checkable
class VolumeBackend(Protocol):
    """A backend whose Sandboxes may have a volume of the engine as their workspace."""

    async def share(self, directory: Path | None) -> Share:
        """Find out how Sandboxes would see a directory of this machine, which need not exist yet; None is not seen.

        Raises:
            BackendError: the engine does not say.
        """

    def open_volume(self, volume: Volume) -> AbstractAsyncContextManager[VolumeFiles]:
        """Make a volume, unless it exists, and open its files for the block; the volume stays.

        Raises:
            BackendError: it cannot be made or opened.
        """

    async def volumes(self, labels: Mapping[str, str], name: str | None = None) -> tuple[FoundVolume, ...]:
        """List the volumes that carry all `labels`, or only the one of that name.

        Raises:
            BackendError: the engine does not list them.
        """

    async def remove_volume(self, name: str) -> None:
        """Remove a volume; one that is gone is no error.

        Raises:
            BackendError: it still exists.
        """
