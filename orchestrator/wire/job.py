"""The record of a job (spec 4.5)."""

from collections.abc import Mapping
from enum import StrEnum

from orchestrator.wire.frozen import Frozen
from orchestrator.wire.usage import Usage


class JobStatus(StrEnum):
    """Where a job stands. `cancelled` is ours: stopped from outside, resumable."""

    RUNNING = "running"
    COMPLETED = "completed"
    STOPPED_BY_MAX_STEPS = "stoppedByMaxSteps"
    STOPPED_BY_INTERACTIVE_TOOL = "stoppedByInteractiveTool"
    STOPPED_BY_ERROR = "stoppedByError"
    CANCELLED = "cancelled"


class JobRecord(Frozen):
    """`job.json`. Times are Unix milliseconds; `experts` are digests of the Experts it can reach, by key."""

    id: str
    status: JobStatus = JobStatus.RUNNING
    coordinator_expert_key: str
    total_steps: int = 0
    max_steps: int | None = None
    usage: Usage = Usage()
    started_at: int
    finished_at: int | None = None
    experts: Mapping[str, str] = {}
