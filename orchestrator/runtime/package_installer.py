"""The work of an install Sandbox: fetch packages from their registries into the packages directory.

No code of a package runs here, neither npm's scripts nor builds of source distributions: packages of several skills
are installed next to each other, and none may change another.
"""

import asyncio
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.runtime import toolchain
from orchestrator.runtime.bin_resolution import NoProgramError, npm_entry, pypi_entry
from orchestrator.runtime.confinement import ConfinedSpawner, confine
from orchestrator.runtime.domain import install_domain, install_home
from orchestrator.runtime.errors import InstallError
from orchestrator.runtime.tool_context import OpenForwarder
from orchestrator.runtime.tool_environment import base_environment, proxy_environment
from orchestrator.wire.package import MARKER, Install, Installed, Package, PackageKind

_MAX_PARALLEL = 2
_MESSAGE_LINES = 3
_MESSAGE_CHARACTERS = 400
_OUTPUT_BYTES = 256 * 1024
_SYSTEM_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")

_PYTHON = os.path.realpath(sys.executable)


@dataclass(frozen=True, slots=True)
class InstallContext:
    """Where packages are installed. `certificates` are variables with paths of CA bundles."""

    packages: Path
    state: Path
    path: str
    certificates: Mapping[str, str]
    open_forwarder: OpenForwarder


async def work(install: Install, context: InstallContext) -> None:
    """Install every package; the marker in its directory is written last.

    Raises:
        InstallError: in an exception group; a package could not be installed.
    """
    home = install_home(context.state)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    slots = asyncio.Semaphore(_MAX_PARALLEL)
    async with context.open_forwarder(install.proxy_credential) as port:
        env = (
            base_environment(context.path, home)
            | proxy_environment(port, install.proxy_credential)
            | _certificates(context.certificates)
            | _settings(install, home)
        )
        async with (
            confine(install_domain(context.packages, home, port, context.path)) as spawner,
            asyncio.TaskGroup() as tasks,
        ):
            for package in install.packages:
                tasks.create_task(_Installation(package, context, spawner, env).work(install, slots))


@dataclass(frozen=True, slots=True)
class _Installation:
    package: Package
    context: InstallContext
    spawner: ConfinedSpawner
    env: Mapping[str, str]

    async def work(self, install: Install, slots: asyncio.Semaphore) -> None:
        package = self.package
        async with slots:
            try:
                installed = await (self._npm() if package.kind is PackageKind.NPM else self._pypi())
            except toolchain.ToolMissingError as error:
                message = f"package {package.spec!r} cannot be installed: {error}"
                raise InstallError(message) from error
            except NoProgramError as error:
                message = f"package {package.spec!r} has {error}"
                raise InstallError(message) from error
            except _FailedError as error:
                message = (
                    f"package {package.spec!r} cannot be installed from {install.registries[package.kind]}: {error}; "
                    "check its name and version, or try again"
                )
                raise InstallError(message) from error
        (self._directory / MARKER).write_bytes(installed.to_json())

    @property
    def _directory(self) -> Path:
        return self.context.packages / self.package.slug

    @property
    def _specs(self) -> tuple[str, ...]:
        return (self.package.spec, *self.package.extra)

    async def _npm(self) -> Installed:
        directory = self._directory
        # A volume of its own is mounted there already.
        directory.mkdir(exist_ok=True)
        options = ("--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error")
        npm = toolchain.npm(self.context.path)
        await self._run(*npm, "install", "--prefix", str(directory), *options, "--", *self._specs)
        return npm_entry(directory, self.package)

    async def _pypi(self) -> Installed:
        directory = self._directory
        uv = toolchain.uv(self.context.path)
        # Outside a container the directory is renamed once it is complete.
        await self._run(*uv, "venv", "--quiet", "--relocatable", "--python", _PYTHON, str(directory))
        inside = str(directory / "bin/python")
        await self._run(*uv, "pip", "install", "--quiet", "--no-build", "--python", inside, "--", *self._specs)
        return pypi_entry(directory, self.package)

    async def _run(self, *command: str) -> None:
        cwd = os.open(self.env["HOME"], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            child = await self.spawner.start(command, env=self.env, cwd=cwd)
        finally:
            os.close(cwd)
        async with asyncio.TaskGroup() as tasks:
            _ = tasks.create_task(child.stdout.read(_OUTPUT_BYTES))
            stderr = tasks.create_task(child.stderr.read())
        if await child.wait() != 0:
            raise _FailedError(_sentence(stderr.result().decode(errors="replace")))


class _FailedError(Exception):
    """The installer failed; the text is its message."""


def _settings(install: Install, home: Path) -> dict[str, str]:
    return {
        "npm_config_registry": install.registries[PackageKind.NPM],
        "npm_config_cache": str(home / "npm"),
        "npm_config_userconfig": str(home / "npmrc"),
        "npm_config_fetch_retry_mintimeout": "1000",
        "npm_config_fetch_retry_maxtimeout": "5000",
        "npm_config_update_notifier": "false",
        "NODE_DISABLE_COMPILE_CACHE": "1",  # which would stay in the /tmp of a host
        "UV_DEFAULT_INDEX": install.registries[PackageKind.PYPI],
        "UV_CACHE_DIR": str(home / "uv"),
        "UV_LINK_MODE": "copy",
        "UV_NO_CONFIG": "1",
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_SYSTEM_CERTS": "true",
    }


def _certificates(named: Mapping[str, str]) -> dict[str, str]:
    system = {"NODE_EXTRA_CA_CERTS": str(_SYSTEM_CERTIFICATES)} if _SYSTEM_CERTIFICATES.is_file() else {}
    return system | dict(named)


def _sentence(message: str) -> str:
    """Shorten an installer's message: without npm's prefixes and hints, and of the rest only the first lines."""
    lines = [line.strip().removeprefix("npm error").strip() for line in message.splitlines()]
    kept = [line for line in lines if line and "complete log of this run" not in line]
    return " ".join(kept[:_MESSAGE_LINES])[:_MESSAGE_CHARACTERS] or "it gave no reason"
