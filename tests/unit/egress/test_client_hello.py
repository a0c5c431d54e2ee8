"""The name in a ClientHello: from OpenSSL, however it is cut, and anything that a skill might send instead."""

import ssl
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.egress.client_hello import HELLO_BYTES, HelloError, HelloReader
from tests.support.client_hello_bytes import message, openssl_hello, records, server_name, sized

NAME = "api.example.com"
HELLO = openssl_hello(NAME)
LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
NAMES = st.lists(LABELS, min_size=2, max_size=5).map(".".join)
OTHERS = st.lists(st.tuples(st.integers(1, 0xFE0C), st.binary(max_size=60)), max_size=8, unique_by=lambda pair: pair[0])


def read(data: bytes, *, step: int = 1 << 20) -> str | None:
    """Feed `data` in pieces of `step` bytes."""
    reader, name = HelloReader(), None
    for begin in range(0, len(data), step):
        name = name or reader.feed(data[begin : begin + step])
    return name


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_openssl_s_is_read(version: ssl.TLSVersion) -> None:
    """A real client's first bytes contain the host that it connects to."""
    assert read(openssl_hello(NAME, version=version)) == NAME


def test_every_cut_is_read() -> None:
    """A ClientHello is read byte by byte, and without its last byte it is incomplete."""
    assert read(HELLO, step=1) == NAME
    reader = HelloReader()
    assert reader.feed(HELLO[:-1]) is None
    assert reader.feed(HELLO[-1:]) == NAME
    assert bytes(reader.seen) == HELLO


def test_what_follows_goes_to_the_server_too() -> None:
    """Early data after a ClientHello is kept, in order, for the server."""
    reader = HelloReader()
    assert reader.feed(HELLO + b"early") == NAME
    assert bytes(reader.seen) == HELLO + b"early"


@given(name=NAMES, others=OTHERS, sizes=st.lists(st.integers(1, 200), max_size=12), step=st.integers(1, 600))
def test_fragments_in_records_and_reads(
    name: str, others: list[tuple[int, bytes]], sizes: list[int], step: int
) -> None:
    """However a ClientHello is cut into records and reads, its name is found."""
    hello = message([*others, server_name(name)])
    assert read(records(hello, *sizes), step=step) == name


@given(data=st.binary(max_size=2000), step=st.integers(1, 400))
def test_anything_is_a_name_a_refusal_or_too_little(data: bytes, step: int) -> None:
    """For any bytes, the result is a name, a refusal or incomplete, and never another exception."""
    with suppress(HelloError):
        read(data, step=step)


@given(at=st.integers(0, len(HELLO) - 1), to=st.integers(0, 255))
def test_a_changed_byte_never_makes_another_name_of_ours(at: int, to: int) -> None:
    """With one byte changed, the name is still one from the bytes, or none."""
    changed = HELLO[:at] + bytes((to,)) + HELLO[at + 1 :]
    try:
        name = read(changed)
    except HelloError:
        return
    assert name is None or name.encode("latin-1") in changed


def refusal(data: bytes) -> str:
    """Return why `data` is refused."""
    with pytest.raises(HelloError) as error:
        read(data)
    return str(error.value)


NO_TLS = "did not begin with a TLS ClientHello, and nothing but TLS leaves a Sandbox"
HIDDEN = "hides the name it asks for (Encrypted Client Hello), so it cannot be checked; turn that off"
NO_NAME = "names no host in its TLS ClientHello (SNI), so it cannot be checked"
NOT_ONE = "does not name exactly one host in its TLS ClientHello (SNI)"
SHORT = "sent a TLS ClientHello that is cut short"
ILL = "sent a TLS ClientHello that is not well formed"
HOST = server_name(NAME)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"GET / HTTP/1.1\r\n", NO_TLS),
        (b"SSH-2.0-x\r\n", NO_TLS),
        (b"\x80\x2e\x01\x00\x02", NO_TLS),
        (b"\x16\x02", NO_TLS),
        (b"\x16\x03\x01\x00\x00", "sent a TLS record of 0 bytes, which no client does"),
        (b"\x16\x03\x01\x40\x01", "sent a TLS record of 16385 bytes, which no client does"),
        (records(b"\2" + sized(b"x", 3)), "began with another TLS message than a ClientHello"),
        (records(b"\1\xff\xff\xff"), "announced a TLS ClientHello of 16777215 bytes"),
        (records(message([HOST]), 9)[:14] + records(b"\1\0", kind=21), NO_TLS),
        (records(message([HOST]) + b"\x0b"), "sent more than a ClientHello in its first TLS records"),
        (records(message([HOST], behind=b"x")), "sent a TLS ClientHello with something behind its extensions"),
        (records(message([HOST, HOST])), "sent a TLS ClientHello with one extension twice"),
        (records(message([HOST], session_id=bytes(33))), ILL),
        (records(b"\1" + sized(b"\3\3" + bytes(32), 3)), SHORT),
        (records(b"\1" + sized(b"\3\3" + bytes(32) + b"\0\0\0\1\0", 3)), ILL),
        (records(b"\1" + sized(b"\3\3" + bytes(32) + b"\0\0\2\x13\1\1\0", 3)), NO_NAME),
        (records(message([])), NO_NAME),
        (openssl_hello(None), NO_NAME),
        (records(message([server_name()])), SHORT),
        (records(message([server_name("")])), NOT_ONE),
        (records(message([server_name(NAME, "other.example.com")])), NOT_ONE),
        (records(message([server_name(NAME, kind=1)])), NOT_ONE),
        (records(message([(0, server_name(NAME)[1] + b"x")])), NOT_ONE),
        (records(message([HOST, (0xFE0D, b"\0" + bytes(40))])), HIDDEN),
    ],
)
def test_refusals(data: bytes, why: str) -> None:
    """Another protocol, no name, several, a hidden one, an ambiguous one and an endless one are refused."""
    assert refusal(data).startswith(why)


def test_the_time_it_takes_is_bounded() -> None:
    """With records of one byte, read one by one, the work grows linearly up to the limit."""
    endless = records(b"\1" + sized(bytes(HELLO_BYTES - 4), 3), *[1] * (HELLO_BYTES // 6 + 1))
    with pytest.raises(HelloError, match="without a whole TLS ClientHello"):
        read(endless, step=1)
