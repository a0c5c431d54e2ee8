"""Packages of skills that are installed in an image: packed for its build, and found again in it."""

import io
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import IO

from msgspec.json import Decoder

from orchestrator.config.package_command import Fetch
from orchestrator.disk.plain_file import read_plain
from orchestrator.errors import PackageError, WireError
from orchestrator.plan.job import InstalledPackages
from orchestrator.wire.frozen import Frozen, read_json
from orchestrator.wire.package import PackageKind, Program

_NO_ARCHIVES: Mapping[str, IO[bytes]] = MappingProxyType({})
_LIST = "programs.json"
_LIST_BYTES = 1024 * 1024
_READABLE, _ENTERABLE = 0o444, 0o111
_PERMISSIONS = 0o777


class _ShippedProgram(Frozen):
    """A package as perstack.toml names it, and its program in the directory of the packages."""

    kind: PackageKind
    spec: str
    program: str | None = None
    extra: tuple[str, ...] = ()
    slug: str
    entry: str
    runs_on_node: bool = False


class _Programs(Frozen):
    programs: tuple[_ShippedProgram, ...]


def pack(installed: InstalledPackages, archives: Mapping[str, IO[bytes]] = _NO_ARCHIVES) -> bytes | None:
    """Pack the installed packages and a list of their programs into a tar archive; None if no package is needed.

    In it everything belongs to root and may be read by all. What is neither a file, a directory nor a link is left
    out. `archives` has the packages that are in volumes, by slug; see `package_volumes.volume_archives`.

    Raises:
        PackageError: a package cannot be read.
    """
    if not installed.programs:
        return None
    listed = _Programs(programs=tuple(_shipped(*each) for each in installed.programs.items())).to_json()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        entry = tarfile.TarInfo(_LIST)
        entry.size, entry.mode = len(listed), _READABLE
        tar.addfile(entry, io.BytesIO(listed))
        for slug in sorted({program.slug for program in installed.programs.values()}):
            if installed.directory is None:
                _copy(archives[slug], slug, tar)
                continue
            try:
                tar.add(installed.directory / slug, arcname=slug, filter=_normalized)
            except OSError as error:
                message = f"the packages in {installed.directory} cannot be read: {error.strerror}; remove {slug} there"
                raise PackageError(message) from error
    return archive.getvalue()


def find_shipped(directory: Path, wanted: Iterable[Fetch]) -> InstalledPackages:
    """Return the programs of the `wanted` packages in the directory that an image has.

    Raises:
        PackageError: the directory has no list of packages, or one is not in it.
    """
    try:
        listed = read_json(Decoder(_Programs), read_plain(directory / _LIST, _LIST_BYTES)).programs
    except (OSError, ValueError, WireError) as error:
        message = f"{directory} has no packages of an image that `perstack-orch build` made; leave --packages out"
        raise PackageError(message) from error
    known: Mapping[tuple[object, ...], _ShippedProgram] = {
        (each.kind, each.spec, each.program, each.extra): each for each in listed
    }
    programs = {}
    for fetch in wanted:
        found = known.get((fetch.kind, fetch.spec, fetch.program, fetch.extra))
        if found is None:
            message = f"package {fetch.spec!r} is not in {directory}; build the image again from this perstack.toml"
            raise PackageError(message)
        programs[fetch] = Program(slug=found.slug, entry=found.entry, runs_on_node=found.runs_on_node, args=fetch.args)
    return InstalledPackages(directory, programs)


def _shipped(fetch: Fetch, program: Program) -> _ShippedProgram:
    return _ShippedProgram(
        kind=fetch.kind,
        spec=fetch.spec,
        program=fetch.program,
        extra=fetch.extra,
        slug=program.slug,
        entry=program.entry,
        runs_on_node=program.runs_on_node,
    )


def _copy(archive: IO[bytes], slug: str, into: tarfile.TarFile) -> None:
    """Copy an archive of one directory, which gets the name `slug`."""
    try:
        with tarfile.open(fileobj=archive, mode="r") as tar:
            for entry in tar:
                entry.name = _below(slug, entry.name)
                if entry.islnk():
                    entry.linkname = _below(slug, entry.linkname)
                if (normalized := _normalized(entry)) is not None:
                    into.addfile(normalized, tar.extractfile(entry) if entry.isreg() else None)
    except (tarfile.TarError, OSError) as error:
        message = f"the package {slug} arrived damaged from the engine: {error}; try again"
        raise PackageError(message) from error


def _below(slug: str, name: str) -> str:
    return str(PurePosixPath(slug, *PurePosixPath(name).parts[1:]))


def _normalized(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    if not (entry.isreg() or entry.isdir() or entry.issym() or entry.islnk()):
        return None
    runs = entry.isdir() or entry.mode & _ENTERABLE
    entry.mode = (entry.mode & _PERMISSIONS) | _READABLE | (_ENTERABLE if runs else 0)
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = 0
    return entry
