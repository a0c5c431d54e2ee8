"""Small images that tests build, and what a build leaves at the engine."""

import asyncio
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

from orchestrator.images.context import BuildContext, ImageSource
from tests.support.traces import IMAGE_OF

_NUMBERS = count()
_MARK = f"{IMAGE_OF}={os.getpid()}"


def docker(*arguments: str) -> str:
    """Run a docker command; return what it prints."""
    command = ["docker", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@contextmanager
def small_image(*steps: str, repository: str = "perstack-orch-test-image") -> Iterator[ImageSource]:
    """Give an image with these steps, which is not built yet; whatever was built of it is removed afterwards.

    With no step it has one file, so that `scratch` may be its base.
    """
    name = f"{repository}:{os.getpid()}.{next(_NUMBERS)}-{'0' * 12}"
    lines = ("ARG BASE", "FROM ${BASE}", f"LABEL {_MARK}", *(steps or ("COPY Dockerfile /",)))
    try:
        yield ImageSource(name, BuildContext({"Dockerfile": "\n".join(lines).encode()}))
    finally:
        for reference in (*names(name), *nameless()):
            docker("image", "rm", "--force", reference)


def names(name: str) -> list[str]:
    """Names of those images that end as `name` does: itself, and what was pulled."""
    listed = docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "--filter", f"label={_MARK}").split()
    return [each for each in listed if each.endswith(name.rpartition("/")[2])]


def nameless() -> list[str]:
    """Ids of images without a name that builds of this process left."""
    return docker("image", "ls", "--quiet", "--filter", "dangling=true", "--filter", f"label={_MARK}").split()


def steps_at_work(marker: str) -> list[str]:
    """Ids of containers, running or not, of build steps that have `marker` in their command."""
    listed = docker("ps", "--all", "--no-trunc", "--format", "{{.ID}} {{.Command}}").splitlines()
    return [line.split()[0] for line in listed if marker in line]


async def until(holds: Callable[[], bool]) -> None:
    """Wait until a condition holds.

    Raises:
        TimeoutError: it does not for half a minute.
    """
    async with asyncio.timeout(30):
        while True:
            if await asyncio.to_thread(holds):
                return
            await asyncio.sleep(0.1)
