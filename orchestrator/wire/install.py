"""Packages that skills are started from: what a Sandbox is asked to install, and what came of it."""

from collections.abc import Mapping
from enum import StrEnum

from orchestrator.wire.frozen import Frozen

MARKER = "perstack-package.json"
"""In a package's directory, written last: an Installed. Without it the directory is torn."""


class PackageKind(StrEnum):
    """Which registry a package is from."""

    NPM = "npm"
    PYPI = "pypi"


class Package(Frozen):
    """One package to install.

    `slug` is its directory below the packages directory. `spec` is what its registry is asked for, in the registry's
    own notation. `program` is which of its programs is wanted; `extra` are specs installed beside it (uvx --with).
    """

    slug: str
    kind: PackageKind
    name: str
    spec: str
    program: str | None = None
    extra: tuple[str, ...] = ()


class Installed(Frozen):
    """What a package turned out to be; `entry` is its program, relative to its directory."""

    name: str
    version: str
    entry: str
    runs_on_node: bool = False


class Program(Frozen):
    """What a skill is started from in place of npx or uvx: an installed package and the arguments left."""

    slug: str
    entry: str
    runs_on_node: bool = False
    args: tuple[str, ...] = ()


class Install(Frozen):
    """What an install Sandbox does: fetch packages, and nothing else.

    `registries` are base URLs, without credentials; `proxy_credential` opens the way to their hosts alone.
    """

    packages: tuple[Package, ...]
    registries: Mapping[PackageKind, str]
    proxy_credential: str
