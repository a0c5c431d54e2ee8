from dataclasses import replace
from pathlib import Path, PurePosixPath

from orchestrator.sandbox.api import DEFAULT_LIMITS, BrokerAddress, SandboxSpec, User
from orchestrator.sandbox.layout import Mount, Source, host_path, mounts, runtime_arguments
from orchestrator.wire.skill import SkillTransport

SPEC = SandboxSpec(
    name="j-s1",
    image="i",
    workspace=Path("/w"),
    state=Path("/s"),
    user=User(1, 2),
    deadline=9,
    limits=DEFAULT_LIMITS.with_(files=7),
)
FULL = replace(
    SPEC,
    packages=Path("/p"),
    read_only=(Path("a/b"),),
    hidden=(Path(".env"),),
    copies=Path("/c"),
    transports=(SkillTransport.STDIO, SkillTransport.HTTP),
    broker=BrokerAddress(("192.0.2.1", "fd00::1"), 7443, 7444, "ab"),
)


def test_every_sandbox_mounts_its_workspace_and_state() -> None:
    """A plain Sandbox has five mounts, and only the socket directory is read-only."""
    assert list(mounts(SPEC)) == [
        Mount(PurePosixPath("/workspace"), Source.WORKSPACE),
        Mount(PurePosixPath("/run/perstack"), Source.STATE),
        Mount(PurePosixPath("/run/perstack/gate"), Source.SOCKET_DIRECTORY, read_only=True),
        Mount(PurePosixPath("/tmp"), Source.MEMORY),
        Mount(PurePosixPath("/run/skills"), Source.MEMORY),
    ]


def test_everything_else_is_mounted_read_only() -> None:
    """Packages, the token, protected and hidden files cannot be written, and come after the directories."""
    assert list(mounts(FULL))[5:] == [
        Mount(PurePosixPath("/packages"), Source.PACKAGES, read_only=True),
        Mount(PurePosixPath("/run/secrets/perstack.ai"), Source.TOKEN, read_only=True),
        Mount(PurePosixPath("/workspace/a/b"), Source.PROTECTED, read_only=True, sub_path=Path("a/b")),
        Mount(PurePosixPath("/workspace/.env"), Source.EMPTY, read_only=True, sub_path=Path(".env")),
    ]


def test_only_an_installation_writes_packages() -> None:
    """The same mount is writable for a Sandbox that installs."""
    packages = next(mount for mount in mounts(replace(FULL, installs=True)) if mount.source is Source.PACKAGES)
    assert packages == Mount(PurePosixPath("/packages"), Source.PACKAGES)


def test_a_package_in_a_volume_is_where_one_in_the_directory_would_be() -> None:
    """Each has its own mount, read-only except for a Sandbox that installs, and no path on the host."""
    spec = replace(SPEC, package_volumes={"web": "v-2", "time": "v-1"})
    found = [mount for mount in mounts(spec) if mount.source is Source.PACKAGE_VOLUME]
    assert found == [
        Mount(PurePosixPath("/packages/time"), Source.PACKAGE_VOLUME, read_only=True),
        Mount(PurePosixPath("/packages/web"), Source.PACKAGE_VOLUME, read_only=True),
    ]
    assert [host_path(spec, mount) for mount in found] == [None, None]
    assert [mount.read_only for mount in mounts(replace(spec, installs=True)) if mount in found] == []


def test_host_path_of_each_mount() -> None:
    """A mount shows a path of the host, or memory, a token or nothing."""
    assert [(mount.source.value, host_path(FULL, mount)) for mount in mounts(FULL)] == [
        ("workspace", Path("/w")),
        ("state", Path("/s")),
        ("gate", Path("/s/gate")),
        ("memory", None),
        ("memory", None),
        ("packages", Path("/p")),
        ("token", None),
        ("protected", Path("/w/a/b")),
        ("empty", None),
    ]


def test_arguments_inside_a_container() -> None:
    """The runtime knows a container's paths, so it gets the deadline and the transports."""
    assert runtime_arguments(SPEC) == ("--deadline", "9")
    assert runtime_arguments(replace(SPEC, transports=(SkillTransport.STDIO, SkillTransport.HTTP))) == (
        "--deadline",
        "9",
        "--ways",
        "stdio,http",
    )
    assert runtime_arguments(SPEC, has_deadline=False) == ()


def test_arguments_on_the_host() -> None:
    """A Sandbox without a container gets the host's paths."""
    told = runtime_arguments(replace(SPEC, packages=Path("/p"), transports=(SkillTransport.STDIO,)), on_host=True)
    assert told == (
        *("--state", "/s", "--workspace", "/w"),
        *("--deadline", "9", "--ways", "stdio", "--packages", "/p"),
    )


def test_arguments_of_a_sandbox_with_a_network() -> None:
    """It gets its broker's address, and what it must not reach."""
    told = runtime_arguments(
        FULL, bounds_files=True, keeps_stderr=True, closed=("7444@192.0.2.1", "1@192.0.2.9"), name_servers=("::1",)
    )
    assert told == (
        *("--deadline", "9", "--ways", "stdio,http", "--files", "7", "--stderr", "/run/perstack/stderr"),
        *("--broker", "7443@192.0.2.1,fd00::1", "--pin", "ab", "--token", "/run/secrets/perstack.ai/token"),
        *("--closed", "7444@192.0.2.1;1@192.0.2.9", "--names", "::1"),
    )


def test_name_servers_are_tried_only_where_the_network_is_closed() -> None:
    """An open network reaches them, so a Sandbox is not given them."""
    assert "--names" not in runtime_arguments(FULL, name_servers=("::1",))
