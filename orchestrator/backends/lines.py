"""Chunks of bytes to lines, in bounded memory."""


class LineSplitter:
    """Cuts a byte stream into lines without their newline.

    A line that with its newline is longer than `limit` bytes is left out and counted in `dropped`.
    """

    def __init__(self, limit: int) -> None:
        self.dropped = 0
        self._limit = limit
        self._begun = bytearray()
        self._skipping = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take the next bytes and give the lines they complete."""
        *ends, begun = chunk.split(b"\n")
        lines = [line for end in ends if (line := self._complete(end)) is not None]
        self._extend(begun)
        return lines

    def rest(self) -> bytes | None:
        """Give what stands after the last newline, if anything; for the end of a stream that was not cut."""
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
