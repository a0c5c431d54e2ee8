"""The fake backend as an engine elsewhere: it sees no file of this machine, and has volumes, in memory."""

import io
import tarfile
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.errors import BackendError, BackendUnavailableError
from orchestrator.sandbox.api import FoundVolume, SandboxSpec, Share, Sharing, User, Volume
from orchestrator.testing.fake_backend import FakeBackend
from orchestrator.testing.scripted_sandbox import Script

LINK = object()
"""In the place of a file's content: a symbolic link."""


@dataclass
class FarVolume:
    """A volume: its labels, and its files by their paths."""

    labels: Mapping[str, str]
    files: dict[str, bytes | object] = field(default_factory=dict)


class FarFiles:
    """The files of an open volume."""

    owner = User(0, 0)

    def __init__(self, volume: FarVolume, mode: int) -> None:
        self._volume = volume
        self._mode = mode

    async def write(self, archive: AsyncIterator[bytes]) -> None:
        """Take an archive that has no file: Sandboxes write to these volumes. As on Docker, it changes no mode."""
        data = b"".join([piece async for piece in archive])
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            assert tar.getnames() == ["."]

    async def read(self, path: str = "") -> AsyncGenerator[bytes, None]:
        """Yield an archive of the volume, or of one file, in pieces.

        Raises:
            BackendError: no such file is there.
        """
        archived = io.BytesIO()
        with tarfile.open(fileobj=archived, mode="w", format=tarfile.PAX_FORMAT) as archive:
            if not path:
                root = tarfile.TarInfo("workspace")
                root.type, root.mode = tarfile.DIRTYPE, self._mode
                archive.addfile(root)
            elif path not in self._volume.files:
                message = f"Could not find the file /workspace/{path} in container"
                raise BackendError(message)
            for name in [path] if path else self._volume.files:
                _add(archive, name if path else f"workspace/{name}", self._volume.files[name])
        data = archived.getvalue()
        for start in range(0, len(data), 1000):
            yield data[start : start + 1000]


class FarBackend(FakeBackend):
    """The backend. `away` is whether its connection is lost; `mode` is that of the directory of a new volume.

    `kept` are volumes that it does not remove.
    """

    def __init__(self, script: Script) -> None:
        super().__init__(script)
        self.away = False
        self.mode = 0o1777
        self.kept: set[str] = set()
        self.store: dict[str, FarVolume] = {}

    async def share(self, _: Path | None) -> Share:
        """Answer that no file is seen."""
        self._answer()
        return Share("far", Sharing.NONE)

    @asynccontextmanager
    async def open_volume(self, volume: Volume) -> AsyncIterator[FarFiles]:
        """Make a volume, unless it exists, and give its files."""
        self._answer()
        yield FarFiles(self.store.setdefault(volume.name, FarVolume(volume.labels)), self.mode)

    async def volumes(self, labels: Mapping[str, str], name: str | None = None) -> tuple[FoundVolume, ...]:
        """List the volumes that carry all labels, with the Sandboxes that have them."""
        self._answer()
        return tuple(
            FoundVolume(
                each,
                volume.labels,
                {spec.name: spec.labels for spec in self._specs() if each in spec.package_volumes.values()},
            )
            for each, volume in self.store.items()
            if labels.items() <= volume.labels.items() and name in {None, each}
        )

    async def remove_volume(self, name: str) -> None:
        """Remove a volume that no Sandbox has.

        Raises:
            BackendError: one has it.
        """
        self._answer()
        if name in self.kept or any(name in spec.package_volumes.values() for spec in self._specs()):
            message = f"remove {name}: volume is in use"
            raise BackendError(message)
        self.store.pop(name, None)

    def _specs(self) -> list[SandboxSpec]:
        return [self.sandbox(name).spec for name in self.left]

    def _answer(self) -> None:
        if self.away:
            message = "the engine is away"
            raise BackendUnavailableError(message)


def _add(archive: tarfile.TarFile, name: str, content: bytes | object) -> None:
    entry = tarfile.TarInfo(name)
    if isinstance(content, bytes):
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    else:
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(entry)
