"""Where engines put their sockets on Linux and macOS: Docker, its desktop products, and Podman."""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

DEFAULT = Path("/var/run/docker.sock")

_PODMAN = "/run/podman/podman.sock"
_OTHERS = ("/run/containerd/containerd.sock", "/run/crio/crio.sock")
"""Sockets of engines with another API."""

_IN_RUNTIME_DIRECTORY = ("docker.sock", "podman/podman.sock")
"""Below XDG_RUNTIME_DIR: rootless Docker (https://docs.docker.com/engine/security/rootless/) and Podman."""

_IN_HOME = (
    ".docker/run/docker.sock",  # Docker Desktop on macOS; also rootless Docker without XDG_RUNTIME_DIR
    ".docker/desktop/docker.sock",  # Docker Desktop on Linux
    ".orbstack/run/docker.sock",
    ".colima/default/docker.sock",
    ".config/colima/default/docker.sock",  # Colima, if ~/.config existed first
    ".rd/docker.sock",  # Rancher Desktop
    ".local/share/containers/podman/machine/podman.sock",
)

_PODMAN_MACHINE = "podman/podman-machine-default-api.sock"
"""Below TMPDIR on macOS, since Podman 5; `podman machine inspect` prints it."""


def usual_sockets(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """List the places in the order of the search: Docker's own, the caller's engines, root's Podman."""
    return (DEFAULT, *map(Path, (*_own(environ), _PODMAN)))


def guarded_sockets(environ: Mapping[str, str], *named: Path) -> tuple[Path, ...]:
    """List the sockets of all engines on this machine, and those `named`: access to any of them is root access."""
    places = (*named, *usual_sockets(environ), *map(Path, _OTHERS))
    # Most of these do not exist or cannot be read.
    return tuple(dict.fromkeys(Path(os.path.realpath(place)) for place in places))


def first_existing(places: Iterable[Path]) -> Path | None:
    """Return the first path that exists and can be read: root's Podman hides even its directory."""
    for place in places:
        with suppress(OSError):
            if place.exists():
                return place
    return None


def _own(environ: Mapping[str, str]) -> Iterator[str]:
    runtime, home, temporary = (environ.get(name) for name in ("XDG_RUNTIME_DIR", "HOME", "TMPDIR"))
    if runtime:
        yield from (f"{runtime}/{name}" for name in _IN_RUNTIME_DIRECTORY)
    if home:
        yield from (f"{home}/{name}" for name in _IN_HOME)
    if temporary:
        yield f"{temporary}/{_PODMAN_MACHINE}"
