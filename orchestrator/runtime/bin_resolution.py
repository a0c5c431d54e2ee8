"""Find the program of an installed package, and the package's version."""

import json
import os
import posixpath
from importlib import metadata
from pathlib import Path

from orchestrator.wire.package import Installed, Package

_SCRIPT_SUFFIXES = {".js", ".mjs", ".cjs"}


class NoProgramError(Exception):
    """The package does not have the requested program, or has several; the message lists them."""


def npm_entry(directory: Path, package: Package) -> Installed:
    """Find the program that `npx` would run: the requested one, else that of the package's name, else the only one.

    The rules for several programs are those of npm's libnpmexec/lib/get-bin-from-manifest.js.

    Raises:
        NoProgramError: no such program exists.
    """
    home = f"node_modules/{package.name}"
    manifest = json.loads((directory / home / "package.json").read_bytes())
    own_name = package.name.rpartition("/")[2]
    declared = manifest.get("bin") or {}
    named = {own_name: declared} if isinstance(declared, str) else dict(declared)
    programs = {name: posixpath.normpath(f"{home}/{path}") for name, path in named.items()}
    if package.program is not None and package.program not in programs:
        linked = directory / "node_modules/.bin" / package.program
        if linked.exists():
            entry = linked.resolve().relative_to(directory.resolve()).as_posix()
            return _on_node(directory, manifest, entry)
    chosen = _choose(programs, package, own_name)
    return _on_node(directory, manifest, programs[chosen])


def pypi_entry(directory: Path, package: Package) -> Installed:
    """Find the script that `uvx` would run: the requested one, else that of the package's name, else the only one.

    Raises:
        NoProgramError: no such script exists.
    """
    libraries = next((directory / "lib").glob("python3*")) / "site-packages"
    distribution = next(iter(metadata.distributions(name=package.name, path=[str(libraries)])))
    scripts = {name: name for name in _declared(distribution) or _shipped(distribution, directory / "bin")}
    program = package.program or package.name
    if (directory / "bin" / program).is_file():
        scripts[program] = program
    chosen = _choose(scripts, package, package.name)
    return Installed(name=distribution.metadata["Name"], version=distribution.version, entry=f"bin/{chosen}")


def _declared(distribution: metadata.Distribution) -> list[str]:
    return [point.name for point in distribution.entry_points if point.group == "console_scripts"]


def _shipped(distribution: metadata.Distribution, scripts: Path) -> list[str]:
    """List the scripts from a wheel's .data/scripts: of its metadata, only the list of files contains them."""
    paths = (Path(os.path.normpath(file.locate())) for file in distribution.files or ())
    return [path.name for path in paths if path.parent == Path(os.path.normpath(scripts))]


def _choose(programs: dict[str, str], package: Package, own_name: str) -> str:
    program = package.program or own_name
    if program in programs:
        return program
    # Several names of one file count as one program, as in npx.
    if package.program is None and len(set(programs.values())) == 1:
        return next(iter(programs))
    has = f"it has {', '.join(sorted(programs))}" if programs else "it has none"
    message = f"no program {program!r}: {has}"
    raise NoProgramError(message)


def _on_node(directory: Path, manifest: dict[str, str], entry: str) -> Installed:
    path = directory / entry
    with path.open("rb") as file:
        first = file.readline(256)
    on_node = b"node" in first if first.startswith(b"#!") else path.suffix in _SCRIPT_SUFFIXES
    return Installed(name=manifest["name"], version=manifest["version"], entry=entry, runs_on_node=on_node)
