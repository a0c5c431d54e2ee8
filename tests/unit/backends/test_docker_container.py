from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.backends.docker_container import create_body
from orchestrator.sandbox import MIB, Limits, SandboxSpec, User

SPEC = SandboxSpec(
    name="j-s1",
    image="runtime:1",
    workspace=Path("/home/u/work"),
    state=Path("/run/user/1000/p/s1"),
    user=User(1000, 1001),
    deadline=1_800_000_000,
    limits=Limits(memory=256 * MIB, tmp=64 * MIB, cpus=1.5, pids=32, files=512),
    labels={"perstack.ai/job": "j"},
    read_only=(Path("perstack.toml"),),
    hidden=(Path("sub/.env"),),
)


def bind(source: str, target: str, *, read_only: bool) -> dict[str, object]:
    """Write a bind mount as the engine wants it."""
    return {
        "Type": "bind",
        "Source": source,
        "Target": target,
        "ReadOnly": read_only,
        "BindOptions": {"Propagation": "rprivate"},
    }


def test_the_whole_body() -> None:
    """Everything that a container is given stands here; a change of it is a change of the isolation."""
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
    """Only where one is asked for; else the image says what runs."""
    assert create_body(SPEC, ("/bin/true",)) == {**create_body(SPEC), "Entrypoint": ["/bin/true"], "Cmd": []}


@pytest.mark.parametrize("installs", [True, False])
def test_packages_are_changed_by_the_sandbox_that_installs_alone(installs: bool) -> None:  # noqa: FBT001 - parametrized
    """Every other one sees them read-only."""
    body = create_body(replace(SPEC, packages=Path("/store/packages"), installs=installs))
    assert bind("/store/packages", "/packages", read_only=not installs) in body["HostConfig"]["Mounts"]
