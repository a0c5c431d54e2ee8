"""What a coordinator leaves in its Pod's status: why it ended, for when nobody listens and nothing is recorded yet."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from msgspec.json import Decoder

from orchestrator.backends.kubernetes_api import Object
from orchestrator.backends.kubernetes_state import container_state
from orchestrator.coordination.messages import Ended
from orchestrator.errors import WireError
from orchestrator.wire.frozen import Frozen, read_json

_FILE = Path("/dev/termination-log")
_MOST_CHARACTERS = 1500
"""A termination message has 4096 bytes at most, and a character is up to six in ASCII."""


class LastWords(Frozen):
    """How a coordinator ended; `recorded` is whether the records tell of the job."""

    ended: Ended
    recorded: bool


_LAST_WORDS = Decoder(LastWords)


def leave(ended: Ended, *, recorded: bool, file: Path = _FILE) -> None:
    """Write it where the kubelet looks for it."""
    short = None if ended.error is None else ended.error[:_MOST_CHARACTERS]
    words = LastWords(ended=ended.with_(error=short, outcome=None), recorded=recorded)
    # Outside a Pod there is no such file, and nobody who would look.
    with suppress(OSError):
        file.write_bytes(words.to_json())


def last_words(pods: Sequence[Object]) -> LastWords | None:
    """Read what the newest Pod left that ended in an error; None where it left nothing."""
    told: Object = container_state(pods[-1]).get("terminated") or {} if pods else {}
    if told.get("message"):
        with suppress(WireError):
            return read_json(_LAST_WORDS, told["message"])
    return None
