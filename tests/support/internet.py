"""A separate internet: an outside host with any names and addresses, and commands that reach only that host.

The host is in a network namespace, and commands run in a second one, as on a machine whose only network is this one. So
the outside host can have an address of another owner, such as a cloud's metadata service, without effects elsewhere.
A command runs unchanged: its resolver reads another /etc/hosts and another /etc/resolv.conf. Only root can do all this.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support import certificates

_SERVER = Path(__file__).parent / "public_server.py"
_WITH_NAMES = 'mount --bind "$1" /etc/hosts && mount --bind "$2" /etc/resolv.conf && shift 2 && exec "$@"'
HERE, OUTSIDE = "45.64.0.1", "45.64.0.2"
METADATA = "169.254.169.254"
"""Where clouds tell a machine who it is."""
_SERVED = "45.65"
_HERE6, _OUTSIDE6 = "2a00:4564::1", "2a00:4564::2"


def possible() -> bool:
    """Whether namespaces can be made here."""
    return os.geteuid() == 0 and all(shutil.which(name) for name in ("ip", "unshare"))


@dataclass(frozen=True)
class Internet:
    """`prefix` are the words before a command that runs there; `authority` verifies the hosts.

    `address` is the outside host's. The command's own machine serves the same, at its loopback and `HERE`.
    """

    prefix: tuple[str, ...]
    authority: Path
    address: str
    _log: Path

    def asked(self) -> list[str]:
        """The names that TLS clients have asked the outside for so far, and DNS clients, in order."""
        return self._log.read_text().split() if self._log.exists() else []


@contextmanager
def internet(directory: Path, *hosts: str, also: Mapping[str, str] | None = None) -> Iterator[Internet]:
    """Serve `hosts` until the block is left, and `also` names at addresses of theirs; files are in `directory`."""
    elsewhere = dict(also or {})
    authority = certificates.issue(directory, *hosts, *elsewhere)
    at = dict.fromkeys(hosts, OUTSIDE) | elsewhere
    names, resolver = directory / "hosts", directory / "resolv.conf"
    names.write_text("127.0.0.1 localhost\n" + "".join(f"{address} {host}\n" for host, address in at.items()))
    resolver.write_text(f"nameserver {OUTSIDE}\noptions timeout:1 attempts:1\n")
    with ExitStack() as stack:
        here, there = (stack.enter_context(_namespace(f"perstack-{os.getpid()}-{side}")) for side in ("a", "b"))
        _connect(here, there, set(elsewhere.values()))
        for name, log in ((there, directory), (here, directory / "here")):
            log.mkdir(exist_ok=True)
            stack.enter_context(_serving(name, directory, log))
        prefix = ("ip", "netns", "exec", here, "unshare", "--mount", "sh", "-c", _WITH_NAMES, "sh")
        yield Internet((*prefix, str(names), str(resolver)), authority, OUTSIDE, directory / "asked")


@contextmanager
def served_to_this_machine(directory: Path, *hosts: str) -> Iterator[Internet]:
    """Serve `hosts` at a public address to this machine itself, and so to Pods where it is a node.

    The address is this process's own, and what is there has that of clouds' metadata services too. Names are not known.
    """
    cable = f"perstack-{os.getpid()}"
    third, fourth = divmod(os.getpid() % 2**14 * 4, 2**8)
    here, there = (f"{_SERVED}.{third}.{fourth + end}" for end in (1, 2))
    authority = certificates.issue(directory, *hosts)
    with ExitStack() as stack:
        name = stack.enter_context(_namespace(f"perstack-{os.getpid()}-c"))
        _ip("link", "add", cable, "type", "veth", "peer", "name", "cable", "netns", name)
        _ip("address", "add", f"{here}/30", "dev", cable)
        _ip("link", "set", cable, "up")
        for address in (f"{there}/30", f"{METADATA}/32"):
            _ip("-netns", name, "address", "add", address, "dev", "cable")
        _ip("-netns", name, "link", "set", "cable", "up")
        _ip("-netns", name, "route", "add", "default", "via", here)
        # Another process of this machine may have such a route too; it is gone with the cable.
        _ip("route", "add", f"{METADATA}/32", "dev", cable, "metric", str(os.getpid()))
        stack.enter_context(_serving(name, directory, directory))
        yield Internet((), authority, there, directory / "asked")


@contextmanager
def _namespace(name: str) -> Iterator[str]:
    _ip("netns", "add", name)
    try:
        _ip("-netns", name, "link", "set", "lo", "up")
        yield name
    finally:
        _ip("netns", "delete", name)


def _connect(here: str, there: str, others: set[str]) -> None:
    """Join both by a cable on which everything leads to the outside; it also has all `others` of its addresses."""
    _ip("link", "add", "cable", "netns", here, "type", "veth", "peer", "name", "cable", "netns", there)
    for name, four, six in ((here, HERE, _HERE6), (there, OUTSIDE, _OUTSIDE6)):
        _ip("-netns", name, "address", "add", f"{four}/30", "dev", "cable")
        _ip("-netns", name, "address", "add", f"{six}/64", "dev", "cable", "nodad")
        _ip("-netns", name, "link", "set", "cable", "up")
    _ip("-netns", here, "route", "add", "default", "via", OUTSIDE)
    _ip("-netns", here, "-6", "route", "add", "default", "via", _OUTSIDE6)
    for address in others - {HERE, OUTSIDE}:
        if not address.startswith(("127.", "0.", "::")):
            _ip("-netns", there, "address", "add", address, "dev", "cable", *(["nodad"] if ":" in address else []))


@contextmanager
def _serving(name: str, directory: Path, log: Path) -> Iterator[None]:
    command = ("ip", "netns", "exec", name, sys.executable, "-I", str(_SERVER), str(directory), str(log / "asked"))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            yield
        finally:
            server.kill()


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, timeout=20)  # noqa: S607 - the system's
