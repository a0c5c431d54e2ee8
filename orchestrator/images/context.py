"""What goes into the image of Sandboxes and into that of the orchestrator: files of this package, installed or not."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from orchestrator.version import VERSION

_HERE = Path(__file__).parent
_PACKAGE = _HERE.parent
_INSIDE = ("__init__.py", "errors.py", "version.py", "disk", "wire", "runtime")
"""The modules of this package that a Sandbox may import."""

_PROGRAMS = "bin/"
_DIGEST_DIGITS = 12

REPOSITORY = "perstack-orch-runtime"
"""The name of images of Sandboxes, without a tag."""


@dataclass(frozen=True, slots=True)
class BuildContext:
    """The files of one build by their path in it. `Dockerfile` is one of them; those below `bin/` are executable."""

    files: Mapping[str, bytes]

    @property
    def digest(self) -> str:
        """The SHA-256 of paths and contents, in hex: builds with the same digest start from the same files."""
        whole = hashlib.sha256()
        for path, content in sorted(self.files.items()):
            whole.update(f"{path}\0{len(content)}\0".encode())
            whole.update(content)
        return whole.hexdigest()

    def to_tar(self) -> bytes:
        """Pack the files, owned by root and readable for all, whatever owner and mode they have on this machine.

        The archive has no padding at its end: a builder leaves that unread, and an engine with unread bytes does not
        notice that its client left, so a cancelled build would continue.
        """
        from tarfile import BLOCKSIZE, TarInfo  # noqa: PLC0415 - every start needs a digest, few need an archive

        blocks = []
        for path, content in sorted(self.files.items()):
            entry = TarInfo(path)
            entry.size, entry.mode = len(content), 0o755 if path.startswith(_PROGRAMS) else 0o644
            blocks += [entry.tobuf(), content, bytes(-len(content) % BLOCKSIZE)]
        return b"".join((*blocks, bytes(2 * BLOCKSIZE)))


def runtime_context() -> BuildContext:
    """Return the files of the image of Sandboxes."""
    return BuildContext({**_image_files("runtime"), **_modules(*_INSIDE)})


def orchestrator_context() -> BuildContext:
    """Return the files of the image of the orchestrator, which has the programs of a Sandbox too."""
    programs = {path: file for path, file in _image_files("runtime").items() if path.startswith(_PROGRAMS)}
    everything = [path.name for path in _PACKAGE.iterdir() if path.name != "__pycache__"]
    return BuildContext({**programs, **_image_files("orchestrator"), **_modules(*everything)})


@dataclass(frozen=True, slots=True)
class ImageSource:
    """An image that this version can build: its name, and the files that go in."""

    name: str
    context: BuildContext


def runtime_source() -> ImageSource:
    """Return the image of Sandboxes."""
    return ImageSource(runtime_image(), runtime_context())


@cache
def runtime_image() -> str:
    """Return the name of the image of Sandboxes: its tag has this version and the digest of what goes in.

    So a changed checkout never uses the image of another one. The base image is not part of the name: it counts only
    for the command that builds the image.
    """
    return f"{REPOSITORY}:{_tag(VERSION)}-{runtime_context().digest[:_DIGEST_DIGITS]}"


def shared_runtime_image() -> str:
    """Return the name under which other machines get the image of this version, such as the nodes of a cluster."""
    return f"{REPOSITORY}:{_tag(VERSION)}"


def _tag(version: str) -> str:
    # A tag has no plus sign, which begins the local part of a version.
    return version.replace("+", "-")


def _image_files(name: str) -> dict[str, bytes]:
    return dict(_files(_HERE / name, ""))


def _modules(*names: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for name in names:
        path = _PACKAGE / name
        if path.is_dir():
            found |= _files(path, f"orchestrator/{name}/")
        elif path.suffix == ".py":
            found[f"orchestrator/{name}"] = path.read_bytes()
    return found


def _files(directory: Path, prefix: str) -> Iterator[tuple[str, bytes]]:
    # Every start reads these files for the digest, and this takes half the time of Path.rglob.
    with os.scandir(directory) as entries:
        for entry in entries:
            path = Path(entry.path)
            if entry.is_file():
                yield prefix + entry.name, path.read_bytes()
            # An installer compiles modules, and so does the first import.
            elif entry.name != "__pycache__":
                yield from _files(path, f"{prefix}{entry.name}/")
