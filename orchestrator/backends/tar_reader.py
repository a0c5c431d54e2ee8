"""Reads a tar archive as it arrives. Only what an engine writes is understood; anything else is an error; pure.

The formats are ustar, and the extended headers of pax and GNU for long names and large numbers (POSIX.1-2017, pax,
"ustar Interchange Format" and "pax Extended Header": https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html).
The archive comes from a container, so its numbers and names may be anything.
"""

from collections.abc import Iterator
from dataclasses import dataclass

BLOCK = 512
_MOST_EXTRA = 1024 * 1024
"""Bytes of one extended header: Podman puts all extended attributes of a file there."""
_CHECKSUM = slice(148, 156)
_REGULAR, _LINKS, _EXTENDED = b"0\0007", b"12", b"xgLK"
_MOST_SECONDS = 2**40


class ArchiveError(Exception):
    """The archive is not what an engine sends; the text is a predicate, such as "ends in the middle"."""


@dataclass(frozen=True, slots=True)
class Member:
    """One member. `type` is the character of its type, `size` the bytes of content that follow it.

    `link` is the target of a symbolic or hard link. `modified` is Unix time in nanoseconds.
    """

    name: bytes
    type: bytes
    size: int
    mode: int
    link: bytes
    modified: int

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file with its own content."""
        return self.type in (b"0", b"\0", b"7")


class TarReader:
    """Gives the members of one archive, each followed by the pieces of its content."""

    def __init__(self) -> None:
        self._rest = b""
        self._content = 0
        self._padding = 0
        self._next_padding = 0
        self._extra: tuple[bytes, int] | None = None
        self._overrides: dict[bytes, bytes] = {}
        self._ended = False

    def feed(self, data: bytes) -> Iterator[Member | bytes]:
        """Take the next bytes of the archive; yield what they complete.

        Raises:
            ArchiveError: it is damaged, or has something that no engine writes.
        """
        rest, at = self._rest + data, 0
        while True:
            if self._padding:
                step = min(self._padding, len(rest) - at)
                self._padding, at = self._padding - step, at + step
            if self._content:
                step = min(self._content, len(rest) - at)
                if step:
                    yield rest[at : at + step]
                self._content, at = self._content - step, at + step
                if not self._content:
                    self._padding = self._next_padding
                    continue
            needed = BLOCK if self._extra is None else _padded(self._extra[1])
            if self._padding or self._content or len(rest) - at < needed or self._ended:
                break
            block, at = rest[at : at + needed], at + needed
            if self._extra is not None:
                self._override(self._extra[0], block[: self._extra[1]])
                self._extra = None
            elif (member := self._header(block)) is not None:
                self._content, self._next_padding = member.size, -member.size % BLOCK
                yield member
        # What follows the end of the archive is padding.
        self._rest = b"" if self._ended else rest[at:]

    def close(self) -> None:
        """Check that the archive was complete.

        Raises:
            ArchiveError: it was not.
        """
        if not self._ended:
            message = "ends in the middle"
            raise ArchiveError(message)

    def _header(self, block: bytes) -> Member | None:
        if not any(block):
            self._ended = True
            return None
        if _number(block[_CHECKSUM]) != sum(block) - sum(block[_CHECKSUM]) + 8 * ord(" "):
            message = "is damaged"
            raise ArchiveError(message)
        kind, size = block[156:157], _number(block[124:136])
        if kind in _EXTENDED:
            if size > _MOST_EXTRA:
                message = "has a name, or attributes of a file, that are too long"
                raise ArchiveError(message)
            self._extra = kind, size
            return None
        overrides, self._overrides = self._overrides, {}
        name = _text(block[:100])
        if block[257:263] == b"ustar\0" and (prefix := _text(block[345:500])):
            name = prefix + b"/" + name
        if b"size" in overrides:
            size = _decimal(overrides[b"size"])
        if kind in _LINKS or kind == b"5":
            size = 0
        return Member(
            name=overrides.get(b"path", name),
            type=b"0" if kind in _REGULAR else kind,
            size=size,
            mode=_number(block[100:108]),
            link=overrides.get(b"linkpath", _text(block[157:257])),
            modified=_nanoseconds(overrides[b"mtime"]) if b"mtime" in overrides else _number(block[136:148]) * 10**9,
        )

    def _override(self, kind: bytes, content: bytes) -> None:
        match kind:
            case b"L":
                self._overrides[b"path"] = _text(content)
            case b"K":
                self._overrides[b"linkpath"] = _text(content)
            case b"x":
                self._overrides |= _records(content)


def _padded(size: int) -> int:
    return size + -size % BLOCK


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes) -> int:
    """Read a number: octal digits, or binary if it is too large for them (GNU)."""
    if field[0] & 0x80:
        value = int.from_bytes(bytes((field[0] & 0x7F,)) + field[1:], "big")
        if field[0] & 0x40:
            message = "has a negative number"
            raise ArchiveError(message)
        return value
    digits = field.strip(b" \0") or b"0"
    if not digits.isdigit() or b"8" in digits or b"9" in digits:
        message = "has a number that is none"
        raise ArchiveError(message)
    return int(digits, 8)


def _decimal(field: bytes) -> int:
    if not field.isdigit() or len(field) > 19:  # noqa: PLR2004 - digits of 2^63
        message = "has a number that is none"
        raise ArchiveError(message)
    return int(field)


def _nanoseconds(field: bytes) -> int:
    whole, _, part = field.removeprefix(b"-").partition(b".")
    if field.startswith(b"-"):
        return 0
    seconds = min(_decimal(whole), _MOST_SECONDS)
    return seconds * 10**9 + _decimal((part[:9] or b"0").ljust(9, b"0"))


def _records(content: bytes) -> dict[bytes, bytes]:
    """Read the records of a pax header: `LENGTH KEY=VALUE`, each with a newline."""
    found: dict[bytes, bytes] = {}
    while content:
        length, space, _ = content[:8].partition(b" ")
        end = _decimal(length) if space else 0
        record = content[len(length) + 1 : end]
        if end <= len(length) + 1 or end > len(content) or not record.endswith(b"\n") or b"=" not in record:
            message = "has a damaged header"
            raise ArchiveError(message)
        key, _, value = record[:-1].partition(b"=")
        found[key] = value
        content = content[end:]
    return found
