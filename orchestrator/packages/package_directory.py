"""Packages in a directory that Sandboxes mount.

packages/<slug>/               one complete package; renamed to this after its Sandbox ended without error
packages/.installing-<slug>/   where a Sandbox installs; the next install removes the rest of a crashed one
"""

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from orchestrator.aio import in_thread
from orchestrator.disk.deletion import delete
from orchestrator.disk.directory import make_below
from orchestrator.disk.plain_file import read_plain
from orchestrator.packages.package_place import MARKER_BYTES, FoundPackages, accept, incomplete
from orchestrator.plan.job import InstalledPackages
from orchestrator.pool.state_directories import warn_not_removed
from orchestrator.sandbox.api import User
from orchestrator.store.files import read_value, translate_os_errors
from orchestrator.wire.package import MARKER, Installed, Package


@dataclass(frozen=True, slots=True)
class PackageDirectory:
    """The directory of a store's packages; those that `user` installs belong to that user."""

    directory: Path
    user: User

    async def find(self, packages: Sequence[Package]) -> FoundPackages:
        """Return those that have a marker, which is written last."""
        found: dict[str, Installed] = {}
        for package in packages:
            marker = self.directory / package.slug / MARKER
            if marker.is_file():
                found[package.slug] = read_value(marker, Installed)
        return FoundPackages(found, InstalledPackages(self.directory))

    @asynccontextmanager
    async def make(self, packages: Sequence[Package]) -> AsyncIterator[InstalledPackages]:
        """Give a new directory for the packages, and move them out of it after the block.

        Raises:
            PackageError: one is not complete; then none is kept.
            DiskError: the disk refuses.
        """
        under_way = self.directory / f".installing-{packages[0].slug}"
        if await _deleted(under_way) is not None:
            under_way = under_way.with_name(f"{under_way.name}-{secrets.token_hex(4)}")
        with translate_os_errors(under_way):
            make_below(self.directory, under_way.name, (self.user.uid, self.user.gid), 0o755)
        try:
            yield InstalledPackages(under_way)
            for package in packages:
                _check(under_way / package.slug, package)
            for package in packages:
                await _deleted(self.directory / package.slug)
                with translate_os_errors(self.directory / package.slug):
                    (under_way / package.slug).rename(self.directory / package.slug)
        finally:
            await _deleted(under_way)


def _check(directory: Path, package: Package) -> None:
    try:
        if directory.is_symlink():
            message = "it is a symbolic link"
            raise NotADirectoryError(message)
        content = read_plain(directory / MARKER, MARKER_BYTES, follow=False)
    except (OSError, ValueError) as error:
        raise incomplete(package) from error
    accept(content, package)


async def _deleted(directory: Path) -> OSError | None:
    """Delete a directory that a Sandbox wrote to; if something is left, log and return the reason."""
    trouble = await in_thread(partial(delete, directory))
    if trouble is not None:
        warn_not_removed(directory, trouble)
    return trouble
