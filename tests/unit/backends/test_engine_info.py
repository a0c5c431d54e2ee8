"""Engines' descriptions of themselves: recorded answers of real ones, and what follows from them."""

import json
from pathlib import Path

import pytest

from orchestrator.backends.engine_info import (
    EngineInfo,
    LinkChoice,
    choose_link,
    docker_engine_info,
    require_runtime,
    user_inside,
)
from orchestrator.errors import BackendUnavailableError
from orchestrator.sandbox.api import LinkKind, User

RECORDED = Path(__file__).parent / "recorded"
NO_CGROUPS = (
    "Running in rootless-mode without cgroups. To enable cgroups in rootless-mode, you need to boot the system in"
    " cgroup v2 mode."
)
OF_DOCKER = ("io.containerd.runc.v2", "io.containerd.runtime.v1.linux", "runc")
OF_PODMAN = ("crun", "kata", "krun", "runc", "runj", "runsc")


@pytest.mark.parametrize(
    ("engine", "engine_info"),
    [
        ("docker", EngineInfo("Docker 20.10.24+dfsg1", runtimes=OF_DOCKER, cgroups="1")),
        (
            "rootless-docker",
            EngineInfo("Docker 20.10.24+dfsg1", owner=1777, runtimes=OF_DOCKER, warnings=(NO_CGROUPS,), cgroups="1"),
        ),
        ("podman", EngineInfo("Podman 4.3.1", runtimes=OF_PODMAN, cgroups="1", is_podman=True)),
        ("rootless-podman", EngineInfo("Podman 4.3.1", owner=1777, runtimes=OF_PODMAN, cgroups="1", is_podman=True)),
    ],
)
def test_recorded_answers(engine: str, engine_info: EngineInfo) -> None:
    """Docker and Podman report in different places that they are rootless."""
    told = json.loads((RECORDED / f"{engine}.json").read_text())
    assert docker_engine_info(told["info"], told["version"], 1777) == engine_info


def test_an_engine_that_reports_little() -> None:
    """Missing fields of an answer count as absent."""
    assert docker_engine_info({}, {"Version": "19.03"}, 0) == EngineInfo("Docker 19.03")


def test_podman_has_no_id() -> None:
    """It reports another one each time, so what is remembered of it would be that of another engine."""
    assert docker_engine_info({"ID": "AB:CD"}, {"Version": "1"}, 0).id == "AB:CD"
    podman = {"Version": "4.3.1", "Components": [{"Name": "Podman Engine"}]}
    assert docker_engine_info({"ID": "32af5109"}, podman, 0).id == ""


def test_root_inside_is_the_owner_of_a_rootless_engine() -> None:
    """Only the owner can run inside a rootless engine; an engine of root keeps all user ids."""
    rootless = EngineInfo("Docker 1", owner=1777)
    assert user_inside(User(1777, 100), rootless) == User(0, 0)
    assert user_inside(User(1777, 100), EngineInfo("Docker 1")) == User(1777, 100)
    with pytest.raises(BackendUnavailableError, match=r"belongs to user 1777.* run as user 65532"):
        user_inside(User(65532, 65532), rootless)


def test_a_runtime_that_is_not_there() -> None:
    """The message lists the runtimes that the engine has."""
    engine_info = EngineInfo("Docker 1", runtimes=("runc", "runsc"))
    require_runtime("runsc", engine_info)
    require_runtime(None, EngineInfo("Docker 1"))
    with pytest.raises(BackendUnavailableError, match=r"Docker 1 has no runtime 'kata' for .*; it has runc, runsc"):
        require_runtime("kata", engine_info)


def test_the_link_is_the_jobs_then_the_runtimes_then_the_engines() -> None:
    """An engine without a choice gets none, whatever the job demands."""
    engine_info = EngineInfo("Docker 1", link=LinkChoice(LinkKind.SOCKET, "near"))
    assert choose_link(LinkKind.AUTO, None, engine_info) == (LinkKind.SOCKET, "near")
    runtime = choose_link(LinkKind.AUTO, "runsc", engine_info)
    assert runtime == (LinkKind.STREAM, "the runtime runsc may have its own kernel")
    demanded = choose_link(LinkKind.SOCKET, "runsc", engine_info)
    assert demanded == (LinkKind.SOCKET, "--link demands it")
    assert choose_link(LinkKind.STREAM, None, EngineInfo("Kubernetes 1")) is None
