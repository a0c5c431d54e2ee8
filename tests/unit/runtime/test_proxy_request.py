"""Any request head sent to the proxy results in a host and port, if the credential is correct, or in a refusal."""

import base64
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.runtime.connect_proxy import RefusedError, destination

CREDENTIAL = "c0ffee"
TOKENS = st.text(st.characters(codec="latin-1", exclude_characters="\r\n:"), max_size=12)
PARTS = st.sampled_from(
    ["CONNECT ", "GET ", "a.test", ":443", "[::1]", " HTTP/1.1", "\r\n", "Proxy-Authorization: ", "Basic ", ":", " "]
)


def login(password: str, scheme: str = "Basic") -> str:
    """The header field with a password."""
    return f"Proxy-Authorization: {scheme} " + base64.b64encode(f"x:{password}".encode("latin-1")).decode()


def outcome(head: str) -> HTTPStatus | tuple[str, int]:
    """The destination of a request head, or the status of its refusal."""
    try:
        return destination(head, CREDENTIAL)
    except RefusedError as refusal:
        return refusal.status


@given(head=st.one_of(st.text(st.characters(codec="latin-1"), max_size=300), st.lists(PARTS, max_size=20).map("".join)))
def test_nothing_gets_anywhere_without_the_credential(head: str) -> None:
    """Without the credential every head is refused, never with another error."""
    assert outcome(head) is HTTPStatus.PROXY_AUTHENTICATION_REQUIRED


@given(password=TOKENS)
def test_another_password_is_refused(password: str) -> None:
    """Only the exact credential is accepted."""
    expected = ("a.test", 443) if password == CREDENTIAL else HTTPStatus.PROXY_AUTHENTICATION_REQUIRED
    assert outcome(f"CONNECT a.test:443 HTTP/1.1\r\n{login(password)}\r\n\r\n") == expected


@given(
    target=st.text(st.characters(codec="latin-1", exclude_characters="\r\n "), max_size=60), port=st.integers(-9, 99999)
)
def test_each_request_has_a_host_and_a_port_or_is_refused(target: str, port: int) -> None:
    """A host is never empty and contains no line break; a port is in the valid range."""
    found = outcome(f"CONNECT {target}:{port} HTTP/1.1\r\n{login(CREDENTIAL)}\r\n\r\n")
    if isinstance(found, HTTPStatus):
        assert found is HTTPStatus.BAD_REQUEST
        return
    host, asked = found
    assert host
    assert not set(host) & set("\r\n ")
    assert (asked, 0 < asked < 1 << 16) == (port, True)


@pytest.mark.parametrize("target", ["a.test:" + "9" * 5000, "[]:443", ":443", "a.test", "a.test:", "a:0", "a:\uff11"])
def test_targets_that_are_none(target: str) -> None:
    """A missing, invalid or too long port and a missing host are refused."""
    assert outcome(f"CONNECT {target} HTTP/1.1\r\n{login(CREDENTIAL)}\r\n\r\n") is HTTPStatus.BAD_REQUEST


@pytest.mark.parametrize("method", ["GET", "POST", "connect", "CONNECTED", ""])
def test_only_connect_leads_out(method: str) -> None:
    """Methods other than CONNECT, as for plain http, are refused."""
    assert outcome(f"{method} http://a.test/ HTTP/1.1\r\n{login(CREDENTIAL)}\r\n\r\n") is HTTPStatus.FORBIDDEN


@pytest.mark.parametrize("scheme", ["basic", "BASIC", "Basic"])
def test_a_scheme_s_letters_do_not_matter(scheme: str) -> None:
    """The scheme is not case-sensitive (RFC 9110)."""
    assert outcome(f"CONNECT [::1]:443 HTTP/1.1\r\n{login(CREDENTIAL, scheme)}\r\n\r\n") == ("::1", 443)
