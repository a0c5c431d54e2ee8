from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config.domains import matches, parse_pattern

LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True).filter(lambda text: text[:4] != "xn--")
TOP = st.sampled_from(["com", "org", "internal", "io"])
NAME = st.tuples(st.lists(LABEL, min_size=1, max_size=4), TOP).map(lambda parts: ".".join([*parts[0], parts[1]]))


@pytest.mark.behaviour("A10")
@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("example.com", "example.com"),
        ("*.example.com", "*.example.com"),
        ("API.Example.COM", "api.example.com"),
        ("a-b.c1.example", "a-b.c1.example"),
        ("metadata.google.internal", "metadata.google.internal"),
    ],
)
def test_names_and_leading_wildcards_are_accepted(text: str, pattern: str) -> None:
    """A host name, or `*.` and a host name, is returned in lower case."""
    assert parse_pattern(text) == pattern


@pytest.mark.behaviour("A10")
@pytest.mark.parametrize(
    "text",
    [
        "example.com:443",
        "https://example.com",
        "example.com/path",
        "a.*.example.com",
        "*",
        "*.",
        "**.example.com",
        "*example.com",
        "*.*.com",
        "example.com.",
        ".example.com",
        "a..b",
        "-a.com",
        "a-.com",
        "a_b.com",
        "example.com\n",
        "éxample.com",
        "",
        f"{'a' * 64}.com",
        f"{'a.' * 127}com",
    ],
)
def test_anything_else_is_rejected(text: str) -> None:
    """A port, scheme, path, other wildcards and invalid host names are refused."""
    with pytest.raises(ValueError, match=r"is not a host name|has a wildcard that is not a leading|allows a whole"):
        parse_pattern(text)


@pytest.mark.behaviour("A11")
@pytest.mark.parametrize("text", ["xn--bcher-kva.example", "*.xn--p1ai", "a.XN--b.com", "*.a.xn--b.com"])
def test_punycode_is_rejected_anywhere(text: str) -> None:
    """A label that begins with `xn--` is refused, anywhere and in any case."""
    with pytest.raises(ValueError, match="is punycode"):
        parse_pattern(text)


@pytest.mark.behaviour("A13")
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("localhost", "is this machine"),
        ("a.localhost", "is this machine"),
        ("127.0.0.1", "is an IP address"),
        ("169.254.169.254", "is an IP address"),
        ("8.8.8.8", "is an IP address"),
        ("1.0x7f", "is an IP address"),
        ("2130706433", "is an IP address"),
        ("[::1]", "is not a host name"),
        ("*.com", "allows a whole top-level domain"),
        ("intranet", "is a single label"),
    ],
)
def test_names_of_no_host_or_of_all_are_rejected(text: str, problem: str) -> None:
    """Localhost, addresses, single labels and top-level wildcards are refused, each with its reason."""
    with pytest.raises(ValueError, match=problem):
        parse_pattern(text)


@pytest.mark.behaviour("A13")
@given(address=st.ip_addresses(v=4))
def test_no_ipv4_address_is_a_pattern(address: IPv4Address) -> None:
    """No IPv4 address is accepted as a name."""
    with pytest.raises(ValueError, match="is an IP address"):
        parse_pattern(str(address))


@pytest.mark.behaviour("G4")
@given(name=NAME, below=LABEL)
def test_a_wildcard_names_the_host_and_all_below(name: str, below: str) -> None:
    """`*.x` matches x and every host below it; x matches only itself."""
    assert parse_pattern(f"*.{name}") == f"*.{name}"
    assert matches(name, name)
    assert not matches(name, f"{below}.{name}")
    assert matches(f"*.{name}", name)
    assert matches(f"*.{name}", f"{below}.{name}")
    assert matches(f"*.{name}", f"{below}.{below}.{name}")
    assert not matches(f"*.{name}", f"{below}{name}")
    assert not matches(f"*.{name}", f"{name}.{below}")


@given(text=st.text(max_size=40))
def test_every_pattern_is_plain(text: str) -> None:
    """Every accepted pattern is lower-case ASCII with at least two labels, and parsing it again does not change it."""
    try:
        pattern = parse_pattern(text)
    except ValueError:
        return
    assert pattern.isascii()
    assert pattern == pattern.lower() == parse_pattern(pattern)
    assert "." in pattern.removeprefix("*.")
