"""Reads the server name from the first bytes of a TLS client (RFC 8446 4.1.2, RFC 6066 3); pure.

Strict on purpose: ambiguous bytes are refused, so that no server reads another name than this module.
"""

from dataclasses import dataclass

HELLO_BYTES = 32 * 1024
"""The largest ClientHello; with the key shares of today's hybrids it has about two thousand bytes."""

UNRECOGNIZED_NAME = bytes((21, 3, 3, 0, 2, 2, 112))
"""The alert of a TLS server that does not serve that name (RFC 6066 3): fatal, 112."""

_HANDSHAKE, _CLIENT_HELLO = 22, 1
_MAJOR_VERSION = 3
_RECORD_HEADER, _MESSAGE_HEADER = 5, 4
_RECORD_BYTES = 16 * 1024
_VERSION_AND_RANDOM = 2 + 32
_SESSION_ID_BYTES = 32
_SERVER_NAME, _ENCRYPTED_CLIENT_HELLO = 0, 0xFE0D
_HOST_NAME = 0


class HelloError(ValueError):
    """The bytes are no ClientHello that names exactly one host; the text completes a sentence that begins with "it"."""


@dataclass(frozen=True, slots=True)
class _Fields:
    """Bytes that are taken from the front, field by field."""

    data: bytes

    def take(self, size: int) -> tuple[bytes, "_Fields"]:
        if size > len(self.data):
            message = "sent a TLS ClientHello that is cut short"
            raise HelloError(message)
        return self.data[:size], _Fields(self.data[size:])

    def number(self, size: int) -> tuple[int, "_Fields"]:
        taken, rest = self.take(size)
        return int.from_bytes(taken), rest

    def sized(self, size: int) -> tuple[bytes, "_Fields"]:
        """Take a field with its length before it, in `size` bytes."""
        length, rest = self.number(size)
        return rest.take(length)


class HelloReader:
    """Assembles a ClientHello from bytes as they arrive, however they are split into records or reads."""

    def __init__(self) -> None:
        self.seen = bytearray()
        """All bytes so far, those after the ClientHello too: what is later sent to the server."""
        self._at = 0
        self._message = bytearray()

    def feed(self, data: bytes) -> str | None:
        """Take the next bytes; return the server's name once the ClientHello is complete, None before.

        Raises:
            HelloError: it is not a ClientHello, names no host or several, hides its name, or is too long.
        """
        self.seen += data
        while (record := self._record()) is not None:
            self._message += record
            name = _server_name(bytes(self._message))
            if name is not None:
                return name
        if len(self.seen) >= HELLO_BYTES:
            message = f"sent more than {HELLO_BYTES} bytes without a whole TLS ClientHello"
            raise HelloError(message)
        return None

    def _record(self) -> bytes | None:
        """Take the next record's content; None while it is incomplete."""
        header = self.seen[self._at : self._at + _RECORD_HEADER]
        # Refuse at the first wrong byte: other protocols must not wait for the rest.
        if header[:1] not in (b"", bytes((_HANDSHAKE,))) or header[1:2] not in (b"", bytes((_MAJOR_VERSION,))):
            message = "did not begin with a TLS ClientHello, and nothing but TLS leaves a Sandbox"
            raise HelloError(message)
        if len(header) < _RECORD_HEADER:
            return None
        length = int.from_bytes(header[3:])
        if not 0 < length <= _RECORD_BYTES:
            message = f"sent a TLS record of {length} bytes, which no client does"
            raise HelloError(message)
        begin = self._at + _RECORD_HEADER
        if len(self.seen) < begin + length:
            return None
        self._at = begin + length
        return bytes(self.seen[begin : self._at])


def _server_name(message: bytes) -> str | None:
    """Read the one name in a handshake message; None while it is incomplete."""
    if message[0] != _CLIENT_HELLO:
        refused = "began with another TLS message than a ClientHello"
        raise HelloError(refused)
    if len(message) < _MESSAGE_HEADER:
        return None
    length = int.from_bytes(message[1:_MESSAGE_HEADER])
    if length > HELLO_BYTES:
        refused = f"announced a TLS ClientHello of {length} bytes"
        raise HelloError(refused)
    if len(message) < _MESSAGE_HEADER + length:
        return None
    if len(message) > _MESSAGE_HEADER + length:
        refused = "sent more than a ClientHello in its first TLS records"
        raise HelloError(refused)
    return _name_in(_extensions(_Fields(message[_MESSAGE_HEADER:])))


def _extensions(fields: _Fields) -> dict[int, bytes]:
    _, fields = fields.take(_VERSION_AND_RANDOM)
    session_id, fields = fields.sized(1)
    cipher_suites, fields = fields.sized(2)
    compressions, fields = fields.sized(1)
    if len(session_id) > _SESSION_ID_BYTES or not cipher_suites or len(cipher_suites) % 2 or not compressions:
        message = "sent a TLS ClientHello that is not well formed"
        raise HelloError(message)
    listed, rest = fields.sized(2) if fields.data else (b"", fields)
    if rest.data:
        message = "sent a TLS ClientHello with something behind its extensions"
        raise HelloError(message)
    found: dict[int, bytes] = {}
    fields = _Fields(listed)
    while fields.data:
        kind, fields = fields.number(2)
        content, fields = fields.sized(2)
        if kind in found:
            message = "sent a TLS ClientHello with one extension twice"
            raise HelloError(message)
        found[kind] = content
    return found


def _name_in(extensions: dict[int, bytes]) -> str:
    if _ENCRYPTED_CLIENT_HELLO in extensions:
        message = "hides the name it asks for (Encrypted Client Hello), so it cannot be checked; turn that off"
        raise HelloError(message)
    if _SERVER_NAME not in extensions:
        message = "names no host in its TLS ClientHello (SNI), so it cannot be checked"
        raise HelloError(message)
    names, rest = _Fields(extensions[_SERVER_NAME]).sized(2)
    kind, fields = _Fields(names).number(1)
    name, after = fields.sized(2)
    if kind != _HOST_NAME or rest.data or after.data or not name:
        message = "does not name exactly one host in its TLS ClientHello (SNI)"
        raise HelloError(message)
    return name.decode("latin-1")
