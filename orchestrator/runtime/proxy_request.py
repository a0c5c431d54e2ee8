"""The head of a request to the proxy inside a Sandbox (RFC 9110 9.3.6). Pure."""

import base64
import hmac
import re
from http import HTTPStatus

_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)


class RefusedError(Exception):
    """A request that gets this status and sentence for an answer."""

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def destination(head: str, credential: str) -> tuple[str, int]:
    """Read where a request's head wants to go, if it bears `credential` as the password: host and port.

    Raises:
        RefusedError: it is no such request.
    """
    request, *fields = head.rstrip("\r\n").split("\r\n")
    method, _, rest = request.partition(" ")
    target = rest.partition(" ")[0]
    if not hmac.compare_digest(_offered(fields).encode(), credential.encode()):
        sentence = "this proxy belongs to another skill; use the one that HTTPS_PROXY names"
        raise RefusedError(HTTPStatus.PROXY_AUTHENTICATION_REQUIRED, sentence)
    if method != "CONNECT":
        sentence = "only https leaves a Sandbox: use an https:// address, on port 443"
        raise RefusedError(HTTPStatus.FORBIDDEN, sentence)
    named, _, port = target.rpartition(":")
    host = named.removeprefix("[").removesuffix("]")
    if not host or _PORT.fullmatch(port) is None or not 0 < int(port) < 1 << 16:
        raise RefusedError(HTTPStatus.BAD_REQUEST, "CONNECT needs HOST:PORT")
    return host, int(port)


def _offered(fields: list[str]) -> str:
    for field in fields:
        name, _, value = field.partition(":")
        scheme, _, token = value.strip().partition(" ")
        if name.lower() == "proxy-authorization" and scheme.lower() == "basic":
            try:
                return base64.b64decode(token, validate=True).decode("latin-1").partition(":")[2]
            except ValueError:
                return ""
    return ""
