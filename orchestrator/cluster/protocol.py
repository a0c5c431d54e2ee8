"""The protocol between a coordinator and its watchers: lines over one connection.

A watcher sends one `Subscribe`. Then the other side sends: an event as `=` and its line in the records, any other
message as the JSON of a `JobStarted`, `LogMessage`, `Heartbeat` or `JobEnded`; the last is `JobEnded`.
"""

from typing import Any

from msgspec import field
from msgspec.json import Decoder, decode, encode

from orchestrator.errors import WireError
from orchestrator.jobs.outcome import Outcome
from orchestrator.wire.frozen import Frozen, Tagged, read_json

PORT = 7445
"""The port for watchers, at the Pod's own 127.0.0.1."""

HEARTBEAT_SECONDS = 10.0
"""How often a message is sent at least, so that a watcher notices a dead connection."""

EVENT = b"="

FINAL = frozenset({0, 1, 2, 4})
"""Exit codes of a coordinator after which its Job is over, as in its `podFailurePolicy`."""


class Subscribe(Frozen):
    """A request for the job's events after a position; without one, for all that the coordinator's Job `uid` added.

    `where` are the options that locate it, as typed by the user. `last_log_number` is that of the last log message
    that is known. With `command`, the process that reads records sends that command's output, its lines as if they were
    events.
    """

    job_id: str = ""
    where: tuple[str, ...] = ()
    uid: str = ""
    after: int | None = None
    last_log_number: int = field(default=0, name="said")
    command: tuple[str, ...] = ()


class JobStarted(Tagged, tag="began"):
    """The coordinator's Job began after the event at this position; the coordinator Expert and its step limit."""

    after: int
    expert_key: str = ""
    max_steps: int | None = None


class LogMessage(Tagged, tag="remark"):
    """A line for stderr, as a report's `say`, `warn` or `note` would write it."""

    number: int
    level: str
    text: str


class Heartbeat(Tagged, tag="beat"):
    """No news, but the connection works."""


class JobEnded(Tagged, tag="ended"):
    """The coordinator ended with this exit code: with the job's outcome, or with an error of the platform.

    `outcome` is an `Outcome`, as JSON.
    """

    code: int
    outcome: dict[str, Any] | None = None
    error: str | None = None

    @property
    def is_final(self) -> bool:
        """Whether the cluster does not restart the coordinator."""
        return self.code in FINAL

    @classmethod
    def of(cls, code: int, outcome: Outcome) -> "JobEnded":
        """Describe how a job ended."""
        return cls(code=code, outcome=decode(encode(outcome)))

    def read(self) -> Outcome | None:
        """Return how the job ended.

        Raises:
            WireError: the outcome does not follow the protocol.
        """
        return None if self.outcome is None else read_json(_OUTCOME, encode(self.outcome))


Message = JobStarted | LogMessage | Heartbeat | JobEnded
_OUTCOME = Decoder(Outcome)
_SUBSCRIBE = Decoder(Subscribe)
_MESSAGE: Decoder[Message] = Decoder(Message)


def read_subscribe(line: bytes) -> Subscribe:
    """Read a watcher's request.

    Raises:
        WireError: the line is not a request.
    """
    return read_json(_SUBSCRIBE, line)


def read_message(line: bytes) -> Message | bytes:
    """Read a coordinator's line: an event's line, or a message.

    Raises:
        WireError: it is neither; the coordinator has another version.
    """
    if line.startswith(EVENT):
        return line[len(EVENT) :]
    try:
        return read_json(_MESSAGE, line)
    except WireError as error:
        message = f"the coordinator sent what this version cannot read ({error}); use the cluster's version"
        raise WireError(message) from error
