"""A Docker engine on a separate machine, with its own network and /run, which is reached by ssh and by TLS.

The machine is three namespaces of this one (network, mounts, processes) with a dockerd and an sshd in them. Its other
directories are ours, so its containers can mount them, except those that are hidden. Only root can make it.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support import certificates, engine
from tests.support.processes import command_lines

SECONDS = 60
GUEST = "guest"
"""A user of that machine who may not use the engine."""
PLAIN, STRICT = 22, 23
"""Ports of sshd: the usual one, and one that forwards no sockets."""

_PROGRAMS = ("dockerd", "ip", "ssh", "ssh-keygen", "unshare", "nsenter")
_SSHD = "/usr/sbin/sshd"
_INSIDE = """
set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -p /run/sshd /run/lock /run/user/0 /run/far
mount --bind {root} /run/far
for each in {hidden}; do [ ! -d "$each" ] || mount -t tmpfs tmpfs "$each"; done
mkdir -p {root}
mount --bind /run/far {root}
cp /etc/passwd /run/passwd
echo "{guest}:x:12345:12345::/:/bin/sh" >>/run/passwd
mount --bind /run/passwd /etc/passwd
cp {root}/id.pub /run/authorized
ip link set lo up
touch {root}/apart
while [ ! -e {root}/cable ]; do sleep 0.05; done
{sshd} -f {root}/sshd_config -o Port={plain}
{sshd} -f {root}/sshd_config -o Port={strict} -o AllowStreamLocalForwarding=no -o PidFile=/run/strict.pid
exec dockerd --data-root {root}/data --exec-root /run/docker --pidfile /run/docker.pid --bridge none --iptables=false \
  --ip-masq=false -H unix:///run/docker.sock -H tcp://{address}:2376 --tlsverify --tlscacert {root}/tls/ca.pem \
  --tlscert {root}/tls/cert.pem --tlskey {root}/tls/key.pem
"""
_SSHD_CONFIG = """
ListenAddress {address}
HostKey {root}/host
AuthorizedKeysFile /run/authorized
PermitRootLogin yes
PasswordAuthentication yes
PidFile /run/sshd.pid
UsePAM no
StrictModes no
MaxStartups 100
MaxSessions 100
"""
_SSH_CONFIG = """
Host far
  HostName {address}
  User root
  Port {plain}
Host *
  UserKnownHostsFile {known}
  GlobalKnownHostsFile /dev/null
  IdentityFile {identity}
  IdentitiesOnly yes
"""


def possible() -> bool:
    """Whether such a machine can be made here."""
    return os.geteuid() == 0 and all(shutil.which(name) for name in _PROGRAMS) and Path(_SSHD).exists()


@dataclass(frozen=True)
class RemoteEngine:
    """The machine. `environ` finds an `ssh` that knows it by the name `far`; `certificates` are a client's."""

    root: Path
    address: str
    pid: int

    @property
    def certificates(self) -> Path:
        """The directory for DOCKER_CERT_PATH."""
        return self.root / "tls"

    @property
    def environ(self) -> Mapping[str, str]:
        """The environment for a client: our PATH, with an ssh that reads another configuration."""
        return {"PATH": f"{self.root}/bin:{os.environ['PATH']}", "HOME": str(self.root)}

    def run(self, *command: str) -> str:
        """Run a command on the machine."""
        inside = ["nsenter", "--target", str(self.pid), "--mount", "--net", "--pid", "--", *command]
        return subprocess.run(inside, capture_output=True, text=True, timeout=SECONDS, check=True).stdout

    def containers(self) -> list[str]:
        """List the names of its containers."""
        return self.docker("ps", "--all", "--format", "{{.Names}}").split()

    def volumes(self, *options: str) -> list[str]:
        """List the names of its volumes."""
        return self.docker("volume", "ls", "--quiet", *options).split()

    def docker(self, *words: str) -> str:
        """Run a docker command with its engine; return the output."""
        return _docker(self, *words).stdout.decode()

    def configure(self, *, known: Path | None = None, identity: Path | None = None) -> None:
        """Write the configuration of ssh: its file of `known` hosts and the key that it offers, else the right ones."""
        text = _SSH_CONFIG.format(
            address=self.address,
            plain=PLAIN,
            known=known or self.root / "known_hosts",
            identity=identity or self.root / "id",
        )
        (self.root / "ssh_config").write_text(text)


def ssh_processes(remote: RemoteEngine) -> list[int]:
    """List the running ssh clients of this test, not their supervisors."""
    wanted = f"ssh\0-F\0{remote.root}/ssh_config\0".encode()
    return [pid for pid, command in command_lines() if wanted in command[: len(wanted) + 20]]


@contextmanager
def remote_engine(root: Path, *hidden: Path) -> Iterator[RemoteEngine]:
    """Start the machine; it has the runtime image. Afterwards end it and delete its files.

    In the place of the directories `hidden` it has empty ones.
    """
    third, fourth = divmod(os.getpid() % 2**14 * 4, 2**8)
    here, address = (f"10.198.{third}.{fourth + end}" for end in (1, 2))
    (root / "tls").mkdir(parents=True)
    certificates.issue(root / "tls", address)
    for name in ("id", "host"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", root / name], check=True)  # noqa: S607
    kind, key = (root / "host.pub").read_text().split()[:2]
    (root / "known_hosts").write_text("".join(f"{name} {kind} {key}\n" for name in (address, f"[{address}]:{STRICT}")))
    (root / "sshd_config").write_text(_SSHD_CONFIG.format(address=address, root=root))
    wrapper = root / "bin" / "ssh"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {root}/ssh_config "$@"\n')
    wrapper.chmod(0o755)
    inside = _INSIDE.format(
        root=root,
        hidden=" ".join(map(str, hidden)),
        address=address,
        guest=GUEST,
        sshd=_SSHD,
        plain=PLAIN,
        strict=STRICT,
    )
    with (root / "log").open("wb") as log:
        outer = subprocess.Popen(
            ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", inside],  # noqa: S607
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    cable = f"far{os.getpid()}"
    try:
        remote = RemoteEngine(root, address, _child(outer.pid))
        remote.configure()
        # Until then its /run is ours, and so is the engine there.
        _await((root / "apart").exists)
        _plug(cable, here, address, remote.pid)
        (root / "cable").touch()
        _await(lambda: _docker(remote, "version").returncode == 0)
        with subprocess.Popen(["docker", "save", engine.runtime_image()], stdout=subprocess.PIPE) as save:  # noqa: S607
            subprocess.run(
                _docker_command(remote, "load", "--quiet"), stdin=save.stdout, capture_output=True, check=True
            )
        yield remote
    finally:
        outer.send_signal(signal.SIGKILL)
        outer.wait(SECONDS)
        subprocess.run(["ip", "link", "delete", cable], check=False, capture_output=True)  # noqa: S607
        _await(lambda: _removed(root))


def _child(process: int) -> int:
    """Wait for the first process of the machine."""
    children = Path(f"/proc/{process}/task/{process}/children")
    _await(lambda: children.read_text().strip() != "")
    return int(children.read_text().split()[0])


def _plug(cable: str, here: str, there: str, process: int) -> None:
    for words in (
        f"link add {cable} type veth peer name eth0 netns {process}",
        f"address add {here}/30 dev {cable}",
        f"link set {cable} up",
    ):
        subprocess.run(["ip", *words.split()], check=True)  # noqa: S607
    for words in (f"address add {there}/30 dev eth0", "link set eth0 up"):
        inside = ["nsenter", "--target", str(process), "--net", "ip", *words.split()]
        subprocess.run(inside, check=True)


def _docker_command(remote: RemoteEngine, *words: str) -> list[str]:
    # Through the namespaces and not through ssh or TLS, which are what is tested.
    inside = ["nsenter", "--target", str(remote.pid), "--mount", "--net", "--"]
    return [*inside, "docker", "-H", "unix:///run/docker.sock", *words]


def _docker(remote: RemoteEngine, *words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(_docker_command(remote, *words), capture_output=True, timeout=SECONDS, check=False)


def _removed(root: Path) -> bool:
    with suppress(OSError):
        shutil.rmtree(root)
    return not root.exists()


def _await(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + SECONDS
    while not holds():
        if time.monotonic() > until:
            message = f"not within {SECONDS} s"
            raise TimeoutError(message)
        time.sleep(0.05)
