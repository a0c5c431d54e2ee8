"""A SandboxSpec as mounts and as the runtime's command line, the same for every backend; pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath

from orchestrator.sandbox.api import LinkKind, SandboxSpec
from orchestrator.wire.layout import (
    MARK,
    PACKAGES,
    SHARED,
    SKILLS,
    SOCKET_DIRECTORY_NAME,
    STATE,
    STDERR,
    STREAM,
    TOKEN,
    WORKSPACE,
)

RUNTIME_MODULE = ("-I", "-m", "orchestrator.runtime")
"""Arguments of the Python interpreter that start the runtime; the image's entrypoint has them."""


class Source(StrEnum):
    """Where the content of a mount comes from."""

    WORKSPACE = "workspace"
    STATE = "state"
    SOCKET_DIRECTORY = "gate"
    """The directory of the broker's socket. A backend whose Sandboxes reach their broker over a network omits it."""
    VOLUME = "volume"
    """Made by the engine for this Sandbox, and removed with it."""
    MARK = "mark"
    """The state directory, which has only the mirror of the spool. A backend whose engine has other files than this
    machine omits it."""
    PACKAGES = "packages"
    PACKAGE_VOLUME = "package-volume"
    """A volume of the engine with one package; only for a backend whose Sandboxes may have volumes."""
    PROTECTED = "protected"
    """A file of the workspace that Experts may not change; the copy is safer where the engine mounts as root."""
    MEMORY = "memory"
    TOKEN = "token"  # noqa: S105 - the kind of a mount
    EMPTY = "empty"
    """An empty file in place of a hidden one."""


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount of a Sandbox.

    `target` is its path inside. `sub_path` is relative to the directory that `source` names; it is set for files of
    the workspace only.
    """

    target: PurePosixPath
    source: Source
    read_only: bool = False
    sub_path: Path | None = None


def mounts(spec: SandboxSpec) -> Iterator[Mount]:
    """Yield everything that is mounted in a Sandbox: directories first, then files of the workspace."""
    yield Mount(WORKSPACE, Source.WORKSPACE)
    if spec.link is LinkKind.STREAM:
        yield Mount(STATE, Source.VOLUME)
        yield Mount(MARK, Source.MARK, read_only=True)
    else:
        yield Mount(STATE, Source.STATE)
        # The user inside may own it and still cannot open it again: no mode changes in a read-only mount.
        yield Mount(STATE / SOCKET_DIRECTORY_NAME, Source.SOCKET_DIRECTORY, read_only=True)
    yield Mount(SHARED, Source.MEMORY)
    yield Mount(SKILLS, Source.MEMORY)
    if spec.packages is not None:
        yield Mount(PACKAGES, Source.PACKAGES, read_only=not spec.installs)
    for slug in sorted(spec.package_volumes):
        yield Mount(PACKAGES / slug, Source.PACKAGE_VOLUME, read_only=not spec.installs)
    if spec.broker is not None:
        yield Mount(TOKEN.parent, Source.TOKEN, read_only=True)
    for file in spec.read_only:
        yield Mount(WORKSPACE / file, Source.PROTECTED, read_only=True, sub_path=file)
    for file in spec.hidden:
        yield Mount(WORKSPACE / file, Source.EMPTY, read_only=True, sub_path=file)


def host_path(spec: SandboxSpec, mount: Mount) -> Path | None:
    """Return the path on the host that a mount shows; None if it shows memory, a volume, a token or an empty file.

    For a protected file it is the original. The copy is at the same path below `spec.copies`.
    """
    match mount.source:
        case Source.WORKSPACE:
            return spec.workspace
        case Source.STATE | Source.MARK:
            return spec.state
        case Source.SOCKET_DIRECTORY:
            return spec.state / SOCKET_DIRECTORY_NAME
        case Source.PACKAGES:
            return spec.packages
        case Source.PROTECTED if mount.sub_path is not None:
            return spec.workspace / mount.sub_path
    return None


def runtime_arguments(  # noqa: PLR0913 - what differs between the backends
    spec: SandboxSpec,
    *,
    has_deadline: bool = True,
    on_host: bool = False,
    bounds_files: bool = False,
    keeps_stderr: bool = False,
    closed: Sequence[str] = (),
    name_servers: Sequence[str] = (),
) -> tuple[str, ...]:
    """Return the runtime's arguments; they do not show which Run it will get.

    Without a deadline something else must end the Sandbox. A Sandbox `on_host` sees the host's own paths. One that
    `bounds_files` limits its open files itself; one that `keeps_stderr` writes its stderr to a file in its state
    directory. A Sandbox that reaches its broker over a network must reach neither the addresses `closed`, each
    `PORT@HOST,HOST`, nor the `name_servers`.
    """
    return (
        *(("--state", str(spec.state), "--workspace", str(spec.workspace)) if on_host else ()),
        *(("--deadline", str(spec.deadline)) if has_deadline else ()),
        *(("--ways", ",".join(spec.transports)) if spec.transports else ()),
        *(("--packages", str(spec.packages)) if on_host and spec.packages is not None else ()),
        *(("--files", str(spec.limits.files)) if bounds_files else ()),
        *(("--stderr", str(STDERR)) if keeps_stderr or spec.link is LinkKind.STREAM else ()),
        *(("--broker", STREAM) if spec.link is LinkKind.STREAM else _broker_arguments(spec, closed, name_servers)),
    )


def _broker_arguments(spec: SandboxSpec, closed: Sequence[str], name_servers: Sequence[str]) -> tuple[str, ...]:
    broker = spec.broker
    if broker is None:
        return ()
    return (
        *("--broker", f"{broker.port}@{','.join(broker.hosts)}", "--pin", broker.pin, "--token", str(TOKEN)),
        *(("--closed", ";".join(closed)) if closed else ()),
        *(("--names", ",".join(name_servers)) if closed and name_servers else ()),
    )
