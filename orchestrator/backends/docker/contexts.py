"""Docker's contexts: the addresses and certificates that `docker context create` has stored.

The files are read here, because the `docker` package takes as long to import as a Sandbox takes to start.
`config.json` names the active context. A context is in `contexts/meta/ID/meta.json`, its certificates are in
`contexts/tls/ID/docker/`, and ID is the SHA-256 of its name (https://github.com/docker/cli, cli/context/store).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.backends.docker.engine_tls import TlsFiles
from orchestrator.errors import BackendUnavailableError

_DEFAULT = "default"
"""The context that every client has: the usual sockets."""


@dataclass(frozen=True, slots=True)
class DockerContext:
    """A context. `host` is the address of its engine; `tls` is set if it has certificates or a rule for them."""

    name: str
    host: str
    tls: TlsFiles | None


def config_directory(environ: Mapping[str, str]) -> Path | None:
    """Return where Docker's command line has its configuration; None without a home."""
    home = environ.get("HOME")
    named = environ.get("DOCKER_CONFIG") or (f"{home}/.docker" if home else None)
    return None if named is None else Path(named)


def active_context(environ: Mapping[str, str]) -> DockerContext | None:
    """Read the context that DOCKER_CONTEXT names, else the one that `docker context use` has set; None for the default.

    Raises:
        BackendUnavailableError: a file cannot be read, or no context has that name.
    """
    directory = config_directory(environ)
    name = environ.get("DOCKER_CONTEXT") or (None if directory is None else _current(directory / "config.json"))
    if not name or name == _DEFAULT:
        return None
    if directory is None:
        message = f"the Docker context {name!r} cannot be read: set DOCKER_CONFIG to the directory of your contexts"
        raise BackendUnavailableError(message)
    return _read(directory / "contexts", name)


def _current(file: Path) -> str | None:
    try:
        config = json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        message = f"{file} cannot be read ({error}): repair it, or set DOCKER_HOST to the engine's address"
        raise BackendUnavailableError(message) from error
    current = config.get("currentContext") if isinstance(config, dict) else None
    return current if isinstance(current, str) else None


def _read(store: Path, name: str) -> DockerContext:
    identifier = hashlib.sha256(name.encode()).hexdigest()
    file = store / "meta" / identifier / "meta.json"
    try:
        endpoint: Mapping[str, Any] = json.loads(file.read_bytes())["Endpoints"]["docker"]
        host, skips = endpoint["Host"], endpoint.get("SkipTLSVerify") is True
    except FileNotFoundError as error:
        message = f"there is no Docker context {name!r}: see `docker context ls`, or set DOCKER_HOST"
        raise BackendUnavailableError(message) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"the Docker context {name!r} cannot be read ({file}: {error}): create it again, or set DOCKER_HOST"
        raise BackendUnavailableError(message) from error
    if not isinstance(host, str) or not host:
        message = f"the Docker context {name!r} has no address: see `docker context inspect`, or set DOCKER_HOST"
        raise BackendUnavailableError(message)
    certificates = store / "tls" / identifier / "docker"
    tls = TlsFiles.found_in(certificates, verifies=not skips) if skips or certificates.is_dir() else None
    return DockerContext(name, host, tls)
