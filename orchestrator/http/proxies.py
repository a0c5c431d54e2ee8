"""Which proxy leads to a server: HTTP_PROXY, HTTPS_PROXY and NO_PROXY, as curl and Go read them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

from orchestrator.http.address import is_loopback
from orchestrator.http.headers import basic_authorization

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy. `authorization` is the value of the header `Proxy-Authorization`, None without a user.

    `is_secure`: it is spoken to over TLS itself.
    """

    host: str
    port: int
    authorization: str | None = field(default=None, repr=False)
    is_secure: bool = False

    @classmethod
    def parse(cls, url: str) -> "Proxy":
        """Read `[http[s]://][USER:PASSWORD@]HOST[:PORT]`.

        Raises:
            ValueError: it is not the URL of an HTTP proxy; the message does not contain the password.
        """
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in _PORTS or not parts.hostname:
            name = parts.hostname or "without a host"
            message = f"the proxy {name} cannot be used: its URL must begin with http:// or https://"
            raise ValueError(message)
        try:
            port = parts.port or _PORTS[parts.scheme]
        except ValueError:
            # Its text has what follows the colon, which is a part of the password if that has a `#` or `/`.
            message = "the URL of a proxy has no valid port: a password in it must be percent-encoded"
            raise ValueError(message) from None
        return cls(parts.hostname, port, basic_authorization(parts), parts.scheme == "https")

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        """The headers that the proxy reads."""
        return {} if self.authorization is None else {"Proxy-Authorization": self.authorization}


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxies of an environment. `direct` are the entries of NO_PROXY: hosts that are reached without one."""

    http: Proxy | None = None
    https: Proxy | None = None
    direct: tuple[str, ...] = ()

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> "Proxies":
        """Read the variables; those in lower case go before those in upper case.

        Under CGI a client chooses HTTP_PROXY, through a header named Proxy, so there it does not count.

        Raises:
            ValueError: as `Proxy.parse`.
        """

        def found(name: str) -> str:
            upper = "" if name == "http_proxy" and "REQUEST_METHOD" in environ else environ.get(name.upper(), "")
            return environ.get(name) or upper

        fallback = found("all_proxy")
        http, https = (
            Proxy.parse(url) if (url := found(name) or fallback) else None for name in ("http_proxy", "https_proxy")
        )
        entries = (entry.strip().lower() for entry in found("no_proxy").split(","))
        return cls(http, https, tuple(entry for entry in entries if entry))

    def leading_to(self, scheme: str, host: str, port: int) -> Proxy | None:
        """Choose the proxy for a server; None means that it is reached directly, as this machine itself always is."""
        proxy = self.https if scheme == "https" else self.http
        if proxy is None or scheme not in ("http", "https"):
            return None
        host = host.lower().rstrip(".")
        if is_loopback(host) or any(_covers(entry, host, port) for entry in self.direct):
            return None
        return proxy


def _covers(entry: str, host: str, port: int) -> bool:
    """Whether an entry of NO_PROXY covers a server. An entry is `*`, a network, or a domain, perhaps with a port."""
    if entry == "*":
        return True
    try:
        return ip_address(host) in ip_network(entry, strict=False)
    except ValueError:
        pass
    name, colon, number = entry.rpartition(":")
    if colon and number.isdecimal():
        if int(number) != port:
            return False
        entry = name.strip("[]")
    entry = entry.removeprefix("*").removeprefix(".")
    return host == entry or host.endswith(f".{entry}")
