"""Packages that provide skills: what a Sandbox must install, and what was installed."""

from collections.abc import Mapping
from enum import StrEnum

from orchestrator.wire.frozen import Frozen

MARKER = "perstack-package.json"
"""A file in a package's directory that holds an Installed. It is written last: without it the install is incomplete."""


class PackageKind(StrEnum):
    """The registry of a package."""

    NPM = "npm"
    PYPI = "pypi"


class Package(Frozen):
    """One package to install.

    `slug` is its directory below the packages directory. `spec` is the version request in the registry's own notation.
    `program` is the wanted program of the package; `extra` are specs to install alongside it (uvx --with).
    """

    slug: str
    kind: PackageKind
    name: str
    spec: str
    program: str | None = None
    extra: tuple[str, ...] = ()


class Installed(Frozen):
    """An installed package; `entry` is its program, relative to its directory."""

    name: str
    version: str
    entry: str
    runs_on_node: bool = False


class Program(Frozen):
    """What a skill starts instead of npx or uvx: an installed package and the remaining arguments."""

    slug: str
    entry: str
    runs_on_node: bool = False
    args: tuple[str, ...] = ()


class Install(Frozen):
    """The work of an install Sandbox: fetch packages, nothing else.

    `registries` are base URLs without credentials; `proxy_credential` allows connections to their hosts only.
    """

    packages: tuple[Package, ...]
    registries: Mapping[PackageKind, str]
    proxy_credential: str
