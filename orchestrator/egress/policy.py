"""Decides which hosts and addresses a skill may reach; pure."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

from orchestrator.config.domains import matches, why_not_host
from orchestrator.sandbox.authority import Authority, SkillHosts
from orchestrator.wire.frames import Tunnel

PORT = 443

# IANA's special-purpose registries for IPv4 and IPv6, in words for the user.
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
class EgressDecision:
    """One egress decision. `reason` is why the proxy refused and what would allow it; None if allowed."""

    run_id: str
    skill_name: str | None
    host: str
    port: int
    allowed: bool
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class HostRequest:
    """An undeclared host that a skill wants to reach."""

    expert_key: str
    skill_name: str
    host: str


def plain(host: str) -> str:
    """Return a host in the form for comparing: lower case, without a final dot."""
    return host.lower().removesuffix(".")


def not_allowed(tunnel: Tunnel, authority: Authority) -> str | None:
    """Return why this skill may not open this connection, and what would allow it; None if it may."""
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
        return f"{name} is no host of a package registry, and an install may reach nothing else"
    return f"{name} is not declared; {_remedy(name, hosts, authority.expert_key)}"


def undeclared(tunnel: Tunnel, authority: Authority) -> HostRequest | None:
    """Return the host that must be allowed for this connection, if nothing else is missing."""
    hosts = authority.hosts.get(tunnel.credential)
    if hosts is None or hosts.private_ok or not_allowed(tunnel, authority) is None:
        return None
    wanted = HostRequest(authority.expert_key, hosts.skill_name, plain(tunnel.host))
    return wanted if not_allowed(tunnel, authority.allowing(tunnel.credential, wanted.host)) is None else None


def sni_mismatch(tunnel: Tunnel, server_name: str, authority: Authority) -> str | None:
    """Return why a connection whose ClientHello asks for `server_name` is refused; None if that is its host."""
    name, requested = plain(tunnel.host), plain(server_name)
    if requested == name:
        return None
    hosts = authority.hosts[tunnel.credential]
    mismatch = f"the connection to {name} asks for {requested!r} in its TLS ClientHello (SNI)"
    if why_not_host(requested) is not None or hosts.private_ok:
        return f"{mismatch}; it must ask for the host that it connects to"
    if any(matches(pattern, requested) for pattern in hosts.patterns):
        return f"{mismatch}; connect to {requested} itself"
    remedy = _remedy(requested, hosts, authority.expert_key)
    return f"{mismatch}, which is not declared; connect to that host itself, and {remedy}"


def _remedy(name: str, hosts: SkillHosts, expert_key: str) -> str:
    skill = hosts.skill_name
    return (
        f'add "{name}" to experts."{expert_key}".skills."{skill}".allowedDomains, or pass --allow-domain {skill}={name}'
    )


def refusal(address: str) -> str | None:
    """Return why connections to this IP address are refused, in a few words; None if it is public."""
    ip = _inner(ip_address(address))
    for network, why in _REFUSED.items():
        if ip in network:
            return why
    if isinstance(ip, IPv6Address) and ip not in _GLOBAL_UNICAST:
        return "reserved"
    return None


def _inner(ip: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the address that packets end up at: IPv6 can wrap IPv4 in three ways (RFC 4291, 3056, 6052)."""
    if isinstance(ip, IPv4Address):
        return ip
    if ip in _NAT64:
        return IPv4Address(int(ip) & 0xFFFF_FFFF)
    return ip.ipv4_mapped or ip.sixtofour or ip
