import pytest

from orchestrator.backends import open_backend
from orchestrator.log import get_logger


async def test_the_old_callbacks_still_get_what_a_backend_logs() -> None:
    """With a warning at the caller's line: its details go to one, its messages to the other, until the block ends."""
    notes: list[str] = []
    announced: list[str] = []
    backend = get_logger("orchestrator.backends.process.backend")
    opened = open_backend("process", {}, image="", note=notes.append, announce=announced.append)
    with pytest.warns(DeprecationWarning, match=r"^open_backend\(note=, announce=\) is now the logger") as warned:
        await opened.__aenter__()
    backend.debug("the log was cut")
    backend.info("it waits")
    get_logger("orchestrator.pool.pool").info("not of a backend")
    await opened.__aexit__(None, None, None)
    backend.info("afterwards")
    assert (notes, announced) == (["the log was cut"], ["it waits"])
    assert [each.filename for each in warned] == [__file__]
