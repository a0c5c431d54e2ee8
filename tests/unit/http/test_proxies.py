"""What HTTP_PROXY, HTTPS_PROXY and NO_PROXY mean."""

from collections.abc import Mapping

import pytest

from orchestrator.http.proxies import Proxies, Proxy

ONE, TWO = Proxy("one.example", 3128), Proxy("two.example", 80)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, Proxies()),
        ({"HTTPS_PROXY": "http://one.example:3128"}, Proxies(https=ONE)),
        ({"https_proxy": "one.example:3128", "HTTPS_PROXY": "two.example"}, Proxies(https=ONE)),
        ({"ALL_PROXY": "one.example:3128", "http_proxy": "two.example"}, Proxies(http=TWO, https=ONE)),
        ({"HTTP_PROXY": "one.example:3128"}, Proxies(http=ONE)),
        ({"HTTPS_PROXY": "https://one.example"}, Proxies(https=Proxy("one.example", 443, is_secure=True))),
        ({"HTTP_PROXY": "one.example:3128", "REQUEST_METHOD": "GET"}, Proxies()),
        ({"NO_PROXY": " A.example, ,10.0.0.0/8"}, Proxies(direct=("a.example", "10.0.0.0/8"))),
    ],
)
def test_the_variables_of_an_environment(environ: Mapping[str, str], expected: Proxies) -> None:
    """Lower case goes first, and a CGI program's HTTP_PROXY comes from its client."""
    assert Proxies.read(environ) == expected


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("socks5://me:secret@h:1", "its URL must begin with http://"),
        ("http://", "its URL must begin with http://"),
        ("ftp://me:secret@h", "its URL must begin with http://"),
        ("http://me:secret#1@h", "no valid port"),
        ("http://me:secret/1@h", "no valid port"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_refused(url: str, sentence: str) -> None:
    """The error does not show its password."""
    with pytest.raises(ValueError, match=sentence) as caught:
        Proxy.parse(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("direct", "host", "port", "is_direct"),
    [
        ("*", "api.example", 443, True),
        ("api.example", "api.example", 443, True),
        ("api.example", "API.Example.", 443, True),
        (".api.example", "eu.api.example", 443, True),
        ("*.api.example", "eu.api.example", 443, True),
        ("api.example", "eu.api.example", 443, True),
        ("api.example", "notapi.example", 443, False),
        ("api.example:8443", "api.example", 443, False),
        ("api.example:8443", "api.example", 8443, True),
        ("10.0.0.0/8", "10.1.2.3", 443, True),
        ("10.0.0.0/8", "11.1.2.3", 443, False),
        ("10.1.2.3", "10.1.2.3", 443, True),
        ("fd00::/8", "fd00::1", 443, True),
        ("", "127.0.0.1", 443, True),
        ("", "localhost", 443, True),
        ("", "::1", 443, True),
        ("", "api.example", 443, False),
    ],
)
def test_no_proxy_names_hosts_that_are_reached_directly(direct: str, host: str, port: int, is_direct: bool) -> None:  # noqa: FBT001
    """This machine itself always is."""
    proxies = Proxies.read({"HTTPS_PROXY": "one.example:3128", "NO_PROXY": direct})
    assert proxies.leading_to("https", host, port) == (None if is_direct else ONE)


def test_each_scheme_has_its_proxy() -> None:
    """An engine's TCP address has none."""
    proxies = Proxies(ONE, TWO)
    assert [proxies.leading_to(scheme, "h.example", 1) for scheme in ("http", "https", "tcp")] == [ONE, TWO, None]
