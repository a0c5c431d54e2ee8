"""Other output of a skill than its answers: limited numbers of events, and its end for error messages."""

import codecs

from orchestrator.runtime.emit import Emitter
from orchestrator.wire.event import SkillStderr

CHUNK_BYTES = 4096
"""The most bytes that one event carries."""
_EVENTS = 100
_TAIL_CHARACTERS = 600
_TAIL_LINES = 4


class SkillLog:
    """The stderr of one skill, and its output on stdout that is not a message."""

    def __init__(self, skill_name: str, emitter: Emitter) -> None:
        self._skill_name = skill_name
        self._emitter = emitter
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._events = 0
        self._tail = ""

    def write(self, chunk: bytes) -> None:
        """Process the next bytes of stderr, CHUNK_BYTES at most."""
        self._show(self._decoder.decode(chunk))

    def write_noise(self, line: bytes) -> None:
        """Process a line of stdout that is not a message of the protocol."""
        self._show(f"(stdout) {line[: CHUNK_BYTES // 2].decode(errors='replace')}\n")

    def tail(self) -> str:
        """The last lines, as a clause for the end of a sentence; empty if the skill wrote nothing."""
        lines = [line.strip() for line in self._tail.splitlines() if line.strip()][-_TAIL_LINES:]
        return f"; it last wrote: {' | '.join(lines)}" if lines else ""

    def _show(self, text: str) -> None:
        self._tail = (self._tail + text)[-_TAIL_CHARACTERS:]
        message = text.strip()
        if not message or self._events > _EVENTS:
            return
        self._events += 1
        if self._events > _EVENTS:
            message = f"[skill {self._skill_name!r} wrote {_EVENTS} pieces to its stderr; the rest is not shown]"
        self._emitter.emit(SkillStderr, skill_name=self._skill_name, message=message)
