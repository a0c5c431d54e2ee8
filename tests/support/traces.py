"""What a run of the tests leaves on the machine. It needs the standard library only, since `dev/tests` imports it.

Other runs and other users share the machine. So a trace is known by the run's own directory in it, or by the number of
a process of the tests that is gone.
"""

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

IMAGE_OF = "perstack.ai/test"
"""A label of images that tests build; its value is the number of the process that removes them."""

_ENDING_SECONDS = 10

_NAME = "perstack-test-"
_PLACES = ("/dev/shm", "/tmp", "/var/tmp")
"""Where tests make directories outside that of their run."""


@contextmanager
def outside_directory(above: str = "/var/tmp") -> Iterator[Path]:
    """Make a directory outside that of the run, for tests of other users and of mounts; remove it afterwards."""
    with tempfile.TemporaryDirectory(prefix=f"{_NAME}{os.getpid()}-", dir=above) as directory:
        yield Path(directory)


def traces(*runs: Path) -> set[str]:
    """Name what exists of the runs with these directories, and what ended processes of tests have left."""
    marks = tuple(map(str, runs))
    return {*_processes(marks), *_containers(marks), *_mounts(marks), *_images(), *_directories()}


def lasting_traces(before: Collection[str], *runs: Path, of: Callable[..., set[str]] = traces) -> set[str]:
    """Name what the runs have left that was not there before. What is just ending has a moment to end."""
    deadline = time.monotonic() + _ENDING_SECONDS
    while (left := of(*runs) - set(before)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


def traces_on_stand_in(*runs: Path) -> set[str]:
    """Name the same on an engine that only these tests use: any container and any volume is theirs.

    Volumes of packages are no trace, since a store keeps them.
    """
    containers = {f"container {name}" for name in _docker("ps", "--all", "--format", "{{.Names}}")}
    volumes = set(_docker("volume", "ls", "--quiet")) - set(package_volumes())
    return traces(*runs) | containers | {f"volume {name}" for name in volumes}


def package_volumes() -> list[str]:
    """List the volumes of packages of skills."""
    return _docker("volume", "ls", "--quiet", "--filter", "label=perstack.ai/package")


def remove_package_volumes() -> None:
    """Remove them, once the stores that kept them are gone."""
    if names := package_volumes():
        _docker("volume", "rm", *names)


def _has(text: str, marks: Collection[str]) -> bool:
    return any(mark in text for mark in marks)


def _processes(marks: Collection[str]) -> Iterator[str]:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = _text(process / "cmdline")
            if int(process.name) != os.getpid() and _has(command + _text(process / "environ"), marks):
                yield f"process {process.name}: {command.replace(chr(0), ' ')}"
        except OSError:  # The process has ended, or belongs to another user.
            continue


def _text(file: Path) -> str:
    return file.read_bytes().decode(errors="replace")


def _containers(marks: Collection[str]) -> Iterator[str]:
    for line in _docker("ps", "--all", "--no-trunc", "--format", "{{.Names}} {{.Mounts}}"):
        if _has(line, marks):
            yield f"container {line.split()[0]}"


def _mounts(marks: Collection[str]) -> Iterator[str]:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        if _has(line, marks):
            yield f"mount {line.split()[1]}"


def _images() -> Iterator[str]:
    """Yield tagged and dangling images."""
    images = _docker("images", "--quiet", "--no-trunc", "--filter", f"label={IMAGE_OF}")
    told = f'{{{{index .Config.Labels "{IMAGE_OF}"}}}} {{{{.Id}}}} {{{{.RepoTags}}}}'
    for line in _docker("inspect", "--type", "image", "--format", told, *images) if images else []:
        process, _, image = line.partition(" ")
        if _is_gone(process):
            yield f"image {image}"


def _directories() -> Iterator[str]:
    for place in _PLACES:
        for path in Path(place).glob(f"{_NAME}*"):
            made = re.fullmatch(rf"{_NAME}(\d+)-.*", path.name)
            if made and _is_gone(made[1]):
                yield f"directory {path}"


def _is_gone(process: str) -> bool:
    return not Path("/proc", process).exists()


def _docker(*arguments: str) -> list[str]:
    """Return the lines that the engine of this machine answers; none if it has no engine."""
    try:
        done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=60, check=False)  # noqa: S607 - the user's docker
    except FileNotFoundError:
        return []
    return done.stdout.splitlines()
