"""Find the engine: DOCKER_HOST, else Docker's active context, else the usual sockets of Docker and Podman."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from urllib.parse import SplitResult, urlsplit

from orchestrator.backends.docker.contexts import active_context, config_directory
from orchestrator.backends.docker.engine_tls import TlsFiles
from orchestrator.backends.docker.usual_sockets import DEFAULT, first_existing, guarded_sockets, usual_sockets
from orchestrator.errors import BackendUnavailableError
from orchestrator.http.address import is_loopback

_PLAIN_PORT, _TLS_PORT = 2375, 2376
"""By convention (https://docs.docker.com/reference/cli/dockerd/#daemon-socket-option)."""

_TLS_NAMES = ("DOCKER_TLS_VERIFY", "DOCKER_TLS", "DOCKER_CERT_PATH")
"""Any of them, with any value, means TLS. The engine's certificate is always verified: secrets go to it."""

_TCP = ("tcp://", "http://")
_EXPECTED = "use unix:///PATH, ssh://USER@HOST or tcp://HOST:PORT"


@dataclass(frozen=True, slots=True)
class UnixEndpoint:
    """An engine behind a unix socket of this machine. It may still run in a virtual machine."""

    path: Path
    remote: ClassVar[bool] = False

    @property
    def address(self) -> str:
        """The address as a person reads it."""
        return f"unix://{self.path}"


@dataclass(frozen=True, slots=True)
class TcpEndpoint:
    """An engine behind a port. `tls` is None for plain TCP. `path` begins the path of each request."""

    host: str
    port: int
    tls: TlsFiles | None = None
    path: str = ""

    @property
    def address(self) -> str:
        """The address as a person reads it."""
        return f"tcp://{self._authority}{self.path}"

    @property
    def url(self) -> str:
        """The address as a client of HTTP reads it."""
        return f"{'http' if self.tls is None else 'https'}://{self._authority}{self.path}"

    @property
    def remote(self) -> bool:
        """Whether it is another machine."""
        return not is_loopback(self.host)

    @property
    def _authority(self) -> str:
        return f"{_bracketed(self.host)}:{self.port}"


@dataclass(frozen=True, slots=True)
class SshEndpoint:
    """An engine behind a unix socket of a machine that `ssh` reaches.

    `host` may be a name of the user's ssh configuration. What is None is decided by ssh, or for `path` by what the
    machine has.
    """

    host: str
    user: str | None = None
    port: int | None = None
    path: str | None = None
    remote: ClassVar[bool] = True

    @property
    def address(self) -> str:
        """The address as a person reads it."""
        user = "" if self.user is None else f"{self.user}@"
        port = "" if self.port is None else f":{self.port}"
        return f"ssh://{user}{_bracketed(self.host)}{port}{self.path or ''}"


EngineEndpoint = UnixEndpoint | TcpEndpoint | SshEndpoint
"""Where an engine is, and how it is reached; `remote` is whether it is certain to be on another machine."""


def find_endpoint(environ: Mapping[str, str]) -> EngineEndpoint:
    """Find the engine.

    Raises:
        BackendUnavailableError: the address or the context cannot be used, or certificates are missing.
    """
    named = environ.get("DOCKER_HOST")
    if named:
        return parse_endpoint(named, "DOCKER_HOST", _tls_of(environ) if named.startswith(_TCP) else None)
    context = active_context(environ)
    if context is not None:
        return parse_endpoint(context.host, f"the Docker context {context.name!r}", context.tls)
    return UnixEndpoint(first_existing(usual_sockets(environ)) or DEFAULT)


def parse_endpoint(address: str, origin: str, tls: TlsFiles | None = None) -> EngineEndpoint:
    """Read an address. `origin` is what named it; `tls` are the certificates for an engine behind a port.

    Raises:
        BackendUnavailableError: it cannot be used; the message begins with `origin` and has no password.
    """
    try:
        parts = urlsplit(address)
    except ValueError as error:
        message = f"{origin} names an address that cannot be read ({error}): {_EXPECTED}"
        raise BackendUnavailableError(message) from error
    shown = _without_password(parts)
    try:
        found = _endpoint(parts, tls)
    except ValueError as error:
        message = f"{origin} names {shown}, {error}"
        raise BackendUnavailableError(message) from error
    if found is None:
        message = f"{origin} names {shown}, which is no address of an engine: {_EXPECTED}"
        raise BackendUnavailableError(message)
    return found


def engine_sockets(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """List the sockets of all engines on this machine, the configured one first: access to any is root access."""
    endpoint: EngineEndpoint | None = None
    # The backend reports what is wrong with the configuration when it connects.
    with suppress(BackendUnavailableError):
        endpoint = find_endpoint(environ)
    return guarded_sockets(environ, *([endpoint.path] if isinstance(endpoint, UnixEndpoint) else []))


def _tls_of(environ: Mapping[str, str]) -> TlsFiles | None:
    if not any(environ.get(name) for name in _TLS_NAMES):
        return None
    named = environ.get("DOCKER_CERT_PATH")
    directory = Path(named) if named else config_directory(environ)
    if directory is None:
        message = "DOCKER_TLS_VERIFY is set, but nothing names the directory of certificates: set DOCKER_CERT_PATH"
        raise BackendUnavailableError(message)
    files = TlsFiles.found_in(directory)
    if files.authority is None:
        message = (
            f"{directory / 'ca.pem'} does not exist, so the engine's certificate cannot be verified: set"
            " DOCKER_CERT_PATH to the directory of ca.pem, cert.pem and key.pem"
        )
        raise BackendUnavailableError(message)
    return files


def _endpoint(parts: SplitResult, tls: TlsFiles | None) -> EngineEndpoint | None:
    match parts.scheme:
        case "unix" if parts.path and not parts.netloc:
            return UnixEndpoint(Path(parts.path))
        case "tcp" | "http" if parts.hostname:
            port = _port(parts) or (_PLAIN_PORT if tls is None else _TLS_PORT)
            return TcpEndpoint(parts.hostname, port, tls, parts.path.rstrip("/"))
        case "ssh":
            return _ssh(parts)
        case "npipe":
            message = "a pipe of Windows: run perstack-orch inside WSL2, where the engine has a unix socket"
            raise ValueError(message)
    return None


def _ssh(parts: SplitResult) -> SshEndpoint:
    if parts.password is not None:
        message = "which has a password: remove it, and let ssh use a key"
        raise ValueError(message)
    if parts.query or parts.fragment:
        message = "which has more than a host and a path: remove the rest"
        raise ValueError(message)
    # `hostname` is in lower case, but ssh compares the names of its configuration as they are.
    authority, host = parts.netloc.rpartition("@")[2], parts.hostname or ""
    at = authority.lower().find(host)
    host, user = authority[at : at + len(host)], parts.username
    # ssh would read it as an option, and options can name programs.
    if not host or host.startswith("-") or (user is not None and (not user or user.startswith("-"))):
        message = "which has no host or user for ssh: use ssh://USER@HOST"
        raise ValueError(message)
    return SshEndpoint(host, user, _port(parts), parts.path.rstrip("/") or None)


def _port(parts: SplitResult) -> int | None:
    try:
        return parts.port
    except ValueError as error:
        message = "whose port is not a number below 65536"
        raise ValueError(message) from error


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _without_password(parts: SplitResult) -> str:
    user, _, host = parts.netloc.rpartition("@")
    name = user.partition(":")[0]
    return parts._replace(netloc=f"{name}@{host}" if user else host).geturl()
