"""Splits chunks of bytes into lines, in bounded memory."""


class LineSplitter:
    """Splits a byte stream into lines without their newline.

    A line that is longer than `limit` bytes with its newline is dropped and counted in `dropped`.
    """

    def __init__(self, limit: int) -> None:
        self.dropped = 0
        self._limit = limit
        self._begun = bytearray()
        self._skipping = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take the next bytes and return the lines they complete."""
        *ends, begun = chunk.split(b"\n")
        lines = [line for end in ends if (line := self._complete(end)) is not None]
        self._extend(begun)
        return lines

    def rest(self) -> bytes | None:
        """Return the bytes after the last newline, if any; for the end of a stream that was not cut."""
        rest = bytes(self._begun)
        self._begun.clear()
        return rest or None

    def _complete(self, end: bytes) -> bytes | None:
        self._extend(end)
        line, skipped = bytes(self._begun), self._skipping
        self._begun.clear()
        self._skipping = False
        return None if skipped else line

    def _extend(self, part: bytes) -> None:
        if self._skipping:
            return
        if len(self._begun) + len(part) >= self._limit:
            self._begun.clear()
            self._skipping = True
            self.dropped += 1
        else:
            self._begun += part
