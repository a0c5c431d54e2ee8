"""Stand-ins for other engines share what the engines share that they stand for, and nothing else."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support import engine

_CHECK = Path(__file__).parents[2] / "dev" / "stand-ins" / "check"
_HERE = os.uname().release
_MINE = {"file": "read", "other case": "missing", "kernel": _HERE}
_NO_SOCKET = _MINE | {"socket": "Connection refused"}
_SHARED = {"desktop": _NO_SOCKET, "podman": _MINE | {"socket": "connected"}}
"""What a container sees of a directory of this machine, by stand-in, where the kernel is ours."""


def _seen(*directories: str) -> list[dict[str, str]]:
    """What a container sees of the directory for temporary files, and of each of these."""
    command = [str(_CHECK), engine.runtime_image(), *directories]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    _, *places = done.stdout.split("\nin ")
    return [dict(line.strip().split(": ", 1) for line in place.splitlines()[1:]) for place in places]


@pytest.mark.docker
@pytest.mark.parametrize("kind", [pytest.param(name, marks=getattr(pytest.mark, name)) for name in _SHARED])
def test_what_crosses_to_an_engine_on_this_kernel(kind: str) -> None:
    """Files cross to a desktop engine and to Podman; sockets only to Podman."""
    (seen,) = _seen()
    assert seen.items() >= _SHARED[kind].items()


@pytest.mark.docker
@pytest.mark.gvisor
@pytest.mark.vm
def test_what_crosses_to_another_kernel() -> None:
    """Files cross to containers on another kernel; no socket connects."""
    (seen,) = _seen()
    assert seen["kernel"] != _HERE
    assert seen.items() >= (_NO_SOCKET | {"kernel": seen["kernel"]}).items()


@pytest.mark.docker
@pytest.mark.desktop
def test_a_share_that_ignores_case() -> None:
    """A container reads a file by another spelling of its name, as on a Mac's disk."""
    _, seen = _seen(os.environ["PERSTACK_TEST_CASELESS"])
    assert seen.items() >= (_NO_SOCKET | {"other case": "read"}).items()


@pytest.mark.docker
@pytest.mark.remote
def test_nothing_crosses_to_a_remote_engine() -> None:
    """A directory of this machine does not exist there."""
    (seen,) = _seen()
    assert list(seen) == ["refused"]
