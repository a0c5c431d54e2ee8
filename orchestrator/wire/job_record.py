"""The record of a job (docs/reference/perstack.md#steps-jobs-and-run-settings)."""

from collections.abc import Mapping
from enum import StrEnum

from orchestrator.wire.frozen import Frozen
from orchestrator.wire.usage import Usage


class JobStatus(StrEnum):
    """The state of a job. `cancelled` is not from Perstack: the job was stopped from outside and can be resumed."""

    RUNNING = "running"
    COMPLETED = "completed"
    STOPPED_BY_MAX_STEPS = "stoppedByMaxSteps"
    STOPPED_BY_INTERACTIVE_TOOL = "stoppedByInteractiveTool"
    STOPPED_BY_ERROR = "stoppedByError"
    CANCELLED = "cancelled"


class JobRecord(Frozen):
    """`job.json`. Times are Unix milliseconds; `experts` maps the key of each reachable Expert to its digest."""

    id: str
    status: JobStatus = JobStatus.RUNNING
    coordinator_expert_key: str
    total_steps: int = 0
    max_steps: int | None = None
    usage: Usage = Usage()
    started_at: int
    finished_at: int | None = None
    experts: Mapping[str, str] = {}
