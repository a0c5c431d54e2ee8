"""Checkpoints: all that is needed to go on with an Expert's work (spec 4.4, 4.5)."""

from enum import StrEnum
from typing import Any

from orchestrator.wire.expert import ExpertId
from orchestrator.wire.frozen import Frozen
from orchestrator.wire.identity import identify
from orchestrator.wire.message import Message, ToolCall, ToolResult
from orchestrator.wire.usage import Usage

_GENERATIONS = "generations"
"""Where metadata keeps how many model calls a Run has made, so that whoever goes on counts on."""

_MANY = 10**9


class Status(StrEnum):
    """Where an Expert's work stands."""

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
    """The link from a delegate to the call that made it."""

    expert: ExpertId
    tool_call_id: str
    tool_name: str
    checkpoint_id: str
    run_id: str


class RunError(Frozen):
    """Why a Run ended in error. `status_code` is HTTP's, where the model's API gave one."""

    name: str
    message: str
    status_code: int | None = None
    is_retryable: bool = False


class CheckpointHead(Frozen):
    """A checkpoint as events carry it: the conversation is left out unless asked for (`messages` None)."""

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
    """A whole checkpoint, as the broker takes it and the store keeps it."""

    messages: tuple[Message, ...]

    @property
    def is_stopped(self) -> bool:
        """Whether it is the last of its Run."""
        return self.status not in {Status.INIT, Status.PROCEEDING}

    @property
    def following(self) -> "Checkpoint":
        """Where the next step begins: the same content under a new id (spec 3.2, `nextCheckpoint`)."""
        number = self.step_number + 1
        return self.with_(id=step_id(self.run_id, number), step_number=number)

    @property
    def generations(self) -> int:
        """How many model calls its Run had made, those that failed among them; 0 where metadata says nothing usable."""
        kept = (self.metadata or {}).get(_GENERATIONS)
        made = kept.get(self.run_id) if isinstance(kept, dict) else None
        # A container says so.
        return made if isinstance(made, int) and 0 <= made <= _MANY else 0

    def with_generations(self, made: int) -> "Checkpoint":
        """The checkpoint of a Run that has made so many model calls."""
        return self.with_(metadata=(self.metadata or {}) | {_GENERATIONS: {self.run_id: made}})

    @property
    def head(self) -> CheckpointHead:
        """The same without the conversation."""
        fields = CheckpointHead.__struct_fields__
        return CheckpointHead(**{name: getattr(self, name) for name in fields if name != "messages"})


class Step(Frozen):
    """One turn of the loop; times are Unix milliseconds."""

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


def step_id(run_id: str, number: int) -> str:
    """The id of a Run's checkpoint of a step, but for the step it starts with."""
    return identify(run_id, "step", number)
