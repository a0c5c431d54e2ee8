"""The events of a Gemini stream, in which an error may be without the form of an event."""

import json
from collections.abc import Iterator

from orchestrator.http.server_sent_events import EventParser, ServerSentEvent


class GeminiParser:
    """Turns the bytes of a stream into its events.

    The API writes an error amid a stream as lines of JSON, as Google's SDK has it. It also reads an event that the end
    of the stream has cut off.
    """

    def __init__(self) -> None:
        self._parser = EventParser()

    def feed(self, content: bytes) -> Iterator[ServerSentEvent]:
        """Take the next bytes, and give the events that they complete.

        Raises:
            ValueError: what comes is not UTF-8, or an event is too long.
        """
        yield from self._parser.feed(content)
        lines = self._parser.others
        if lines and lines[-1].rstrip().endswith("}"):
            text = "\n".join(lines)
            try:
                json.loads(text)
            except ValueError:
                return
            lines.clear()
            yield ServerSentEvent(text)

    def end(self) -> Iterator[ServerSentEvent]:
        """End the stream, and give what its last bytes were."""
        last = self._parser.rest()
        if self._parser.others:
            yield ServerSentEvent("\n".join(self._parser.others))
        if last is not None:
            yield last
