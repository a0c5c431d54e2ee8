"""What a coordinator and whoever watches it say to each other: lines over one connection.

A watcher begins with one `Follow`. Then the other side talks: an event as `=` and its line in the records, anything
else as the JSON of a `Began`, `Remark`, `Beat` or `Ended`; the last is `Ended`.
"""

from typing import Any

from msgspec.json import Decoder, decode, encode

from orchestrator.errors import WireError
from orchestrator.outcome import Outcome
from orchestrator.wire.frozen import Frozen, Tagged, read_json

PORT = 7445
"""Where a coordinator listens for watchers, at its Pod's own 127.0.0.1."""

BEAT_SECONDS = 10.0
"""How often it says that it is there while it has nothing to say."""

EVENT = b"="

FINAL = frozenset({0, 1, 2, 4})
"""Exit codes of a coordinator after which its Job is over, as its `podFailurePolicy` has it."""


class Follow(Frozen):
    """Asks for the job's events after a position, without one for all that the coordinator's Job `uid` added.

    `where` are the options that say where it is, as a person types them. `said` is the number of the last remark that
    is known already. With `command` it asks whoever reads records for what that command about them writes, its lines
    as if they were events.
    """

    job_id: str = ""
    where: tuple[str, ...] = ()
    uid: str = ""
    after: int | None = None
    said: int = 0
    command: tuple[str, ...] = ()


class Began(Tagged):
    """The coordinator's Job began after the event at this position; whose work it is, and how far it may go."""

    after: int
    expert_key: str = ""
    max_steps: int | None = None


class Remark(Tagged):
    """Something for stderr, as `say`, `warn` or `note` of a report would write it."""

    number: int
    level: str
    text: str


class Beat(Tagged):
    """Nothing happens, and the connection is whole."""


class Ended(Tagged):
    """The coordinator has ended with this exit code: with an outcome of the job, or with an error of the platform.

    `outcome` is an `Outcome`, as JSON.
    """

    code: int
    outcome: dict[str, Any] | None = None
    error: str | None = None

    @property
    def is_final(self) -> bool:
        """Whether the cluster does not begin the coordinator again."""
        return self.code in FINAL

    @classmethod
    def of(cls, code: int, outcome: Outcome) -> "Ended":
        """Say how a job ended."""
        return cls(code=code, outcome=decode(encode(outcome)))

    def read(self) -> Outcome | None:
        """Give how the job ended.

        Raises:
            WireError: it is not what was agreed.
        """
        return None if self.outcome is None else read_json(_OUTCOME, encode(self.outcome))


Message = Began | Remark | Beat | Ended
_OUTCOME = Decoder(Outcome)
_FOLLOW = Decoder(Follow)
_MESSAGE: Decoder[Message] = Decoder(Message)


def read_follow(line: bytes) -> Follow:
    """Read what a watcher asks for.

    Raises:
        WireError: it is something else.
    """
    return read_json(_FOLLOW, line)


def read_message(line: bytes) -> Message | bytes:
    """Read what a coordinator says: an event's line, or a message.

    Raises:
        WireError: it is neither; another version said it.
    """
    if line.startswith(EVENT):
        return line[len(EVENT) :]
    try:
        return read_json(_MESSAGE, line)
    except WireError as error:
        message = f"the coordinator says what this version does not understand ({error}); use the cluster's version"
        raise WireError(message) from error
