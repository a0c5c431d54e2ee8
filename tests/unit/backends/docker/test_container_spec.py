from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.backends.docker.container_spec import create_body
from orchestrator.sandbox.api import DEFAULT_LIMITS, MIB, LinkKind, SandboxSpec, User

SPEC = SandboxSpec(
    name="j-s1",
    image="runtime:1",
    workspace=Path("/home/u/work"),
    state=Path("/run/user/1000/p/s1"),
    user=User(1000, 1001),
    deadline=1_800_000_000,
    limits=DEFAULT_LIMITS.with_(memory=256 * MIB, tmp=64 * MIB, cpus=1.5, pids=32, files=512),
    labels={"perstack.ai/job": "j"},
    read_only=(Path("perstack.toml"),),
    hidden=(Path("sub/.env"),),
)


def bind(source: str, target: str, *, read_only: bool) -> dict[str, object]:
    """Return a bind mount in the engine's format."""
    return {
        "Type": "bind",
        "Source": source,
        "Target": target,
        "ReadOnly": read_only,
        "BindOptions": {"Propagation": "rprivate"},
    }


def test_the_whole_body() -> None:
    """The body holds everything that a container is given; a change of it changes the isolation."""
    assert create_body(SPEC) == {
        "Image": "runtime:1",
        "User": "1000:1001",
        "Cmd": ["--deadline", "1800000000"],
        "WorkingDir": "/",
        "Env": [],
        "Labels": {"perstack.ai/job": "j"},
        "NetworkDisabled": True,
        "StopTimeout": 10,
        "HostConfig": {
            "NetworkMode": "none",
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "IpcMode": "private",
            "PidsLimit": 32,
            "Memory": 268435456,
            "MemorySwap": 268435456,
            "NanoCpus": 1_500_000_000,
            "Ulimits": [
                {"Name": "nofile", "Soft": 512, "Hard": 512},
                {"Name": "core", "Soft": 0, "Hard": 0},
            ],
            "Tmpfs": {
                "/tmp": "rw,nosuid,nodev,exec,size=67108864,mode=1777",
                "/run/skills": "rw,nosuid,nodev,exec,size=67108864,mode=1777",
            },
            "Mounts": [
                bind("/home/u/work", "/workspace", read_only=False),
                bind("/run/user/1000/p/s1", "/run/perstack", read_only=False),
                bind("/run/user/1000/p/s1/gate", "/run/perstack/gate", read_only=True),
                bind("/home/u/work/perstack.toml", "/workspace/perstack.toml", read_only=True),
                bind("/dev/null", "/workspace/sub/.env", read_only=True),
            ],
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "64m", "max-file": "4"}},
            "RestartPolicy": {"Name": "no"},
            "AutoRemove": False,
        },
    }


def test_a_command_replaces_the_entrypoint() -> None:
    """A command replaces the entrypoint if one is given; otherwise the image's own runs."""
    assert create_body(SPEC, ("/bin/true",)) == {**create_body(SPEC), "Entrypoint": ["/bin/true"], "Cmd": []}


@pytest.mark.parametrize("installs", [True, False])
def test_packages_are_changed_by_the_sandbox_that_installs_alone(installs: bool) -> None:  # noqa: FBT001 - parametrized
    """Every other Sandbox mounts them read-only."""
    body = create_body(replace(SPEC, packages=Path("/store/packages"), installs=installs))
    assert bind("/store/packages", "/packages", read_only=not installs) in body["HostConfig"]["Mounts"]


@pytest.mark.parametrize("installs", [True, False])
def test_volumes_of_packages_are_changed_by_the_sandbox_that_installs_alone(
    installs: bool,  # noqa: FBT001 - parametrized
) -> None:
    """No other Sandbox may write them; all have them at the same place."""
    body = create_body(replace(SPEC, package_volumes={"web": "perstack-web-1"}, installs=installs))
    volume = {"Type": "volume", "Source": "perstack-web-1", "Target": "/packages/web", "ReadOnly": not installs}
    assert volume in body["HostConfig"]["Mounts"]


def test_a_stream_replaces_all_that_comes_from_the_state_directory() -> None:
    """No socket is mounted, stdin outlives its orchestrator, and the engine keeps no copy of the frames."""
    body = create_body(replace(SPEC, link=LinkKind.STREAM))
    assert body["Cmd"] == ["--deadline", "1800000000", "--stderr", "/run/perstack/stderr", "--broker", "-"]
    assert (body["OpenStdin"], body["StdinOnce"]) == (True, False)
    assert body["HostConfig"]["LogConfig"] == {"Type": "none", "Config": {}}
    mounts = body["HostConfig"]["Mounts"]
    assert mounts[1:3] == [
        {"Type": "volume", "Target": "/run/perstack", "ReadOnly": False},
        bind("/run/user/1000/p/s1", "/run/mark", read_only=True),
    ]
    plain = create_body(SPEC)["HostConfig"]["Mounts"]
    assert [mounts[0], *mounts[3:]] == [plain[0], *plain[3:]]
    assert "OpenStdin" not in create_body(SPEC)
    # A kernel that makes no loopback device by itself gets one from the engine.
    assert (body["NetworkDisabled"], body["HostConfig"]["NetworkMode"]) == (False, "none")


def test_an_engine_with_other_files_gets_no_mark() -> None:
    """Its Sandboxes cannot tell whether a workspace was replaced by its inode number."""
    mounts = create_body(replace(SPEC, link=LinkKind.STREAM), shares_files=False)["HostConfig"]["Mounts"]
    assert "/run/mark" not in [mount["Target"] for mount in mounts]
