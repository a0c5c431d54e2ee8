"""The name servers of a machine, from /etc/resolv.conf (resolv.conf(5))."""

from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

FILE = Path("/etc/resolv.conf")
PORT = 53
_MAX_SERVERS = 8
"""More than any resolver uses (MAXNS is 3)."""


def name_servers(file: Path = FILE) -> tuple[str, ...]:
    """Return the addresses of the name servers in `file`; none if it cannot be read."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ()
    return tuple(dict.fromkeys(_listed(text)))[:_MAX_SERVERS]


def _listed(text: str) -> Iterator[str]:
    for line in text.splitlines():
        key, *rest = line.split() or ("",)
        try:
            address = ip_address(rest[0].partition("%")[0]) if key == "nameserver" and rest else None
        except ValueError:
            continue
        # A loopback address reaches only programs of the same machine or Pod.
        if address is not None and not address.is_loopback:
            yield str(address)
