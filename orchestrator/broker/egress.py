"""Pure: which hosts and addresses a skill may reach."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

from orchestrator.broker.authority import Authority, SkillHosts
from orchestrator.config.domains import matches, why_not_host
from orchestrator.wire.link import Tunnel

PORT = 443

# IANA's special-purpose registries for IPv4 and IPv6, in the words that a person at the terminal can use.
_REFUSED = {
    ip_network(network): why
    for network, why in (
        ("0.0.0.0/8", "this host"),
        ("10.0.0.0/8", "a private network"),
        ("100.64.0.0/10", "carrier-grade NAT"),
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", "a cloud's metadata service"),
        ("169.254.0.0/16", "link-local, where cloud metadata services are"),
        ("172.16.0.0/12", "a private network"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "for documentation"),
        ("192.88.99.0/24", "reserved"),
        ("192.168.0.0/16", "a private network"),
        ("198.18.0.0/15", "for benchmarks"),
        ("198.51.100.0/24", "for documentation"),
        ("203.0.113.0/24", "for documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        ("::/128", "this host"),
        ("::1/128", "loopback"),
        ("2001::/23", "reserved"),
        ("2001:db8::/32", "for documentation"),
        ("3fff::/20", "for documentation"),
        ("fc00::/7", "a private network"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "a private network"),
        ("ff00::/8", "multicast"),
    )
}
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class Access:
    """One decision of the proxy. `reason` says why not, and what would allow it; None where it was allowed."""

    run_id: str
    skill_name: str | None
    host: str
    port: int
    allowed: bool
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """A host that a skill wants to reach and nobody declared."""

    expert_key: str
    skill_name: str
    host: str


def plain(host: str) -> str:
    """A host as names are compared: in lower case, without the dot that may end it."""
    return host.lower().removesuffix(".")


def not_allowed(tunnel: Tunnel, authority: Authority) -> str | None:
    """Why this skill may not open this connection, and what would allow it; None if it may."""
    hosts = authority.hosts.get(tunnel.credential)
    if hosts is None:
        return "the proxy credential is not one of this Run's"
    name = plain(tunnel.host)
    if (why := why_not_host(name)) is not None:
        return f"{tunnel.host!r} {why}"
    if tunnel.port != PORT:
        return f"{name}:{tunnel.port} is refused, only port {PORT} is allowed"
    if any(matches(pattern, name) for pattern in hosts.patterns):
        return None
    if hosts.private_ok:
        return f"{name} is no host of a package registry, and an install reaches nothing else"
    return f"{name} is not declared; {_remedy(name, hosts, authority.expert_key)}"


def undeclared(tunnel: Tunnel, authority: Authority) -> Wanted | None:
    """The host that would have to be allowed for this connection, where that is all that it lacks."""
    hosts = authority.hosts.get(tunnel.credential)
    if hosts is None or hosts.private_ok or not_allowed(tunnel, authority) is None:
        return None
    wanted = Wanted(authority.expert_key, hosts.skill_name, plain(tunnel.host))
    return wanted if not_allowed(tunnel, authority.allowing(tunnel.credential, wanted.host)) is None else None


def misnamed(tunnel: Tunnel, server_name: str, authority: Authority) -> str | None:
    """Why a connection may not go on whose TLS ClientHello asks for `server_name`; None if that is its host."""
    name, asked = plain(tunnel.host), plain(server_name)
    if asked == name:
        return None
    hosts = authority.hosts[tunnel.credential]
    said = f"the connection to {name} asks for {asked!r} in its TLS ClientHello (SNI)"
    if why_not_host(asked) is not None or hosts.private_ok:
        return f"{said}; it must ask for the host that it connects to"
    if any(matches(pattern, asked) for pattern in hosts.patterns):
        return f"{said}; connect to {asked} itself"
    return (
        f"{said}, which is not declared; connect to that host itself, and {_remedy(asked, hosts, authority.expert_key)}"
    )


def _remedy(name: str, hosts: SkillHosts, expert_key: str) -> str:
    skill = hosts.skill_name
    return (
        f'add "{name}" to experts."{expert_key}".skills."{skill}".allowedDomains, or pass --allow-domain {skill}={name}'
    )


def refusal(address: str) -> str | None:
    """Why nobody may connect to this IP address, in a few words; None if it is a public one."""
    ip = _inner(ip_address(address))
    for network, why in _REFUSED.items():
        if ip in network:
            return why
    if isinstance(ip, IPv6Address) and ip not in _GLOBAL_UNICAST:
        return "reserved"
    return None


def _inner(ip: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The address that packets end up at: IPv4 may be wrapped in IPv6 in three ways (RFC 4291, 3056, 6052)."""
    if isinstance(ip, IPv4Address):
        return ip
    if ip in _NAT64:
        return IPv4Address(int(ip) & 0xFFFF_FFFF)
    return ip.ipv4_mapped or ip.sixtofour or ip
