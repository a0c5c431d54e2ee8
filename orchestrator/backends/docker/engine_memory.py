"""What earlier orchestrators of this user found out about engines: empty files whose names hold all information.

    perstack-orch/engines/<digest of the engine's id and address>-no-sockets

The daemon takes its id from a key in /etc/docker, so engines of one machine may have one id.
"""

from contextlib import suppress
from pathlib import Path

from orchestrator.disk.caller import state_of_caller
from orchestrator.log import get_logger
from orchestrator.wire.identity import identify

_log = get_logger(__name__)
_NAME = "engines"


def has_refused_sockets(engine_id: str, address: str) -> bool:
    """Whether a Sandbox of this engine once did not reach its socket."""
    path = _path(engine_id, address)
    with suppress(OSError):
        return path is not None and path.exists()
    return False


def remember_refusal(engine_id: str, address: str) -> None:
    """Record that a Sandbox of this engine did not reach its socket; if it cannot be recorded, the next one tries."""
    path = _path(engine_id, address)
    if path is None:
        return
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        _log.debug("%s cannot be made: %s", path, error)


def _path(engine_id: str, address: str) -> Path | None:
    state = state_of_caller()
    if state is None or not engine_id:
        return None
    return state / _NAME / f"{identify(engine_id, address)}-no-sockets"
