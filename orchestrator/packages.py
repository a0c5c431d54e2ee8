"""Packages that skills are started from: installed once by a Sandbox that reaches their registries and nothing else.

packages/<slug>/               one installed package, whole: it got its name when its Sandbox had ended well
packages/.locks/<slug>         held by the orchestrator that installs it
packages/.installing-<slug>/   where a Sandbox installs; what is there after a crash is removed by the next
"""

import asyncio
import fcntl
import os
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

from msgspec.json import Decoder

from orchestrator.backends.shielded import apart
from orchestrator.broker.authority import Authority, SkillHosts
from orchestrator.config.fetching import Fetch, fetch_of
from orchestrator.config.registries import require_https
from orchestrator.disk.deletion import delete
from orchestrator.disk.directory import make_below
from orchestrator.disk.plain_file import read_plain
from orchestrator.errand import run_errand
from orchestrator.errors import PackageError, WireError
from orchestrator.plan import Job, reachable
from orchestrator.sandbox import Backend, Exit
from orchestrator.shelf import Shelf
from orchestrator.state import left_over
from orchestrator.store.files import make_directory, read_value, translated
from orchestrator.wire.expert import Expert
from orchestrator.wire.frozen import read_json
from orchestrator.wire.identity import identify
from orchestrator.wire.install import MARKER, Install, Installed, Package, Program
from orchestrator.wire.skill import StdioSkill

INSTALL_SECONDS = 600
"""How long an install may take, all packages of a job together."""

_LOCK_PAUSE = 0.1
_MARKER_BYTES = 1024 * 1024


async def with_packages(
    job: Job, backend: Backend, store: Path, announce: Callable[[str], None], experts: Sequence[Expert] | None = None
) -> Job:
    """Install whatever the skills of `experts` need and is not there; by default of those the job can reach.

    Raises:
        ConfigError: a skill names no package of a registry.
        PackageError: one could not be installed; nothing of it is left.
        BackendError: the Sandbox could not be started.
    """
    wanted = {
        fetch: _package(fetch, job)
        for expert in (experts or reachable(job))
        for skill in expert.skills
        if isinstance(skill, StdioSkill) and (fetch := fetch_of(skill)) is not None
    }
    if not wanted:
        return job
    directory = (job.packages_root or store / "packages").absolute()
    make_directory(directory / ".locks", exist_ok=True)
    # Other users' Sandboxes pass through it.
    directory.chmod(0o711)
    missing = sorted({package for package in wanted.values() if _missing(directory, package)}, key=_slug)
    if missing:
        async with _locks(directory, missing):
            # Another orchestrator may have installed some meanwhile.
            await _install([one for one in missing if _missing(directory, one)], job, backend, directory, announce)
    programs = {fetch: _program(directory / package.slug, package, fetch) for fetch, package in wanted.items()}
    return replace(job, shelf=Shelf(directory, programs))


def _package(fetch: Fetch, job: Job) -> Package:
    registry = job.registries.urls[fetch.kind]
    # What is installed for one interpreter does not run on another.
    platform = job.image if job.platform != "process" else f"{sys.prefix} {sys.version}"
    slug = identify(fetch.kind, fetch.spec, fetch.program or "", *fetch.extra, registry, platform)
    return Package(
        slug=slug, kind=fetch.kind, name=fetch.name, spec=fetch.spec, program=fetch.program, extra=fetch.extra
    )


def _slug(package: Package) -> str:
    return package.slug


def _missing(directory: Path, package: Package) -> bool:
    return not (directory / package.slug / MARKER).is_file()


def _program(directory: Path, package: Package, fetch: Fetch) -> Program:
    installed = read_value(directory / MARKER, Installed)
    return Program(slug=package.slug, entry=installed.entry, runs_on_node=installed.runs_on_node, args=fetch.args)


async def _install(
    packages: Sequence[Package], job: Job, backend: Backend, directory: Path, announce: Callable[[str], None]
) -> None:
    if not packages:
        return
    require_https(job.registries.urls[package.kind] for package in packages)
    for package in packages:
        announce(f"installing {package.spec}")
    under_way = directory / f".installing-{packages[0].slug}"
    user = job.workspace.user
    if await _deleted(under_way, announce) is not None:
        under_way = under_way.with_name(f"{under_way.name}-{secrets.token_hex(4)}")
    with translated(under_way):
        make_below(directory, under_way.name, (user.uid, user.gid), 0o755)
    try:
        ended = await _work(packages, job, backend, under_way, announce)
        if ended.code != 0:
            raise PackageError(_why(ended))
        for package in packages:
            _accept(under_way / package.slug, package)
        for package in packages:
            await _deleted(directory / package.slug, announce)
            with translated(directory / package.slug):
                (under_way / package.slug).rename(directory / package.slug)
    finally:
        await _deleted(under_way, announce)


async def _deleted(directory: Path, announce: Callable[[str], None]) -> OSError | None:
    """Delete a directory that a Sandbox wrote to; where something is left, tell and give why."""
    trouble = await apart(partial(delete, directory))
    if trouble is not None:
        announce(left_over(directory, trouble))
    return trouble


async def _work(
    packages: Sequence[Package], job: Job, backend: Backend, under_way: Path, announce: Callable[[str], None]
) -> Exit:
    credential = secrets.token_hex(16)
    install = Install(packages=tuple(packages), registries=job.registries.urls, proxy_credential=credential)
    authority = Authority.of_install(credential, SkillHosts("the install", job.registries.hosts, private_ok=True))
    try:
        ended, _ = await run_errand(
            job,
            backend,
            lambda session: session.assign_install(install, authority),
            seconds=INSTALL_SECONDS,
            packages=under_way,
            installs=True,
            announce=announce,
        )
    except TimeoutError as error:
        names = ", ".join(package.spec for package in packages)
        message = f"installing {names} took longer than {INSTALL_SECONDS} s; look at the registry, then try again"
        raise PackageError(message) from error
    return ended


def _accept(directory: Path, package: Package) -> None:
    """Check what the Sandbox left: it names a program inside the package's own directory."""
    try:
        if directory.is_symlink():
            message = "a link takes its place"
            raise NotADirectoryError(message)
        installed = read_json(Decoder(Installed), read_plain(directory / MARKER, _MARKER_BYTES, follow=False))
    except (OSError, ValueError, WireError) as error:
        message = f"package {package.spec!r} was not installed whole; try again"
        raise PackageError(message) from error
    entry = PurePosixPath(installed.entry)
    if entry.is_absolute() or ".." in entry.parts:
        message = f"package {package.spec!r} names a program outside of itself: {installed.entry!r}"
        raise PackageError(message)


def _why(ended: Exit) -> str:
    return ended.last_words or f"the install Sandbox ended ({ended.reason}, exit code {ended.code}); try again"


@asynccontextmanager
async def _locks(directory: Path, packages: Sequence[Package]) -> AsyncIterator[None]:
    """Hold the lock of each package, always taken in one order; the kernel lets go of them however we end."""
    async with AsyncExitStack() as stack:
        for package in packages:
            path = directory / ".locks" / package.slug
            with translated(path):
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            stack.callback(os.close, fd)
            while not _lock(fd):  # noqa: ASYNC110 - the holder is another process, which tells nobody
                await asyncio.sleep(_LOCK_PAUSE)
        yield


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
