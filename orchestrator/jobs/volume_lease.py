"""The lease of a volume that the user names: one job at a time has it, from before its first Sandbox to its end.

Two things decide. A lock on a file, among the orchestrators of one user on one machine: the kernel frees it however its
holder ends. And a container that never starts, among all that use the engine: it has one name for each volume, and an
engine gives a name to one container only. The file has a token, which is a label of the container. An orchestrator that
has the lock and finds that label replaces the container, since the process that made it is gone. A container with
another token is from elsewhere, and counts until its deadline.
"""

import hashlib
import os
import re
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from orchestrator.aio import in_thread, shielded
from orchestrator.disk.locks import lock_file
from orchestrator.errors import BackendError, ConfigError
from orchestrator.log import get_logger
from orchestrator.plan.job import Job
from orchestrator.sandbox.api import Backend, LeasingBackend, VolumeBackend
from orchestrator.sandbox.naming import (
    DEADLINE,
    LEASE,
    MANAGED_BY,
    MANAGER,
    instance_labels,
    job_labels,
    labels,
    lease_labels,
    volume_lease_name,
)
from orchestrator.units import now
from orchestrator.workspace.workspace import WorkspaceVolume

_log = get_logger(__name__)

LEASE_SECONDS = 7 * 24 * 3600
"""How long a lease counts whose orchestrator cannot be asked: each Run of a job may take a day."""

_FILE_PREFIX = "lease-"
_KEY_CHARACTERS = 24
_TOKEN_BYTES = 8
_TOKEN = re.compile(rb"[0-9a-f]{%d}" % (2 * _TOKEN_BYTES))
_ATTEMPTS = 5


@asynccontextmanager
async def exclusive_volume(job: Job, backend: Backend) -> AsyncIterator[None]:
    """Hold the volume that the user named as the job's workspace, if so, during the block.

    Raises:
        ConfigError: another job or container has it.
        BackendError: the engine does not answer.
    """
    if (volume := _named_volume(job)) is None or not isinstance(backend, VolumeBackend):
        yield
        return
    lease = _Lease(job, volume, backend)
    try:
        await shielded(lease.take())
        # After that: the Sandboxes of a killed orchestrator may still work, and another may have had the lease before.
        await require_free(job, backend)
        yield
    finally:
        await shielded(lease.give_back())


async def require_free(job: Job, backend: Backend) -> None:
    """Check that no container of another job has the volume that the user named, if the job has one.

    Raises:
        ConfigError: a container has it.
        BackendError: the engine does not list them.
    """
    if (volume := _named_volume(job)) is None or not isinstance(backend, VolumeBackend):
        return
    own = job_labels(job.id).items()
    for found in await backend.volumes({}, volume.name):
        for user, its_labels in found.users.items():
            if not own <= its_labels.items():
                is_ours = its_labels.get(MANAGED_BY) == MANAGER
                killed = " (if it was killed, `perstack-orch resume` or `prune --all` ends it)" if is_ours else ""
                message = (
                    f"the volume {volume.name} is in use by the container {user}: wait until its job has ended{killed},"
                    " or name another with --workspace volume:NAME"
                )
                raise ConfigError(message)


async def remove_abandoned(backend: Backend, instance: str, locks_root: Path | None) -> tuple[str, ...]:
    """Remove the leases of an instance whose orchestrators are gone; return the names of their containers.

    Raises:
        BackendError: some could not be removed.
    """
    if not isinstance(backend, LeasingBackend) or locks_root is None:
        return ()

    def is_held(found: Mapping[str, str]) -> bool:
        # Other containers of the instance have no lease.
        return LEASE not in found or _is_held(found[LEASE], locks_root)

    return await backend.prune(instance_labels(instance), is_held)


def _named_volume(job: Job) -> WorkspaceVolume | None:
    volume = job.workspace.volume
    return None if volume is None or volume.is_copy else volume


@dataclass(slots=True)
class _Lease:
    """The lease of a volume: its file is locked first, and then its container made."""

    job: Job
    volume: WorkspaceVolume
    backend: Backend
    _path: Path | None = None
    _lock: int | None = None
    _labels: Mapping[str, str] | None = None

    async def take(self) -> None:
        """Take it.

        Raises:
            ConfigError: another job has it.
            BackendError: the engine does not answer.
        """
        key = hashlib.sha256(f"{self.volume.engine}\0{self.volume.name}".encode()).hexdigest()[:_KEY_CHARACTERS]
        token = await in_thread(partial(self._lock_file, key))
        if not isinstance(self.backend, LeasingBackend):
            return
        name, deadline = volume_lease_name(self.volume.name), now() // 1000 + LEASE_SECONDS
        owned = labels(self.job.id, sandbox=name, instance=self.job.instance, deadline=deadline)
        wanted = lease_labels(owned, f"{key}-{token}", deadline)
        for _ in range(_ATTEMPTS):
            holder = await self.backend.take_lease(name, self.job.image, wanted)
            if holder is None:
                self._labels = wanted
                return
            if not _is_gone(holder, wanted[LEASE]):
                break
            # By its labels, not by its name, which another orchestrator may have given to a new one meanwhile.
            await self.backend.prune({key: holder[key] for key in (LEASE, DEADLINE)})
        message = (
            f"the volume {self.volume.name} is in use by a job of another user or machine, for which the engine has the"
            f" container {name}: wait until that job has ended, or name another with --workspace volume:NAME; if it was"
            f" killed, `docker rm {name}` frees the volume"
        )
        raise ConfigError(message)

    async def give_back(self) -> None:
        """Give it back; what cannot be removed now is replaced by the next job."""
        try:
            if self._labels is not None:
                await self.backend.prune(self._labels)
                if self._path is not None:
                    self._path.unlink(missing_ok=True)
        except BackendError as error:
            _log.debug("the lease of the volume %s was not given back: %s", self.volume.name, error)
        finally:
            if self._lock is not None:
                os.close(self._lock)

    def _lock_file(self, key: str) -> str:
        """Lock the file of the volume, and return its token; without a place for files the token is a new one.

        Raises:
            ConfigError: another process has the lock.
        """
        fresh = secrets.token_hex(_TOKEN_BYTES)
        if self.job.locks_root is None:
            return fresh
        path = self.job.locks_root / f"{_FILE_PREFIX}{key}"
        try:
            self._lock = _locked(path)
        except BlockingIOError as error:
            message = (
                f"the volume {self.volume.name} is in use by another job of yours: wait until it has ended, or name"
                " another with --workspace volume:NAME"
            )
            raise ConfigError(message) from error
        except OSError:
            return fresh
        self._path = path
        if (token := _token(self._lock)) is not None:
            return token
        os.pwrite(self._lock, fresh.encode(), 0)
        return fresh


def _locked(path: Path) -> int:
    """Lock the file at `path`, which its last holder may remove meanwhile.

    Raises:
        BlockingIOError: another process has it.
        OSError: it cannot be made or locked.
    """
    for _ in range(_ATTEMPTS):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            return lock_file(path)
    # Others come and go.
    raise BlockingIOError


def _token(lock: int) -> str | None:
    """Return the token in a file; None if it was not written completely."""
    text = os.pread(lock, 2 * _TOKEN_BYTES, 0)
    return text.decode() if _TOKEN.fullmatch(text) else None


def _is_gone(holder: Mapping[str, str], own: str) -> bool:
    """Whether the lease of a container with these labels no longer counts; `own` is the value of the caller's."""
    if LEASE not in holder or not holder.get(DEADLINE, "").isdecimal():
        return False  # Something else has this name.
    return holder[LEASE] == own or int(holder[DEADLINE]) <= now() // 1000


def _is_held(lease: str, locks_root: Path) -> bool:
    """Whether an orchestrator may hold a lease, by the value of its label."""
    key, _, token = lease.rpartition("-")
    if not key.isalnum():
        return True
    try:
        lock = lock_file(locks_root / f"{_FILE_PREFIX}{key}", make=False)
    except OSError:
        return True  # It is held, or of another user or machine.
    try:
        return _token(lock) != token
    finally:
        os.close(lock)
