"""Pulls an image from a registry, with the credentials that the docker command line keeps for it."""

import asyncio
import re
import warnings
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path

from orchestrator.backends.docker.client import DockerClient, is_status
from orchestrator.backends.docker.image_builder import json_messages
from orchestrator.errors import BackendError, ConfigError
from orchestrator.http.errors import StatusError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]+)?(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)+:[\w][\w.-]{0,127}")
"""HOST[:PORT]/PATH:TAG (https://pkg.go.dev/github.com/distribution/reference)."""

_REFUSED = ("unauthorized", "denied", "no basic auth", "authentication required")


def check_name(name: str) -> None:
    """Check that an image's name begins with its registry.

    Raises:
        ConfigError: it does not.
    """
    if not _NAME.fullmatch(name):
        message = f"{name!r} is no name of an image; write the registry as HOST, HOST:PORT or HOST/PATH"
        raise ConfigError(message)


async def pull_image(engine: DockerClient, name: str, environ: Mapping[str, str]) -> None:
    """Pull the image `name`, which `check_name` accepts. `environ` locates the credentials.

    Raises:
        BackendError: the registry cannot be reached, refuses, or does not have the image.
    """
    host, (repository, _, label) = name.partition("/")[0], name.rpartition(":")
    header = await asyncio.to_thread(_credentials, host, environ)
    query = {"fromImage": repository, "tag": label}
    with engine.translate_errors(f"pull the image {name}"):
        try:
            async with engine.work("/images/create", query, headers=header) as response:
                async for progress in json_messages(response):
                    if "error" in progress:
                        raise BackendError(_failure(name, host, str(progress["error"])))
        except StatusError as error:
            if is_status(error, HTTPStatus.NOT_FOUND) or is_status(error, HTTPStatus.INTERNAL_SERVER_ERROR):
                raise BackendError(_failure(name, host, str(error))) from error
            raise


def _credentials(host: str, environ: Mapping[str, str]) -> Mapping[str, str]:
    """Return the header with the caller's credentials for a registry; empty without any."""
    # Imported here: it takes as long as starting a Sandbox does, and few commands pull.
    from docker import auth  # noqa: PLC0415
    from docker.errors import DockerException  # noqa: PLC0415

    directory = environ.get("DOCKER_CONFIG") or (f"{environ['HOME']}/.docker" if environ.get("HOME") else None)
    file = Path(directory, "config.json") if directory else None
    if file is None or not file.exists():
        return {}
    try:
        with warnings.catch_warnings():
            # The library warns about a helper that is not installed, and then raises.
            warnings.simplefilter("ignore")
            found = auth.resolve_authconfig(auth.load_config(str(file)), host)
    except (DockerException, OSError, ValueError) as error:
        message = f"the credentials for {host} in {file} cannot be read ({error}); repair the file, or use docker login"
        raise ConfigError(message) from error
    return {"X-Registry-Auth": auth.encode_header(found).decode()} if found else {}


def _failure(name: str, host: str, reason: str) -> str:
    remedy = ""
    if any(word in reason.lower() for word in _REFUSED):
        remedy = f"; it may need a login, `docker login {host}`"
    return f"the image {name} could not be pulled ({reason.strip()}){remedy}"
