"""Provides the image that belongs to this version: the engine has it, else it is pulled, else it is built."""

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

from orchestrator.backends.docker.client import ANSWER_SECONDS, DockerClient, is_status
from orchestrator.backends.docker.image_builder import ImageBuild, Step, build_image, tag
from orchestrator.backends.docker.image_puller import check_name, pull_image
from orchestrator.disk.caller import state_of_caller
from orchestrator.disk.locks import lock_file
from orchestrator.errors import BackendError, ConfigError
from orchestrator.http.errors import StatusError
from orchestrator.images.context import ImageSource
from orchestrator.images.labels import SOURCE_LABEL, labels
from orchestrator.images.settings import BASE_VARIABLE, DEFAULT_BASE, REGISTRY_VARIABLE
from orchestrator.log import get_logger

_LOCK_PAUSE_SECONDS = 0.2
_PROGRESS_SECONDS = 10.0

_log = get_logger(__name__)


def base_of(environ: Mapping[str, str]) -> str:
    """Return the base image of a build."""
    return environ.get(BASE_VARIABLE) or DEFAULT_BASE


async def provide(engine: DockerClient, source: ImageSource, environ: Mapping[str, str]) -> None:
    """Give the engine an image that it lacks. Of several processes at once, one does the work.

    `environ` names the registry to pull it from and the base to build it on, and has the proxies for the build. A pull
    that fails is logged, and the image is built.

    Raises:
        BackendError: the image could be neither pulled nor built.
    """
    async with _alone(engine, source.name):
        if await labels_of(engine, source.name) is not None:
            return
        registry = environ.get(REGISTRY_VARIABLE)
        if registry:
            try:
                await pull(engine, source, registry, environ)
            except (BackendError, ConfigError) as error:
                _log.warning("%s; it is built here instead", error)
            else:
                return
        await build(engine, source, environ, reason="the engine does not have it")


async def build(engine: DockerClient, source: ImageSource, environ: Mapping[str, str], *, reason: str) -> None:
    """Build an image from the files of this package, and log the progress.

    Raises:
        BackendError: it could not be built.
    """
    base, began = base_of(environ), time.monotonic()
    wanted = ImageBuild(
        source.context,
        (source.name,),
        base,
        labels=labels(source.context.digest, base),
    )
    _log.info("building the image %s on %s, because %s; this takes a minute or two", source.name, base, reason)
    async with log_progress(source.name) as steps:
        await build_image(engine, wanted, environ, steps.append)
    _log.info("built the image %s in %.0f s", source.name, time.monotonic() - began)


async def pull(engine: DockerClient, source: ImageSource, registry: str, environ: Mapping[str, str]) -> None:
    """Pull an image from a registry, HOST[:PORT][/PATH], and check that it is that of this version.

    If the engine had an image by the registry's name before, that name stays with it.

    Raises:
        ConfigError: that is no name of a registry.
        BackendError: it could not be pulled, or was made from other files.
    """
    there = f"{registry.rstrip('/')}/{source.name}"
    check_name(there)
    before, began = await _id_of(engine, there), time.monotonic()
    _log.info("pulling the image %s, because the engine does not have it", there)
    await pull_image(engine, there, environ)
    with engine.translate_errors(f"name the image {there}"):
        found = (await labels_of(engine, there) or {}).get(SOURCE_LABEL)
        if found == source.context.digest:
            await tag(engine, there, source.name)
        if before is None:
            # The name of the registry goes, so that the image has one name, and a wrong one is not kept.
            await engine.call("DELETE", f"/images/{there}")
        elif before != await _id_of(engine, there):
            await tag(engine, before, there)
    if found != source.context.digest:
        message = f"the image {there} was not made from the files of this version; push the image of this version there"
        raise BackendError(message)
    _log.info("pulled the image %s in %.0f s", there, time.monotonic() - began)


async def labels_of(engine: DockerClient, name: str) -> Mapping[str, str] | None:
    """Return the labels of an image; None if the engine does not have it.

    Raises:
        BackendError: the engine cannot be asked.
    """
    found = await _image(engine, name)
    return None if found is None else dict(found["Config"].get("Labels") or {})


async def _id_of(engine: DockerClient, name: str) -> str | None:
    found = await _image(engine, name)
    return None if found is None else str(found["Id"])


async def _image(engine: DockerClient, name: str) -> Mapping[str, Any] | None:
    async with engine.translating_errors(f"look for the image {name}", ANSWER_SECONDS):
        try:
            return await engine.image(name)
        except StatusError as error:
            if is_status(error, HTTPStatus.NOT_FOUND):
                return None
            raise


@asynccontextmanager
async def log_progress(name: str) -> AsyncIterator[list[Step]]:
    """Log every ten seconds which step of a build is at work, until the block is left; the block appends the steps."""
    steps: list[Step] = []

    async def report() -> None:
        while True:
            await asyncio.sleep(_PROGRESS_SECONDS)
            if steps:
                _log.info("still building the image %s: step %d of %d", name, steps[-1].number, steps[-1].total)

    reporting = asyncio.create_task(report())
    try:
        yield steps
    finally:
        reporting.cancel()


@asynccontextmanager
async def _alone(engine: DockerClient, name: str) -> AsyncIterator[None]:
    """Let one process of the caller at a time provide an image at an engine; without a home all do at once."""
    lock = await _locked(engine, name)
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)


async def _locked(engine: DockerClient, name: str) -> int | None:
    above = state_of_caller()
    if above is None:
        return None
    digest = hashlib.sha256(f"{engine.address} {name}".encode()).hexdigest()[:32]
    waits = False
    while True:
        try:
            (above / "images").mkdir(mode=0o700, parents=True, exist_ok=True)
            return lock_file(Path(above, "images", digest))
        except BlockingIOError:
            if not waits:
                _log.info("another process prepares the image %s; waiting for it", name)
            waits = True
        except OSError:
            # A lock saves work; without one the image is built twice.
            return None
        await asyncio.sleep(_LOCK_PAUSE_SECONDS)
