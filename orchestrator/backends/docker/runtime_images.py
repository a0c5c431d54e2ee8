"""The images of Sandboxes that an engine has."""

import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from http import HTTPStatus

from orchestrator.backends.docker.client import DockerClient, is_status
from orchestrator.backends.docker.image_builder import tag
from orchestrator.http.errors import StatusError
from orchestrator.images.context import REPOSITORY
from orchestrator.images.labels import BASE_LABEL, SOURCE_LABEL, VERSION_LABEL

_OWN_NAME = re.compile(re.escape(REPOSITORY) + r":.*-[0-9a-f]{12}")
"""The names that this package gives, as `runtime_image` does."""


@dataclass(frozen=True, slots=True)
class RuntimeImage:
    """An image of Sandboxes: its id, all its names, its size in bytes; version and base are None if it has no label."""

    id: str
    names: tuple[str, ...]
    size: int
    version: str | None
    base: str | None

    @property
    def own_names(self) -> tuple[str, ...]:
        """Those names that this package gave, of any version, and not a person."""
        return tuple(name for name in self.names if _OWN_NAME.fullmatch(name))


async def find_images(engine: DockerClient) -> list[RuntimeImage]:
    """List the images of Sandboxes, newest first.

    Raises:
        BackendError: the engine cannot be asked.
    """
    filters = json.dumps({"label": [SOURCE_LABEL]})
    async with engine.translating_errors("list its images"):
        found = await engine.call("GET", "/images/json", {"filters": filters})
    return [
        RuntimeImage(
            id=str(each["Id"]),
            names=tuple(name for name in each.get("RepoTags") or () if not name.startswith("<none>")),
            size=int(each["Size"]),
            version=(each.get("Labels") or {}).get(VERSION_LABEL),
            base=(each.get("Labels") or {}).get(BASE_LABEL),
        )
        for each in sorted(found, key=lambda each: -int(each["Created"]))
    ]


async def rename(engine: DockerClient, image: str, names: Iterable[str]) -> None:
    """Give an image further names.

    Raises:
        BackendError: the engine refused a name.
    """
    for name in names:
        async with engine.translating_errors(f"name the image {name}"):
            await tag(engine, image, name)


async def remove_images(engine: DockerClient, images: Iterable[RuntimeImage], keep: Collection[str]) -> list[str]:
    """Take away the names that this package gave, of any version, except those in `keep`; return the removed ones.

    An image goes with its last name, and one without a name by its id; one that a container uses stays, and so do names
    that a person gave.

    Raises:
        BackendError: the engine cannot be asked.
    """
    own = [name for image in images for name in image.own_names or (() if image.names else (image.id,))]
    return [name for name in own if name not in keep and await _remove(engine, name)]


async def _remove(engine: DockerClient, name: str) -> bool:
    async with engine.translating_errors(f"remove the image {name}"):
        try:
            await engine.call("DELETE", f"/images/{name}")
        except StatusError as error:
            # A container uses the image, or another process removed it.
            if is_status(error, HTTPStatus.CONFLICT) or is_status(error, HTTPStatus.NOT_FOUND):
                return False
            raise
    return True
