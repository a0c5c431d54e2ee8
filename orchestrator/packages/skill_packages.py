"""Packages that skills are started from: installed once, by a Sandbox that reaches only their registries.

They are kept in the store's directory `packages` (`package_directory`); where the engine does not see it, they are in
volumes of the engine (`package_volumes`).
"""

import secrets
import sys
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from orchestrator.backends import isolates
from orchestrator.config.package_command import Fetch, fetch_of
from orchestrator.config.registries import require_https
from orchestrator.errors import PackageError
from orchestrator.log import get_logger
from orchestrator.packages.install_locks import install_locks
from orchestrator.packages.package_directory import PackageDirectory
from orchestrator.packages.package_place import FoundPackages, PackagePlace
from orchestrator.packages.package_volumes import PackageVolumes
from orchestrator.packages.shipped import find_shipped
from orchestrator.plan.job import Job, reachable
from orchestrator.pool.one_off import run_one_off
from orchestrator.sandbox.api import Backend, Exit, Sharing, VolumeBackend
from orchestrator.sandbox.authority import Authority, SkillHosts
from orchestrator.store.files import make_directory
from orchestrator.wire.expert import Expert
from orchestrator.wire.identity import identify
from orchestrator.wire.package import Install, Package, Program
from orchestrator.wire.skill import StdioSkill

_log = get_logger(__name__)
PACKAGES_NAME = "packages"
"""The directory of a store that has its packages, or their records."""

INSTALL_SECONDS = 600
"""How long an install may take, for all packages of a job together."""


async def install_packages(job: Job, backend: Backend, store: Path, experts: Sequence[Expert] | None = None) -> Job:
    """Install missing packages that the skills of `experts` need; by default of those that the job can reach.

    A job with shipped packages installs none.

    Raises:
        ConfigError: a skill's package is not one of a registry.
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
    if job.shipped_packages is not None:
        return replace(job, installed=find_shipped(job.shipped_packages, wanted))
    directory = (job.packages_root or store / PACKAGES_NAME).absolute()
    make_directory(directory, exist_ok=True)
    # Sandboxes of other users must be able to pass through it.
    directory.chmod(0o711)
    place, packages = await _place(job, backend, directory), tuple(wanted.values())
    found = await place.find(packages)
    if missing := _missing(packages, found):
        async with install_locks(directory, (package.slug for package in missing)):
            # Another orchestrator may have installed some meanwhile.
            await _install(_missing(packages, await place.find(packages)), job, backend, place)
        found = await place.find(packages)
    programs = {fetch: _program(found, package, fetch) for fetch, package in wanted.items()}
    return replace(job, installed=replace(found.mounted, programs=programs))


async def _place(job: Job, backend: Backend, directory: Path) -> PackagePlace:
    if isinstance(backend, VolumeBackend) and (await backend.share(directory)).sharing is Sharing.NONE:
        return PackageVolumes(backend, job, directory)
    return PackageDirectory(directory, job.workspace.user)


def _package(fetch: Fetch, job: Job) -> Package:
    registry = job.registries.urls[fetch.kind]
    # A package installed for one interpreter does not run on another.
    platform = job.image if isolates(job.platform) else f"{sys.prefix} {sys.version}"
    slug = identify(fetch.kind, fetch.spec, fetch.program or "", *fetch.extra, registry, platform)
    return Package(
        slug=slug, kind=fetch.kind, name=fetch.name, spec=fetch.spec, program=fetch.program, extra=fetch.extra
    )


def _missing(packages: Collection[Package], found: FoundPackages) -> list[Package]:
    missing = {package for package in packages if package.slug not in found.installed}
    return sorted(missing, key=lambda package: package.slug)


def _program(found: FoundPackages, package: Package, fetch: Fetch) -> Program:
    installed = found.installed[package.slug]
    return Program(slug=package.slug, entry=installed.entry, runs_on_node=installed.runs_on_node, args=fetch.args)


async def _install(packages: Sequence[Package], job: Job, backend: Backend, place: PackagePlace) -> None:
    if not packages:
        return
    require_https(job.registries.urls[package.kind] for package in packages)
    for package in packages:
        _log.info("installing %s", package.spec)
    async with place.make(packages) as room:
        ended = await _work(packages, replace(job, installed=room), backend)
        if ended.code != 0:
            raise PackageError(_why(ended))


async def _work(packages: Sequence[Package], job: Job, backend: Backend) -> Exit:
    credential = secrets.token_hex(16)
    install = Install(packages=tuple(packages), registries=job.registries.urls, proxy_credential=credential)
    authority = Authority.of_install(credential, SkillHosts("the install", job.registries.hosts, private_ok=True))
    try:
        ended, _ = await run_one_off(
            job,
            backend,
            lambda session: session.assign_install(install, authority),
            seconds=INSTALL_SECONDS,
            installs=True,
        )
    except TimeoutError as error:
        names = ", ".join(package.spec for package in packages)
        message = f"installing {names} took longer than {INSTALL_SECONDS} s; look at the registry, then try again"
        raise PackageError(message) from error
    return ended


def _why(ended: Exit) -> str:
    return ended.last_line or f"the install Sandbox ended ({ended.reason}, exit code {ended.code}); try again"
