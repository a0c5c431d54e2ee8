"""Where installed packages are, and what counts as one: the same for directories of this machine and volumes."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

from msgspec.json import Decoder

from orchestrator.errors import PackageError, WireError
from orchestrator.plan.job import InstalledPackages
from orchestrator.wire.frozen import read_json
from orchestrator.wire.package import Installed, Package

MARKER_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class FoundPackages:
    """Complete packages by slug, and where Sandboxes mount them from."""

    installed: Mapping[str, Installed]
    mounted: InstalledPackages


class PackagePlace(Protocol):
    """Keeps the packages of a store."""

    async def find(self, packages: Sequence[Package]) -> FoundPackages:
        """Return those of `packages` that are complete.

        Raises:
            StoreError: the record of one is damaged.
            BackendError: the engine does not answer.
        """

    def make(self, packages: Sequence[Package]) -> AbstractAsyncContextManager[InstalledPackages]:
        """Make room for missing packages, and give what the Sandbox mounts that installs them.

        If the block ends without an error, the packages are checked and kept. Otherwise nothing of them counts.

        Raises:
            PackageError: one is not complete; then none is kept.
        """


def accept(content: bytes, package: Package) -> Installed:
    """Check what a Sandbox wrote into the marker of a package.

    Raises:
        PackageError: it is no marker, or names a program outside of the package's own directory.
    """
    try:
        installed = read_json(Decoder(Installed), content)
    except WireError as error:
        raise incomplete(package) from error
    entry = PurePosixPath(installed.entry)
    if entry.is_absolute() or ".." in entry.parts:
        message = f"package {package.spec!r} names a program outside itself: {installed.entry!r}"
        raise PackageError(message)
    return installed


def incomplete(package: Package) -> PackageError:
    """Return the error about a package that a Sandbox has not installed completely."""
    return PackageError(f"package {package.spec!r} was not installed completely; try again")
