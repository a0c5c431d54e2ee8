"""What every event has, and the two families (spec 3.1)."""

from typing import Annotated

from msgspec import Meta

from orchestrator.wire.frozen import Tagged

_LATEST = 253_402_300_799_999
"""The end of the year 9999, the last that dates know: a container says when."""


class AnyEvent(Tagged):
    """What all events have.

    `timestamp` is Unix milliseconds. `seq` counts from 1 within an attempt and is absent from events made on the host;
    `position` counts from 1 within the job and is given by the store.
    """

    id: str
    timestamp: Annotated[int, Meta(ge=0, le=_LATEST)]
    job_id: str
    run_id: str
    attempt: int | None = None
    seq: int | None = None
    position: int | None = None


class RuntimeEvent(AnyEvent):
    """An event about the platform around the Expert."""


class RunEvent(AnyEvent):
    """An event of the Expert's own work."""

    expert_key: str
    step_number: int
