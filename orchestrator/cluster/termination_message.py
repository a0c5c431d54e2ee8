"""A coordinator's termination message: why it ended, for when no client watches and nothing is recorded yet."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from msgspec.json import Decoder

from orchestrator.backends.kubernetes.client import Object
from orchestrator.backends.kubernetes.pod_state import container_state
from orchestrator.cluster.protocol import JobEnded
from orchestrator.errors import WireError
from orchestrator.wire.frozen import Frozen, read_json

_FILE = Path("/dev/termination-log")
_MOST_CHARACTERS = 1500
"""A termination message has 4096 bytes at most, and ASCII needs up to six of them for a character."""


class TerminationMessage(Frozen):
    """How a coordinator ended; `recorded` is true if the job has records."""

    ended: JobEnded
    recorded: bool


_MESSAGE = Decoder(TerminationMessage)


def write_termination_message(ended: JobEnded, *, recorded: bool, file: Path = _FILE) -> None:
    """Write the termination message where the kubelet reads it."""
    short = None if ended.error is None else ended.error[:_MOST_CHARACTERS]
    message = TerminationMessage(ended=ended.with_(error=short, outcome=None), recorded=recorded)
    # Outside a Pod this file does not exist and is not needed.
    with suppress(OSError):
        file.write_bytes(message.to_json())


def read_termination_message(pods: Sequence[Object]) -> TerminationMessage | None:
    """Read the newest Pod's termination message; None if it has none."""
    terminated: Object = container_state(pods[-1]).get("terminated") or {} if pods else {}
    if terminated.get("message"):
        with suppress(WireError):
            return read_json(_MESSAGE, terminated["message"])
    return None
