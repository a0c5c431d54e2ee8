"""Every restriction of a Sandbox, as the engine reports it and as a process inside sees it, without Landlock."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.backends.docker.backend import DockerBackend
from orchestrator.sandbox.api import DEFAULT_LIMITS, MIB
from tests.support.backend_kinds import BackendKind, docker_place, has_control_groups
from tests.support.engine_inspection import inspect

pytestmark = [pytest.mark.docker, pytest.mark.on_engines]
SECONDS = 60
LIMITS = DEFAULT_LIMITS.with_(memory=128 * MIB, tmp=16 * MIB, cpus=1.5, pids=64, files=512)
SLEEP = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)); time.sleep(3600)"
TMPFS = "rw,nosuid,nodev,exec,size=16777216,mode=1777"

LOOK = """
import json, os, resource, socket, stat, ctypes
from orchestrator.runtime import seccomp

def fails(act):
    try: act()
    except OSError as error: return error.strerror or type(error).__name__
    return None

def call(number, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(number, *arguments) < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

def mounted(line):
    fields = line.split()
    return fields[1], [fields[2], *fields[3].split(',')]

def udp():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end: end.sendto(b'x', ('8.8.8.8', 53))

def of_group(*names):
    for name in names:
        try: return open('/sys/fs/cgroup/' + name).read().split()
        except FileNotFoundError: pass

status = dict(line.rstrip().split(':\\t', 1) for line in open('/proc/self/status') if ':\\t' in line)
mounts = dict(map(mounted, open('/proc/self/mounts')))
nodes = []
for above, directories, names in os.walk('/'):
    if above in ('/proc', '/sys', '/run/perstack'): directories.clear(); continue
    for name in names:
        mode = os.lstat(os.path.join(above, name)).st_mode
        if stat.S_ISSOCK(mode) or stat.S_ISBLK(mode) or stat.S_ISCHR(mode): nodes.append(os.path.join(above, name))
written = ('/made', '/opt/made', '/usr/bin/made', '/etc/made', '/dev/made', '/sys/made', '/run/made', '/var/tmp/made',
           '/run/perstack/gate/made', '/tmp/made', '/run/skills/made', '/dev/shm/made', '/workspace/made')
print(json.dumps({
    'ids': [os.getresuid(), os.getresgid(), os.getgroups()],
    'capabilities': [status[name] for name in ('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb')],
    'status': [status['NoNewPrivs'], status['Seccomp']],
    'pid': os.getpid(),
    'namespaces': {name: os.readlink('/proc/self/ns/' + name) for name in ('pid', 'net', 'mnt', 'ipc', 'uts')},
    'root': mounts['/'][1],
    'mounts': {path: mounts[path] for path in ('/tmp', '/run/skills', '/sys', '/proc/sys', '/run/perstack/gate')},
    'limits': [resource.getrlimit(resource.RLIMIT_NOFILE), resource.getrlimit(resource.RLIMIT_CORE)],
    'group': {
        'memory': of_group('memory.max', 'memory/memory.limit_in_bytes'),
        'with swap': of_group('memory.swap.max', 'memory/memory.memsw.limit_in_bytes'),
        'processes': of_group('pids.max', 'pids/pids.max'),
        'cores': of_group('cpu.max') or of_group('cpu/cpu.cfs_quota_us') + of_group('cpu/cpu.cfs_period_us'),
    },
    'written': [path for path in written if fails(lambda: open(path, 'w').close()) is None],
    'nodes': sorted(path for path in nodes if not path.startswith('/dev/pts/')),
    'interfaces': os.listdir('/sys/class/net'),
    'refused': {
        'resolve a name': fails(lambda: socket.getaddrinfo('example.com', 443)) is not None,
        'send a datagram': fails(udp),
        'connect': fails(lambda: socket.create_connection(('1.1.1.1', 443), 2)),
        'a raw socket': fails(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)),
        'a packet socket': fails(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)),
        'make a device': fails(lambda: os.mknod('/tmp/device', stat.S_IFBLK | 0o600, os.makedev(8, 0))),
        'become root': fails(lambda: os.setuid(0)) if os.getuid() else 'Operation not permitted',
        'mount': fails(lambda: call(165, b'none', b'/tmp', b'tmpfs', 0, None)),
        'load a module': fails(lambda: call(175, None, 0, b'')),
        'bpf': fails(lambda: call(321, 0, None, 0)),
        'chroot': fails(lambda: os.chroot('/tmp')),
        'the clock': fails(lambda: call(227, 0, None)),
        # Last, since the filter of the runtime stays; Podman's own allows both.
        'a user namespace': seccomp.install() and fails(lambda: call(272, 0x10000000)),
        'a keyring': fails(lambda: call(250, 0, -3, 1)),
    },
}))
"""


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[BackendKind]:
    """Give the engine, and check afterwards for containers left."""
    async with asyncio.timeout(SECONDS), docker_place(tmp_path) as found:
        yield found
    assert found.left() == []


def namespace(name: str) -> str:
    """Return the namespace of this test."""
    return str(Path("/proc/self/ns", name).readlink())


async def is_rootless(place: BackendKind) -> bool:
    """Whether the engine reports itself as rootless."""
    async with place.connect() as backend:
        assert isinstance(backend, DockerBackend)
        return (await backend.engine_info()).owner is not None


@pytest.mark.behaviour("G2", "G6")
async def test_the_engine_reports_every_restriction(place: BackendKind) -> None:
    """`inspect` shows each restriction of the container."""
    spec, rootless = place.spec(limits=LIMITS), await is_rootless(place)
    async with place.connect(SLEEP) as backend, backend.launch(spec) as sandbox:
        found = await asyncio.to_thread(inspect, "container", sandbox.name)
        image = await asyncio.to_thread(inspect, "image", spec.image)
    host, config = found["HostConfig"], found["Config"]
    walls = {
        "NetworkMode": "none",
        "ReadonlyRootfs": True,
        "Privileged": False,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "IpcMode": "private",
        "PidMode": "",
        "UTSMode": "",
        "UsernsMode": "",
        "PublishAllPorts": False,
        "Tmpfs": {"/tmp": TMPFS, "/run/skills": TMPFS},
        "Ulimits": [
            {"Name": "nofile", "Hard": 512, "Soft": 512},
            {"Name": "core", "Hard": 0, "Soft": 0},
        ],
    }
    assert {key: host[key] for key in walls} == walls
    for nothing in ("CapAdd", "Devices", "DeviceRequests", "DeviceCgroupRules", "Binds", "VolumesFrom", "ExtraHosts"):
        assert not host.get(nothing), nothing
    assert "/proc/kcore" in host["MaskedPaths"]
    assert "/proc/sys" in host["ReadonlyPaths"]
    bounds = (host["Memory"], host["MemorySwap"], host["PidsLimit"], host["NanoCpus"])
    assert bounds == (128 * MIB, 128 * MIB, 64, 1_500_000_000)
    assert config["User"] == ("0:0" if rootless else f"{place.user.uid}:{place.user.gid}")
    assert sorted(config["Env"]) == sorted(image["Config"]["Env"])
    assert {(mount["Source"], mount["Destination"], mount["RW"]) for mount in found["Mounts"]} == {
        (str(spec.workspace), "/workspace", True),
        (str(spec.state), "/run/perstack", True),
        (str(spec.state / "gate"), "/run/perstack/gate", False),
    }
    assert set(found["NetworkSettings"]["Networks"]) <= {"none"}


@pytest.mark.behaviour("G6")
async def test_a_process_inside_meets_every_restriction(place: BackendKind) -> None:
    """A process that has nothing but its user tries each of them and is refused."""
    rootless = await is_rootless(place)
    async with place.connect(LOOK) as backend, backend.launch(place.spec(limits=LIMITS)) as sandbox:
        lines = [line async for line in sandbox.lines()]
        assert (await sandbox.wait()).code == 0, (await sandbox.wait()).detail
        bounded = await has_control_groups(backend)
    found: dict[str, Any] = json.loads(lines[0])
    uid, gid = (0, 0) if rootless else (place.user.uid, place.user.gid)
    assert found["ids"] == [[uid] * 3, [gid] * 3, [gid]]
    assert found["capabilities"] == ["0" * 16] * 5
    assert (found["status"], found["pid"]) == (["1", "2"], 1)
    for name, here in found["namespaces"].items():
        assert here != namespace(name), name
    assert found["root"] == "ro"
    for path in ("/tmp", "/run/skills"):
        assert {"tmpfs", "rw", "nosuid", "nodev", "size=16384k"} <= set(found["mounts"][path]), path
    for path in ("/sys", "/proc/sys", "/run/perstack/gate"):
        assert found["mounts"][path][1] == "ro", path
    assert found["limits"] == [[512, 512], [0, 0]]
    if bounded:
        # Version 2 of control groups counts swap apart from memory, version 1 both together.
        assert found["group"].pop("with swap")[0] in {"0", str(128 * MIB)}
        assert found["group"] == {"memory": [str(128 * MIB)], "processes": ["64"], "cores": ["150000", "100000"]}
    # User 0 of a rootless engine's container owns its /dev, but cannot make a device there.
    own = ["/dev/made"] if rootless else []
    assert found["written"] == [*own, "/tmp/made", "/run/skills/made", "/dev/shm/made", "/workspace/made"]
    assert found["nodes"] == [f"/dev/{name}" for name in ("full", "null", "random", "tty", "urandom", "zero")]
    assert found["interfaces"] == ["lo"]
    no = "Operation not permitted"
    assert found["refused"] == {
        "resolve a name": True,
        "send a datagram": "Network is unreachable",
        "connect": "Network is unreachable",
        "a raw socket": no,
        "a packet socket": no,
        "make a device": no,
        "become root": no,
        "mount": no,
        "load a module": no,
        "bpf": no,
        "chroot": no,
        "the clock": no,
        "a user namespace": no,
        "a keyring": no,
    }
