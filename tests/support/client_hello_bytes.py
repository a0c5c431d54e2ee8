"""What TLS clients send first: as OpenSSL writes it, and put together by hand, field by field."""

import ssl
from collections.abc import Sequence
from contextlib import suppress

HANDSHAKE = 22


def openssl_hello(host: str | None, *, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> bytes:
    """The ClientHello of the standard library's client that connects to `host`; None sends no name."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = version
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=host)
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def sized(content: bytes, size: int) -> bytes:
    """A field with its length before it."""
    return len(content).to_bytes(size) + content


def server_name(*names: str, kind: int = 0) -> tuple[int, bytes]:
    """The extension that names hosts (RFC 6066 3)."""
    return 0, sized(b"".join(bytes((kind,)) + sized(name.encode(), 2) for name in names), 2)


def message(extensions: Sequence[tuple[int, bytes]], *, session_id: bytes = b"", behind: bytes = b"") -> bytes:
    """A ClientHello as a handshake message (RFC 8446 4.1.2)."""
    listed = b"".join(kind.to_bytes(2) + sized(content, 2) for kind, content in extensions)
    body = b"\3\3" + bytes(32) + sized(session_id, 1) + sized(b"\x13\x01", 2) + sized(b"\0", 1)
    return b"\1" + sized(body + sized(listed, 2) + behind, 3)


def records(content: bytes, *sizes: int, kind: int = HANDSHAKE) -> bytes:
    """Cut a message into TLS records of these sizes, the rest into one more."""
    cut = b""
    for size in sizes:
        cut, content = cut + _record(content[:size], kind), content[size:]
    return cut + _record(content, kind) if content else cut


def _record(content: bytes, kind: int) -> bytes:
    return bytes((kind, 3, 1)) + sized(content, 2)
