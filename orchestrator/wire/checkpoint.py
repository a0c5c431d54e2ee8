"""Checkpoints: everything needed to continue an Expert's work.

See docs/reference/perstack.md#checkpoints and docs/reference/perstack.md#steps-jobs-and-run-settings.
"""

from enum import StrEnum
from typing import Any

from orchestrator.wire.expert import ExpertId
from orchestrator.wire.frozen import Frozen
from orchestrator.wire.identity import start_id, step_id
from orchestrator.wire.message import Message, ToolCall, ToolResult
from orchestrator.wire.usage import Usage

_GENERATIONS = "generations"
"""The metadata field with the number of model calls a Run has made. The Run that continues counts from there."""

_MAX_GENERATIONS = 10**9


class Status(StrEnum):
    """The state of an Expert's work."""

    INIT = "init"
    PROCEEDING = "proceeding"
    COMPLETED = "completed"
    STOPPED_BY_INTERACTIVE_TOOL = "stoppedByInteractiveTool"
    STOPPED_BY_DELEGATE = "stoppedByDelegate"
    STOPPED_BY_EXCEEDED_MAX_STEPS = "stoppedByExceededMaxSteps"
    STOPPED_BY_ERROR = "stoppedByError"


class DelegateTo(Frozen):
    """One pending call to another Expert."""

    expert: ExpertId
    tool_call_id: str
    tool_name: str
    query: str


class DelegatedBy(Frozen):
    """Identifies the call that started a delegate."""

    expert: ExpertId
    tool_call_id: str
    tool_name: str
    checkpoint_id: str
    run_id: str


class RunError(Frozen):
    """Why a Run ended in error. `status_code` is the HTTP status of the model's API, if it returned one."""

    name: str
    message: str
    status_code: int | None = None
    is_retryable: bool = False


class CheckpointHead(Frozen):
    """A checkpoint as events carry it. `messages` is None unless the job asked for full detail."""

    id: str
    job_id: str
    run_id: str
    status: Status
    step_number: int
    messages: tuple[Message, ...] | None = None
    expert: ExpertId
    delegate_to: tuple[DelegateTo, ...] | None = None
    delegated_by: DelegatedBy | None = None
    usage: Usage
    context_window: int | None = None
    context_window_usage: float | None = None
    pending_tool_calls: tuple[ToolCall, ...] | None = None
    partial_tool_results: tuple[ToolResult, ...] | None = None
    metadata: dict[str, Any] | None = None
    error: RunError | None = None
    retry_count: int | None = None


class Checkpoint(CheckpointHead):
    """A complete checkpoint, as the broker receives it and the store keeps it."""

    messages: tuple[Message, ...]

    @classmethod
    def initial(
        cls, job_id: str, run_id: str, expert: ExpertId, step_number: int, delegated_by: DelegatedBy | None = None
    ) -> "Checkpoint":
        """Return the checkpoint from which a Run without a conversation starts."""
        return cls(
            id=start_id(run_id),
            job_id=job_id,
            run_id=run_id,
            status=Status.INIT,
            step_number=step_number,
            messages=(),
            expert=expert,
            delegated_by=delegated_by,
            usage=Usage(),
        )

    def continued_by(self, run_id: str, step_number: int, **changes: Any) -> "Checkpoint":
        """Return the checkpoint from which another Run continues this conversation."""
        return self.with_(id=start_id(run_id), run_id=run_id, step_number=step_number, **changes)

    @property
    def is_stopped(self) -> bool:
        """Whether this is the last checkpoint of its Run."""
        return self.status not in {Status.INIT, Status.PROCEEDING}

    @property
    def following(self) -> "Checkpoint":
        """The checkpoint that the next step starts with: same content, new id (`nextCheckpoint`)."""
        number = self.step_number + 1
        return self.with_(id=step_id(self.run_id, number), step_number=number)

    @property
    def generations(self) -> int:
        """The number of model calls of its Run, failed ones included; 0 if metadata has no usable number."""
        counts = (self.metadata or {}).get(_GENERATIONS)
        count = counts.get(self.run_id) if isinstance(counts, dict) else None
        # The number comes from a container, so it may be anything.
        return count if isinstance(count, int) and 0 <= count <= _MAX_GENERATIONS else 0

    def with_generations(self, count: int) -> "Checkpoint":
        """The same checkpoint with `count` as the number of model calls of its Run."""
        return self.with_(metadata=(self.metadata or {}) | {_GENERATIONS: {self.run_id: count}})

    @property
    def head(self) -> CheckpointHead:
        """The checkpoint without its conversation."""
        fields = CheckpointHead.__struct_fields__
        return CheckpointHead(**{name: getattr(self, name) for name in fields if name != "messages"})


class Step(Frozen):
    """One turn of the loop. Times are Unix milliseconds."""

    step_number: int
    input_messages: tuple[Message, ...] | None = None
    new_messages: tuple[Message, ...] = ()
    tool_calls: tuple[ToolCall, ...] | None = None
    tool_results: tuple[ToolResult, ...] | None = None
    pending_tool_calls: tuple[ToolCall, ...] | None = None
    partial_tool_results: tuple[ToolResult, ...] | None = None
    usage: Usage = Usage()
    started_at: int
    finished_at: int | None = None
