"""Builds an image at the engine, through its API: no docker program is needed, and Podman has the same call."""

import asyncio
import json
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import urlsplit

from orchestrator.aio import shielded
from orchestrator.backends.docker.client import DockerClient, is_status
from orchestrator.errors import ImageBuildError
from orchestrator.http.address import is_loopback
from orchestrator.http.errors import ConnectionBrokenError, StatusError
from orchestrator.http.response import Response
from orchestrator.images.context import BuildContext
from orchestrator.images.settings import BASE_VARIABLE

_STEP = re.compile(r"^step (\d+)/(\d+) ?: (.*)$", re.IGNORECASE)
"""How the builders of Docker and Podman begin each step: "Step 3/9 : RUN …", "STEP 3/9: RUN …"."""

_LEFT = re.compile(r"^ ---> ([0-9a-f]{12,64})$")
"""The image that a step of Docker's builder left, or found in its cache."""

_ABOUT_CONTAINERS = re.compile(r"^ ---> |^Removing intermediate container ")
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
_EXIT = re.compile(r"^The command .* returned a non-zero code: (\d+)$", re.DOTALL)

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_LAST_LINES = 15
_LEAVE_SECONDS = 5.0
_PAUSE_SECONDS = 0.2
_LINE_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class ImageBuild:
    """An image to build: from which files and base, and with which names and labels.

    The Dockerfile of `context` declares `ARG BASE` before its `FROM`, and every other argument of `arguments` that it
    uses. The first of `names` stands in messages.
    """

    context: BuildContext
    names: tuple[str, ...]
    base: str
    labels: Mapping[str, str] = field(default_factory=dict)
    arguments: Mapping[str, str] = field(default_factory=dict)

    def query(self, environ: Mapping[str, str]) -> Mapping[str, str]:
        """Return the query of the call (Engine API 1.40, ImageBuild); `environ` has the proxies for the steps.

        The container of each step is removed, whether it failed or not.
        """
        return {
            "t": self.names[0],
            "rm": "1",
            "forcerm": "1",
            "labels": json.dumps(dict(self.labels)),
            "buildargs": json.dumps({**_proxies(environ), **self.arguments, "BASE": self.base}),
        }


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a build that begins: `number` of `total`, and its instruction in the Dockerfile."""

    number: int
    total: int
    instruction: str


@dataclass(slots=True)
class BuildOutput:
    """What a builder prints: the step at work, its last lines, and the image that the last finished step left."""

    step: Step | None = None
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=_LAST_LINES))
    image: str | None = None

    def read(self, text: str) -> Step | None:
        """Read lines; return the step that they begin, if they do."""
        begins = None
        for line in map(str.rstrip, _ESCAPES.sub("", text).splitlines()):
            if found := _STEP.match(line):
                begins = self.step = Step(int(found[1]), int(found[2]), found[3].strip())
                self.lines.clear()
            elif found := _LEFT.match(line):
                # The first steps leave the base image, which is not the build's.
                if self.step is not None and self.step.instruction.split(" ")[0] not in {"FROM", "ARG"}:
                    self.image = found[1]
            elif line and not _ABOUT_CONTAINERS.match(line):
                self.lines.append(line[:_LINE_CHARACTERS])
        return begins


async def build_image(
    engine: DockerClient,
    build: ImageBuild,
    environ: Mapping[str, str],
    report: Callable[[Step], None] = lambda _: None,
) -> str:
    """Build an image and give it its names; return its id. `report` is called with each step as it begins.

    `environ` has the proxies for the steps. The base image is pulled if the engine does not have it. Cancelling ends
    the build.

    Raises:
        ImageBuildError: the base image cannot be found, or a step failed.
        BackendError: the engine refused the build, or left.
    """
    name, output = build.names[0], BuildOutput()
    with engine.translate_errors(f"build the image {name}"):
        try:
            await _follow(engine, build, environ, output, report)
            for other in build.names[1:]:
                await tag(engine, name, other)
            return str((await engine.image(name))["Id"])
        except BaseException:
            await shielded(_remove_rest(engine, output.image))
            raise


async def _follow(
    engine: DockerClient,
    build: ImageBuild,
    environ: Mapping[str, str],
    output: BuildOutput,
    report: Callable[[Step], None],
) -> None:
    headers = {"Content-Type": "application/x-tar"}
    async with engine.work("/build", build.query(environ), build.context.to_tar(), headers) as response:
        async for message in json_messages(response):
            if step := output.read(str(message.get("stream", ""))):
                report(step)
            if "error" in message:
                raise ImageBuildError(_failure(build, output, str(message["error"])))


async def _remove_rest(engine: DockerClient, image: str | None) -> None:
    """Remove what the finished steps of a failed build left, an image without a name.

    After a cancelled build, the engine still has to remove the container of the step that it ended.
    """
    if image is None:
        return
    with suppress(StatusError, ConnectionBrokenError, TimeoutError):
        async with asyncio.timeout(_LEAVE_SECONDS):
            while True:
                try:
                    if (await engine.image(image)).get("RepoTags"):
                        return  # A step that was found in the cache may have left it for another build.
                    await engine.call("DELETE", f"/images/{image}")
                except StatusError as error:
                    if not is_status(error, HTTPStatus.CONFLICT):
                        raise
                else:
                    return
                await asyncio.sleep(_PAUSE_SECONDS)


def tagged(name: str) -> str:
    """Return an image's name with a tag, `latest` if it has none. A colon before the last part is that of a port."""
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


async def tag(engine: DockerClient, image: str, name: str) -> None:
    """Give an image another name.

    Raises:
        StatusError, ConnectionBrokenError: as the calls of `DockerClient`.
    """
    repository, _, label = tagged(name).rpartition(":")
    await engine.call("POST", f"/images/{image}/tag", {"repo": repository, "tag": label})


async def json_messages(response: Response) -> AsyncIterator[Mapping[str, object]]:
    """Read the progress of a build or a pull, one JSON object a line.

    Raises:
        ConnectionBrokenError: the engine left.
    """
    rest = b""
    async for chunk in response.chunks():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.strip():
                yield _message(line)
    if rest.strip():
        yield _message(rest)


def _message(line: bytes) -> Mapping[str, object]:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"stream": line.decode(errors="replace")}


def _proxies(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the proxies for the steps, except those on this machine, which a container does not reach.

    Both spellings, since programs differ; the engine knows these arguments, and keeps them out of the image's history
    (https://docs.docker.com/reference/dockerfile/#predefined-args).
    """
    found = {name: environ.get(name) or environ.get(name.lower()) for name in _PROXIES}
    usable = {name: value for name, value in found.items() if value and not is_loopback(urlsplit(value).hostname or "")}
    return usable | {name.lower(): value for name, value in usable.items()}


def _failure(build: ImageBuild, output: BuildOutput, error: str) -> str:
    name, step, error = build.names[0], output.step, error.strip()
    if step is None or step.instruction.upper().startswith(("FROM", "ARG")):
        return (
            f"the image {name} could not be built, because the engine does not have its base image {build.base} and"
            f" cannot pull it ({error}); pull it, or name another one with {BASE_VARIABLE}"
        )
    reason = _EXIT.sub(r"exit code \1", error)
    sentence = (
        f"the image {name} could not be built on {build.base}: step {step.number} of {step.total} failed ({reason})"
    )
    return "\n".join((f"{sentence}; the end of its output:", *(f"  {line}" for line in output.lines)))
