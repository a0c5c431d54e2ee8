import pytest

from orchestrator.config.domains import is_private, parse_endpoint
from orchestrator.providers.url import parse_base_url


@pytest.mark.behaviour("E9")
@pytest.mark.parametrize(
    "url",
    [
        "http://mcp.example.com",
        "HTTP://mcp.example.com",
        "https://localhost/sse",
        "https://127.0.0.1/sse",
        "https://10.1.2.3",
        "https://172.16.0.1",
        "https://192.168.1.1",
        "https://169.254.169.254/latest",
        "https://0.0.0.0",
        "mcp.example.com",
        "https://",
        "",
    ],
)
def test_http_and_private_hosts_are_rejected(url: str) -> None:
    """Endpoints other than https on a public host are refused."""
    with pytest.raises(ValueError, match=r"must be a public https URL|has invalid characters"):
        parse_endpoint(url)


@pytest.mark.behaviour("E9")
@pytest.mark.parametrize(
    "url", ["https://mcp.example.com/sse?x=1", "https://8.8.8.8", "https://[2606:4700::1111]:443/"]
)
def test_public_hosts_are_accepted(url: str) -> None:
    """A public endpoint is returned unchanged."""
    assert parse_endpoint(url) == url


@pytest.mark.behaviour("E9")
def test_other_ports_are_rejected() -> None:
    """Other ports are refused, since the proxy allows only port 443."""
    with pytest.raises(ValueError, match="must use port 443, the only port that a Sandbox can reach, not 8443"):
        parse_endpoint("https://mcp.example.com:8443/")


@pytest.mark.behaviour("E10")
@pytest.mark.parametrize(
    "host", ["::1", "fe80::1", "fc00::1", "fd12::1", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "fe80::1%eth0"]
)
def test_private_addresses_are_private(host: str) -> None:
    """Loopback, link-local, unique-local and wrapped private addresses are private."""
    assert is_private(host)


@pytest.mark.behaviour("E10")
@pytest.mark.parametrize("host", ["172.15.0.1", "172.32.0.1", "::ffff:8.8.8.8", "mcp.example.com", "mcp.example.com."])
def test_neighbours_of_private_ranges_are_public(host: str) -> None:
    """Addresses just outside the private ranges are public."""
    assert not is_private(host)


@pytest.mark.behaviour("E11")
@pytest.mark.parametrize(
    "url",
    [
        "https://[::1]/",
        "https://[fe80::1]/",
        "https://[fd00::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[::]/",
        "https://[64:ff9b::7f00:1]/",
        "https://[2002:7f00:1::]/",
        "https://localhost./",
        "https://a.localhost/",
        "https://a.localhost./",
        "https://0.0.0.1/",
        "https://100.64.0.1/",
        "https://224.0.0.1/",
        "https://255.255.255.255/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://0177.0.0.1/",
        "https://127.1/",
        "https://127.0.0.1./",
        "https://intranet/",
        "https://127。0。0。1/",
        "https://[::1",
        "https://a.example:99999999/",
        "https://a.example\\@127.0.0.1/",
        "https://a.example\n/",
        "https://%3127.0.0.1/",
    ],
)
def test_other_spellings_of_private_hosts_are_rejected(url: str) -> None:
    """Brackets, final dots, unusual notations and other special ranges do not hide a private host."""
    with pytest.raises(ValueError, match=r"must be a public https URL|has invalid characters|is not a URL"):
        parse_endpoint(url)


def test_endpoint_holds_no_password() -> None:
    """A password in the URL is refused, since the URL is shown in events and errors."""
    with pytest.raises(ValueError, match="must not contain a user name or password"):
        parse_endpoint("https://user:s3cret@mcp.example.com/")


@pytest.mark.parametrize(
    "url", ["https://api.example.com/v1", "http://localhost:8080", "http://127.9.9.9", "http://[::1]:1/v1"]
)
def test_base_urls(url: str) -> None:
    """A base URL is https anywhere, or http on this machine."""
    assert parse_base_url(url) == url


@pytest.mark.parametrize(
    "url",
    ["http://api.example.com", "http://10.0.0.1", "http://localhost.example.com", "ftp://localhost", "https://", "x"],
)
def test_other_base_urls_are_rejected(url: str) -> None:
    """Plain http to another machine is refused."""
    with pytest.raises(ValueError, match="must be an https URL; http is allowed on this machine only"):
        parse_base_url(url)
