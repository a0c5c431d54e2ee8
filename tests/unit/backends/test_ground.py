"""What engines say of themselves: answers of real ones, recorded, and what follows from them."""

import json
from pathlib import Path

import pytest

from orchestrator.backends.ground import Ground, docker_ground, require_runtime, user_inside
from orchestrator.errors import BackendUnavailableError
from orchestrator.sandbox import User

RECORDED = Path(__file__).parent / "recorded"
NO_CGROUPS = (
    "Running in rootless-mode without cgroups. To enable cgroups in rootless-mode, you need to boot the system in"
    " cgroup v2 mode."
)
OF_DOCKER = ("io.containerd.runc.v2", "io.containerd.runtime.v1.linux", "runc")
OF_PODMAN = ("crun", "kata", "krun", "runc", "runj", "runsc")


@pytest.mark.parametrize(
    ("engine", "ground"),
    [
        ("docker", Ground("Docker 20.10.24+dfsg1", runtimes=OF_DOCKER)),
        ("rootless-docker", Ground("Docker 20.10.24+dfsg1", owner=1777, runtimes=OF_DOCKER, warnings=(NO_CGROUPS,))),
        ("podman", Ground("Podman 4.3.1", runtimes=OF_PODMAN)),
        ("rootless-podman", Ground("Podman 4.3.1", owner=1777, runtimes=OF_PODMAN)),
    ],
)
def test_recorded_answers(engine: str, ground: Ground) -> None:
    """Docker and Podman tell in different places that they are rootless."""
    told = json.loads((RECORDED / f"{engine}.json").read_text())
    assert docker_ground(told["info"], told["version"], 1777) == ground


def test_an_engine_that_says_little() -> None:
    """What is not told is not there."""
    assert docker_ground({}, {"Version": "19.03"}, 0) == Ground("Docker 19.03")


def test_root_inside_is_the_owner_of_a_rootless_engine() -> None:
    """And only that one; an engine of root's knows everybody by their number."""
    rootless = Ground("Docker 1", owner=1777)
    assert user_inside(User(1777, 100), rootless) == User(0, 0)
    assert user_inside(User(1777, 100), Ground("Docker 1")) == User(1777, 100)
    with pytest.raises(BackendUnavailableError, match=r"belongs to user 1777.* run as user 65532"):
        user_inside(User(65532, 65532), rootless)


def test_a_runtime_that_is_not_there() -> None:
    """Those that are there are listed."""
    ground = Ground("Docker 1", runtimes=("runc", "runsc"))
    require_runtime("runsc", ground)
    require_runtime(None, Ground("Docker 1"))
    with pytest.raises(BackendUnavailableError, match=r"Docker 1 has no runtime 'kata' for .*; it has runc, runsc"):
        require_runtime("kata", ground)
