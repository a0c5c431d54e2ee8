"""Which engine: DOCKER_HOST, else Docker's active context, else the sockets where Docker and Podman usually are."""

import ipaddress
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.errors import BackendUnavailableError

DEFAULT = "unix:///var/run/docker.sock"

_PODMAN = "/run/podman/podman.sock"
_OTHERS = ("/run/containerd/containerd.sock", "/run/crio/crio.sock")
"""Of engines that speak another API."""


def engine_address(environ: Mapping[str, str]) -> str:
    """Find the engine's address: `unix://PATH`, or `tcp://HOST:PORT` on this machine.

    Raises:
        BackendUnavailableError: the engine named is on another machine, or the context cannot be read.
    """
    named = environ.get("DOCKER_HOST")
    if named:
        return _local(named, "DOCKER_HOST")
    context = environ.get("DOCKER_CONTEXT") or _current_context(environ)
    if context and context != "default":
        return _local(_context_address(context), f"the Docker context {context!r}")
    usual = first_there(usual_sockets(environ))
    return DEFAULT if usual is None else f"unix://{usual}"


def usual_sockets(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """List where engines are that nobody names: Docker's, the caller's own rootless ones, root's Podman."""
    runtime = environ.get("XDG_RUNTIME_DIR")
    own = (f"{runtime}/docker.sock", f"{runtime}/podman/podman.sock") if runtime else ()
    return tuple(map(Path, (urlsplit(DEFAULT).path, *own, _PODMAN)))


def engine_sockets(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """List the sockets of engines on this machine, whichever is used: who may speak to one of them is root here."""
    named = urlsplit(environ.get("DOCKER_HOST", ""))
    own = (named.path,) if named.scheme == "unix" and named.path else ()
    places = (*own, *usual_sockets(environ), *_OTHERS)
    # Most of these may not be looked at, and need not be there.
    return tuple(dict.fromkeys(Path(os.path.realpath(place)) for place in places))


def _local(address: str, origin: str) -> str:
    parts = urlsplit(address)
    if parts.scheme == "unix" and parts.path:
        return address
    if parts.scheme in {"tcp", "http"} and _is_loopback(parts.hostname or ""):
        return f"tcp://{parts.netloc}"
    message = (
        f"{origin} names the engine {address}, but a Sandbox reaches its broker through a socket in a directory of this"
        " machine, which an engine elsewhere cannot mount: set DOCKER_HOST to a local engine, such as " + DEFAULT
    )
    raise BackendUnavailableError(message)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _current_context(environ: Mapping[str, str]) -> str | None:
    home = environ.get("HOME")
    directory = environ.get("DOCKER_CONFIG") or (f"{home}/.docker" if home else None)
    if directory is None:
        return None
    file = Path(directory) / "config.json"
    try:
        config = json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        message = f"{file} cannot be read ({error}): mend it, or set DOCKER_HOST to the engine's address"
        raise BackendUnavailableError(message) from error
    current = config.get("currentContext") if isinstance(config, dict) else None
    return current if isinstance(current, str) else None


def _context_address(name: str) -> str:
    # Imported here: it takes as long as starting a Sandbox does, and most machines have the default context only.
    from docker.context import ContextAPI  # noqa: PLC0415
    from docker.errors import DockerException  # noqa: PLC0415

    message = f"the Docker context {name!r} cannot be read: see `docker context ls`, or set DOCKER_HOST"
    try:
        context = ContextAPI.get_context(name)
    except (DockerException, OSError, ValueError) as error:
        raise BackendUnavailableError(message) from error
    host = getattr(context, "Host", None)  # the library gives None for a name it does not know
    if not host:
        raise BackendUnavailableError(message)
    return str(host)


def first_there(places: Iterable[Path]) -> Path | None:
    """Give the first that is there and can be looked at: root's Podman hides even its directory."""
    for place in places:
        with suppress(OSError):
            if place.exists():
                return place
    return None
