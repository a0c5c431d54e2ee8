"""Checks and reads of a volume's files, which arrive as archives from an engine, and the removal of volumes."""

import asyncio
import io
import stat
import tarfile
from collections.abc import AsyncIterator, Collection
from contextlib import aclosing
from dataclasses import dataclass

from orchestrator.backends.tar_reader import ArchiveError, Member, TarReader
from orchestrator.errors import BackendError
from orchestrator.sandbox.api import VolumeBackend, VolumeFiles
from orchestrator.wire.layout import WORKSPACE

_ANY_USER = 0o1777


async def make_writable(files: VolumeFiles, image: str) -> None:
    """Let any user write to a new volume.

    Docker gives it the mode of the image's directory and keeps that. Podman does so only once a container starts, and
    takes the mode from the archive.

    Raises:
        BackendError: no user may, since the image has no such directory, or the engine does not answer.
    """
    reader, mode = TarReader(), 0
    await files.write(_writable_root())
    try:
        async with aclosing(files.read()) as pieces:
            async for piece in pieces:
                mode = next((part.mode for part in reader.feed(piece) if isinstance(part, Member)), mode)
    except ArchiveError as error:
        message = f"what the engine sent of a new volume {error}: try again"
        raise BackendError(message) from error
    if not mode & stat.S_IWOTH:
        message = f"the image {image} has no directory {WORKSPACE} that any user may write: build or pull it again"
        raise BackendError(message)


async def _writable_root() -> AsyncIterator[bytes]:
    archive, root = io.BytesIO(), tarfile.TarInfo(".")
    root.type, root.mode = tarfile.DIRTYPE, _ANY_USER
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.addfile(root)
    yield archive.getvalue()


async def read_file(files: VolumeFiles, path: str, most_bytes: int) -> bytes:
    """Return the content of a regular file of at most `most_bytes`; a link is not followed.

    Raises:
        ArchiveError: it is no regular file, or larger.
        BackendError: it does not exist, or the engine is gone.
    """
    reader, content, member = TarReader(), bytearray(), None
    async with aclosing(files.read(path)) as pieces:
        async for piece in pieces:
            for part in reader.feed(piece):
                if isinstance(part, bytes):
                    content += part
                elif member is None and part.is_file and part.size <= most_bytes:
                    member = part
                else:
                    message = f"is not that of a regular file of at most {most_bytes} bytes"
                    raise ArchiveError(message)
    reader.close()
    return bytes(content)


@dataclass(frozen=True, slots=True)
class RemovableVolumes:
    """Volumes that are removed together, as if they were one: those that could not be filled."""

    volumes: VolumeBackend
    names: Collection[str]

    async def remove(self) -> None:
        """Remove them.

        Raises:
            BackendError: one still exists.
        """
        removed = await asyncio.gather(*map(self.volumes.remove_volume, self.names), return_exceptions=True)
        for trouble in removed:
            if trouble is not None:
                raise trouble
