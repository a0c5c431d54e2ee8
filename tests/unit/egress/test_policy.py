"""Tables of the hosts and addresses that may be reached."""

from dataclasses import replace

import pytest

from orchestrator.egress.policy import HostRequest, not_allowed, plain, refusal, undeclared
from orchestrator.sandbox.authority import SkillHosts
from orchestrator.wire.frames import Tunnel
from tests.support.broker_fixture import AUTHORITY


@pytest.mark.behaviour("G5")
@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("0.0.0.0", "this host"),  # noqa: S104 - an address to refuse, not to bind
        ("0.1.2.3", "this host"),
        ("10.0.0.1", "a private network"),
        ("100.64.0.1", "carrier-grade NAT"),
        ("100.127.255.255", "carrier-grade NAT"),
        ("100.128.0.0", None),
        ("127.0.0.1", "loopback"),
        ("127.255.255.254", "loopback"),
        ("168.63.129.16", "a cloud's metadata service"),
        ("169.254.169.254", "link-local, where cloud metadata services are"),
        ("172.15.255.255", None),
        ("172.16.0.1", "a private network"),
        ("172.31.255.255", "a private network"),
        ("172.32.0.0", None),
        ("192.0.0.8", "reserved"),
        ("192.0.2.1", "for documentation"),
        ("192.168.1.1", "a private network"),
        ("198.18.0.1", "for benchmarks"),
        ("198.19.255.255", "for benchmarks"),
        ("198.20.0.0", None),
        ("224.0.0.1", "multicast"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "reserved"),
        ("8.8.8.8", None),
        ("93.184.216.34", None),
        ("::", "this host"),
        ("::1", "loopback"),
        ("::7f00:1", "reserved"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:169.254.169.254", "link-local, where cloud metadata services are"),
        ("::ffff:8.8.8.8", None),
        ("64:ff9b::7f00:1", "loopback"),
        ("64:ff9b::a9fe:a9fe", "link-local, where cloud metadata services are"),
        ("64:ff9b::808:808", None),
        ("64:ff9b:1::1", "reserved"),
        ("64:ff9b:1:a9fe:a9:fe00::", "reserved"),
        ("2001:0:7f00:1:0:f227:80ff:fffe", "reserved"),
        ("100::1", "reserved"),
        ("2001::1", "reserved"),
        ("2001:db8::1", "for documentation"),
        ("2002:7f00:1::", "loopback"),
        ("2002:a00:1::1", "a private network"),
        ("2002:808:808::1", None),
        ("3fff::1", "for documentation"),
        ("5f00::1", "reserved"),
        ("fc00::1", "a private network"),
        ("fd00:ec2::254", "a private network"),
        ("fe80::1", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("fec0::1", "a private network"),
        ("ff02::1", "multicast"),
        ("2606:2800:220:1:248:1893:25c8:1946", None),
    ],
)
def test_only_public_addresses_are_connected_to(address: str, why: str | None) -> None:
    """A private address is refused, however it is wrapped."""
    assert refusal(address) == why


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.0x1",
        "[::1]",
        "::1",
        "a..b",
        ".",
        "",
        "a b.com",
        "evil.example.org\r\nX: y",
        "evil.example.org\n",
        "-a.example.org",
        "a_b.example.org",
        "exämple.org",
        "a." * 127 + "example.org",
        "a" * 64 + ".example.org",
    ],
)
def test_what_is_no_name_is_refused(host: str) -> None:
    """Addresses in any spelling and names that could end a header are refused, even if a pattern would match."""
    authority = replace(AUTHORITY, hosts={"credential": SkillHosts("web", ("*.example.org", plain(host)))})
    tunnel = Tunnel(session_key="k", credential="credential", host=host, port=443)
    reason = not_allowed(tunnel, authority)
    assert reason is not None
    assert reason.startswith(repr(host))


@pytest.mark.behaviour("G4", "G5")
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"host": "API.example.com."}, None),
        ({"host": "deep.example.org"}, None),
        ({"credential": "stolen"}, "the proxy credential is not one of this Run's"),
        ({"port": 80}, "api.example.com:80 is refused, only port 443 is allowed"),
        ({"host": "1.1.1.1"}, "'1.1.1.1' is an IP address; give a host name"),
        (
            {"host": "other.com"},
            (
                'other.com is not declared; add "other.com" to experts."coach".skills."web".allowedDomains, '
                "or pass --allow-domain web=other.com"
            ),
        ),
        (
            {"credential": "bare", "host": "api.example.com"},
            (
                'api.example.com is not declared; add "api.example.com" '
                'to experts."coach".skills."bare".allowedDomains, or pass --allow-domain bare=api.example.com'
            ),
        ),
    ],
)
def test_each_skill_reaches_its_own_hosts(changes: dict[str, str | int], reason: str | None) -> None:
    """A refusal names what would allow it."""
    authority = replace(AUTHORITY, hosts={**AUTHORITY.hosts, "bare": SkillHosts("bare", ())})
    tunnel = Tunnel(session_key="k", credential="credential", host="api.example.com", port=443)
    assert not_allowed(tunnel.with_(**changes), authority) == reason


@pytest.mark.parametrize(
    ("changes", "host"),
    [
        ({"host": "Other.com."}, "other.com"),
        ({"credential": "bare"}, "api.example.com"),
        ({}, None),
        ({"host": "deep.example.org"}, None),
        ({"credential": "stolen"}, None),
        ({"credential": "registry", "host": "other.com"}, None),
        ({"host": "other.com", "port": 80}, None),
        ({"host": "10.0.0.1"}, None),
        ({"host": "localhost"}, None),
        ({"host": "*.other.com"}, None),
        ({"host": "a.org\x1b[2J"}, None),
    ],
)
def test_what_a_yes_would_allow(changes: dict[str, str | int], host: str | None) -> None:
    """The user gets a question only about a host whose connection lacks nothing else."""
    more = {"bare": SkillHosts("bare", ()), "registry": SkillHosts("registry", ("r.com",), private_ok=True)}
    authority = replace(AUTHORITY, hosts={**AUTHORITY.hosts, **more})
    tunnel = Tunnel(session_key="k", credential="credential", host="api.example.com", port=443).with_(**changes)
    skill = "bare" if tunnel.credential == "bare" else "web"
    assert undeclared(tunnel, authority) == (HostRequest("coach", skill, host) if host else None)
