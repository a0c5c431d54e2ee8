"""Packages in volumes of an engine that does not see the directory of packages: one volume for each.

packages/<volume>.json   the record of a complete package: a copy of its marker, written after the volume was checked

A volume has a new name each time, with the package's slug in it, and labels that name its store and the slug. It counts
only with its record, so one that was being filled when its orchestrator or the engine's connection was lost never does:
`remove_unrecorded` removes it, and also those whose record the user removed.
"""

import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from orchestrator.aio import in_thread, remove_because
from orchestrator.backends.tar_reader import ArchiveError
from orchestrator.backends.volume_files import RemovableVolumes, make_writable, read_file
from orchestrator.errors import BackendError, BackendUnavailableError
from orchestrator.log import get_logger
from orchestrator.packages.install_locks import lock_if_free
from orchestrator.packages.package_place import MARKER_BYTES, FoundPackages, accept, incomplete
from orchestrator.plan.job import InstalledPackages, Job
from orchestrator.sandbox.api import Backend, FoundVolume, Volume, VolumeBackend
from orchestrator.sandbox.naming import PACKAGE, instance_labels, labels, one_off_labels
from orchestrator.store.files import path_part, read_value, write_file
from orchestrator.units import now
from orchestrator.wire.package import MARKER, Installed, Package

_log = get_logger(__name__)
_SUFFIX = ".json"
_FILLING_SECONDS = 20 * 60
"""Longer than an install may take; then any process of the store may remove the containers that held the volumes."""


@dataclass(frozen=True, slots=True)
class PackageVolumes:
    """The volumes of a store's packages at the engine of a job; `directory` has their records."""

    backend: VolumeBackend
    job: Job
    directory: Path

    async def find(self, packages: Sequence[Package]) -> FoundPackages:
        """Return those that have a volume with a record.

        Raises:
            StoreError: the record of one is damaged.
            BackendError: the engine does not answer.
        """
        installed: dict[str, Installed] = {}
        volumes: dict[str, str] = {}
        for package in packages:
            for volume in await self._volumes_of(package):
                if (record := _record(self.directory, volume.name)).is_file():
                    installed[package.slug] = read_value(record, Installed)
                    volumes[package.slug] = volume.name
        return FoundPackages(installed, InstalledPackages(volumes=volumes))

    @asynccontextmanager
    async def make(self, packages: Sequence[Package]) -> AsyncIterator[InstalledPackages]:
        """Make a volume for each package; after the block, check and record them.

        Raises:
            PackageError: one is not complete; then none is kept.
            BackendError: the engine does not answer. What cannot be removed has no record.
            DiskError: a record cannot be written.
        """
        await self._clean_up(packages)
        volumes = {package.slug: f"perstack-{package.slug}-{secrets.token_hex(4)}" for package in packages}
        try:
            for package in packages:
                async with self.backend.open_volume(self._described(volumes[package.slug], package)) as files:
                    await make_writable(files, self.job.image)
            yield InstalledPackages(volumes=volumes)
            checked = [await self._check(volumes[package.slug], package) for package in packages]
            for package, installed in zip(packages, checked, strict=True):
                write_file(_record(self.directory, volumes[package.slug]), installed.to_json())
        except BaseException as error:
            await remove_because(error, RemovableVolumes(self.backend, volumes.values()))
            raise

    async def _volumes_of(self, package: Package) -> tuple[FoundVolume, ...]:
        return await self.backend.volumes(instance_labels(self.job.instance) | {PACKAGE: package.slug})

    async def _clean_up(self, packages: Sequence[Package]) -> None:
        """Remove what earlier installs of the packages left that were cut off."""
        for package in packages:
            for volume in await self._volumes_of(package):
                try:
                    await _removed_if_unrecorded(self.backend, self.directory, volume)
                except BackendError as error:
                    # The next install, or `prune`, tries it again.
                    _log.debug("volume %s could not be removed: %s", volume.name, error)

    async def _check(self, volume: str, package: Package) -> Installed:
        async with self.backend.open_volume(self._described(volume, package)) as files:
            try:
                content = await read_file(files, MARKER, MARKER_BYTES)
            except BackendUnavailableError:
                raise
            except (ArchiveError, BackendError) as error:
                raise incomplete(package) from error
            return accept(content, package)

    def _described(self, volume: str, package: Package) -> Volume:
        owned = {**_labels(self.job), PACKAGE: package.slug}
        return Volume(volume, self.job.image, self.job.workspace.user, owned)


async def remove_unrecorded(backend: Backend, directory: Path, instance: str) -> tuple[str, ...]:
    """Remove the volumes of a store's packages that have no record in `directory`; return their names.

    Those that an orchestrator is filling, or that a container has, are left alone.

    Raises:
        BackendError: some could not be removed; the others were.
        DiskError: the disk refuses.
    """
    if not isinstance(backend, VolumeBackend):
        return ()
    removed: list[str] = []
    failures: list[BackendError] = []
    for volume in await backend.volumes(instance_labels(instance)):
        if (slug := volume.labels.get(PACKAGE)) is None:
            continue
        with lock_if_free(directory, slug) as is_locked:
            try:
                if is_locked and await _removed_if_unrecorded(backend, directory, volume):
                    removed.append(volume.name)
            except BackendError as error:
                failures.append(error)
    for failure in failures:
        raise failure
    return tuple(removed)


async def _removed_if_unrecorded(backend: VolumeBackend, directory: Path, volume: FoundVolume) -> bool:
    """Remove a volume that has no record and is in no container; the caller has the lock of its package."""
    if volume.users or _record(directory, volume.name).is_file():
        return False
    await backend.remove_volume(volume.name)
    return True


@asynccontextmanager
async def volume_archives(job: Job, backend: Backend) -> AsyncIterator[Mapping[str, IO[bytes]]]:
    """Give an archive of each package of the job that is in a volume, by slug: a tar archive of one directory.

    Raises:
        BackendError: the engine does not send one.
    """
    if not isinstance(backend, VolumeBackend):
        yield {}
        return
    with ExitStack() as stack:
        archives: dict[str, IO[bytes]] = {}
        for slug, name in job.installed.volumes.items():
            archives[slug] = stack.enter_context(TemporaryFile())
            # Without the label of a package: if the volume is gone, an empty one of its name must not count as one.
            described = Volume(name, job.image, job.workspace.user, _labels(job))
            async with backend.open_volume(described) as files, aclosing(files.read()) as pieces:
                async for piece in pieces:
                    await in_thread(partial(archives[slug].write, piece))
            archives[slug].seek(0)
        yield archives


def _labels(job: Job) -> dict[str, str]:
    deadline = now() // 1000 + _FILLING_SECONDS
    return one_off_labels(labels(job.id, sandbox="", instance=job.instance, deadline=deadline), deadline)


def _record(directory: Path, volume: str) -> Path:
    # The names come from an engine, so they could be anything.
    return directory / f"{path_part(volume)}{_SUFFIX}"
