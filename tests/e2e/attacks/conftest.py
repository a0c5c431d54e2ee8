"""What attacks are tried against: an internet whose every machine answers, also at addresses that are forbidden."""

from collections.abc import Iterator

import pytest

from tests.support.internet import HERE, Internet, internet

FORBIDDEN = {
    "aws.wild.test": ("169.254.169.254", "link-local, where cloud metadata services are"),
    "ecs.wild.test": ("169.254.170.2", "link-local, where cloud metadata services are"),
    "azure.wild.test": ("168.63.129.16", "a cloud's metadata service"),
    "alibaba.wild.test": ("100.100.100.200", "carrier-grade NAT"),
    "aws6.wild.test": ("fd00:ec2::254", "a private network"),
    "mapped.wild.test": ("::ffff:169.254.169.254", "link-local, where cloud metadata services are"),
    "nat64.wild.test": ("64:ff9b::a9fe:a9fe", "link-local, where cloud metadata services are"),
    "sixtofour.wild.test": ("2002:a9fe:a9fe::1", "link-local, where cloud metadata services are"),
    "ten.wild.test": ("10.1.2.3", "a private network"),
    "kubernetes.wild.test": ("10.96.0.1", "a private network"),
    "docker.wild.test": ("172.17.0.1", "a private network"),
    "home.wild.test": ("192.168.1.1", "a private network"),
    "loopback.wild.test": ("127.0.0.1", "loopback"),
    "loopback6.wild.test": ("::1", "loopback"),
    "nowhere.wild.test": ("0.0.0.0", "this host"),  # noqa: S104 - a name of it
    "itself.wild.test": (HERE, "this machine"),
}
"""Names whose addresses no skill may reach, even if it declared them; each with its address, and why."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Internet]:
    """An internet with public hosts, and with all that is forbidden."""
    names = {name: address for name, (address, _) in FORBIDDEN.items()}
    also = names | {"metadata.google.internal": "169.254.169.254"}
    with internet(tmp_path_factory.mktemp("world"), "api.public.test", "other.public.test", also=also) as found:
        yield found
