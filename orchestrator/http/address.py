"""Where a server listens."""

from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443, "tcp": 80}
_LOOPBACK_NAMES = {"localhost", "localhost."}
_SOCKET_AUTHORITY = "localhost"
"""What `Host` is on a unix socket, which has no host: HTTP/1.1 demands one."""


@dataclass(frozen=True, slots=True)
class Address:
    """A server. On a unix socket `path` is the socket, otherwise it begins the path of each request.

    `authority` is the value of the header `Host`.
    """

    scheme: str
    host: str
    port: int
    path: str
    authority: str

    @classmethod
    def parse(cls, url: str) -> "Address":
        """Read `unix://PATH`, or a URL of `tcp`, `http` or `https`; `tcp` means HTTP without TLS.

        Raises:
            ValueError: it is none of these.
        """
        parts = urlsplit(url)
        if parts.scheme == "unix" and parts.path:
            return cls("unix", "", 0, parts.path, _SOCKET_AUTHORITY)
        if parts.scheme not in _PORTS or not parts.hostname:
            message = f"{url!r} is not the address of an HTTP server: use unix://PATH, or a URL with http or https"
            raise ValueError(message)
        authority = parts.netloc.rpartition("@")[2]
        return cls(parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme], parts.path.rstrip("/"), authority)

    @property
    def is_socket(self) -> bool:
        """Whether it is a unix socket."""
        return self.scheme == "unix"

    @property
    def is_secure(self) -> bool:
        """Whether the server uses TLS."""
        return self.scheme == "https"

    def __str__(self) -> str:
        return f"unix://{self.path}" if self.is_socket else f"{self.scheme}://{self.authority}{self.path}"


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine, whatever a resolver would return: an address of loopback, or `localhost`."""
    if host.lower() in _LOOPBACK_NAMES:
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
