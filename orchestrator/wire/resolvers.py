"""Which name servers a machine asks: as /etc/resolv.conf says it (resolv.conf(5))."""

from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

FILE = Path("/etc/resolv.conf")
PORT = 53
_MOST = 8
"""More than any resolver asks (3, MAXNS)."""


def name_servers(file: Path = FILE) -> tuple[str, ...]:
    """Give the addresses of the name servers that `file` lists; none where it cannot be read."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ()
    return tuple(dict.fromkeys(_listed(text)))[:_MOST]


def _listed(text: str) -> Iterator[str]:
    for line in text.splitlines():
        key, *rest = line.split() or ("",)
        try:
            address = ip_address(rest[0].partition("%")[0]) if key == "nameserver" and rest else None
        except ValueError:
            continue
        # At its own loopback nobody is reached but a program of the same machine, or of the same Pod.
        if address is not None and not address.is_loopback:
            yield str(address)
