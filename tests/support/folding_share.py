"""A directory whose file system takes different spellings for one name, served by a program as desktop products do it.

The kernel's cache of names knows each spelling apart, as with a share of Docker Desktop or Colima; a case-insensitive
file system of the kernel itself does not show what such a share does.
"""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PROGRAMS = ("mkfs.exfat", "mount.exfat-fuse", "losetup")
_IMAGE_BYTES = 64 * 1024 * 1024
_FIRST_WRITER = 1000


def possible() -> bool:
    """Whether one can be made here: it takes root, exfat-fuse and exfatprogs."""
    if not all(map(shutil.which, _PROGRAMS)) or not Path("/dev/fuse").exists():
        return False
    return subprocess.run(["losetup", "--find"], capture_output=True, check=False).returncode == 0  # noqa: S607


@contextmanager
def folding_share(root: Path, user: int = _FIRST_WRITER) -> Iterator[Path]:
    """Make one below `root`, whose files all belong to `user`; it is gone when the block is left."""
    image, mount = root / "image", root / "share"
    mount.mkdir(parents=True)
    with image.open("wb") as file:
        file.truncate(_IMAGE_BYTES)
    _run("mkfs.exfat", str(image))
    loop = _run("losetup", "--find", "--show", str(image)).strip()
    try:
        _run("mount.exfat-fuse", "-o", f"allow_other,uid={user},gid={user},umask=0022", loop, str(mount))
        try:
            yield mount
        finally:
            _run("umount", "--lazy", str(mount))
    finally:
        _run("losetup", "--detach", loop)
        image.unlink()


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
