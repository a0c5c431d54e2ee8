"""The work of `image`: builds, pulls, lists and removes images of Sandboxes at the Docker engine."""

import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import aclosing

from orchestrator.backends.docker.client import DockerClient
from orchestrator.backends.docker.endpoint import find_endpoint
from orchestrator.backends.docker.image_builder import tagged
from orchestrator.backends.docker.image_provision import build, labels_of, pull
from orchestrator.backends.docker.runtime_images import RuntimeImage, find_images, remove_images, rename
from orchestrator.cli.options import BuildOptions, PullOptions
from orchestrator.cli.output.log_lines import show_log
from orchestrator.cli.output.notices import Notices, write_message
from orchestrator.cli.output.render import plain
from orchestrator.cli.signals import stop_on_signals
from orchestrator.errors import ConfigError
from orchestrator.images import settings
from orchestrator.images.context import runtime_image, runtime_source
from orchestrator.images.labels import BASE_LABEL


def build_runtime_image(options: BuildOptions, environ: Mapping[str, str]) -> int:
    """Build the image of this version, unless the engine has it, and give it the names of `options`.

    Raises:
        BackendError: the engine does not answer, or the image could not be built.
    """
    return _finish(environ, lambda engine: _build(engine, options, environ))


def pull_runtime_image(options: PullOptions, environ: Mapping[str, str]) -> int:
    """Pull the image of this version from the registry of `options`.

    Raises:
        ConfigError: no registry is named.
        BackendError: the engine does not answer, or the image could not be pulled.
    """
    if not options.registry:
        message = f"no registry is named to pull from: use --registry or {settings.REGISTRY_VARIABLE}"
        raise ConfigError(message)
    registry = options.registry
    return _finish(environ, lambda engine: _pull(engine, registry, environ))


def list_runtime_images(environ: Mapping[str, str]) -> int:
    """Print a table of the images of Sandboxes at the engine.

    Raises:
        BackendError: the engine does not answer.
    """
    return _finish(environ, _list)


def prune_runtime_images(environ: Mapping[str, str]) -> int:
    """Remove the images that other versions built or pulled, and print their names.

    Raises:
        BackendError: the engine does not answer.
    """
    return _finish(environ, _prune)


def _finish(environ: Mapping[str, str], work: Callable[[DockerClient], Coroutine[None, None, Iterable[str]]]) -> int:
    """Do the work at the engine and print the lines that it returns; return the exit code."""

    async def interruptible() -> int:
        with stop_on_signals(write_message) as stop:
            try:
                async with aclosing(DockerClient(find_endpoint(environ), environ)) as engine:
                    lines = await work(engine)
            except asyncio.CancelledError:
                if stop.signal_number is None:
                    raise
                return stop.exit_code
        sys.stdout.writelines(f"{plain(line)}\n" for line in lines)
        return 0

    with show_log(Notices()):
        return asyncio.run(interruptible())


async def _build(engine: DockerClient, options: BuildOptions, environ: Mapping[str, str]) -> Iterable[str]:
    names = (runtime_image(), *map(tagged, options.tag))
    before = await find_images(engine)
    labels = await labels_of(engine, names[0])
    base = None if labels is None else labels.get(BASE_LABEL)
    if labels is None or options.base not in {base, None}:
        reason = "the engine does not have it" if labels is None else f"it was built on {base}"
        environ = environ if options.base is None else {**environ, settings.BASE_VARIABLE: options.base}
        await build(engine, runtime_source(), environ, reason=reason)
    await rename(engine, names[0], names[1:])
    moved = names if options.replace else names[:1]
    replaced = {each.id for each in before if set(each.names) & set(moved)}
    after = [each for each in await find_images(engine) if each.id in replaced]
    await remove_images(engine, after, keep=names)
    return names


async def _pull(engine: DockerClient, registry: str, environ: Mapping[str, str]) -> Iterable[str]:
    await pull(engine, runtime_source(), registry, environ)
    return (runtime_image(),)


async def _list(engine: DockerClient) -> Iterable[str]:
    current, images = runtime_image(), await find_images(engine)
    rows = [("NAME", "VERSION", "BASE", "SIZE", ""), *(row for each in images for row in _rows(each, current))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _rows(image: RuntimeImage, current: str) -> Iterable[tuple[str, ...]]:
    for name in image.names or (image.id,):
        size = f"{image.size / 1e6:.0f} MB"
        yield name, image.version or "?", image.base or "?", size, "this version" if name == current else ""


async def _prune(engine: DockerClient) -> Iterable[str]:
    return await remove_images(engine, await find_images(engine), keep=(runtime_image(),))
