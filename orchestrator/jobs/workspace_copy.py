"""A job's workspace in a volume of the engine: chosen, filled from the directory, and copied back at the job's end.

The record `workspace.json` exists from the moment the volume is filled until all is copied back. Whatever is killed in
between, the job's `resume`, or `prune`, finds the volume and the record, and does the rest.
"""

import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from orchestrator.aio import in_thread, remove_because, shielded
from orchestrator.backends.tar_reader import ArchiveError
from orchestrator.backends.volume_files import RemovableVolumes, make_writable
from orchestrator.broker.workspace_lock import WorkspaceLock
from orchestrator.disk.directory import Inode, inode_of
from orchestrator.errors import BackendError, ConfigError, OrchestratorError, StoreError, WorkspaceError
from orchestrator.jobs.volume_lease import exclusive_volume
from orchestrator.log import get_logger
from orchestrator.plan.job import Job
from orchestrator.plan.option_values import parse_workspace_mode
from orchestrator.plan.run_plan import DEADLINE_SECONDS
from orchestrator.sandbox.api import Backend, FoundVolume, Sharing, User, Volume, VolumeBackend, VolumeFiles
from orchestrator.sandbox.naming import (
    DEADLINE,
    JOB,
    ONE_OFF,
    PACKAGE,
    instance_labels,
    job_labels,
    job_token,
    labels,
    one_off_labels,
    volume_name,
)
from orchestrator.store import JobRecords, Store
from orchestrator.units import now
from orchestrator.wire.job_record import JobStatus
from orchestrator.wire.layout import WORKSPACE
from orchestrator.workspace.archive_content import ArchiveContent
from orchestrator.workspace.copy_back import CopyWriter, FileArchive, Host, WholeArchive, make_links, prepare_places
from orchestrator.workspace.copy_plan import SUFFIX, CopyPlan, changed_paths, plan_copy_back, without_unreadable
from orchestrator.workspace.guarded_names import is_guarded
from orchestrator.workspace.host_tree import HostTree, folds_names, host_tree, packed, scan
from orchestrator.workspace.manifest import Entry, Manifest, WorkspaceCopy
from orchestrator.workspace.placement import WorkspaceMode, reason_to_copy
from orchestrator.workspace.workspace import WorkspaceVolume

_log = get_logger(__name__)
_PIECE = 256 * 1024
_MOST_NOTES = 50
_FEW_FILES = 32
"""Up to so many files are read one by one: a request takes some milliseconds, and a workspace may have gigabytes."""


async def place_workspace(job: Job, backend: Backend, *, for_shell: bool = False) -> Job:
    """Return the job with its workspace as Sandboxes get it: the directory, the user's volume, or a copy.

    Raises:
        ConfigError: the backend has no volumes, or the directory may not be mounted.
        BackendError: the engine does not answer.
    """
    workspace, mode = job.workspace, parse_workspace_mode(job.options.workspace_mode)
    if not isinstance(backend, VolumeBackend):
        if workspace.volume is not None or mode is WorkspaceMode.COPY:
            message = f"the backend {job.platform} has no volumes; name a directory with --workspace, which is mounted"
            raise ConfigError(message)
        return job
    share = await backend.share(workspace.path if workspace.volume is None else None)
    if workspace.volume is not None:
        return replace(job, workspace=replace(workspace, volume=replace(workspace.volume, engine=share.engine)))
    guarded = _guarded(workspace.path) if share.sharing is Sharing.FOLDED else ()
    reason = reason_to_copy(mode, share.sharing, workspace.path, guarded)
    if reason is None:
        return job
    end = "are dropped at its end" if for_shell else "are copied back at its end"
    worker = "the shell" if for_shell else "the job"
    _log.info("%s works on a copy of %s, since %s; changes %s", worker, workspace.path, reason, end)
    return as_copy(job, share.engine)


def as_copy(job: Job, engine: str, name: str | None = None) -> Job:
    """Return the job with a copy of its workspace in a volume, by default its own; guarded files are not in it."""
    volume = WorkspaceVolume(name or volume_name(job.id, job.instance), engine, is_copy=True)
    return replace(job, workspace=replace(job.workspace, volume=volume, read_only=(), hidden=()))


def lock_of(job: Job) -> WorkspaceLock:
    """Return the lock under which the job's Sandboxes change files: that of the directory, or of the volume."""
    volume = job.workspace.volume
    if volume is None:
        return WorkspaceLock.of(job.workspace.path, job.locks_root)
    return WorkspaceLock.of_volume(volume.engine, volume.name, job.locks_root)


@dataclass(frozen=True, slots=True)
class CopiedWorkspace:
    """The copy of a job's workspace, on the way in and back. `owned` are the labels of all that the job has."""

    backend: Backend
    volumes: VolumeBackend
    records: JobRecords
    job_id: str
    owned: Mapping[str, str]
    locks_root: Path | None = None

    async def fill(self, job: Job) -> None:
        """Fill the volume from the directory. If it has been filled before, check that it is still there.

        Raises:
            ConfigError: the directory cannot be copied.
            BackendError: the engine refuses, or the volume is gone, or at another engine.
        """
        workspace, volume = job.workspace, job.workspace.volume
        if volume is None:
            return
        if (copy := self.records.copy()) is not None:
            # A mount would make an empty volume of this name, and the user's files would count as deleted by the job.
            if await self._find(copy) is None:
                message = (
                    f"the volume {copy.volume} was removed, and with it what job {job.id} changed:"
                    f" `perstack-orch resume {job.id}` continues it with your files as they are"
                )
                raise BackendError(message)
            return
        owned = labels(job.id, sandbox="", instance=job.instance, deadline=now() // 1000 + DEADLINE_SECONDS)
        manifest, inode = await _filled(job, self.volumes, volume.name, owned)
        copy = WorkspaceCopy(
            volume=volume.name,
            engine=volume.engine,
            image=job.image,
            directory=os.fsencode(workspace.path),
            inode=inode,
            uid=workspace.user.uid,
            gid=workspace.user.gid,
            paths=tuple(map(os.fsencode, manifest)),
            entries=tuple(manifest.values()),
        )
        await self.records.keep_copy(copy)

    async def bring_back(self) -> None:
        """Copy the changes back, and remove the volume; without a record it does nothing.

        All Sandboxes of the job are removed first.

        Raises:
            OrchestratorError: not all is back; the volume and the record stay.
        """
        copy = self.records.copy()
        if copy is None:
            return
        try:
            await self._bring_back(copy)
        except (ArchiveError, OSError, OrchestratorError) as error:
            raise _not_back(self.job_id, copy, error) from error

    async def _bring_back(self, copy: WorkspaceCopy) -> None:
        directory = Path(os.fsdecode(copy.directory))
        await self.backend.prune(self.owned)
        found = await self._find(copy)
        if found is None:
            _log.warning("the volume %s was removed, and with it what the job changed in %s", copy.volume, directory)
        else:
            if users := ", ".join(found.users):
                message = f"the container {users} still has the volume {copy.volume}; remove it"
                raise BackendError(message)
            described = Volume(copy.volume, copy.image, User(copy.uid, copy.gid), found.labels)
            async with self.volumes.open_volume(described) as files:
                await self._apply(copy, directory, files)
            await self.volumes.remove_volume(copy.volume)
        await self.records.keep_copy(None)

    async def _find(self, copy: WorkspaceCopy) -> FoundVolume | None:
        """Return the volume of a copy; None if it is gone. One without the job's labels was made by a mount.

        Raises:
            BackendError: it is at another engine.
        """
        if (await self.volumes.share(None)).engine != copy.engine:
            message = "its files are in a volume of another engine: set DOCKER_HOST as it was when the job began"
            raise BackendError(message)
        return next(iter(await self.volumes.volumes(job_labels(self.job_id), copy.volume)), None)

    async def _apply(self, copy: WorkspaceCopy, directory: Path, files: VolumeFiles) -> None:
        with host_tree(directory, copy.inode) as tree:
            most = shutil.disk_usage(tree.fd).free + sum(entry.size for entry in copy.entries)
            content = ArchiveContent(WORKSPACE.name, most)
            await _read(files, lambda piece: sum(1 for _ in content.feed(piece)))
            content.close()
            before, missing = without_unreadable(copy.manifest, content.entries)
            for name in missing:
                _warn(f"{name} is not in what the engine sent, so nothing of it is copied back, and yours stays")
            changed = changed_paths(before, content.entries)
            if not changed:
                return
            # No other job of this user may change files between the look at them and their replacement.
            async with WorkspaceLock.of(directory, self.locks_root).hold():
                host, plan = await in_thread(partial(_planned, tree, copy, before, content.entries, changed))
                if plan.bytes > shutil.disk_usage(tree.fd).free:
                    message = f"{plan.bytes} bytes changed, and less is free on the disk; free some"
                    raise BackendError(message)
                for note in plan.notes[:_MOST_NOTES]:
                    _warn(note)
                if (more := len(plan.notes) - _MOST_NOTES) > 0:
                    _warn(f"{more} more files were left out, or got another name")
                await in_thread(partial(prepare_places, host, plan))
                if plan.writes:
                    writer = CopyWriter(host, plan, content.links, _warn)
                    try:
                        await _write(files, writer, most)
                    finally:
                        await in_thread(writer.abandon)
                await in_thread(partial(make_links, host, plan, _warn))
                # The volume goes next: a loss of power must not take both.
                await in_thread(os.sync)


@asynccontextmanager
async def discarded_copy(job: Job, backend: Backend) -> AsyncIterator[Job]:
    """Give the job, placed as by `place_workspace`, for a one-off Sandbox: a copy is removed with all its changes.

    Raises:
        OrchestratorError: as `place_workspace`, or the directory cannot be copied.
    """
    job = await place_workspace(job, backend, for_shell=True)
    volume = job.workspace.volume
    if volume is None or not volume.is_copy or not isinstance(backend, VolumeBackend):
        async with exclusive_volume(job, backend):
            yield job
        return
    deadline = now() // 1000 + DEADLINE_SECONDS
    owned = one_off_labels(labels(job.id, sandbox="", instance=job.instance, deadline=deadline), deadline)
    try:
        await _filled(job, backend, volume.name, owned)
        yield job
    finally:
        await shielded(backend.remove_volume(volume.name))


async def _filled(
    job: Job, volumes: VolumeBackend, name: str, owned: Mapping[str, str]
) -> tuple[dict[str, Entry], Inode]:
    """Fill a new volume from the job's directory; return what was copied in, and the directory's inode."""
    workspace, manifest = job.workspace, dict[str, Entry]()
    # One that is there was not filled completely, and no Sandbox had it.
    await volumes.remove_volume(name)
    try:
        with host_tree(workspace.path, workspace.inode) as tree:
            async with volumes.open_volume(Volume(name, job.image, workspace.user, owned)) as files:
                await make_writable(files, job.image)
                await files.write(_in_thread(packed(tree, files.owner, manifest)))
            return manifest, inode_of(os.fstat(tree.fd))
    except BaseException as error:
        await remove_because(error, RemovableVolumes(volumes, (name,)))
        raise


def copied_workspace(job: Job, backend: Backend, records: JobRecords) -> CopiedWorkspace | None:
    """Return the copy of a job's workspace; None if the backend has no volumes."""
    if not isinstance(backend, VolumeBackend):
        return None
    owned = instance_labels(job.instance) | job_labels(job.id)
    return CopiedWorkspace(backend, backend, records, job.id, owned, job.locks_root)


async def finish_copies(
    backend: Backend, store: Store, instance: str, *, everything: bool, locks_root: Path | None = None
) -> tuple[str, ...]:
    """Copy back what ended jobs left in volumes, with `everything` also what interrupted jobs did; return the volumes.

    `locks_root` is that of the jobs.

    Volumes of copies that were never complete are removed. A job that a process works on is left alone.

    Raises:
        OrchestratorError: the changes of some are not back; those of the others are.
    """
    if not isinstance(backend, VolumeBackend):
        return ()
    done: list[str] = []
    failures: list[OrchestratorError] = []
    volumes = await backend.volumes(instance_labels(instance))
    # Read after the volumes: a job is in the store before it makes its volume.
    ids = {job_token(job_id): job_id for job_id in store.ids()}
    for volume in volumes:
        if PACKAGE in volume.labels:
            continue
        job_id = ids.get(volume.labels.get(JOB, ""))
        try:
            if int(volume.labels.get(DEADLINE, "0")) > now() // 1000 and ONE_OFF in volume.labels:
                continue
            if job_id is None:
                await backend.remove_volume(volume.name)
            else:
                async with store.open(job_id) as records:
                    if records.job().status is JobStatus.RUNNING and not everything:
                        continue
                    owned = instance_labels(instance) | job_labels(job_id)
                    await CopiedWorkspace(backend, backend, records, job_id, owned, locks_root).bring_back()
                    await backend.remove_volume(volume.name)
            done.append(volume.name)
        except (WorkspaceError, BackendError) as error:
            failures.append(error)
        except StoreError:
            continue  # a process works on the job, or its records are damaged
    for failure in failures:
        raise failure
    return tuple(done)


def _guarded(directory: Path) -> tuple[str, ...]:
    try:
        with os.scandir(directory) as entries:
            return tuple(sorted(entry.name for entry in entries if is_guarded(entry.name) and not entry.is_dir()))
    except FileNotFoundError:
        return ()  # `explain` does not make it


def _planned(
    tree: HostTree, copy: WorkspaceCopy, before: Manifest, inside: Manifest, changed: frozenset[str]
) -> tuple[Host, CopyPlan]:
    entries, signatures = scan(tree, lambda path: path in changed or SUFFIX in path)
    plan = plan_copy_back(before, inside, entries, folds=folds_names(tree))
    return Host(tree, signatures, User(copy.uid, copy.gid), copy.volume), plan


async def _write(files: VolumeFiles, writer: CopyWriter, most_bytes: int) -> None:
    """Give the writer what it needs: a few files one by one, else the whole archive again."""
    archive: FileArchive | WholeArchive
    if len(writer.sources) <= _FEW_FILES and all(map(_is_plain, writer.sources)):
        for path in writer.sources:
            archive = FileArchive(writer, path)
            await _read(files, archive.feed, path)
            await in_thread(archive.close)
    else:
        archive = WholeArchive(writer, ArchiveContent(WORKSPACE.name, most_bytes))
        await _read(files, archive.feed)
        await in_thread(archive.close)


def _is_plain(path: str) -> bool:
    """Whether a path can be part of a request: its bytes are UTF-8, and Podman does not take it for a pattern."""
    return not any("\ud800" <= char <= "\udfff" or char in "*?[\\" for char in path)


async def _read(files: VolumeFiles, take: Callable[[bytes], object], path: str = "") -> None:
    async with aclosing(files.read(path)) as pieces:
        async for piece in pieces:
            await in_thread(partial(take, piece))


async def _in_thread(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Give what a blocking iterator gives, in larger pieces."""
    while piece := await in_thread(partial(_gathered, pieces)):
        yield piece


def _gathered(pieces: Iterator[bytes]) -> bytes:
    gathered = bytearray()
    for piece in pieces:
        gathered += piece
        if len(gathered) >= _PIECE:
            break
    return bytes(gathered)


def _warn(note: str) -> None:
    # Names may contain a newline, and so look like other lines of the log.
    _log.warning("%s", "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in note))


def _not_back(job_id: str, copy: WorkspaceCopy, error: Exception) -> WorkspaceError:
    why = str(error)
    if isinstance(error, ArchiveError):
        why = f"the copy {error}"
    elif isinstance(error, OSError):
        why = f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
    return WorkspaceError(
        f"what job {job_id} changed is not all back in {os.fsdecode(copy.directory)}: {why}; it is kept in the volume"
        f" {copy.volume}: `perstack-orch resume {job_id}` tries again, `docker volume rm {copy.volume}` gives it up"
    )
