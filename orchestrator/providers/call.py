"""What a provider and the client of its API exchange about one call."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from orchestrator.http.server_sent_events import EventParser, ServerSentEvent
from orchestrator.wire.generation import Failure, Reply


class StreamParser(Protocol):
    """What makes events of a body."""

    def feed(self, content: bytes) -> Iterable[ServerSentEvent]:
        """Take the next bytes, and give the events that they complete.

        Raises:
            ValueError: they do not follow the format.
        """

    def end(self) -> Iterable[ServerSentEvent]:
        """End the body, and give the events that only its end completes.

        Raises:
            ValueError: as `feed`.
        """


class ReplyStream(Protocol):
    """What makes a reply of the events of one API."""

    def take(self, event: ServerSentEvent) -> None:
        """Process one event.

        Raises:
            ValueError, LookupError, TypeError, AttributeError: it does not follow the API's format.
        """

    @property
    def is_complete(self) -> bool:
        """Whether the rest of the stream can be ignored."""

    def outcome(self) -> Reply | Failure:
        """Return the result; call it after the last event."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is an error. `content` is its body, parsed if it is JSON, else as text; long ones are cut."""

    status: int
    headers: Mapping[str, str]
    content: Any

    @property
    def error(self) -> Mapping[str, Any]:
        """The object at `error` in the body; empty if it has none."""
        found = self.content.get("error") if isinstance(self.content, dict) else None
        return found if isinstance(found, dict) else {}

    @property
    def message(self) -> str | None:
        """The API's message, or the error itself if it is text; None if it has none."""
        found = self.error.get("message")
        if isinstance(self.content, dict) and isinstance(self.content.get("error"), str):
            found = self.content["error"]
        return str(found) if found else None


@dataclass(frozen=True, slots=True)
class Call:
    """A request for a reply. `path` is relative to the base URL, with its query; `timeout` is seconds of silence.

    `refused` makes a failure of the API's error, `parser` the events of the body.
    """

    path: str
    body: Mapping[str, Any]
    timeout: float
    refused: Callable[[Refusal], Failure]
    headers: Mapping[str, str] = field(default_factory=dict)
    parser: Callable[[], StreamParser] = EventParser
