"""A host outside: a TLS server at a public address in a network namespace of its own, whose names can be resolved.

Nothing of the command is changed for it: its resolver reads another /etc/hosts, in a mount namespace of its own. Only
root can make either.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support import certificates

_SERVER = Path(__file__).parent / "public_server.py"
_WITH_NAMES = 'mount --bind "$1" /etc/hosts && shift && exec "$@"'


def possible() -> bool:
    """Whether namespaces can be made here."""
    return os.geteuid() == 0 and all(shutil.which(name) for name in ("ip", "unshare"))


@dataclass(frozen=True)
class Internet:
    """`prefix` are the words before a command that is to know the names; `authority` vouches for them.

    `address` is that of all hosts.
    """

    prefix: tuple[str, ...]
    authority: Path
    address: str
    _log: Path

    def asked(self) -> list[str]:
        """The names that TLS clients have asked the server for so far, in order."""
        return self._log.read_text().split() if self._log.exists() else []


@contextmanager
def internet(directory: Path, *hosts: str) -> Iterator[Internet]:
    """Serve `hosts` until the block is left; files about them are in `directory`."""
    number = os.getpid() % (1 << 14)
    # A network of four for each process that tests.
    ours, theirs = (f"45.64.{number >> 6}.{(number & 63) * 4 + last}" for last in (1, 2))
    name, cable = f"perstack-{os.getpid()}", f"pst{number}"
    authority = certificates.issue(directory, *hosts)
    names = directory / "hosts"
    names.write_text(Path("/etc/hosts").read_text() + "".join(f"{theirs} {host}\n" for host in hosts))
    log = directory / "asked"
    _ip("netns", "add", name)
    try:
        _ip("link", "add", f"{cable}a", "type", "veth", "peer", "name", f"{cable}b", "netns", name)
        _ip("address", "add", f"{ours}/30", "dev", f"{cable}a")
        _ip("link", "set", f"{cable}a", "up")
        _ip("-netns", name, "address", "add", f"{theirs}/30", "dev", f"{cable}b")
        _ip("-netns", name, "link", "set", f"{cable}b", "up")
        command = ("ip", "netns", "exec", name, sys.executable, "-I", str(_SERVER), str(directory), theirs)
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                assert server.stdout.readline() == "ready\n"
                prefix = ("unshare", "--mount", "sh", "-c", _WITH_NAMES, "sh", str(names))
                yield Internet(prefix, authority, theirs, log)
            finally:
                server.kill()
    finally:
        _ip("netns", "delete", name)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, timeout=20)  # noqa: S607 - the system's
